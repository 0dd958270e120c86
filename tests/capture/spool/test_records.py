import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.capture.spool.records import (
    CLEARS,
    CLOSES,
    FILE_HEADER,
    FRAMES,
    RECORD_HEADER,
    SESSION,
    SLICES,
    Cut,
    FileKey,
    Pieces,
    SessionState,
    encode_frames,
    encode_pieces,
    encode_record,
    encode_session,
    holds_record,
    is_cut_short,
    parse_file_header,
    parse_frames,
    parse_session,
    parse_slices,
    read_records,
)
from sealtape.schemas.errors import FormatError, KeyUnavailable

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/spool.json").read_text(encoding="utf-8"))
KEY = bytes(range(32))
SALT = bytes(range(32, 64))
U64 = st.integers(0, 2**64 - 1)
COUNT = st.integers(0, 2**62)


def reader(data):
    return lambda at, length: data[at : at + length]


def test_a_file_key_is_bound_to_salt_and_spool_key():
    header = FileKey(KEY, SALT).header()
    assert len(header) == FILE_HEADER
    key = parse_file_header(header + b"more", KEY)
    sealed = FileKey(KEY, SALT).seal(1, SLICES, b"secret")
    assert key.open(1, SLICES, sealed) == b"secret"
    for wrong in ((2, SLICES), (1, SESSION)):
        with pytest.raises(FormatError):
            key.open(*wrong, sealed)
    assert FileKey(KEY, bytes(32)).seal(1, SLICES, b"secret") != sealed
    with pytest.raises(KeyUnavailable, match="another spool key"):
        parse_file_header(header, bytes(32))
    with pytest.raises(KeyUnavailable, match="32 bytes"):
        FileKey(b"short", SALT)


def test_every_damaged_header_is_refused():
    header = FileKey(KEY, SALT).header()
    for cut in range(FILE_HEADER):
        with pytest.raises(FormatError):
            parse_file_header(header[:cut], KEY)
    for at in range(FILE_HEADER):
        changed = header[:at] + bytes((header[at] ^ 1,)) + header[at + 1 :]
        with pytest.raises(FormatError):
            parse_file_header(changed, KEY)


def test_records_end_where_one_is_not_whole():
    first = b"".join(encode_record(1, FRAMES, [b"ab", b"", b"c"]))
    second = b"".join(encode_record(2, SLICES, [b"defg"]))
    found = list(read_records(reader(first + second), 0))
    assert [(r.counter, r.kind, r.body, r.start) for r in found] == [
        (1, FRAMES, b"abc", 0),
        (2, SLICES, b"defg", len(first)),
    ]
    for cut in range(len(second)):
        assert len(list(read_records(reader(first + second[:cut]), 0))) == 1
    for at in range(len(second)):
        flipped = second[:at] + bytes((second[at] ^ 0x80,)) + second[at + 1 :]
        assert len(list(read_records(reader(first + flipped), 0))) == 1
    tiny = first + second[:4] + (RECORD_HEADER - 1).to_bytes(4, "big") + second[8:]
    assert len(list(read_records(reader(tiny), 0))) == 1


def test_a_whole_record_is_found_wherever_it_stands():
    record = b"".join(encode_record(7, FRAMES, [b"body"]))
    for before in (b"", b"x", record[:9], record[:-1], record[:4] * 3, bytes(100)):
        assert holds_record(before + record)
        assert holds_record(before + record + b"cut short")
        assert not holds_record(before + record[:-1])
    for tail in (b"", b"SSR", b"SSR1", bytes(1000)):
        assert not holds_record(tail)
    damaged = bytearray(record)
    damaged[-1] ^= 1
    assert not holds_record(bytes(damaged))


def test_what_a_crash_leaves_of_a_record_is_told_from_damage():
    record = b"".join(encode_record(7, FRAMES, [b"body" * 300]))
    assert all(is_cut_short(record[:end], 100) for end in range(len(record)))
    assert all(is_cut_short(bytes(size), 52) for size in (0, 1, 21, 5000))
    for sectors in (1, 2):  # what power loss leaves: sectors that were not written
        end = 512 * sectors - 100
        assert is_cut_short(record[:end] + bytes(len(record) - end), 100)
        assert not is_cut_short(record[:-5] + bytes(5), 100)
    assert not is_cut_short(b"x", 100)
    assert not is_cut_short(b"SSR2", 100)
    for at in range(len(record)):
        other = record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]
        assert not is_cut_short(other, 100)


PIECES = st.tuples(
    U64,
    st.integers(-(2**63), 2**63 - 1),
    st.lists(st.binary(max_size=20), max_size=4),
    st.lists(st.binary(max_size=20), max_size=4),
)


@given(entries=st.lists(PIECES, max_size=4))
def test_slices_come_back(entries):
    body = b"".join(encode_pieces(*entry) for entry in entries)
    expected = [
        Pieces(number, base, len(slices), b"".join(slices), len(facts), b"".join(facts))
        for number, base, slices, facts in entries
    ]
    assert parse_slices(body) == expected


CUTS = st.builds(
    Cut,
    number=U64,
    flags=st.sampled_from([0, CLEARS, CLEARS | CLOSES]),
    offsets=st.tuples(U64, U64, U64, U64),
    facts=U64,
    commands=U64,
    errors=U64,
    messages=st.lists(st.binary(max_size=30), max_size=4),
)


@given(first=U64, acked=U64, cuts=st.lists(CUTS, max_size=4))
def test_frames_come_back_and_no_cut_of_them_does(first, acked, cuts):
    body = b"".join(encode_frames(first, acked, cuts))
    assert parse_frames(body) == (first, acked, cuts)
    if cuts:
        with pytest.raises(FormatError):
            parse_frames(body[:-1])


STATES = st.builds(
    SessionState,
    number=st.just(9),
    about=st.binary(max_size=40),
    epoch=st.integers(0, 2**32 - 1),
    size=COUNT,
    nodes=st.lists(st.binary(min_size=32, max_size=32), max_size=3).map(tuple),
    offsets=st.tuples(COUNT, COUNT, COUNT, COUNT),
    facts=COUNT,
    commands=COUNT,
    errors=COUNT,
    last_ns=COUNT,
    signed=COUNT,
    pieces=st.builds(
        Pieces,
        number=st.just(9),
        base_ns=COUNT,
        slice_count=st.integers(0, 9),
        slices=st.binary(max_size=30),
        fact_count=st.integers(0, 9),
        facts=st.binary(max_size=30),
    ),
)


@given(state=STATES)
def test_sessions_come_back_and_no_other_length_does(state):
    body = encode_session(state)
    assert parse_session(body) == state
    for bad in (body[:-1], body + b"x", body[:3], b""):
        with pytest.raises(FormatError):
            parse_session(bad)


def test_a_session_that_is_not_understood_is_a_format_error():
    pieces = encode_pieces(1, 0, [], [])
    for text in (b"{}", b"[", b"[]", b'{"offsets": 3}'):
        body = bytes(4) + len(text).to_bytes(4, "big") + text + pieces
        with pytest.raises(FormatError):
            parse_session(body)


# -- vectors ---------------------------------------------------------------------------------------


def unhex(values):
    return [bytes.fromhex(value) for value in values]


def state_of(case):
    fields = dict(case["state"])
    nodes, offsets = unhex(fields.pop("nodes")), tuple(fields.pop("offsets"))
    about = case["about"].encode()
    pieces = Pieces(7, fields["last_ns"], 0, b"", 0, b"")
    return SessionState(7, about, nodes=tuple(nodes), offsets=offsets, pieces=pieces, **fields)


def cuts_of(case):
    return [
        Cut(**cut | {"offsets": tuple(cut["offsets"]), "messages": unhex(cut["messages"])})
        for cut in case["cuts"]
    ]


def body_of(case):
    """What our encoder makes of a vector's values."""
    if case["kind"] == SESSION:
        return encode_session(state_of(case))
    if case["kind"] == FRAMES:
        return b"".join(encode_frames(case["first"], case["acked"], cuts_of(case)))
    slices, facts = unhex(case["slices"]), unhex(case["facts"])
    return encode_pieces(case["number"], int(case["base_ns"]), slices, facts)


def test_the_header_vector():
    key = FileKey(bytes.fromhex(VECTORS["spool_key"]), bytes.fromhex(VECTORS["salt"]))
    assert key.header().hex() == VECTORS["header"]


@pytest.mark.parametrize("case", VECTORS["records"], ids=lambda case: str(case["counter"]))
def test_record_vectors(case):
    body = body_of(case)
    assert body.hex() == case["body"]
    key = parse_file_header(bytes.fromhex(VECTORS["header"]), bytes.fromhex(VECTORS["spool_key"]))
    counter, kind = case["counter"], case["kind"]
    stored = body if kind == FRAMES else key.seal(counter, kind, body)
    assert b"".join(encode_record(counter, kind, [stored])).hex() == case["record"]


def test_a_file_of_the_vectors_is_read():
    data = b"".join(unhex([VECTORS["header"], *(case["record"] for case in VECTORS["records"])]))
    key = parse_file_header(data, bytes.fromhex(VECTORS["spool_key"]))
    for stored, case in zip(read_records(reader(data)), VECTORS["records"], strict=True):
        body = stored.body
        if stored.kind == FRAMES:
            assert parse_frames(body) == (case["first"], case["acked"], cuts_of(case))
            continue
        body = key.open(stored.counter, stored.kind, body)
        assert body.hex() == case["body"]
        if stored.kind == SESSION:
            assert parse_session(body) == state_of(case)
        else:
            (pieces,) = parse_slices(body)
            assert (pieces.number, pieces.base_ns) == (case["number"], int(case["base_ns"]))
            assert pieces.slices == b"".join(unhex(case["slices"]))
