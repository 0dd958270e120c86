"""`sealtape init`."""

import stat

import pytest

from sealtape.schemas.settings import load_settings
from tests.factories.deployments import tree_state

PRIVATE = ["node.key", "spool.key", "auditor.key", "indexer.key", "tls.key"]


@pytest.mark.parametrize("words", [["--dev"], []])
def test_it_makes_a_deployment(run, tmp_path, words):
    answer = run("init", tmp_path / "new" / "lab", *words)
    assert answer.code == 0
    assert "next:" in answer.out
    folder = tmp_path / "new" / "lab"
    settings = load_settings((folder / "sealtape.toml").read_text(), base=str(folder))
    assert settings.deployment.mode == ("dev" if words else "production")
    assert settings.warnings == ()
    for name in PRIVATE + (["issuer.key"] if words else []):
        assert stat.S_IMODE((folder / "keys" / name).stat().st_mode) == 0o600, name
    assert stat.S_IMODE((folder / "keys").stat().st_mode) == 0o700
    assert (folder / "keys/issuer.key").exists() == bool(words)


def test_json(run, tmp_path):
    answer = run("init", "lab", "--json")
    assert answer.json == {"config": str(tmp_path / "lab/sealtape.toml")}


def test_keys_differ_between_deployments(run, tmp_path):
    run("init", "one", "--dev")
    run("init", "two", "--dev")
    for name in [*PRIVATE, "issuer.key"]:
        one, two = ((tmp_path / which / "keys" / name).read_text() for which in ("one", "two"))
        assert one != two, name


@pytest.mark.parametrize("words", [["--dev"], []])
@pytest.mark.parametrize("left", ["sealtape.toml", "trust.toml", "keys"])
def test_what_is_there_is_never_touched(run, tmp_path, words, left):
    run("init", "lab", "--dev")
    for path in list((tmp_path / "lab").iterdir()):
        if path.name != left:
            path.rename(tmp_path / path.name)
    before = tree_state(tmp_path / "lab")
    answer = run("init", "lab", *words, "--json")
    assert answer.code == 73
    assert answer.error["code"] == "deployment-exists"
    assert left in answer.error["message"]
    assert tree_state(tmp_path / "lab") == before


def test_a_folder_with_other_things_is_fine(run, tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/notes.txt").write_text("mine")
    assert run("init", "lab", "--dev").code == 0
    assert (tmp_path / "lab/notes.txt").read_text() == "mine"


def test_where_nothing_can_be_written(run, tmp_path):
    (tmp_path / "file").write_text("")
    answer = run("init", "file/lab")
    assert answer.code == 74
    assert "cannot be written" in answer.err


def test_the_logs_name_stands_in_its_keys(run, tmp_path):
    answer = run("init", tmp_path / "site", "--log", "example.com/log", "--json")
    assert answer.code == 0, answer.err
    text = (tmp_path / "site/sealtape.toml").read_text()
    assert 'log = "example.com/log"' in text
    assert "log example.com/log/1+" in (tmp_path / "site/log.policy").read_text()


def test_a_name_that_is_none(run, tmp_path):
    for name in ("a b", "a+b", "x" * 300, "lög"):
        answer = run("init", tmp_path / "site", "--log", name)
        assert (answer.code, "--log" in answer.err) == (64, True)
    assert not (tmp_path / "site").exists()
