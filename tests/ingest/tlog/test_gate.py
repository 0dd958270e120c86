import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.ingest.tlog.gate import INCIDENT, STATEMENT, check_submitted
from sealtape.ingest.tlog.summary import LogSummary
from sealtape.schemas import notes
from sealtape.schemas.errors import FormatError
from sealtape.schemas.tlog.records import BusPlace, LogIncident, encode_entry
from sealtape.schemas.tlog.statements import (
    DoneStatement,
    Heading,
    HoldStatement,
    IntentStatement,
    KeyStatement,
    sign_statement,
)
from tests.ingest.tlog.test_names import vectors
from tests.ingest.tlog.test_summary import LOG, START

ANN, BOB, REAPER = (
    notes.Signer(name, Ed25519PrivateKey.from_private_bytes(bytes(31) + bytes([number])))
    for number, name in enumerate(("ann", "bob", "reaper"), 1)
)
IDS = iter(range(1, 256))


def made(body, *signers, log=LOG, **members):
    heading = Heading(log, bytes([next(IDS)]) * 16, 5)
    return sign_statement(body(heading, **members), signers).to_json()


def key(role, who, *signers, **options):
    members = {"action": "introduce", "role": role, "key": who.vkey}
    return made(KeyStatement, *signers, **members, **options)


def hold(*signers, **options):
    return made(HoldStatement, *signers, matter=bytes(32), sessions=(bytes(16),), **options)


def log_with(*entries):
    summary = LogSummary()
    for entry in (START, *entries):
        summary.take(entry)
    return summary


def refused(entry, *known, kind=STATEMENT, match=None):
    with pytest.raises(FormatError, match=match):
        check_submitted(kind, entry, LOG, log_with(*known))


def taken(entry, *known, kind=STATEMENT):
    check_submitted(kind, entry, LOG, log_with(*known))


def test_the_first_administrator_signs_for_himself():
    taken(key("admin", ANN, ANN))
    refused(key("admin", ANN, BOB), match="not signed as admin")
    refused(key("node", BOB, ANN), match="no key was introduced")
    refused(hold(ANN), match="no key was introduced")


def test_the_first_administrator_is_not_revoked_before():
    entry = made(
        KeyStatement, ANN, action="revoke", role="admin", key=ANN.vkey, replaces="", since=0
    )
    refused(entry, match="no administrator")


def test_later_ones_are_introduced_by_those_there_are():
    ann = key("admin", ANN, ANN)
    taken(key("admin", BOB, ANN), ann)
    refused(key("admin", BOB, BOB), ann, match="not signed as admin")


def test_a_hold_is_signed_by_an_administrator():
    ann = key("admin", ANN, ANN)
    taken(hold(ANN), ann)
    taken(hold(BOB, ANN), ann)
    refused(hold(BOB), ann, match="not signed as admin")


def test_another_logs_statement_is_refused():
    refused(hold(ANN, log="another/log"), key("admin", ANN, ANN), match="for the log another/log")


def test_what_a_reaper_signs():
    known = (key("admin", ANN, ANN), key("reaper", REAPER, ANN))
    members = {"matter": bytes(32), "sessions": (bytes(16),), "basis": "expired"}
    taken(made(IntentStatement, REAPER, **members), *known)
    refused(made(IntentStatement, ANN, **members), *known, match="as reaper")
    done = {"intent": bytes(16), "index": 3, "wraps": 1, "documents": 0, "objects": ()}
    taken(made(DoneStatement, REAPER, **done), *known)
    refused(made(DoneStatement, REAPER, **done), known[0], match="no key was introduced")
    erasure = members | {"basis": "erasure", "matter": b"\1" * 32}
    taken(made(IntentStatement, ANN, **erasure), *known)
    refused(made(IntentStatement, REAPER, **erasure), *known, match="as admin")


def test_a_key_is_introduced_once():
    """A monitor would refuse the log for a second time, for ever."""
    known = (key("admin", ANN, ANN), key("node", BOB, ANN))
    refused(key("node", BOB, ANN), *known, match="counts in shard 1 already")
    refused(key("admin", ANN, ANN), *known, match="counts in shard 1 already")
    refused(key("reaper", BOB, ANN), *known, match="counts in shard 1 already")
    other = notes.Signer("bill", Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\2"))
    assert other.vkey.split("+")[2] == BOB.vkey.split("+")[2]
    refused(key("node", other, ANN), *known, match="under another name")
    taken(key("reaper", other, ANN), *known)


def revoked(who, since, role="node"):
    return made(
        KeyStatement, ANN, action="revoke", role=role, key=who.vkey, replaces="", since=since
    )


def test_a_key_that_counted_does_not_come_back():
    known = (key("admin", ANN, ANN), key("node", BOB, ANN))
    taken(revoked(BOB, 2), *known)
    refused(key("node", BOB, ANN), *known, revoked(BOB, 2), match="make another")
    change = {"action": "rotate", "role": "node", "key": REAPER.vkey, "replaces": BOB.vkey}
    rotated = made(KeyStatement, ANN, **change)
    refused(key("node", BOB, ANN), *known, rotated, match="make another")
    taken(revoked(BOB, 3), *known, rotated)
    refused(revoked(BOB, 4), *known, rotated, match="no more from index 4")


def test_what_is_revoked_was_introduced():
    known = (key("admin", ANN, ANN), key("node", BOB, ANN))
    taken(revoked(BOB, 1), *known, revoked(BOB, 2))  # it was known to others earlier
    refused(revoked(BOB, 2), *known, revoked(BOB, 2), match="no more from index 2 on")
    refused(revoked(BOB, 1, role="log"), *known, revoked(BOB, 2), match="as node")
    refused(revoked(BOB, 2, role="log"), *known, match="not introduced as log")
    refused(revoked(REAPER, 2), *known, match="not introduced as node")


def test_a_key_takes_the_place_of_one_that_counts():
    known = (key("admin", ANN, ANN), key("node", BOB, ANN))
    change = {"action": "rotate", "key": REAPER.vkey, "replaces": BOB.vkey}
    taken(made(KeyStatement, ANN, **change, role="node"), *known)
    refused(made(KeyStatement, ANN, **change, role="reaper"), *known, match="does not count as")
    refused(made(KeyStatement, ANN, **change, role="node"), known[0], match="does not count as")
    again = change | {"key": ANN.vkey}
    refused(made(KeyStatement, ANN, **again, role="node"), *known, match="counts in shard 1")


def test_a_changed_signature_is_refused():
    entry = hold(ANN).replace(b'\\"sessions\\":[\\"00', b'\\"sessions\\":[\\"01')
    refused(entry, key("admin", ANN, ANN), match="does not verify")


def test_only_statements_and_incidents_come_that_way():
    incident = encode_entry(LogIncident(1, "gap", BusPlace("t", 0, 1)))
    taken(incident, kind=INCIDENT)
    refused(incident, match="type incident was submitted as a statement")
    refused(hold(ANN), kind=INCIDENT, match="type hold was submitted as an incident")
    for entry in vectors():
        if getattr(entry, "kind", "segment") in ("segment", "session-seal", "heartbeat", "log"):
            refused(encode_entry(entry))
            refused(encode_entry(entry), kind=INCIDENT)


@pytest.mark.parametrize("data", [b"", b"{}", b"garbage", b"[]"])
def test_what_is_no_entry_is_refused(data):
    for kind in (STATEMENT, INCIDENT):
        refused(data, kind=kind)
