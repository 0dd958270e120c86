"""A program in Go that reads a compose file as `docker compose config` does, by the same library.

compose_config(path)      the project as it was understood; AssertionError with what is wrong
"""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.servers import availability, cache

SOURCES = Path(__file__).parents[1] / "deploy" / "compose"


def _digest():
    """A version that changes with the program."""
    texts = [path.read_bytes() for path in sorted(SOURCES.glob("*"))]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:12]


def _build(folder):
    flags = {"GOFLAGS": "-mod=readonly -buildvcs=false", "CGO_ENABLED": "0"}
    cache.run("Go", "go", "build", "-trimpath", "-o", folder / "compose", ".", cwd=SOURCES, **flags)


cache.register(cache.Recipe("compose", _digest(), _build, needs=("go",)))


class Compose:
    """The program."""

    KIND, PARTS = "compose", ("compose",)

    def __call__(self, path):
        program = cache.folder("compose") / "compose"
        done = subprocess.run([program, path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def compose_config():
    """Reads a compose file."""
    availability.need(Compose)
    return Compose()
