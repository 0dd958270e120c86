"""The bus envelope: vectors, the reference library both ways, every cut and every wrong field."""

import dataclasses
import io
import json
from pathlib import Path

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealtape.schemas import avro, messages
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import MAX_PAYLOAD, Frame
from sealtape.schemas.messages import CheckpointMessage, KeyMessage

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "messages.json").read_text(encoding="utf-8")
)
SCHEMAS = {
    kind: fastavro.parse_schema(json.loads(avro.text(name)))
    for kind, name in (
        (Frame, "frame.v1"),
        (CheckpointMessage, "checkpoint.v1"),
        (KeyMessage, "key.v1"),
    )
}
KINDS = {"frame.v1": Frame, "checkpoint.v1": CheckpointMessage, "key.v1": KeyMessage}

ids = {"session": st.binary(min_size=16, max_size=16), "epoch": st.integers(0, 2**32 - 1)}
names = st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=30)
any_message = st.one_of(
    st.builds(
        Frame,
        **ids,
        seq=st.integers(0, 2**63 - 1),
        ts_ns=st.integers(-(2**63), 2**63 - 1),
        kind=st.integers(0, 255),
        suite=st.integers(0, 255),
        flags=st.integers(0, 65535),
        payload=st.binary(max_size=200),
    ),
    st.builds(
        CheckpointMessage,
        **ids,
        size=st.integers(1, 2**63 - 1),
        note=st.binary(min_size=1, max_size=200),
    ),
    st.builds(
        KeyMessage,
        **ids,
        label=names,
        recipient=names,
        suite=names,
        sealed=st.binary(min_size=1, max_size=100),
        tenant=names,
        retention=names,
    ),
)
FRAME = Frame(bytes(range(16)), 1, 300, 1_795_392_000_123_456_789, 3, 2, 0, b"payload")
CHECKPOINT = CheckpointMessage(bytes(range(16)), 1, 2, b"note")
KEY = KeyMessage(bytes(range(16)), 1, "data", "auditor-1", "suite", b"sealed", "main", "standard")


def fields(message):
    return {field.name: getattr(message, field.name) for field in dataclasses.fields(type(message))}


@pytest.mark.parametrize("case", VECTORS["messages"], ids=lambda case: case["name"])
def test_vectors(case):
    kind = KINDS[case["schema"]]
    values = {
        name: bytes.fromhex(value) if name in ("session", "payload", "note", "sealed") else value
        for name, value in case["fields"].items()
    }
    message = kind(**values)
    assert messages.encode(message).hex() == case["encoded"]
    assert messages.decode(bytes.fromhex(case["encoded"])) == message
    assert case["encoded"][4:20] == VECTORS["fingerprints"][case["schema"]]


@pytest.mark.parametrize("case", VECTORS["malformed"], ids=lambda case: case["name"])
def test_malformed_vectors(case):
    with pytest.raises(FormatError):
        messages.decode(bytes.fromhex(case["encoded"]))


@given(any_message)
def test_both_ways_against_the_reference_library(message):
    data = messages.encode(message)
    schema = SCHEMAS[type(message)]
    assert fastavro.schemaless_reader(io.BytesIO(data[10:]), schema) == fields(message)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, fields(message))
    assert data[10:] == out.getvalue()
    assert messages.decode(data[:10] + out.getvalue()) == message
    assert messages.peek_session(data) == message.session


@pytest.mark.parametrize("message", [FRAME, CHECKPOINT, KEY])
def test_every_cut_is_refused(message):
    data = messages.encode(message)
    for size in range(len(data)):
        with pytest.raises(FormatError):
            messages.decode(data[:size])
    with pytest.raises(FormatError):
        messages.decode(data + b"\0")


@settings(max_examples=300)
@given(any_message, st.data())
def test_what_decodes_is_what_encode_writes(message, data):
    raw = bytearray(messages.encode(message))
    index = data.draw(st.integers(0, len(raw) - 1))
    raw[index] ^= data.draw(st.integers(1, 255))
    try:
        decoded = messages.decode(bytes(raw))
    except FormatError:
        return
    assert messages.encode(decoded) == bytes(raw)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        (FRAME, {"session": bytes(15)}),
        (FRAME, {"epoch": -1}),
        (FRAME, {"epoch": 2**32}),
        (FRAME, {"seq": -1}),
        (FRAME, {"seq": 2**63}),
        (FRAME, {"ts_ns": 2**63}),
        (FRAME, {"kind": 256}),
        (FRAME, {"kind": -1}),
        (FRAME, {"suite": 256}),
        (FRAME, {"flags": 65536}),
        (FRAME, {"payload": bytes(MAX_PAYLOAD + 1)}),
        (CHECKPOINT, {"session": bytes(17)}),
        (CHECKPOINT, {"size": 0}),
        (CHECKPOINT, {"note": b""}),
        (CHECKPOINT, {"note": bytes(messages.MAX_NOTE + 1)}),
        (KEY, {"label": ""}),
        (KEY, {"tenant": "x" * (messages.MAX_NAME + 1)}),
        (KEY, {"sealed": b""}),
        (KEY, {"sealed": bytes(messages.MAX_SEALED + 1)}),
    ],
)
def test_a_field_outside_its_limits_is_not_written(message, changes):
    with pytest.raises(FormatError):
        messages.encode(dataclasses.replace(message, **changes))


def test_the_largest_frame_fits():
    largest = Frame(
        b"\xff" * 16, 2**32 - 1, 2**63 - 1, -(2**63), 255, 255, 65535, bytes(MAX_PAYLOAD)
    )
    data = messages.encode(largest)
    assert len(data) <= messages.MAX_MESSAGE
    assert messages.decode(data) == largest


def test_peek_refuses_what_is_no_message():
    data = messages.encode(FRAME)
    assert messages.peek_session(data[:26]) == FRAME.session
    for other in (b"", data[:25], b"\xc3\x01" + bytes(40)):
        with pytest.raises(FormatError):
            messages.peek_session(other)


def test_only_keys_are_keys():
    assert messages.is_key(messages.encode(KEY))
    assert not messages.is_key(messages.encode(FRAME))
    assert not messages.is_key(messages.encode(CHECKPOINT))
    assert not messages.is_key(b"")
