"""`sealtape statement`: made and signed in files, submitted, taken by the log."""

import asyncio
from hashlib import sha256

import pytest

from sealtape.indexer.cli.log_files import admin_key
from sealtape.ingest.ledger import open_ledger
from sealtape.schemas import notes
from sealtape.schemas.cosignatures import ED25519
from sealtape.schemas.tlog.keyfiles import format_key
from sealtape.schemas.tlog.records import BusPlace, LogIncident, encode_entry, parse_entry
from tests.factories.logs import grow_log, kinds, read_log

SESSION = "10" * 16


@pytest.fixture
def lab(run, copied):
    """Run `sealtape statement` on a copy of the deployment, signed by its administrator."""

    def call(*words, sign="keys/admin.key"):
        signed = ["--sign", copied.folder / sign] if sign else []
        return run("-c", copied.config, "statement", *words, *signed)

    return call


def entries(path):
    return [parse_entry(line) for line in path.read_bytes().splitlines()]


def hold(lab, path, *more):
    return lab("hold", "--session", SESSION, "--reason", "lawsuit", "-o", path, *more)


def test_a_key_is_introduced(lab, copied, tmp_path):
    path = tmp_path / "node.statement"
    vkey = copied.node.vkey
    answer = lab("key", "--role", "node", "--key", vkey, "-o", path)
    assert answer.code == 0, answer.err
    (statement,) = entries(path)
    assert (statement.body.action, statement.body.role, statement.body.key) == (
        "introduce",
        "node",
        vkey,
    )
    assert statement.body.heading.log == copied.settings.deployment.log
    admin = admin_key(copied.folder / "keys/admin.key")
    notes.open_note(statement.note, [admin.verifier])
    assert statement.body.heading.id.hex() in answer.out


def test_a_key_is_rotated_and_revoked(lab, copied, tmp_path):
    path = tmp_path / "s"
    vkey = copied.node.vkey
    words = ["key", "--role", "node", "--key", vkey, "-o", path]
    assert lab(*words, "--action", "rotate", "--replaces", "old+00000000+AQ==").code == 0
    assert entries(path)[0].body.replaces == "old+00000000+AQ=="
    assert lab(*words, "--action", "revoke", "--since", 40).code == 0
    assert entries(path)[0].body.since == 40
    for wrong in (["--action", "revoke"], ["--since", 3], ["--action", "rotate"]):
        assert lab(*words, *wrong).code == 64


@pytest.mark.parametrize("role", ["node", "auditor"])
@pytest.mark.parametrize("option", ["--key", "--replaces"])
@pytest.mark.parametrize("file", ["node.key", "auditor.key", "spool.key", "log.mldsa.key"])
def test_no_private_key_gets_into_the_log(lab, copied, tmp_path, role, option, file):
    secret = (copied.folder / "keys" / file).read_text().strip()
    public = (copied.folder / "keys/auditor.pub").read_text().strip()
    words = ["--key", copied.node.vkey if role == "node" else public, option, secret]
    answer = lab("key", "--role", role, *words, "--action", "rotate", "-o", tmp_path / "s")
    assert (answer.code, answer.out) == (64, "")
    assert secret not in answer.err
    assert secret.split("+")[-1].split(" ")[-1] not in answer.err
    assert not (tmp_path / "s").exists()


def test_an_auditors_key_is_introduced(lab, copied, tmp_path):
    public = (copied.folder / "keys/auditor.pub").read_text().strip()
    assert lab("key", "--role", "auditor", "--key", public, "-o", tmp_path / "s").code == 0
    assert entries(tmp_path / "s")[0].body.key == public


def test_a_policy_has_the_terms_of_the_settings(lab, copied, tmp_path):
    path = tmp_path / "s"
    assert lab("policy", "--class", "standard", "-o", path).code == 0
    (statement,) = entries(path)
    terms = copied.settings.retention["standard"]
    assert statement.body.retention.retain_for_s == terms.retain_for
    answer = lab("policy", "--class", "other", "-o", path)
    assert (answer.code, "standard" in answer.err) == (64, True)


def test_the_reason_of_a_hold_is_not_in_it(lab, tmp_path):
    path = tmp_path / "s"
    answer = hold(lab, path)
    salt = answer.out.splitlines()[0].rpartition(" ")[2]
    assert b"lawsuit" not in path.read_bytes()
    assert entries(path)[0].body.matter == sha256(f"{salt}lawsuit".encode()).digest()


def test_the_salt_of_a_hold_is_told_to_programs_and_only_with_it(lab, tmp_path):
    path = tmp_path / "s"
    told = hold(lab, path, "--json").json
    assert told["type"] == "hold"
    assert entries(path)[0].body.matter == sha256(f"{told['salt']}lawsuit".encode()).digest()
    failed = lab("hold", "--session", "97", "--reason", "lawsuit", "-o", path)
    assert (failed.code, failed.out) == (64, "")
    assert "salt" not in lab("release", "--hold", "0c" * 16, "-o", path, "--json").out


def test_a_release_of_two(lab, copied, tmp_path, run):
    path, bob = tmp_path / "s", tmp_path / "bob.key"
    bob.write_text(format_key("bob", notes.ALGORITHM, bytes(31) + b"\1"))
    hold_id = "0c" * 16
    assert lab("release", "--hold", hold_id, "--session", SESSION, "-o", path).code == 0
    assert lab("sign", path, sign=bob).code == 0
    (statement,) = entries(path)
    signers = [item.name for item in notes.parse_note(statement.note).unverified]
    assert signers == ["sealtape.test/admin", "bob"]
    again = lab("sign", path, sign=bob)
    assert again.code == 64
    assert len(notes.parse_note(entries(path)[0].note).unverified) == 2


async def test_what_is_submitted_is_in_the_log_once(copied, tmp_path, run):
    def lab(*words):
        return run("-c", copied.config, "statement", *words)

    path = tmp_path / "s"
    key = copied.folder / "keys/admin.key"
    make = ["hold", "--session", SESSION, "--reason", "x", "--sign", key, "-o", path]
    assert (await asyncio.to_thread(lab, *make)).code == 0
    assert (await asyncio.to_thread(lab, "submit", path)).code == 0
    waiting = await asyncio.to_thread(lab, "submit", path)
    assert (waiting.code, "submitted already" in waiting.err) == (64, True)
    await grow_log(copied)
    found, _ = await read_log(copied)
    assert kinds(found).count("hold") == 1
    repeated = await asyncio.to_thread(lab, "submit", path)
    assert (repeated.code, "in the log already" in repeated.err) == (64, True)
    passed_over = await asyncio.to_thread(lab, "submit", path, "--if-new")
    assert (passed_over.code, passed_over.out) == (0, "")
    ledger = await open_ledger(copied.settings.stores.ledger, copied.folder, read_only=True)
    assert await ledger.inbox() == []
    await ledger.close()


async def test_only_what_is_new_is_submitted(copied, tmp_path, run):
    def lab(*words):
        return run("-c", copied.config, "statement", *words)

    both, first = tmp_path / "both", tmp_path / "first"
    key = copied.folder / "keys/admin.key"
    assert (await asyncio.to_thread(lab, "deployment", "--sign", key, "-o", both)).code == 0
    lines = both.read_bytes().splitlines(keepends=True)
    first.write_bytes(lines[0])
    assert (await asyncio.to_thread(lab, "submit", first)).code == 0
    assert (await asyncio.to_thread(lab, "submit", both)).code == 64
    answer = await asyncio.to_thread(lab, "submit", both, "--if-new")
    assert (answer.code, len(answer.out.splitlines())) == (0, len(lines) - 1)
    ledger = await open_ledger(copied.settings.stores.ledger, copied.folder, read_only=True)
    assert [row.payload for row in await ledger.inbox()] == [line.rstrip() for line in lines]
    await ledger.close()


def test_the_deployments_keys_are_introduced_at_once(lab, copied, tmp_path):
    path = tmp_path / "s"
    assert lab("deployment", "-o", path).code == 0
    found = entries(path)
    assert [each.body.role for each in found] == [
        *("admin", "node", "log", "log", "witness", "monitor", "auditor", "indexer")
    ]


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"{}\n", b"no json\n", b'{"v":1,"type":"heartbeat"}\n'],
)
def test_what_is_no_statement_is_not_submitted(lab, tmp_path, content):
    path = tmp_path / "s"
    path.write_bytes(content)
    answer = lab("submit", path, sign=None)
    assert answer.code == 64
    assert "Traceback" not in answer.err


def test_an_entry_of_another_kind_is_not_submitted(lab, tmp_path):
    path = tmp_path / "s"
    path.write_bytes(encode_entry(LogIncident(1, "gap", BusPlace("t", 0, 1))) + b"\n")
    assert "no statement" in lab("submit", path, sign=None).err


def test_another_logs_statement_is_refused(lab, copied, tmp_path):
    path = tmp_path / "s"
    hold(lab, path)
    text = copied.config.read_text().replace("sealtape.test/log", "sealtape.other/log")
    copied.config.write_text(text)
    answer = lab("submit", path, sign=None)
    assert (answer.code, "one log only" in answer.err) == (64, True)


def test_what_is_missing_is_named(lab, tmp_path):
    assert "--sign" in lab("hold", "--session", SESSION, "--reason", "x", sign=None).err
    assert "-o" in lab("hold", "--session", SESSION, "--reason", "x").err
    assert "--reason" in lab("hold", "--session", SESSION, "-o", tmp_path / "s").err
    assert "FILE" in lab("submit", sign=None).err
    assert lab("submit", tmp_path / "nothing", sign=None).code == 64
    assert "--session" in lab("hold", "--session", "zz", "--reason", "x", "-o", tmp_path / "s").err
    assert lab("hold", "--reason", "x", "-o", tmp_path / "s").code == 64
    words = ("policy", "--class", "standard", "-o", tmp_path / "s")
    assert "no-such.key" in lab(*words, sign="no-such.key").err
    assert lab("key", "--role", "node", "--key", "x", "-o", tmp_path).code == 64


def test_a_key_of_another_type_signs_no_statement(lab, tmp_path):
    path = tmp_path / "w.key"
    path.write_text(format_key("w", ED25519, bytes(31) + b"\1"))
    answer = hold(lambda *words: lab(*words, sign=path), tmp_path / "s")
    assert (answer.code, "type 1" in answer.err) == (64, True)
