"""The 84-byte header: layout by an independent packing, strictness, vectors."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import frames
from sealtape.schemas.errors import FormatError

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "frame.json").read_text(encoding="utf-8")
)

any_frame = st.builds(
    frames.Frame,
    session=st.binary(min_size=16, max_size=16),
    epoch=st.integers(0, 2**32 - 1),
    seq=st.integers(0, 2**63 - 1),
    ts_ns=st.integers(-(2**63), 2**63 - 1),
    kind=st.integers(0, 255),
    suite=st.integers(0, 255),
    flags=st.integers(0, 2**16 - 1),
    payload=st.binary(max_size=100),
)


def good(**changes):
    values = {
        "session": bytes(16),
        "epoch": 1,
        "seq": 2,
        "ts_ns": 3,
        "kind": frames.Kind.DATA,
        "suite": frames.Suite.PUBLIC,
        "flags": 0,
        "payload_len": 5,
        "payload_sha256": bytes(32),
    }
    return values | changes


@pytest.mark.parametrize("case", VECTORS["frames"], ids=lambda case: case["name"])
def test_vectors(case):
    frame = frames.Frame(
        session=bytes.fromhex(case["session"]),
        epoch=case["epoch"],
        seq=int(case["seq"]),
        ts_ns=int(case["ts_ns"]),
        kind=case["kind"],
        suite=case["suite"],
        flags=case["flags"],
        payload=bytes.fromhex(case["payload"]),
    )
    assert frame.header().hex() == case["header"]
    assert frame.aad().hex() == case["aad"]
    assert frame.leaf().hex() == case["leaf"]
    parsed = frames.parse_header(bytes.fromhex(case["header"]))
    assert (parsed.session, parsed.seq, parsed.ts_ns) == (frame.session, frame.seq, frame.ts_ns)


@pytest.mark.parametrize("case", VECTORS["refused_headers"], ids=lambda case: case["name"])
def test_refused_vectors(case):
    with pytest.raises(FormatError):
        frames.parse_header(bytes.fromhex(case["header"]))


@given(any_frame)
def test_header_is_the_fields_in_order_big_endian(frame):
    by_hand = (
        b"SEALFRM1"
        + frame.session
        + frame.epoch.to_bytes(4, "big")
        + frame.seq.to_bytes(8, "big")
        + frame.ts_ns.to_bytes(8, "big", signed=True)
        + bytes([frame.kind, frame.suite])
        + frame.flags.to_bytes(2, "big")
        + len(frame.payload).to_bytes(4, "big")
        + hashlib.sha256(frame.payload).digest()
    )
    header = frame.header()
    assert header == by_hand
    assert len(header) == frames.HEADER_SIZE
    assert frame.aad() == header[: frames.AAD_SIZE]
    assert frame.leaf() == hashlib.sha256(b"\0" + header).digest() == frames.leaf_hash(header)


@given(any_frame)
def test_parse_is_the_inverse(frame):
    header = frames.parse_header(frame.header())
    assert header.encode() == frame.header()
    assert header.payload_len == len(frame.payload)
    assert header.payload_sha256 == hashlib.sha256(frame.payload).digest()
    assert (header.epoch, header.kind, header.suite, header.flags) == (
        frame.epoch,
        frame.kind,
        frame.suite,
        frame.flags,
    )


@given(st.binary(max_size=200) | st.binary(min_size=76, max_size=76).map(frames.MAGIC.__add__))
def test_garbage_is_refused_or_read_exactly(data):
    try:
        header = frames.parse_header(data)
    except FormatError:
        return
    assert header.encode() == data


@given(any_frame, st.integers(0, 84 * 8 - 1))
def test_every_bit_of_the_header_counts(frame, bit):
    header = bytearray(frame.header())
    header[bit // 8] ^= 1 << bit % 8
    assert frames.leaf_hash(bytes(header)) != frame.leaf()


@pytest.mark.parametrize(
    "changes",
    [
        {"session": bytes(15)},
        {"session": bytes(17)},
        {"epoch": -1},
        {"epoch": 2**32},
        {"seq": -1},
        {"seq": 2**63},
        {"ts_ns": 2**63},
        {"ts_ns": -(2**63) - 1},
        {"kind": 256},
        {"kind": -1},
        {"suite": 256},
        {"flags": -1},
        {"flags": 2**16},
        {"payload_len": -1},
        {"payload_len": 2**20 + 1},
        {"payload_sha256": bytes(31)},
    ],
)
def test_fields_out_of_range_are_not_written(changes):
    with pytest.raises(FormatError):
        frames.header(**good(**changes))


def test_kind_names_are_the_kinds():
    assert frames.KIND_NAMES == {
        1: "OPEN",
        2: "IDENT",
        3: "DATA",
        4: "FACTS",
        5: "GAP",
        6: "STATE",
        7: "CLOCK",
        8: "CLOSE",
    }
    assert {frames.KIND_NAMES[kind] for kind in frames.PUBLIC_KINDS} == {
        "OPEN",
        "GAP",
        "CLOCK",
        "CLOSE",
    }


@given(st.lists(any_frame, max_size=5))
def test_many_leaves_at_once_are_as_one_by_one(made):
    session, epoch = (made[0].session, made[0].epoch) if made else (bytes(16), 0)
    made = [replace(frame, session=session, epoch=epoch) for frame in made]
    assert leaf_hashes(made) == [frame.leaf() for frame in made]


def leaf_hashes(made, session=None, digests=None):
    return frames.leaf_hashes(
        session or (made[0].session if made else bytes(16)),
        made[0].epoch if made else 0,
        [frame.seq for frame in made],
        [frame.ts_ns for frame in made],
        [frame.kind for frame in made],
        [frame.suite for frame in made],
        [frame.flags for frame in made],
        [len(frame.payload) for frame in made],
        digests or [hashlib.sha256(frame.payload).digest() for frame in made],
    )


GOOD = frames.Frame(bytes(16), 1, 2, 3, frames.Kind.DATA, frames.Suite.PUBLIC, 0, b"payload")


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 2**63},
        {"seq": -1},
        {"ts_ns": 2**63},
        {"kind": 256},
        {"suite": -1},
        {"flags": 2**16},
        {"epoch": 2**32},
        {"payload": bytes(frames.MAX_PAYLOAD + 1)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_one_field_out_of_range_is_refused(changes):
    with pytest.raises(FormatError):
        leaf_hashes([replace(GOOD, epoch=changes.get("epoch", 1)), replace(GOOD, **changes)])


@pytest.mark.parametrize("wrong", [{"session": bytes(15)}, {"digests": [bytes(32), bytes(31)]}])
def test_values_of_another_length_are_refused(wrong):
    """`struct` would fill them up, or cut them."""
    with pytest.raises(FormatError):
        leaf_hashes([GOOD, GOOD], **wrong)
