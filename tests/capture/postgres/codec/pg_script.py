"""PostgreSQL messages by hand, and sessions as scripts: `[("c", bytes), ("s", bytes), ...]`."""

import base64
import json
import struct
from pathlib import Path

from sealtape.capture.postgres.codec.derive import facts_from_data
from sealtape.capture.postgres.codec.statements import Classifier
from sealtape.schemas.slices import CLIENT_IN, TARGET_IN, Slice

VECTORS = Path(__file__).parents[3] / "vectors" / "postgres"
T0 = 1_700_000_000_000_000_000
STEP_NS = 1_000_000
CLASSIFIER = Classifier()


def m(kind, body=b""):
    return kind + struct.pack(">I", len(body) + 4) + body


def z(text):
    return (text.encode() if isinstance(text, str) else text) + b"\0"


def codes(values):
    return struct.pack(f">h{len(values)}h", len(values), *values)


def values(items):
    out = struct.pack(">h", len(items))
    for item in items:
        out += b"\xff\xff\xff\xff" if item is None else struct.pack(">I", len(item)) + item
    return out


# -- the client's


def query(text):
    return m(b"Q", z(text))


def parse(name, text, types=()):
    return m(b"P", z(name) + z(text) + struct.pack(f">h{len(types)}I", len(types), *types))


def bind(portal="", name="", parameters=(), formats=(), results=()):
    body = z(portal) + z(name) + codes(formats) + values(parameters) + codes(results)
    return m(b"B", body)


def execute(portal="", limit=0):
    return m(b"E", z(portal) + struct.pack(">I", limit))


def describe(kind, name=""):
    return m(b"D", kind + z(name))


def close(kind, name=""):
    return m(b"C", kind + z(name))


SYNC = m(b"S")
FLUSH = m(b"H")
COPY_DONE = m(b"c")
TERMINATE = m(b"X")


def copy_data(data):
    return m(b"d", data)


def copy_fail(text):
    return m(b"f", z(text))


def function(oid):
    return m(b"F", struct.pack(">I", oid) + b"\0\0\0\0\0\0")


# -- the server's

PARSED = m(b"1")
BOUND = m(b"2")
CLOSED = m(b"3")
NO_DATA = m(b"n")
SUSPENDED = m(b"s")
EMPTY = m(b"I")
COPY_IN = m(b"G", b"\0\0\0")
COPY_OUT = m(b"H", b"\0\0\0")


def ready(status=b"I"):
    return m(b"Z", status)


def tag(text):
    return m(b"C", z(text))


def row(*items):
    return m(b"D", values(items))


def columns(*items):
    """(name, type OID, format) each."""
    body = struct.pack(">h", len(items))
    for name, oid, code in items:
        body += z(name) + struct.pack(">IhIhih", 0, 0, oid, -1, -1, code)
    return m(b"T", body)


def parameter_types(*oids):
    return m(b"t", struct.pack(f">h{len(oids)}I", len(oids), *oids))


def fields(code="42601", text="oops", severity="ERROR"):
    return b"S" + z(severity) + b"V" + z(severity) + b"C" + z(code) + b"M" + z(text) + b"\0"


def error(code="42601", text="oops", severity="ERROR"):
    return m(b"E", fields(code, text, severity))


def notice(text="note"):
    return m(b"N", fields("00000", text, "NOTICE"))


def setting(name, value):
    return m(b"S", z(name) + z(value))


GREETING = (
    m(b"R", b"\0\0\0\0") + setting("client_encoding", "UTF8") + m(b"K", b"12345678") + ready()
)


# -- sessions


def slices(script, *, cut=None, start=(0, 0)):
    """Slices of a script; `cut` splits each chunk into pieces of that many bytes."""
    offsets = {"c": start[0], "s": start[1]}
    found = []
    for index, (side, data) in enumerate(script):
        leg = CLIENT_IN if side == "c" else TARGET_IN
        pieces = [data[i : i + cut] for i in range(0, len(data), cut)] if cut else [data]
        for piece in pieces:
            found.append(Slice(leg, T0 + index * STEP_NS, offsets[side], piece))
            offsets[side] += len(piece)
    return found


def facts(script, **options):
    return facts_from_data(slices(script), **{"salt": b"salt", "classifier": CLASSIFIER, **options})


def commands(script, **options):
    """(normalised text, effect, status, rows, SQLSTATE) of each command, in order of its end."""
    found = facts(script, **options)
    by_n = {fact.n: fact for fact in found}
    return [
        (by_n[f.ref].normalized if f.ref >= 0 else None, f.status, f.rows, f.code)
        for f in found
        if f.kind == 2
    ]


def captures():
    """(name, script) of each recorded session."""
    found = []
    for path in sorted(VECTORS.glob("*.json")):
        if path.stem == "expected":
            continue
        for number, session in enumerate(json.loads(path.read_text())):
            script = [(side, base64.b64decode(data)) for side, data in session]
            found.append((f"{path.stem}-{number}", script))
    return found
