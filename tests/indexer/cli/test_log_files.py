import stat

import pytest

from sealtape.indexer.cli.log_files import (
    admin_key,
    introductions,
    key_statement,
    log_key_path,
    make_log_files,
    make_shard_keys,
    private_file,
)
from sealtape.ingest.tlog.signer_file import read_key
from sealtape.schemas.errors import DeploymentExists, SettingsError
from sealtape.schemas.evidence import parse_evidence_policy
from sealtape.schemas.settings import load_settings
from sealtape.schemas.tlog.policy import parse_policy
from sealtape.schemas.tlog.records import parse_entry
from tests.factories.deployments import make_site


def test_a_labs_policies(tmp_path):
    make_log_files(tmp_path, "example.org/log", development=True)
    own = parse_policy((tmp_path / "log.policy").read_bytes())
    assert [key.verifier.name for key in own.logs] == ["example.org/log/1"] * 2
    assert not own.enough([])
    assert own.enough([witness.name for witness in own.witnesses])
    evidence = parse_evidence_policy((tmp_path / "policy.toml").read_bytes())
    assert [admin.name for admin in evidence.admins] == ["example.org/admin"]
    assert evidence.tlog.quorum == own.quorum


def test_in_production_others_are_to_be_named(tmp_path):
    make_log_files(tmp_path, "example.org/log", development=False)
    own = parse_policy((tmp_path / "log.policy").read_bytes())
    assert (own.witnesses, own.quorum) == ((), None)
    assert "# " in (tmp_path / "log.policy").read_text()
    parse_evidence_policy((tmp_path / "policy.toml").read_bytes())


def test_keys_are_their_owners_and_are_not_overwritten(tmp_path):
    make_log_files(tmp_path, "example.org/log", development=True)
    before = {path: path.read_bytes() for path in (tmp_path / "keys").iterdir()}
    assert {stat.S_IMODE(path.stat().st_mode) for path in before} == {0o600}
    with pytest.raises(DeploymentExists, match=r"log\.key"):
        make_log_files(tmp_path, "example.org/log", development=True)
    vkeys = make_shard_keys(tmp_path / "keys/log.key", "example.org/log", 1)
    assert vkeys[0] == read_key(tmp_path / "keys/log.key").vkey
    with pytest.raises(SettingsError, match="not the one of"):
        make_shard_keys(tmp_path / "keys/log.key", "example.com/log", 1)
    with pytest.raises(FileExistsError):
        private_file(tmp_path / "keys/admin.key", "x")
    assert {path: path.read_bytes() for path in (tmp_path / "keys").iterdir()} == before


def test_the_next_shards_keys_lie_beside(tmp_path):
    vkeys = make_shard_keys(tmp_path / "log.key", "example.org/log", 2)
    assert [vkey.partition("+")[0] for vkey in vkeys] == ["example.org/log/2"] * 2
    assert read_key(tmp_path / "log-2.key").vkey == vkeys[0]
    assert read_key(tmp_path / "log-2.mldsa.key").vkey == vkeys[1]


def test_where_the_logs_key_lies(tmp_path):
    assert log_key_path(load_settings("", base=str(tmp_path))) == tmp_path / "keys/log.key"
    settings = load_settings('[log]\nsigner = "unix:s"\n', base=str(tmp_path))
    assert log_key_path(settings) is None


def test_an_administrators_key_that_is_not_there(tmp_path):
    with pytest.raises(SettingsError, match="sealtape log init"):
        admin_key(tmp_path / "admin.key")


def test_a_labs_keys_are_introduced_by_its_administrator(tmp_path):
    site = make_site(tmp_path / "lab")
    entries = [parse_entry(entry) for entry in introductions(site.settings)(1)]
    assert entries[0].body.key == admin_key(site.folder / "keys/admin.key").vkey
    keys = {entry.body.key for entry in entries}
    assert site.node.vkey in keys
    assert (site.folder / "keys/auditor.pub").read_text().strip() in keys
    assert len({entry.body.heading.id for entry in entries}) == len(entries)
    again = [parse_entry(entry) for entry in introductions(site.settings)(1)]
    assert again[0].body.heading.id != entries[0].body.heading.id


def test_a_log_whose_keys_are_elsewhere(tmp_path):
    site = make_site(tmp_path / "lab")
    for name in ("log.key", "log.mldsa.key", "monitor.key"):
        (site.folder / "keys" / name).unlink()
    roles = [parse_entry(entry).body.role for entry in introductions(site.settings)(1)]
    assert roles == ["admin", "node", "witness", "auditor", "indexer"]


def test_a_statement_about_a_key(tmp_path):
    site = make_site(tmp_path / "lab")
    admin = admin_key(site.folder / "keys/admin.key")
    entry = key_statement("example.org/log", "node", "k", [admin], action="revoke", since=4)
    body = parse_entry(entry).body
    assert (body.heading.log, body.action, body.since) == ("example.org/log", "revoke", 4)
