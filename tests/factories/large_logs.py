"""Logs in a folder, as the vault has them, of any size, with a signed checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from sealtape.schemas.cosignatures import cosign
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.tlog.tiles import Growth
from tests.factories.growing import GrowingLog


def entry(index):
    return b'{"n":%d}' % index


@dataclass
class LargeLog:
    """Where it is, its key and its size; `old` has the checkpoints of smaller sizes."""

    folder: Path
    keys: GrowingLog
    size: int
    note: bytes
    old: dict

    @property
    def vkey(self):
        return self.keys.signer.vkey


def write(folder, tiles):
    for tile, data in tiles.items():
        path = folder / tile.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def grow(folder, size, stops=(), *, entry=entry):
    """A log of so many entries below a folder, and the notes at `stops`."""
    keys, growth, old = GrowingLog(), Growth(0, {}), {}
    for stop in (*stops, size):
        write(folder, growth.append(entry(index) for index in range(growth.size, stop)))
        text = Checkpoint(keys.origin, stop, growth.root()).text()
        old[stop] = keys.signer.sign(text)
    note = old[size] + cosign(keys.origin, keys.ml_dsa, text, 1_795_392_000).encode()
    (folder / "checkpoint").write_bytes(note)
    return LargeLog(folder, keys, size, note, old)
