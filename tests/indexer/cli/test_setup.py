"""`sealtape setup`: what is not there is made, what is there stays."""

import pytest

from sealtape.indexer.cli.deployment import create


@pytest.fixture
def lab(tmp_path, monkeypatch):
    create(tmp_path / "lab", development=True)
    monkeypatch.setenv("SEALTAPE_CONFIG", str(tmp_path / "lab"))
    return tmp_path / "lab"


def test_it_makes_all_stores_and_then_has_nothing_to_do(run, lab):
    answer = run("setup")
    assert answer.code == 0
    made = {line.split()[0]: line for line in answer.out.splitlines()}
    assert list(made) == ["bus", "events", "keyring", "vault", "ledger", "index"]
    assert not [line for line in made.values() if "nothing to do" in line]
    for path in ("bus/bus.json", "events/bus.json", "keyring.db", "vault", "ledger.db", "index.db"):
        assert (lab / path).exists()
    before = {path: path.read_bytes() for path in lab.rglob("*") if path.is_file()}
    again = run("setup", "--json")
    assert [line["done"] for line in again.lines] == [[]] * 6
    assert {path: path.read_bytes() for path in lab.rglob("*") if path.is_file()} == before


def test_one_store_at_a_time(run, lab):
    answer = run("setup", "--store", "ledger", "--store", "keyring", "--json")
    assert [line["store"] for line in answer.lines] == ["keyring", "ledger"]
    assert not (lab / "index.db").exists()
    assert run("setup", "--store", "nonsense").code == 64


def test_keys_of_their_own(run, lab):
    path = lab / "sealtape.toml"
    path.write_text(path.read_text() + '[stores]\nkeys = "dir:keys-bus?partitions=1"\n')
    answer = run("setup", "--json")
    assert [line["store"] for line in answer.lines][:2] == ["bus", "keys"]
    assert (lab / "keys-bus/bus.json").exists()


def test_a_store_that_cannot_be_made_ends_it(run, lab):
    (lab / "vault").write_text("a file where a folder should be")
    answer = run("setup", "--json")
    assert answer.code == 74
    assert answer.error["code"].startswith("store")
    path = lab / "sealtape.toml"
    path.write_text(path.read_text() + '[stores]\nindex = "mongodb:x"\n')
    assert run("setup", "--store", "index").code == 64
