"""Entries of the log: vectors of every kind, one form each, and what none may say."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sealtape.schemas import tree
from sealtape.schemas.bodies import Continues, RetentionClass
from sealtape.schemas.errors import FormatError
from sealtape.schemas.segments import SegmentRecord
from sealtape.schemas.tlog.records import (
    KINDS,
    BusPlace,
    Heartbeat,
    Listed,
    LogIncident,
    LogStart,
    NodeCount,
    SessionOpen,
    SessionSeal,
    ShardEnd,
    encode_entry,
    parse_entry,
)
from sealtape.schemas.tlog.statements import Statement

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "records.json").read_text(encoding="utf-8")
)
ENTRIES = {item["name"]: item["entry"] for item in VECTORS["entries"]}
PARSED = {name: parse_entry(text.encode()) for name, text in ENTRIES.items()}


@pytest.mark.parametrize("item", VECTORS["entries"], ids=ENTRIES)
def test_vectors(item):
    data = item["entry"].encode()
    entry = parse_entry(data)
    assert encode_entry(entry) == data
    assert tree.leaf_hash(data).hex() == item["leaf"]


def test_there_are_vectors_of_every_kind():
    assert {json.loads(text)["type"] for text in ENTRIES.values()} == set(KINDS)


def test_what_the_vectors_say():
    assert PARSED["log"] == LogStart("sealtape.example/log", 1, 1_795_392_020_123_456_789)
    assert isinstance(PARSED["segment"], SegmentRecord)
    assert isinstance(PARSED["hold"], Statement)
    recovered = PARSED["session_open_recovered"]
    assert recovered.continues == Continues(0, 300, b"\x05" * 32)
    assert recovered.retention == RetentionClass("standard", 7_776_000, 34_560_000)
    assert PARSED["session_seal"].complete
    assert not PARSED["session_seal_incomplete"].complete
    assert PARSED["incident_of_no_session"] == LogIncident(
        PARSED["log"].at_ns, "bus_lost", BusPlace("sealtape.frames", 3, -1)
    )


def test_what_a_heartbeat_lists():
    lines = VECTORS["heartbeat_lines"]
    ends = [ShardEnd("bus/0", 12, b"\x09" * 32), ShardEnd("bus/1", 3, b"\x0a" * 32)]
    nodes = [NodeCount("node-1", b"\x20" * 16, 0, 17)]
    assert [item.line().decode() for item in ends] == lines["shards"]
    assert [item.line().decode() for item in nodes] == lines["nodes"]
    heartbeat = PARSED["heartbeat"]
    assert heartbeat.shards == Listed.of(item.line() for item in ends)
    assert heartbeat.nodes == Listed.of(item.line() for item in nodes)
    assert heartbeat.keys == Listed.of([])


SEAL = PARSED["session_seal"]
OPEN = PARSED["session_open"]
BEAT = PARSED["heartbeat"]


@pytest.mark.parametrize(
    ("entry", "changes", "word"),
    [
        ("log", {"log": ""}, "not a key name"),
        ("log", {"number": 0}, "within"),
        ("log", {"number": 2}, "before"),
        ("log_second", {"number": 1}, "before"),
        ("log_second", {"number": 3}, "of the shard before"),
        ("log_second", {"before": "hello"}, "signatures"),
        ("session_open", {"of": "dream"}, "one of"),
        ("session_open", {"tenant": "Main"}, "tenant"),
        ("session_open", {"session": b"x"}, "16 bytes"),
        ("session_open", {"node": ""}, "must be letters, digits"),
        ("session_open", {"node": "a\u200b"}, "must be letters, digits"),
        ("session_open", {"worker": 65_536}, "within"),
        ("session_open", {"boot": b""}, "16 bytes"),
        ("session_open", {"number": -1}, "within"),
        ("session_open", {"opening_sha256": b""}, "32 bytes"),
        ("session_open_recovered", {"continues": Continues(0, 0, b"\x05" * 32)}, "within"),
        ("session_open_recovered", {"continues": Continues(0, 1, b"")}, "32 bytes"),
        ("session_seal", {"frames": 0}, "within"),
        ("session_seal", {"root": b""}, "root"),
        ("session_seal", {"root": b"x" * 31}, "root"),
        ("session_seal", {"lost": 1}, "root"),
        ("session_seal", {"lost": 301, "root": b""}, "frames"),
        ("session_seal", {"attested": 301}, "frames"),
        ("session_seal", {"attested": 0}, "checkpoint_sha256"),
        ("session_seal", {"checkpoint_sha256": bytes(32)}, "checkpoint_sha256"),
        ("session_seal", {"closed": "Oh no"}, "lowercase word"),
        ("session_seal", {"last_ts_ns": 0}, "last frame"),
        ("session_seal", {"fragments": Listed(0, tree.EMPTY_ROOT)}, "fragments"),
        ("session_seal", {"fragments": Listed(0, b"\x01" * 32)}, "empty tree"),
        ("incident", {"reason": "Oh no"}, "lowercase word"),
        ("incident", {"session": b"x"}, "or empty"),
        ("incident", {"epoch": -1}, "within"),
        ("incident", {"bus": BusPlace("", 0, 0)}, "must be a name"),
        ("heartbeat", {"index": -1}, "within"),
        ("heartbeat", {"every_s": 0}, "within"),
        ("heartbeat", {"keys": Listed(0, b"\x01" * 32)}, "empty tree"),
    ],
)
def test_what_is_refused(entry, changes, word):
    with pytest.raises(FormatError, match=word):
        encode_entry(replace(PARSED[entry], **changes))


@pytest.mark.parametrize("name", ENTRIES)
def test_other_bytes_are_refused(name):
    members = json.loads(ENTRIES[name])
    for changed in (
        members | {"v": 2},
        members | {"type": "poem"},
        members | {"added": 1},
        {key: value for key, value in members.items() if key != "v"},
        *({k: v for k, v in members.items() if k != key} for key in members),
    ):
        text = json.dumps(changed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        with pytest.raises(FormatError):
            parse_entry(text.encode())
    for data in (b"", b"{}", ENTRIES[name].encode() + b"\n", ENTRIES[name].encode()[:-1]):
        with pytest.raises(FormatError):
            parse_entry(data)


def test_sizes():
    with pytest.raises(FormatError, match="65535"):
        parse_entry(b" " * 65_536)
    assert {LogStart, SessionOpen, SessionSeal, Heartbeat} <= {type(e) for e in PARSED.values()}


@pytest.mark.parametrize("entry", [SEAL, OPEN, BEAT], ids=["seal", "open", "heartbeat"])
def test_members_for_later_may_be_ignored(entry):
    text = encode_entry(entry).decode()
    parse_entry(text.replace('"v":1}', '"v":1,"x-later":1}').encode())
