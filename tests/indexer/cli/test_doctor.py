"""`sealtape doctor`: what is right, what is wrong, and what to do about it."""

import asyncio
import os
import re
import secrets
import socket

import pytest

from sealtape.capture.checkup import Check
from sealtape.indexer.cli import doctor
from sealtape.indexer.cli.deployment import create, put_target
from tests.servers.postgres import free_port, shared_server
from tests.servers.stores import StoreSet


@pytest.fixture
def lab(tmp_path, monkeypatch):
    folder = tmp_path / "lab"
    create(folder, development=True)
    monkeypatch.setenv("SEALTAPE_CONFIG", str(folder))
    return folder


def change(folder, *changes, more=""):
    path = folder / "sealtape.toml"
    text = path.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text + more)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(answer, *levels):
    return {check["name"] for check in answer.json["checks"] if check["level"] in levels}


def test_a_lab_that_is_set_up_and_has_a_target(run, lab):
    assert run("setup").code == 0
    server = shared_server()
    put_target(lab, f"shop=postgresql://scram:scram-secret@127.0.0.1:{server.port}/postgres")
    before = files(lab)
    answer = run("doctor", "--json")
    assert (answer.code, answer.json["ok"], answer.json["errors"]) == (0, True, 0)
    assert answer.json["warnings"] == 0, answer.json
    looked_at = {"settings", "keys: node", "spool: folder", "target shop", "vault: access",
                 "ledger: file", "keyring: file", "index: file", "bus: folder"}  # fmt: skip
    assert looked_at <= names(answer, "ok")
    lock = lab / "vault/.swapping"  # empty; whoever swaps an object holds it
    assert files(lab) == before | {lock: b""}
    assert "scram-secret" not in answer.out
    table = run("doctor", "--strict")
    assert table.code == 0
    assert table.out.splitlines()[-1].endswith("0 errors, 0 warnings")


def test_what_is_wrong_fails_and_says_what_to_do(run, lab):
    run("setup")
    (lab / "keys/node.key").chmod(0o644)
    (lab / "ledger.db").write_bytes(b"no database at all" * 100)
    put_target(lab, f"shop=postgresql://app:hunter2@127.0.0.1:{free_port()}/shop")
    answer = run("doctor", "--json")
    assert (answer.code, answer.json["ok"]) == (1, False)
    wrong = names(answer, "error")
    assert {"keys: node", "target shop"} <= wrong
    assert any(name.startswith("ledger") for name in wrong)
    for check in answer.json["checks"]:
        assert check["level"] == "ok" or check["hint"], check
    table = run("doctor")
    assert table.code == 1
    assert "FAIL  keys: node" in table.out
    assert "-> chmod 600" in table.out
    assert "hunter2" not in table.out + answer.out


def test_warnings_fail_only_when_asked(run, lab):
    run("setup")
    answer = run("doctor", "--json")  # there is no target yet
    assert (answer.code, names(answer, "warning")) == (0, {"targets"})
    assert run("doctor", "--strict").code == 1


def test_a_password_in_the_settings_is_a_warning_once(run, lab):
    target = {"address": "127.0.0.1:1", "database": "x", "user": "x", "password": "hunter2"}
    lines = "".join(f'{key} = "{value}"\n' for key, value in target.items())
    change(lab, more=f'[targets.x]\n{lines}groups = ["*"]\n')
    answer = run("doctor", "--room", "capture", "--json")
    assert "settings" in names(answer, "warning")
    assert "hunter2" not in answer.out + answer.err
    assert answer.err == ""


def test_a_room_looks_only_at_what_it_needs(run, lab):
    """A capture node knows no ledger; ingest and indexer no targets."""
    stores = '[stores]\nledger = "postgresql://nobody@192.0.2.1:1/x"\nvault = "s3://nothing/x"\n'
    change(lab, more=stores)
    (lab / "keys/indexer.key").unlink()
    answer = run("doctor", "--room", "capture", "--json")
    assert answer.code == 0, answer.json
    found = names(answer, "ok", "warning", "error")
    assert not {name for name in found if name.startswith(("ledger", "vault", "keyring", "index"))}
    assert not {name for name in found if name.startswith("events")}
    assert "keys: node" in found


def test_the_sealing_rooms(run, lab):
    run("setup")
    for name in ("node.key", "spool.key", "issuer.key", "jwks.json"):
        (lab / "keys" / name).unlink()
    answer = run("doctor", "--room", "ingest", "--room", "indexer", "--json")
    assert answer.code == 0, answer.json
    found = names(answer, "ok")
    assert {"keys: trust file", "keys: indexer's private", "ledger: file", "index: file"} <= found
    assert not {
        name for name in found if name.startswith(("target", "listener", "spool", "identity"))
    }
    (lab / "trust.toml").unlink()
    assert names(run("doctor", "--room", "ingest", "--json"), "error") == {"keys: trust file"}


def test_an_auditors_host_has_his_key_and_neither_node_nor_listener(run, lab):
    run("setup")
    for name in ("node.key", "spool.key", "indexer.key"):
        (lab / "keys" / name).unlink()
    answer = run("doctor", "--room", "auditor", "--json")
    assert answer.code == 0, answer.json
    found = names(answer, "ok")
    assert {"keys: trust file", "keys: auditor's private", "ledger: file", "index: file"} <= found
    seen = names(answer, "ok", "warning", "error")
    assert not {name for name in seen if name.startswith(("target", "listener", "spool", "events"))}
    (lab / "keys/auditor.key").unlink()
    wrong = names(run("doctor", "--room", "auditor", "--json"), "error")
    assert wrong == {"keys: auditor's private"}


def test_settings_that_cannot_be_read_are_a_usage_error(run, lab):
    change(lab, more="[nonsense]\n")
    assert run("doctor").code == 64


def test_production_wants_metrics(run, tmp_path, monkeypatch):
    folder = tmp_path / "production"
    create(folder, development=False)
    change(folder, ("0.0.0.0:6432", f"127.0.0.1:{free_port()}"),
           ("https://login.example/keys", "file:keys/jwks.json"),
           ('metrics = "127.0.0.1:9464"\n', ""), ('metrics = "127.0.0.1:9465"\n', ""),
           ("127.0.0.1:9466", f"127.0.0.1:{free_port()}"))  # fmt: skip
    answer = run("-c", folder, "doctor", "--json")
    warned = names(answer, "warning")
    assert {"capture: metrics", "ingest: metrics"} <= warned
    assert "indexer: metrics" in names(answer, "ok")
    assert "keys: auditor's private" in warned
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        change(folder, ("[indexer]\n", f'[indexer]\nmetrics = "127.0.0.1:{port}"\n# '))
        assert "indexer: metrics" in names(run("-c", folder, "doctor", "--json"), "error")


async def test_a_look_that_hangs_or_fails_is_a_finding(monkeypatch):
    monkeypatch.setattr(doctor, "PATIENCE_S", 0.05)

    async def hangs():
        await asyncio.sleep(60)

    async def fails():
        raise RuntimeError("password='hunter2'")

    async def fine():
        return [Check("x", "ok", "Fine.")]

    (check,) = await doctor._patiently("vault", hangs())
    assert (check.name, check.level) == ("vault", "error")
    (check,) = await doctor._patiently("vault", fails())
    assert check.level == "error"
    assert "RuntimeError" in check.message
    assert "hunter2" not in check.message
    assert await doctor._patiently("x", fine()) == [Check("x", "ok", "Fine.")]


def test_setup_and_doctor_on_real_servers(
    run, lab, kafka_server, s3_server, postgres_stores, opensearch_server
):
    stores = StoreSet.new(
        lab,
        kafka=kafka_server,
        s3=s3_server,
        postgres=postgres_stores,
        opensearch=opensearch_server,
    )
    change(lab, more=stores.text())
    try:
        before = run("doctor", "--json")
        assert before.code == 1
        missing = names(before, "error")
        for store in ("bus", "keys bus", "events bus", "keyring", "ledger"):
            assert any(name.startswith(f"{store}:") for name in missing), (store, missing)
        first, again = run("setup", "--json"), run("setup", "--json")
        assert (first.code, again.code) == (0, 0), first.err + again.err
        assert {line["store"] for line in first.lines} == {
            "bus", "keys", "events", "keyring", "vault", "ledger", "index",
        }  # fmt: skip
        done = {line["store"]: line["done"] for line in again.lines}
        assert not [store for store in ("bus", "keys", "events", "vault") if done[store]], done
        owner = run("doctor", "--json")
        assert names(owner, "error") == {"keyring: role", "ledger: role"}  # it could delete
        ingest = as_user_of_ingest(lab, postgres_stores)
        after = run("doctor", "--room", "capture", "--room", "ingest", "--json")
        assert after.code == 0, [c for c in after.json["checks"] if c["level"] == "error"]
        assert {"bus: topic", "vault: access", "ledger: layout", "keyring: layout"} <= names(
            after, "ok", "warning"
        )
        for secret in (s3_server.secret_key, postgres_stores.facts["password"], ingest):
            for answer in (before, first, again, owner, after):
                assert secret not in answer.out + answer.err
    finally:
        opensearch_server.forget(stores.index_prefix)


def as_user_of_ingest(lab, server):
    """Put a user into the store URLs that may do what ingest does; returns its password."""
    user, password = f"u{secrets.token_hex(4)}", secrets.token_hex(16)
    server.sql(
        f"create role {user} login password '{password}'"
        " in role sealtape_ledger_ingest, sealtape_keyring_ingest"
    )
    file = lab / "ingest.password"
    file.write_text(password)
    file.chmod(0o600)
    text = (lab / "sealtape.toml").read_text()
    change(
        lab,
        (f"password_file={server.password_file}", f"password_file={file}"),
        (re.search(r"postgresql://\w+@", text)[0], f"postgresql://{user}@"),
    )
    return password


def test_a_store_that_is_away_is_named(run, lab):
    port = free_port()
    change(lab, more=f'[stores]\nbus = "kafka://127.0.0.1:{port}/frames?tls=disable&timeout=2s"\n'
           f'ledger = "postgresql://x@127.0.0.1:{port}/x?tls=disable"\n')  # fmt: skip
    os.environ.pop("PGPASSWORD", None)
    answer = run("doctor", "--room", "ingest", "--json")
    assert answer.code == 1
    wrong = names(answer, "error")
    assert any(name.startswith("bus") for name in wrong), wrong
    assert any(name.startswith("ledger") for name in wrong), wrong
