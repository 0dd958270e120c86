import os
import secrets

import pytest

from sealtape.capture.checks.keys import (
    check_auditor_key,
    check_capture_keys,
    check_private_key,
    check_trust,
)
from sealtape.schemas.wraps import X25519, generate
from tests.capture.checks.found import levels, one

NAMES = ("keys: node", "keys: spool", "keys: auditors", "keys: indexers", "keys: trust file")


def test_a_fresh_deployment_is_whole(deployment):
    settings = deployment.settings()
    assert levels(check_capture_keys(settings)) == dict.fromkeys(NAMES, "ok")
    for purpose in ("auditor", "indexer"):
        assert set(levels(check_private_key(settings, purpose)).values()) == {"ok"}
    assert levels(check_trust(settings)) == {"keys: trust file": "ok"}


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("node.key", "keys: node"),
        ("spool.key", "keys: spool"),
        ("auditor.pub", "keys: auditors"),
        ("indexer.pub", "keys: indexers"),
    ],
)
@pytest.mark.parametrize("content", [None, b"", b"secret-content", b"\xff\xfe"])
def test_a_key_that_cannot_be_used_is_named_and_not_shown(deployment, file, name, content):
    path = deployment.keys / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    check = one(check_capture_keys(deployment.settings()), "error", file)
    assert check.name == name
    assert "secret-content" not in check.message + check.hint


@pytest.mark.parametrize(
    ("mode", "level"),
    [(0o600, "ok"), (0o400, "ok"), (0o640, "warning"), (0o440, "warning"), (0o644, "error"),
     (0o602, "error")],
)  # fmt: skip
def test_who_else_can_read_a_private_key(deployment, mode, level):
    (deployment.keys / "node.key").chmod(mode)
    assert levels(check_capture_keys(deployment.settings()))["keys: node"] == level


def test_a_folder_where_anybody_may_put_another_key(deployment):
    deployment.keys.chmod(0o777)
    assert levels(check_capture_keys(deployment.settings()))["keys: node"] == "error"
    deployment.keys.chmod(0o1777)
    assert levels(check_capture_keys(deployment.settings()))["keys: node"] == "ok"


def test_a_key_of_another_user(deployment, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: (deployment.keys / "node.key").stat().st_uid + 4711)
    uid = (deployment.keys / "node.key").stat().st_uid
    expected = "ok" if uid == 0 else "warning"  # root may own what others run
    assert levels(check_capture_keys(deployment.settings()))["keys: node"] == expected


def test_a_node_that_nobody_trusts(deployment, tmp_path):
    trust = deployment.folder / "trust.toml"
    good = trust.read_text()
    trust.write_text("")
    assert one(check_capture_keys(deployment.settings()), "error", "vkey").name == NAMES[4]
    trust.write_text("[[nodes]]\n")
    assert one(check_capture_keys(deployment.settings()), "error", "trust").name == NAMES[4]
    from sealtape.indexer.cli.deployment import create

    create(tmp_path / "other", development=True)
    trust.write_text((tmp_path / "other/trust.toml").read_text())
    assert one(check_capture_keys(deployment.settings()), "error", "[[node]]").name == NAMES[4]
    assert levels(check_trust(deployment.settings())) == {NAMES[4]: "ok"}
    trust.write_text(good + trust.read_text().partition("\n")[2])
    assert "2 nodes" in check_trust(deployment.settings())[0].message


def test_capture_needs_no_trust_file_and_ingest_does(deployment):
    (deployment.folder / "trust.toml").unlink()
    assert levels(check_capture_keys(deployment.settings()))[NAMES[4]] == "ok"
    assert levels(check_trust(deployment.settings())) == {NAMES[4]: "error"}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('auditors = ["keys/auditor.pub", "keys/indexer.pub"]', "is no key of auditors"),
        ('indexers = ["keys/indexer.pub", "keys/auditor.pub"]', "is no key of indexers"),
        ('auditors = ["keys/auditor.pub", "keys/auditor.pub"]', "is named twice"),
    ],
)
def test_a_key_in_a_place_that_is_not_its_own(deployment, keys, said):
    settings = deployment.settings(("[capture]\n", f"[keys]\n{keys}\n[capture]\n"))
    assert said in one(check_capture_keys(settings), "error", "").message


def test_nobody_to_wrap_to(deployment):
    settings = deployment.settings(more="[keys]\nauditors = []\n")
    assert one(check_capture_keys(settings), "error", "keys.auditors").name == "keys: auditors"


@pytest.mark.parametrize("purpose", ["auditor", "indexer"])
def test_halves_of_two_pairs(deployment, purpose):
    _, public = generate(purpose, X25519, secrets.token_bytes)
    (deployment.keys / f"{purpose}.pub").write_text(public.text())
    one(check_private_key(deployment.settings(), purpose), "error", "pair")
    (deployment.keys / f"{purpose}.pub").unlink()  # only where it is can it be compared
    assert set(levels(check_private_key(deployment.settings(), purpose)).values()) == {"ok"}
    (deployment.keys / f"{purpose}.key").unlink()
    one(check_private_key(deployment.settings(), purpose), "error", f"{purpose}.key")


def test_an_auditors_key_does_not_belong_on_a_production_host(deployment, production):
    assert check_auditor_key(deployment.settings()) == []
    settings = production.settings()
    one(check_auditor_key(settings), "warning", "auditor.key")
    (production.keys / "auditor.key").unlink()
    assert check_auditor_key(settings) == []
