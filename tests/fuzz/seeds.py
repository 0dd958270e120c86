"""Every parser of foreign bytes, and valid bytes for each to begin with.

`PARSERS` has by name: what takes the bytes, and samples that it accepts. What a parser may raise
for others is `FormatError` (and its kin) alone; the second verifier gives a verdict on any bytes.
"""

import importlib
import json
import sys
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sealtape.capture.identity.jwks import parse_key_set
from sealtape.capture.postgres.codec.messages import cancel_request, startup
from sealtape.capture.postgres.codec.startup import read_first
from sealtape.ingest.pages import plain_values
from sealtape.ingest.parquet import ColumnReader, read_rows, row_of, write_segment
from sealtape.ingest.thrift import read_struct
from sealtape.schemas import facts, messages, slices
from sealtape.schemas.bodies import parse_open
from sealtape.schemas.bundle import open_bundle, parse_keys, parse_paths
from sealtape.schemas.bundle import parse_hashes as parse_inclusion
from sealtape.schemas.cosignatures import verifier_of
from sealtape.schemas.errors import SealtapeError
from sealtape.schemas.evidence import parse_evidence_policy
from sealtape.schemas.frames import parse_header
from sealtape.schemas.notes import parse_checkpoint, parse_note
from sealtape.schemas.segments import parse_manifest
from sealtape.schemas.timestamps import read_timestamp
from sealtape.schemas.tlog.policy import parse_policy
from sealtape.schemas.tlog.proof import LogProof, parse_proof
from sealtape.schemas.tlog.records import parse_entry
from sealtape.schemas.tlog.tiles import ENTRIES, Tile, encode_entries, parse_entries, parse_hashes
from sealtape.schemas.tlog.witnessing import parse_cosignatures, parse_request, parse_size
from tests.capture.postgres.codec import pg_script as pg
from tests.factories import timestamps as tsa
from tests.factories.bundles import SIGNER, note_of
from tests.factories.growing import GrowingLog
from tests.factories.sessions import build_session
from tests.vectors.bundle_parts import packed, sha
from tests.vectors.generate_bundle import policy, whole

__all__ = ["FEWER", "HANG_S", "MEMORY", "PARSERS", "parsed"]

HANG_S = 1.0
MEMORY = 64 << 20
FEWER = dict.fromkeys(
    ["parquet", "columns", "footer", "bundle", "time-stamp", "verifier", "postgres"], 5
)
FEWER["verifier-files"] = 50
"""So many times fewer inputs go to the slow ones."""
VECTORS = Path(__file__).parents[1] / "vectors"
# It is imported by its name, so that what watches imports sees it.
sys.path.append(str(Path(__file__).parents[2] / "deploy/verifier"))
VERIFIER = importlib.import_module("sealtape_verify")
sys.path.pop()
POLICY = VERIFIER.Policy(policy().encode())
FILES = whole()
BUILT = build_session(commands=2)
LOG = GrowingLog().grow(9)
NOTE = note_of(FILES)[1]


def parsed(parse, data):
    """Whether the bytes are taken; what is raised besides refusals is a finding."""
    try:
        parse(data)
    except SealtapeError:
        return False
    return True


def verdict(data):
    """The second verifier's report on a bundle, as it prints it."""
    found = VERIFIER.report(VERIFIER.Verifier(data, POLICY))
    return json.dumps(found)


def verdict_of_files(data):
    """The same for a good bundle in which one file, named in the first line, is another."""
    name, _, content = data.partition(b"\n")
    return verdict(packed({**FILES, name.decode("ascii", "replace")[:99]: content}))


def rows(data):
    """A segment as ingest reads it; the pages are read too."""
    return [row for _, row in read_rows(data)]


def columns(data):
    """A segment as verification reads it."""
    return list(ColumnReader(data).read(0, 1 << 40))


def pages(data):
    """A column of payloads, for as many values as the sample has."""
    return plain_values(memoryview(data), 0, len(data), len(BUILT.frames))


def text(parse, data):
    """A parser of text is given what its caller decodes."""
    return parse(data.decode("utf-8", "replace"))


def segment():
    return write_segment([[row_of(frame) for frame in BUILT.frames]], {})


def footer(data):
    size = int.from_bytes(data[-8:-4], "little")
    return bytes(data[-8 - size : -8])


def payloads(data):
    """The chunk of the last column, without what Arrow writes before and behind it."""
    group = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0)
    chunk = group.column(group.num_columns - 1)
    begin = chunk.data_page_offset
    return bytes(data[begin : begin + chunk.total_compressed_size])


def data_body():
    """Of a DATA frame."""
    pieces = [slices.encode_slice(0, 5, 0, b"select 1"), slices.encode_slice(1, 9, 0, b"1", 2)]
    return slices.encode_data(pieces, 2)


def facts_body():
    """Of a FACTS frame: a fact with little in it, and one with something everywhere."""
    full = facts.encode_fact(
        facts.encode_head(1, facts.COMMAND, 7, 0, 0, 8, 0),
        facts.encode_text("select 1", 8, bytes(32)),
        facts.encode_statement("select $1", "f1", "read", ["public.t"]),
        facts.encode_tail(parameters=["1"], status="ok", rows=1, attributes={"a": "b"}),
    )
    short = facts.encode_fact(facts.encode_head(0, facts.COMMAND, 0))
    return facts.encode_facts((8, 1, 0, 0), [short, full])


def conversation(data):
    """What PostgreSQL's client (odd) and server (even) said: pieces behind side and length."""
    script, at = [], 0
    while at + 2 <= len(data):
        end = at + 2 + data[at + 1]
        script.append(("c" if data[at] & 1 else "s", data[at + 2 : end]))
        at = end
    pg.facts([("s", pg.GREETING), *script], parameters=True)


def pieces(script):
    """The same as bytes."""
    return b"".join(
        bytes([side == "c", len(part)]) + part
        for side, said in script
        for part in (said[at : at + 255] for at in range(0, len(said), 255))
    )


def scripts():
    simple = [("c", pg.query("select 1; begin")), ("s", pg.columns(("a", 23, 0)) + pg.row(b"1"))]
    simple += [("s", pg.tag("SELECT 1") + pg.tag("BEGIN") + pg.ready(b"T"))]
    asked = pg.parse("s", "select $1") + pg.bind("p", "s") + pg.execute("p") + pg.SYNC
    told = pg.PARSED + pg.BOUND + pg.tag("SELECT 1") + pg.ready()
    return [simple, [("c", asked), ("s", told)], *(script for _, script in pg.captures()[:3])]


def entries():
    return [data for name, data in sorted(FILES.items()) if name.startswith("entries/")]


def tile_entries():
    found = entries()
    return Tile(ENTRIES, 0, len(found)), encode_entries(found)


def manifest():
    """The manifest of the vectors."""
    vectors = json.loads((VECTORS / "segments.json").read_text(encoding="utf-8"))
    return vectors["manifest"].encode()


_TILE, _TILE_DATA = tile_entries()
MANIFEST = manifest()
WITNESSED = json.loads((VECTORS / "witness.json").read_text(encoding="utf-8"))
WITNESS, ANSWER = verifier_of(WITNESSED["witness"]), WITNESSED["answer"].encode()
ANSWERED = parse_note(parse_request(WITNESSED["request"].encode()).note).text
SEGMENT = segment()
KEYS = b'{"key":"%s","seq":"%d"}\n' * 2 % (b"ab" * 32, 0, b"cd" * 32, 7)
JWKS = b'{"keys":[{"kty":"RSA","n":"%s","e":"AQAB","kid":"a","use":"sig"}]}' % (b"A" * 342)

PARSERS = {
    "note": (parse_note, [NOTE, LOG.note(ml_dsa=True)]),
    "checkpoint": (partial(text, parse_checkpoint), [LOG.checkpoint().text().encode()]),
    "tlog-proof": (
        parse_proof,
        [LogProof(index=1, path=(bytes(32),) * 3, note=NOTE, extra=b"x").encode()],
    ),
    "tile": (partial(parse_hashes, Tile(0, 0, 9)), [bytes(32) * 9]),
    "entries": (partial(parse_entries, _TILE), [_TILE_DATA]),
    "tlog-policy": (parse_policy, [f"log {LOG.verifier.vkey}\nquorum none\n".encode()]),
    "evidence-policy": (parse_evidence_policy, [policy().encode()]),
    "manifest": (parse_manifest, [MANIFEST]),
    "entry": (parse_entry, entries()),
    "header": (parse_header, [FILES["frames/0.bin"][:84]]),
    "envelope": (messages.decode, [messages.encode(item) for item in BUILT.messages]),
    "open": (partial(parse_open, verifiers=None), [BUILT.frames[0].payload]),
    "request": (parse_request, [LOG.request(old=4)]),
    "size": (parse_size, [b"20852163\n"]),
    "cosignatures": (partial(parse_cosignatures, text=ANSWERED, witnesses=[WITNESS]), [ANSWER]),
    "first-packet": (
        read_first,
        [
            startup({"user": "ada", "database": "shop", "options": "-c a=b"})[4:],
            cancel_request(7, b"key!")[4:],
        ],
    ),
    "postgres": (conversation, [pieces(script)[:4000] for script in scripts()]),
    "data": (partial(slices.decode_data, ts_ns=1), [data_body()]),
    "facts": (partial(facts.decode_facts, ts_ns=1), [facts_body()]),
    "inclusion": (partial(parse_inclusion, what="inclusion"), [FILES["inclusion"]]),
    "paths": (parse_paths, [FILES["fragments/0.paths"]]),
    "keys": (lambda data: list(parse_keys(data)), [KEYS]),
    "jwks": (parse_key_set, [JWKS]),
    "bundle": (open_bundle, [packed(FILES)]),
    "time-stamp": (read_timestamp, [tsa.answer(SIGNER, sha(NOTE))]),
    "parquet": (rows, [SEGMENT]),
    "columns": (columns, [SEGMENT]),
    "footer": (read_struct, [footer(SEGMENT)]),
    "pages": (pages, [payloads(SEGMENT)]),
    "verifier": (verdict, [packed(FILES)]),
    "verifier-files": (
        verdict_of_files,
        [f"{name}\n".encode() + content for name, content in sorted(FILES.items())],
    ),
}
