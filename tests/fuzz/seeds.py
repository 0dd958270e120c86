"""Every parser of foreign bytes, and valid bytes for each to begin with.

`PARSERS` has by name: what takes the bytes, and samples that it accepts. What a parser may raise
for others is `FormatError` (and its kin) alone.
"""

import json
from functools import partial
from pathlib import Path

from sealtape.ingest.parquet import read_rows, row_of, write_segment
from sealtape.schemas import messages
from sealtape.schemas.bodies import parse_open
from sealtape.schemas.bundle import open_bundle
from sealtape.schemas.evidence import parse_evidence_policy
from sealtape.schemas.frames import parse_header
from sealtape.schemas.notes import parse_checkpoint, parse_note
from sealtape.schemas.segments import parse_manifest
from sealtape.schemas.timestamps import read_timestamp
from sealtape.schemas.tlog.policy import parse_policy
from sealtape.schemas.tlog.proof import LogProof, parse_proof
from sealtape.schemas.tlog.records import parse_entry
from sealtape.schemas.tlog.tiles import ENTRIES, Tile, encode_entries, parse_entries, parse_hashes
from sealtape.schemas.tlog.witnessing import parse_request, parse_size
from tests.factories import timestamps as tsa
from tests.factories.bundles import SIGNER, note_of
from tests.factories.growing import GrowingLog
from tests.factories.sessions import build_session
from tests.vectors.bundle_parts import packed, sha
from tests.vectors.generate_bundle import policy, whole

__all__ = ["PARSERS"]

VECTORS = Path(__file__).parents[1] / "vectors"
FILES = whole()
BUILT = build_session(commands=2)
LOG = GrowingLog().grow(9)
NOTE = note_of(FILES)[1]


def rows(data):
    """A segment as ingest reads it; the pages are read too."""
    return [row for _, row in read_rows(data)]


def text(parse, data):
    """A parser of text is given what its caller decodes."""
    return parse(data.decode("utf-8", "replace"))


def segment():
    return write_segment([[row_of(frame) for frame in BUILT.frames]], {})


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
    "bundle": (open_bundle, [packed(FILES)]),
    "time-stamp": (read_timestamp, [tsa.answer(SIGNER, sha(NOTE))]),
    "parquet": (rows, [segment()]),
}
