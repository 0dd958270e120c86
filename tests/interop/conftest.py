"""Logs in a folder for programs of others; one has a million entries."""

import pytest

from sealtape.schemas.cosignatures import ED25519, cosign
from tests.factories.growing import witness_key
from tests.factories.large_logs import grow

SIZE = 1_000_077  # a partial tile on each level
OLD = (1, 255, 256, 65_536, 300_000, 999_999)


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
