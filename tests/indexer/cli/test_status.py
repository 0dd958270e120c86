"""`sealtape status`."""

from sealtape.indexer.cli.deployment import write_runtime
from tests.factories.deployments import tree_state


def test_json(at, recorded):
    status = at("status", "--json").json
    assert status["capture"]["running"] is False
    assert status["capture"]["targets"] == ["shop"]
    assert status["ingest"]["sessions"] == {"live": 1, "closed": 0, "sealed": 2}
    assert status["ingest"]["segments"] == len(recorded.site.objects())
    assert status["ingest"]["bytes"] == sum(p.stat().st_size for p in recorded.site.objects())
    assert status["ingest"]["behind"] == 0
    assert status["ingest"]["incidents"] == 0
    assert status["indexer"]["positions"]


def test_for_people(at):
    answer = at("status")
    assert answer.code == 0
    assert "sessions" in answer.out


def test_a_node_that_runs(run, copied):
    write_runtime(copied.folder, {"postgres": "127.0.0.1:6543"})
    spool = copied.folder / "spool"
    spool.mkdir()
    (spool / "x").write_bytes(bytes(100))
    status = run("-c", copied.config, "status", "--json").json
    assert status["capture"]["running"] is True
    assert status["capture"]["listeners"] == {"postgres": "127.0.0.1:6543"}
    assert status["capture"]["spool_bytes"] == 100


def test_it_changes_nothing(at, recorded):
    before = tree_state(recorded.site.folder)
    at("status")
    assert tree_state(recorded.site.folder) == before


def test_before_the_first_run(run, tmp_path):
    run("init", "lab", "--dev")
    before = tree_state(tmp_path / "lab")
    answer = run("-c", "lab", "status", "--json")
    assert answer.code == 0
    assert "There is no" in answer.json["stores"]["error"]
    assert answer.json["capture"]["spool_bytes"] == 0
    assert tree_state(tmp_path / "lab") == before
