"""The reference: every setting once, with its default and a line of documentation."""

from sealtape.schemas.settings import reference


def test_every_setting_is_there_once():
    keys = [(item.table, item.key) for item in reference()]
    assert len(keys) == len(set(keys))
    assert ("capture.postgres", "listen") in keys
    assert ("targets.NAME", "groups") in keys
    assert ("identity.development", "key") in keys


def test_defaults_are_written_as_toml_would():
    shown = {(item.table, item.key): item.default for item in reference()}
    assert shown["targets.NAME", "address"] == "required"
    assert shown["targets.NAME", "password"] == "none"
    assert shown["targets.NAME", "replication"] == "false"
    assert shown["retention.NAME", "encryption"] == "true"
    assert shown["capture", "spool"] == '"spool"'
    assert shown["capture", "workers"] == "1"
    assert shown["capture", "grace_s"] == "10"
    assert shown["keys", "auditors"] == '["keys/auditor.pub"]'


def test_every_setting_says_what_it_is():
    assert all(len(item.doc) > 10 for item in reference())
