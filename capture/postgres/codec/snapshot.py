"""A tracker's state as bytes and back: what a STATE frame holds so that a decoder can start there.

JSON, bytes as base64. A snapshot can be taken while replies are outstanding and in the middle of a
row or of COPY data, but not inside a message whose content is wanted: ask `Tracker.at_rest`. The
texts of prepared statements are in it whole (up to the 64 KiB the tracker keeps), so it belongs
under the data key.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from binascii import Error
from typing import Any

from sealtape.capture.postgres.codec.memory import NOT_KNOWN, Bound, Prepared
from sealtape.capture.postgres.codec.statements import Statement
from sealtape.capture.postgres.codec.tracker import Tracker
from sealtape.schemas.errors import FormatError

CODEC = "postgres/1"


def dump(tracker: Tracker) -> bytes:
    """Serialise a tracker that is `at_rest`."""
    state = tracker.state()
    found = {
        "v": 1,
        "scanners": state["scanners"],
        "plain": state["plain"],
        "teller": state["teller"],
        "settings": state["settings"],
        "tags": [_text(tag) for tag in state["tags"]],
        "pending": [_entry(entry) for entry in state["pending"]],
        "bound": _portals(state["bound"]),
        "group": state["group"],
        "statements": [_prepared(item) for item in state["statements"].values()],
        "portals": _portals(state["portals"]),
        "unsettled": [
            [_text(name), count, None if item is None else _prepared(item), group]
            for name, (count, item, group) in state["unsettled"].items()
        ],
    }
    return json.dumps(found, sort_keys=True, separators=(",", ":")).encode()


def load(tracker: Tracker, data: bytes) -> None:
    """Put a fresh tracker into the dumped state. Raises FormatError."""
    try:
        found = json.loads(data)
        if found["v"] != 1:
            raise FormatError(f"A decoder state of version {found['v']} cannot be read.")
        tracker.resume(
            {
                "scanners": found["scanners"],
                "plain": found["plain"],
                "teller": found["teller"],
                "settings": {str(key): str(value) for key, value in found["settings"].items()},
                "tags": [_bytes(tag) for tag in found["tags"]],
                "pending": [_read_entry(tracker, entry) for entry in found["pending"]],
                "bound": _read_portals(tracker, found["bound"]),
                "group": int(found["group"]),
                "statements": [_read_prepared(tracker, item) for item in found["statements"]],
                "portals": _read_portals(tracker, found["portals"]),
                "unsettled": {
                    _bytes(name): (
                        int(count),
                        None if item is None else _read_prepared(tracker, item),
                        int(group),
                    )
                    for name, count, item, group in found["unsettled"]
                },
            }
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, Error) as error:
        raise FormatError("A decoder state is malformed.") from error


def _text(value: bytes) -> str:
    return b64encode(value).decode()


def _bytes(value: str) -> bytes:
    return b64decode(value, validate=True)


def _prepared(item: Prepared) -> list[Any]:
    if item is NOT_KNOWN:
        return []
    columns = None if item.columns is None else _text(item.columns)
    return [_text(item.name), _text(item.text), _text(item.types), columns, item.whole]


def _read_prepared(tracker: Tracker, item: list[Any]) -> Prepared:
    if not item:
        return NOT_KNOWN
    name, text, types, columns, whole = item
    found = tracker.prepare(_bytes(name), _bytes(text), _bytes(types), whole=bool(whole))
    found.columns = None if columns is None else _bytes(columns)
    return found


def _portals(bound: dict[bytes, Bound]) -> list[Any]:
    return [
        [_text(name), _prepared(item), list(shown), _text(raw)]
        for name, (item, shown, raw) in bound.items()
    ]


def _read_portals(tracker: Tracker, found: list[Any]) -> dict[bytes, Bound]:
    return {
        _bytes(name): (
            _read_prepared(tracker, item),
            tuple(map(str, shown)),
            _bytes(raw),
        )
        for name, item, shown, raw in found
    }


def _entry(entry: tuple[Any, ...]) -> list[Any]:
    """Write an entry of the FIFO: each value with a letter for its type."""
    return [_value(value) for value in entry]


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return ["b", _text(value)]
    if isinstance(value, Prepared):
        return ["p", _prepared(value)]
    if isinstance(value, Statement):
        return ["s", value.normalized, list(value.forgets), value.closes, value.opaque]
    if isinstance(value, dict):
        return ["d", _portals(value)]
    return value  # a number or None


def _read_entry(tracker: Tracker, entry: list[Any]) -> tuple[Any, ...]:
    return tuple(_read_value(tracker, value) for value in entry)


def _read_value(tracker: Tracker, value: Any) -> Any:
    if not isinstance(value, list):
        return None if value is None else int(value)
    letter, *rest = value
    if letter == "b":
        return _bytes(rest[0])
    if letter == "p":
        return _read_prepared(tracker, rest[0])
    if letter == "d":
        return _read_portals(tracker, rest[0])
    return Statement(
        str(rest[0]),
        forgets=tuple(map(str, rest[1])),
        closes=bool(rest[2]),
        opaque=bool(rest[3]) if len(rest) > 3 else False,
    )
