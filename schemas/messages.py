"""The bus envelope: a frame, a checkpoint or a wrapped key, as Avro single objects.

`encode` and `decode` are written by hand because every frame passes both; the schemas are
`avro/frame.v1.avsc`, `checkpoint.v1.avsc` and `key.v1.avsc`. Rules: docs/spec/messages.md.
"""

from dataclasses import dataclass

from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import MAX_EPOCH, MAX_PAYLOAD, MAX_SEQ, SESSION_SIZE, Frame
from sealtape.schemas.wire import (
    PREFIX_SIZE,
    encode_bytes,
    encode_long,
    encode_string,
    end,
    prefix,
    read_bytes,
    read_long,
    read_string,
    read_within,
)

__all__ = [
    "MAX_MESSAGE",
    "CheckpointMessage",
    "KeyMessage",
    "Message",
    "decode",
    "encode",
    "is_key",
    "peek_session",
]

MAX_NOTE = 16 << 10
MAX_NAME = 128
MAX_SEALED = 4 << 10
MAX_MESSAGE = MAX_PAYLOAD + 128
"""No message is longer; a bus must take this many bytes in one record."""

_SESSION_END = PREFIX_SIZE + SESSION_SIZE
_FRAME = prefix("frame.v1")
_CHECKPOINT = prefix("checkpoint.v1")
_KEY = prefix("key.v1")
_PREFIXES = frozenset((_FRAME, _CHECKPOINT, _KEY))


@dataclass(frozen=True, slots=True)
class CheckpointMessage:
    """A checkpoint of a session epoch's tree: `note` is the signed note, verbatim."""

    session: bytes
    epoch: int
    size: int
    note: bytes


@dataclass(frozen=True, slots=True)
class KeyMessage:
    """A label key of a session epoch, sealed to one recipient by HPKE; and where it belongs."""

    session: bytes
    epoch: int
    label: str
    recipient: str
    suite: str
    sealed: bytes
    tenant: str
    retention: str


Message = Frame | CheckpointMessage | KeyMessage


# -- encoding --------------------------------------------------------------------------------------


def encode(message: Message) -> bytes:
    """Encode a message. Raises FormatError when a field is outside its limits."""
    if isinstance(message, Frame):
        return _encode_frame(message)
    _check_id(message.session, message.epoch)
    if isinstance(message, CheckpointMessage):
        return _encode_checkpoint(message)
    return _encode_key(message)


def _encode_frame(frame: Frame) -> bytes:
    payload = frame.payload
    _check_id(frame.session, frame.epoch)
    _check_frame(frame.seq, frame.kind, frame.suite, frame.flags, len(payload))
    return b"".join(
        (
            _FRAME,
            frame.session,
            encode_long(frame.epoch),
            encode_long(frame.seq),
            encode_long(frame.ts_ns),
            encode_long(frame.kind),
            encode_long(frame.suite),
            encode_long(frame.flags),
            encode_long(len(payload)),
            payload,
        )
    )


def _check_id(session: bytes, epoch: int) -> None:
    if len(session) != SESSION_SIZE or not 0 <= epoch <= MAX_EPOCH:
        raise FormatError("A session id is 16 bytes and an epoch an unsigned 32-bit number.")


def _check_frame(seq: int, kind: int, suite: int, flags: int, size: int) -> None:
    # Undefined flags pass: a frame that this version does not know in full is carried like any.
    if not (
        0 <= seq <= MAX_SEQ
        and 0 <= kind <= 0xFF
        and 0 <= suite <= 0xFF
        and 0 <= flags <= 0xFFFF
        and size <= MAX_PAYLOAD
    ):
        raise FormatError("A frame's seq, kind, suite, flags or payload is outside its limits.")


def _encode_checkpoint(message: CheckpointMessage) -> bytes:
    if message.size < 1 or not 0 < len(message.note) <= MAX_NOTE:
        raise FormatError("A checkpoint's size or note is outside its limits.")
    return b"".join(
        (
            _CHECKPOINT,
            message.session,
            encode_long(message.epoch),
            encode_long(message.size),
            encode_bytes(message.note),
        )
    )


def _encode_key(message: KeyMessage) -> bytes:
    names = (message.label, message.recipient, message.suite, message.tenant, message.retention)
    if not all(0 < len(name.encode()) <= MAX_NAME for name in names):
        raise FormatError(f"Each name in a key message has 1 to {MAX_NAME} bytes.")
    if not 0 < len(message.sealed) <= MAX_SEALED:
        raise FormatError(f"A wrapped key has 1 to {MAX_SEALED} bytes.")
    return b"".join(
        (
            _KEY,
            message.session,
            encode_long(message.epoch),
            *map(encode_string, names[:3]),
            encode_bytes(message.sealed),
            *map(encode_string, names[3:]),
        )
    )


# -- decoding --------------------------------------------------------------------------------------


def peek_session(data: bytes) -> bytes:
    """Return the session id of a message without decoding the rest."""
    if data[:PREFIX_SIZE] not in _PREFIXES or len(data) < _SESSION_END:
        raise FormatError("This is not a bus message of a known schema.", size=len(data))
    return data[PREFIX_SIZE:_SESSION_END]


def is_key(data: bytes) -> bool:
    """Whether a message is a wrapped key: those may travel on a bus of their own."""
    return data.startswith(_KEY)


def decode(data: bytes) -> Message:
    """Decode a bus message; FormatError unless the bytes are exactly what `encode` writes."""
    session = peek_session(data)
    if data.startswith(_FRAME):
        return _decode_frame(data, session)
    epoch, position = read_within(data, _SESSION_END, 0, MAX_EPOCH)
    if data.startswith(_CHECKPOINT):
        return _decode_checkpoint(data, position, session, epoch)
    return _decode_key(data, position, session, epoch)


def _decode_frame(data: bytes, session: bytes) -> Frame:
    epoch, position = read_long(data, _SESSION_END)
    seq, position = read_long(data, position)
    ts_ns, position = read_long(data, position)
    kind, position = read_long(data, position)
    suite, position = read_long(data, position)
    flags, position = read_long(data, position)
    size, position = read_long(data, position)
    _check_id(session, epoch)
    _check_frame(seq, kind, suite, flags, size)
    if len(data) - position != size:
        raise FormatError("A frame's payload is not as long as it says.", session=session.hex())
    return Frame(session, epoch, seq, ts_ns, kind, suite, flags, data[position:])


def _decode_checkpoint(data: bytes, position: int, session: bytes, epoch: int) -> CheckpointMessage:
    size, position = read_within(data, position, 1, MAX_SEQ)
    note, position = read_bytes(data, position, MAX_NOTE)
    end(data, position)
    if not note:
        raise FormatError("A checkpoint has no note.", session=session.hex())
    return CheckpointMessage(session, epoch, size, note)


def _decode_key(data: bytes, position: int, session: bytes, epoch: int) -> KeyMessage:
    label, position = read_string(data, position, MAX_NAME)
    recipient, position = read_string(data, position, MAX_NAME)
    suite, position = read_string(data, position, MAX_NAME)
    sealed, position = read_bytes(data, position, MAX_SEALED)
    tenant, position = read_string(data, position, MAX_NAME)
    retention, position = read_string(data, position, MAX_NAME)
    end(data, position)
    if not (label and recipient and suite and sealed and tenant and retention):
        raise FormatError("A key message lacks a field.", session=session.hex())
    return KeyMessage(session, epoch, label, recipient, suite, sealed, tenant, retention)
