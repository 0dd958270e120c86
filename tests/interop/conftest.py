"""A log of a million entries in a folder, as the vault has it, with a signed checkpoint."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from sealtape.schemas.cosignatures import ED25519, cosign
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.tlog.tiles import Growth
from tests.factories.growing import GrowingLog, witness_key

SIZE = 1_000_077  # a partial tile on each level
OLD = (1, 255, 256, 65_536, 300_000, 999_999)


def entry(index):
    return b'{"n":%d}' % index


@dataclass
class BigLog:
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


def grow(folder, size, stops=()):
    """A log of so many entries below a folder, and the notes at `stops`."""
    keys, growth, old = GrowingLog(), Growth(0, {}), {}
    for stop in (*stops, size):
        write(folder, growth.append(entry(index) for index in range(growth.size, stop)))
        text = Checkpoint(keys.origin, stop, growth.root()).text()
        old[stop] = keys.signer.sign(text)
    note = old[size] + cosign(keys.origin, keys.ml_dsa, text, 1_795_392_000).encode()
    (folder / "checkpoint").write_bytes(note)
    return BigLog(folder, keys, size, note, old)


@pytest.fixture(scope="session")
def big_log(tmp_path_factory):
    return grow(tmp_path_factory.mktemp("log"), SIZE, OLD)


@pytest.fixture
def make_log(tmp_path):
    """Logs of any size."""
    return lambda size: grow(tmp_path / f"log-{size}", size)


@pytest.fixture
def small_log(tmp_path):
    """300 entries."""
    return grow(tmp_path / "log", 300, (1, 7, 256))


@pytest.fixture
def office():
    """A witness: its verifier key, and what adds its cosignature to a note."""
    key = witness_key()
    assert key.algorithm == ED25519

    def cosigned(note):
        text = note.partition(b"\n\n")[0].decode() + "\n"
        return note + cosign(key.name, key.private, text, 1_795_392_000).encode()

    return key.vkey, cosigned
