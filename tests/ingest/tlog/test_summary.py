import random
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sealtape.ingest.tlog.summary import Hole, LogSummary, Numbering
from sealtape.schemas import notes, tree
from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.errors import FormatError
from sealtape.schemas.segments import record_hash
from sealtape.schemas.tlog.records import (
    Listed,
    LogStart,
    SessionOpen,
    ShardEnd,
    encode_entry,
    parse_entry,
)
from sealtape.schemas.tlog.statements import Heading, KeyStatement, sign_statement
from tests.ingest.tlog.test_names import vectors

LOG = "sealtape.test/log"
START = encode_entry(LogStart(LOG, 1, 7))
ADMIN = notes.Signer("admin", Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\1"))
NODE = notes.Signer("node", Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\2"))


def opened(number, *, session=None, node="node-1", at_ns=9):
    return SessionOpen(
        at_ns=at_ns,
        of="session" if number else "journal",
        tenant="main",
        session=session or number.to_bytes(16, "big"),
        epoch=0,
        node=node,
        boot=bytes(16),
        worker=0,
        number=number,
        retention=RetentionClass("standard", 1, 2),
        anchor_ns=5,
        continues=None,
        opening_sha256=bytes(32),
    )


def key(role, vkey, ident, **options):
    heading = Heading(LOG, bytes([ident]) * 16, 5)
    body = KeyStatement(heading, options.pop("action", "introduce"), role, vkey, **options)
    return sign_statement(body, [ADMIN]).to_json()


def summed(*entries):
    summary = LogSummary()
    for entry in (START, *entries):
        summary.take(entry if isinstance(entry, bytes) else encode_entry(entry))
    return summary


def test_an_empty_log_begins_with_its_start():
    with pytest.raises(FormatError, match="the first entry"):
        LogSummary().take(encode_entry(opened(1)))
    with pytest.raises(FormatError, match="shard 2"):
        LogSummary().take(encode_entry(replace(parse_entry(START), number=2, before=note_of(1))))


def note_of(number):
    text = notes.Checkpoint(f"{LOG}/{number}", 3, bytes(32)).text()
    return notes.sign_note(text, [ADMIN]).decode()


def test_a_heartbeat_says_what_there_is():
    summary = summed(key("admin", ADMIN.vkey, 1), opened(1), opened(2), opened(0), opened(5))
    beat = summary.heartbeat(11, 600)
    assert (beat.index, beat.every_s, beat.at_ns) == (6, 600, 11)
    assert beat.open == 4
    assert beat.keys == Listed.of([key("admin", ADMIN.vkey, 1)])
    assert beat.nodes.count == 1
    assert beat.shards == Listed.of([])
    assert summary.since_beat == 6
    summary.take(encode_entry(beat))
    assert (summary.since_beat, summary.beaten_ns, summary.at_ns) == (0, 11, 11)


def test_every_kind_of_entry_is_taken():
    """The vectors of the format, as a log; what the heartbeat counts follows from them."""
    summary, taken = LogSummary(), []
    for entry in vectors():
        if isinstance(entry, LogStart) and entry.number != 1:
            continue
        summary.take(encode_entry(entry))
        taken.append(entry)
    segments = [entry for entry in taken if not hasattr(entry, "kind")]
    (record,) = segments
    line = ShardEnd(record.shard, record.n, record_hash(record)).line()
    assert summary.heartbeat(1, 1).shards == Listed.of([line])
    keys = [encode_entry(entry) for entry in taken if getattr(entry, "kind", "") == "key"]
    assert summary.heartbeat(1, 1).keys == Listed.of(keys)


def test_keys_count_while_they_are_introduced():
    summary = summed(key("admin", ADMIN.vkey, 1), key("node", NODE.vkey, 2))
    assert [each.vkey for each in summary.keys_of("admin", "node")] == [ADMIN.vkey, NODE.vkey]
    other = notes.Signer("node", Ed25519PrivateKey.from_private_bytes(bytes(31) + b"\3"))
    summary.take(key("node", other.vkey, 3, action="rotate", replaces=NODE.vkey))
    assert [each.vkey for each in summary.keys_of("node")] == [other.vkey]
    summary.take(key("node", other.vkey, 4, action="revoke", since=0))
    assert summary.keys_of("node") == []
    summary.take(key("auditor", "a public half", 5))
    assert summary.keys_of("auditor") == []  # it signs no notes


def test_a_new_shard_has_keys_of_its_own():
    summary = summed(key("admin", ADMIN.vkey, 1), opened(1))
    summary.take(encode_entry(LogStart(LOG, 2, 20, note_of(1))))
    assert (summary.number, summary.size, summary.beaten_ns) == (2, 1, 0)
    assert summary.keys_of("admin") == []
    assert summary.heartbeat(21, 1).keys == Listed.of([])
    assert summary.heartbeat(21, 1).open == 1
    assert summary.heartbeat(21, 1).nodes.count == 1


def test_numbers_that_are_passed_are_holes():
    summary = summed(opened(2), opened(6), opened(4), opened(1, node="node-2"))
    worker = ("node-1", bytes(16), 0)
    passing = (6).to_bytes(16, "big")
    assert list(summary.holes()) == [
        (worker, Hole(1, 2, (2).to_bytes(16, "big"), 0)),
        (worker, Hole(3, 4, passing, 0)),
        (worker, Hole(5, 6, passing, 0)),
    ]


@given(st.permutations(range(1, 12)), st.sets(st.integers(1, 11)))
def test_in_whatever_order_they_come_the_holes_are_what_is_missing(order, missing):
    numbering = Numbering()
    came = [number for number in order if number not in missing]
    for number in came:
        numbering.take(opened(number))
    highest = max(came, default=0)
    holes = {number for hole in numbering.holes for number in range(hole.lo, hole.hi)}
    assert numbering.highest == highest
    assert holes == {number for number in missing if number < highest}
    assert all(hole.lo < hole.hi for hole in numbering.holes)


def test_a_summary_that_was_kept_goes_on_the_same():
    numbers = random.Random(1).sample(range(30), 12)
    keys = [key("admin", ADMIN.vkey, 1), key("node", NODE.vkey, 2)]
    keys.append(key("node", NODE.vkey, 3, action="revoke", since=3))
    entries = [*keys, *map(opened, numbers)]
    whole = summed(*entries)
    for cut in range(len(entries)):
        half = summed(*entries[:cut])
        again = LogSummary.from_json(half.to_json())
        for entry in entries[cut:]:
            again.take(entry if isinstance(entry, bytes) else encode_entry(entry))
        assert again.to_json() == whole.to_json()
        assert again.heartbeat(99, 5) == whole.heartbeat(99, 5)


def test_what_is_no_summary_is_refused():
    data = summed(opened(2), opened(9)).to_json()
    assert LogSummary.from_json(data).to_json() == data
    older = data.replace(b'"ended":[],', b"")
    assert LogSummary.from_json(older).to_json() == data != older
    for at in range(0, len(data), 7):
        with pytest.raises(FormatError):
            LogSummary.from_json(data[:at])
    with pytest.raises(FormatError):
        LogSummary.from_json(data.replace(b'"v":1', b'"v":2'))


def test_times_do_not_go_back():
    summary = summed(opened(1, at_ns=50), opened(2, at_ns=20))
    assert summary.at_ns == 50
    assert tree.root([]) == summary.keys.root()
