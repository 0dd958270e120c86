"""Writes messages.json, data.json, facts.json, bodies.json, segments.json and documents.json.

Run `python -m tests.vectors.generate_b` from the repository's root. The output is the same on every
run and machine. Avro datums are written by the reference library from the schema files, not by our
own encoder; JSON is given as text.
"""

import dataclasses
import hashlib
import io
import json
from pathlib import Path

import fastavro
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.schemas import avro, bodies, documents, facts, layout, notes, segments, slices

FOLDER = Path(__file__).parent
SESSION = bytes(range(0x10, 0x20))
OTHER = bytes(range(0x30, 0x40))
BOOT = bytes(range(0x20, 0x30))
TS_NS = 1_795_392_000_123_456_789
LOG = "sealtape.example/log"
NODE = notes.Signer("node-1", Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
CLASS = bodies.RetentionClass("standard", 90 * 86_400, 400 * 86_400)


def main():
    for name, value in generate().items():
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        (FOLDER / name).write_text(text, encoding="utf-8")


def generate():
    return {
        "messages.json": message_vectors(),
        "data.json": data_vectors(),
        "facts.json": fact_vectors(),
        "bodies.json": body_vectors(),
        "segments.json": segment_vectors(),
        "documents.json": document_vectors(),
    }


def reference(name, value):
    """The single-object encoding of `value` by the reference library."""
    schema = fastavro.parse_schema(json.loads(avro.text(name)))
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    # The library gives the fingerprint's bytes in the order in which they travel.
    crc = bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
    return b"\xc3\x01" + crc + out.getvalue()


def plain(value):
    """A value as JSON can hold it: bytes in hex."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


# -- messages.json ---------------------------------------------------------------------------------


def message_vectors():
    head = {"session": SESSION, "epoch": 0}
    frame = {"seq": 258, "ts_ns": TS_NS, "kind": 3, "suite": 2, "flags": 0, "payload": b"\xaa" * 48}
    last = {
        "session": b"\xff" * 16,
        "epoch": 2**32 - 1,
        "seq": 2**63 - 1,
        "ts_ns": 2**63 - 1,
        "kind": 255,
        "suite": 255,
        "flags": 65535,
        "payload": b"",
    }
    epoch = notes.Signer(
        notes.session_origin(LOG, SESSION, 0), Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
    )
    root = hashlib.sha256(b"root").digest()
    note = epoch.sign(notes.Checkpoint(epoch.name, 2, root).text())
    key = {
        "label": "facts",
        "recipient": "indexer-0123456789abcdef",
        "suite": "x25519-sha256-aes256gcm",
        "sealed": b"\xbb" * 80,
        "tenant": "main",
        "retention": "standard",
    }
    good = [
        ("a frame", "frame.v1", head | frame),
        ("a frame at the end of every range", "frame.v1", last),
        ("a frame before 1970", "frame.v1", head | frame | {"ts_ns": -(2**63), "epoch": 1}),
        ("a checkpoint", "checkpoint.v1", head | {"size": 2, "note": note}),
        ("a key", "key.v1", head | key),
    ]
    bad = [
        ("epoch beyond 32 bits", "frame.v1", head | frame | {"epoch": 2**32}),
        ("negative epoch", "frame.v1", head | frame | {"epoch": -1}),
        ("negative seq", "frame.v1", head | frame | {"seq": -1}),
        ("kind beyond 8 bits", "frame.v1", head | frame | {"kind": 256}),
        ("flags beyond 16 bits", "frame.v1", head | frame | {"flags": 65536}),
        ("checkpoint of size 0", "checkpoint.v1", head | {"size": 0, "note": note}),
        ("checkpoint without note", "checkpoint.v1", head | {"size": 2, "note": b""}),
        ("key without label", "key.v1", head | key | {"label": ""}),
        ("key without sealed bytes", "key.v1", head | key | {"sealed": b""}),
    ]
    malformed = [(name, reference(schema, value)) for name, schema, value in bad]
    whole = reference("frame.v1", head | frame)
    malformed += [
        ("nothing", b""),
        ("no header", whole[10:]),
        ("unknown fingerprint", whole[:9] + bytes([whole[9] ^ 1]) + whole[10:]),
        ("a byte too many", whole + b"\0"),
        ("a byte too few", whole[:-1]),
        ("epoch in two bytes", whole[:26] + b"\x80\x00" + whole[27:]),
        ("epoch of eleven bytes", whole[:26] + b"\x80" * 10 + b"\x01" + whole[27:]),
        ("header and session alone", whole[:26]),
    ]
    return {
        "fingerprints": {
            name: avro.FINGERPRINTS[name].to_bytes(8, "little").hex() for name in avro.FINGERPRINTS
        },
        "messages": [
            {"name": name, "schema": schema, "fields": plain(value), "encoded": encoded.hex()}
            for name, schema, value in good
            for encoded in [reference(schema, value)]
        ],
        "malformed": [{"name": name, "encoded": data.hex()} for name, data in malformed],
    }


# -- data.json -------------------------------------------------------------------------------------


def data_vectors():
    query = b"Q\x00\x00\x00\x0dselect 1\x00"
    denied = b"Q\x00\x00\x00\x09deny\x00"
    cases = [
        ("a query and its answer", [(0, 0, 0, 0, query), (2, 850_000, 0, 0, b"T..D..C..Z..")]),
        ("a statement replaced", [(0, 0, 0, 0, query), (1, 0, 0, 14, denied)]),
        ("a byte not passed on", [(2, 5, 10, 0, b"abc"), (3, 5, 10, 3, b"")]),
        ("bytes inserted", [(2, 5, 0, 0, b"abc"), (3, 5, 3, 0, b"notice"), (2, 9, 3, 0, b"d")]),
        ("an offset near the end", [(0, 199_999_999, 2**63 - 9, 0, b"12345678")]),
    ]
    whole = _data([(0, 0, 0, 0, b"abc")])
    bad = [
        ("no slice", _data([])),
        ("leg 4", _data([(4, 0, 0, 0, b"a")])),
        ("time before the frame's", _data([(0, -1, 0, 0, b"a")])),
        ("negative offset", _data([(0, 0, -1, 0, b"a")])),
        ("an in leg that replaces", _data([(0, 0, 0, 1, b"a")])),
        ("replaces too much", _data([(1, 0, 0, (256 << 10) + 1, b"a")])),
        ("length beyond the end", whole[:15] + b"\x08" + whole[16:]),
        ("negative length", whole[:15] + b"\x05" + whole[16:]),
        ("two blocks", whole[:-1] + whole[10:]),
        ("a block with its size", whole[:10] + b"\x01\x10" + whole[11:]),
        ("no end of blocks", whole[:-1]),
        ("a byte too many", whole + b"\0"),
    ]
    return {
        "bodies": [
            {
                "name": name,
                "ts_ns": TS_NS,
                "slices": [
                    plain(
                        {
                            "leg": leg,
                            "ts_ns": TS_NS + at,
                            "offset": offset,
                            "replaces": replaces,
                            "data": data,
                        }
                    )
                    for leg, at, offset, replaces, data in rows
                ],
                "encoded": _data(rows).hex(),
            }
            for name, rows in cases
        ],
        "malformed": [{"name": name, "encoded": data.hex()} for name, data in bad],
        "legs": [
            {
                "name": name,
                "slices": [
                    plain({"leg": leg, "offset": offset, "replaces": replaces, "data": data})
                    for leg, _, offset, replaces, data in rows
                ],
                "streams": [
                    b"".join(slices.leg_stream(_slices(rows), leg)).hex() for leg in range(4)
                ],
            }
            for name, rows in cases
        ],
    }


def _data(rows):
    names = ("leg", "at_ns", "offset", "replaces", "data")
    return reference("data.v1", {"slices": [dict(zip(names, row, strict=True)) for row in rows]})


def _slices(rows):
    return [slices.Slice(leg, TS_NS + at, offset, data, r) for leg, at, offset, r, data in rows]


# -- facts.json ------------------------------------------------------------------------------------

EMPTY_FACT = {
    "n": 0,
    "kind": 1,
    "at_ns": 0,
    "leg": -1,
    "offset": 0,
    "length": 0,
    "ref": -1,
    "text": "",
    "text_length": 0,
    "text_sha256": b"",
    "normalized": "",
    "fingerprint": "",
    "effect": "",
    "objects": [],
    "parameters": [],
    "status": "",
    "rows": -1,
    "bytes_out": 0,
    "duration_ns": 0,
    "code": "",
    "message": "",
    "attributes": {},
    "live": [],
}


def fact_vectors():
    key = bytes(range(0x60, 0x80))
    statement = b"select * from orders where id = 7"
    digest = facts.text_digest(facts.text_salt(key, SESSION, 0), statement)
    command = EMPTY_FACT | {
        "leg": 0,
        "length": len(statement) + 6,
        "text_length": len(statement),
        "text_sha256": digest,
        "normalized": "select * from orders where id = $1",
        "fingerprint": "5f2b8c1d9e3a7046",
        "effect": "read",
        "objects": ["orders"],
        "attributes": {"portal": "c1", "statement": "s1"},
    }
    result = EMPTY_FACT | {
        "n": 1,
        "kind": 2,
        "at_ns": 850_000,
        "leg": 2,
        "length": 120,
        "ref": 0,
        "status": "SELECT 1",
        "rows": 1,
        "bytes_out": 120,
        "duration_ns": 850_000,
    }
    error = result | {"status": "error", "rows": -1, "code": "42P01", "message": "no “orders”"}
    opted = command | {"text": statement.decode(), "parameters": ["7", "NULL", "'it''s'"]}
    live = {"session": OTHER, "epoch": 0, "number": 17, "size": 300, "root": b"\xcc" * 32}
    beat = EMPTY_FACT | {
        "kind": 7,
        "rows": 1,
        "status": "1/1",
        "attributes": {"next": "18", "worker": "0"},
        "live": [live],
    }
    cases = [
        ("a command and its result", [39, 39, 120, 120], [command, result]),
        ("an error", [39, 39, 120, 120], [command, error]),
        ("full text and parameters", [39, 39, 0, 0], [opted]),
        ("a heartbeat", [0, 0, 0, 0], [beat]),
        ("an unknown kind", [0, 0, 0, 0], [EMPTY_FACT | {"kind": 200, "n": 5}]),
    ]
    base = [0, 0, 0, 0]
    bad = [
        ("three totals", _facts(base[1:], [command])),
        ("five totals", _facts([*base, 0], [command])),
        ("no fact", _facts(base, [])),
        ("numbers with a gap", _facts(base, [command, result | {"n": 2}])),
        ("belongs to a later fact", _facts(base, [command | {"ref": 1}])),
        ("leg 4", _facts(base, [command | {"leg": 4}])),
        ("digest of 31 bytes", _facts(base, [command | {"text_sha256": digest[1:]}])),
        ("65 objects", _facts(base, [command | {"objects": ["t"] * 65}])),
        ("text of more than 4 KiB", _facts(base, [command | {"text": "x" * 4097}])),
        (
            "attributes out of order",
            _facts(base, [command | {"attributes": {"b": "1", "a": "2"}}]),
        ),
        ("not UTF-8", _facts(base, [command]).replace(b"read", b"\xff\xfe\xfd\xfc")),
        ("a byte too many", _facts(base, [command]) + b"\0"),
    ]
    return {
        "text_digest": {
            "data_key": key.hex(),
            "session": SESSION.hex(),
            "epoch": 0,
            "text": statement.decode(),
            "sha256": digest.hex(),
            "sha256_without_key": facts.text_digest(
                facts.text_salt(None, SESSION, 0), statement
            ).hex(),
        },
        "bodies": [
            {
                "name": name,
                "ts_ns": TS_NS,
                "totals": totals,
                "facts": plain(rows),
                "encoded": _facts(totals, rows).hex(),
            }
            for name, totals, rows in cases
        ],
        "malformed": [{"name": name, "encoded": data.hex()} for name, data in bad],
    }


def _facts(totals, rows):
    return reference("facts.v1", {"totals": totals, "facts": rows})


# -- bodies.json -----------------------------------------------------------------------------------


def opening(epoch=0, **changes):
    signer = notes.Signer(
        notes.session_origin(LOG, SESSION, epoch),
        Ed25519PrivateKey.from_private_bytes(b"\x02" * 32),
    )
    first = bodies.Opening(
        type="session",
        log=LOG,
        tenant="main",
        session=SESSION,
        epoch=epoch,
        node="node-1",
        boot=BOOT,
        worker=0,
        number=17,
        key=signer.vkey,
        suite=2,
        salt=bytes(range(0x60, 0x80)),
        ident_sha256=hashlib.sha256(b"ident").digest(),
        retention=CLASS,
        anchor_ns=TS_NS,
        continues=bodies.Continues(epoch - 1, 300, b"\xcc" * 32) if epoch else None,
    )
    return dataclasses.replace(first, **changes)


def ident(**changes):
    first = bodies.Ident(
        user="ann@example.org",
        subject="248289761001",
        groups=("dba", "on-call"),
        issuer="https://id.example.org",
        token_id="6f1c",
        agent=bodies.Agent("report-bot", ("ann@example.org",), "run-42"),
        source_ip="192.0.2.7",
        source_port=50_312,
        software="psql",
        application="nightly report",
        parameters=("search_path=app",),
        target="shop",
        protocol="postgres",
        database="shop",
        node="node-1",
        expires_ns=TS_NS + 3_600_000_000_000,
    )
    return dataclasses.replace(first, **changes)


def body_vectors():
    beacon = bodies.Beacon("sealtape.example/log", 4711, b"\xdd" * 32)
    openings = [
        ("a session", opening()),
        ("a recovery epoch, with a beacon", opening(1, beacon=beacon, salt=OTHER * 2)),
        ("without encryption", opening(suite=1, salt=b"")),
        ("a journal", opening(type="journal", number=0)),
    ]
    others = [
        ("ident", "a person through an agent", ident()),
        (
            "ident",
            "a journal",
            bodies.Ident("", "", "journal", "node-1", software="sealtape/0.1.0"),
        ),
        ("close", "by the client", bodies.Close("client", (39, 39, 120, 120), 1, 0)),
        (
            "close",
            "after a crash",
            bodies.Close("aborted", (39, 39, 0, 0), 1, attested=bodies.Attested(0, 256, 300)),
        ),
        (
            "gap",
            "the spool was full",
            bodies.Gap("spool", tuple(slices.Hole(leg, 4096, 512) for leg in (0, 1))),
        ),
        ("gap", "of unknown length", bodies.Gap("damaged", (slices.Hole(2, 10, -1),))),
        ("clock", "set back by 5 s", bodies.Clock(TS_NS, TS_NS - 5_000_000_000)),
        ("state", "one part", bodies.StateBody("postgres/1", (1, 1, 2, 2), b"state")),
    ]
    close, state = others[2][2].to_json().decode(), others[7][2].to_json().decode()
    clock, gap = others[6][2].to_json().decode(), others[4][2].to_json().decode()
    bad = [
        ("close", "white space", close.replace(":", ": ", 1)),
        (
            "close",
            "members not in order",
            close.replace('"attested":null,', "")[:-1] + ',"attested":null}',
        ),
        ("close", "unknown member", close[:-1] + ',"w":0}'),
        ("close", "missing member", close.replace('"commands":"1",', "")),
        (
            "close",
            "a number where a string belongs",
            close.replace('"commands":"1"', '"commands":1'),
        ),
        ("close", "leading zero", close.replace('"commands":"1"', '"commands":"01"')),
        ("close", "three totals", close.replace('"39","39",', '"39",')),
        ("close", "version 2", close.replace('"v":1', '"v":2')),
        ("close", "reason with a space", close.replace('"client"', '"the client"')),
        ("clock", "another step", clock.replace("-5000000000", "5000000000")),
        ("gap", "leg twice", gap.replace('"leg":1', '"leg":0')),
        ("gap", "leg 4", gap.replace('"leg":1', '"leg":4')),
        ("state", "lax base64", state.replace("c3RhdGU=", "c3RhdGV=")),
        ("state", "part beyond parts", state.replace('"part":0', '"part":1')),
    ]
    return {
        "node": NODE.vkey,
        "openings": [
            {
                "name": name,
                "line": each.to_json().decode(),
                "payload": bodies.make_open(each, NODE).decode(),
            }
            for name, each in openings
        ],
        "bodies": [
            {"kind": kind, "name": name, "body": each.to_json().decode()}
            for kind, name, each in others
        ],
        "ignorable": [
            {
                "kind": "close",
                "name": "a member that may be ignored",
                "body": close[:-1] + ',"x-note":1}',
            }
        ],
        "malformed": [{"kind": kind, "name": name, "body": text} for kind, name, text in bad],
    }


# -- segments.json ---------------------------------------------------------------------------------


def segment():
    note = "origin\n2\n" + "A" * 43 + "=\n\n— origin c2ln\n"
    first = segments.FragmentRecord(
        tenant="main",
        class_name="standard",
        session=SESSION,
        epoch=0,
        lo=0,
        hi=3,
        nodes=(b"\x01" * 32, b"\x02" * 32),
        rows=(0, 3),
        first_ts_ns=TS_NS,
        last_ts_ns=TS_NS + 900_000_000,
        bytes=4_321,
        checkpoint=segments.FragmentCheckpoint(2, note),
    )
    second = segments.FragmentRecord(
        tenant="main",
        class_name="standard",
        session=OTHER,
        epoch=0,
        lo=7,
        hi=8,
        nodes=(b"\x03" * 32,),
        rows=(3, 4),
        first_ts_ns=TS_NS,
        last_ts_ns=TS_NS,
        bytes=100,
        gaps=(segments.FragmentGap(5, 7, "lost"),),
    )
    fragments = (first, second)
    record = segments.SegmentRecord(
        shard="bus/0",
        n=0,
        prev=segments.FIRST_PREV,
        tenant="main",
        retention=CLASS,
        object=layout.segment_key(
            "main", "standard", "2026-11-22", "019aac8f5c007e1ea6d1000000000001", 1
        ),
        sha256=b"\x04" * 32,
        bytes=9_876,
        rows=4,
        fragments=segments.Fragments(2, segments.fragments_root(fragments)),
        bus=segments.BusRange("bus", 0, 0, 9),
        sealed_at_ns=TS_NS + 20_000_000_000,
        writer="ingest-1",
    )
    return record, fragments


def segment_vectors():
    record, fragments = segment()
    following = dataclasses.replace(
        record, n=1, prev=segments.record_hash(record), replaces=(segments.record_hash(record),)
    )
    return {
        "manifest": segments.encode_manifest(record, fragments).decode(),
        "fragments_root": record.fragments.root.hex(),
        "record_hash": segments.record_hash(record).hex(),
        "following": following.to_json().decode(),
        "keys": {
            "segment": record.object,
            "manifest": layout.manifest_key(record.object),
            "quarantine": layout.quarantine_key(
                "main", "2026-11-22", "019aac8f5c007e1ea6d1000000000002"
            ),
        },
        "malformed_keys": [
            "",
            record.object.upper(),
            record.object.replace("tenant=main", "tenant=-main"),
            record.object.replace("class=standard", "class=" + "x" * 64),
            record.object.replace("2026-11-22", "2026-02-30"),
            record.object.replace("2026-11-22", "2026-11-2"),
            record.object.replace("-1.parquet", "-01.parquet"),
            record.object.replace("7e1e", "4e1e"),
            record.object + "/",
            "/" + record.object,
        ],
    }


# -- documents.json --------------------------------------------------------------------------------


def session_document(**changes):
    first = documents.SessionDocument(
        session=SESSION,
        tenant="main",
        retention="standard",
        user="ann@example.org",
        groups=("dba",),
        agent="report-bot",
        on_behalf_of=("ann@example.org",),
        run="run-42",
        target="shop",
        protocol="postgres",
        database="shop",
        source="192.0.2.7:50312",
        client="psql",
        node="node-1",
        started_ns=TS_NS,
        revision=3,
        frames=4,
        bytes_client=39,
        bytes_server=120,
        commands=1,
        effects=("read",),
    )
    return dataclasses.replace(first, **changes)


def command_document(**changes):
    first = documents.CommandDocument(
        session=SESSION,
        epoch=0,
        n=0,
        seq=3,
        tenant="main",
        retention="standard",
        user="ann@example.org",
        groups=("dba",),
        agent="report-bot",
        run="run-42",
        target="shop",
        protocol="postgres",
        source="192.0.2.7:50312",
        time_ns=TS_NS,
        leg=0,
        offset=0,
        length=39,
        text="select * from orders where id = $1",
        fingerprint="5f2b8c1d9e3a7046",
        effect="read",
        tables=("orders",),
    )
    return dataclasses.replace(first, **changes)


def document_vectors():
    done = {"version": 1, "status": "ok", "rows": 1, "bytes_out": 120, "duration_ns": 850_000}
    sealed = {"state": "sealed", "ended_ns": TS_NS + 10**9, "close_reason": "client", "revision": 9}
    cases = [
        ("session", "live", session_document()),
        ("session", "incomplete", session_document(state="incomplete", revision=8)),
        ("session", "sealed", session_document(**sealed)),
        ("command", "running", command_document()),
        ("command", "with its result", command_document(**done)),
        (
            "command",
            "failed",
            command_document(
                **done | {"status": "error", "rows": -1, "error": "42P01", "message": "no"}
            ),
        ),
    ]
    return {
        "documents": [
            {"type": kind, "name": name, "id": each.id, "json": each.to_json().decode()}
            for kind, name, each in cases
        ]
    }


if __name__ == "__main__":
    main()
