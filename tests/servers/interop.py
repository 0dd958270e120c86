"""Programs in Go that check what we write: our own on golang.org/x/mod/sumdb, and tessera's fsck.

interop("checkpoint", note_path, vkey)         status and output; tests/interop/go/main.go says what
interop.verdicts([("checkpoint", [note], [vkey]), …])       many at once
tessera_fsck(url, vkey)                        "" when the log is whole, else what it says
"""

import base64
import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.servers import availability, cache

SOURCES = Path(__file__).parents[1] / "interop" / "go"
_FSCK = "github.com/transparency-dev/tessera/cmd/fsck"


def _digest():
    """A version that changes with the program."""
    found = hashlib.sha256()
    for path in sorted(SOURCES.glob("*")):
        found.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return found.hexdigest()[:12]


def _build_interop(folder):
    # The checkout may be read-only; go.sum pins what is downloaded.
    flags = {"GOFLAGS": "-mod=readonly -buildvcs=false", "CGO_ENABLED": "0"}
    cache.run("Go", "go", "build", "-trimpath", "-o", folder / "interop", ".", cwd=SOURCES, **flags)


def _build_fsck(folder):
    cache.go_program(_FSCK, cache.VERSIONS["tessera"], folder)


cache.register(cache.Recipe("interop", _digest(), _build_interop, needs=("go",)))
cache.register(cache.Recipe("tessera", cache.VERSIONS["tessera"], _build_fsck, needs=("go",)))


class Interop:
    """Our program."""

    KIND, PARTS = "interop", ("interop",)

    def __init__(self):
        self.program = cache.folder("interop") / "interop"

    def __call__(self, *arguments, timeout=120):
        done = subprocess.run(
            [self.program, *map(str, arguments)], check=False, timeout=timeout,
            capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def verdicts(self, questions):
        """(check, inputs, keys) each; None for what holds, else why it does not."""
        lines = [
            json.dumps({
                "check": check,
                "inputs": [base64.b64encode(one).decode() for one in inputs],
                "keys": list(keys),
            })
            for check, inputs, keys in questions
        ]  # fmt: skip
        done = subprocess.run(
            [self.program, "verdicts"], check=False, timeout=600, capture_output=True, text=True,
            input="".join(f"{line}\n" for line in lines),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answers = done.stdout.splitlines()
        assert len(answers) == len(lines)
        return [None if answer == "0" else answer.removeprefix("1 ") for answer in answers]


class Fsck:
    """tessera's auditor. Its status is always 0: what it says counts."""

    KIND, PARTS = "tessera", ("tessera",)

    def __call__(self, url, vkey, folder):
        key = folder / "log.vkey"
        key.write_text(vkey)
        done = subprocess.run(
            [
                cache.folder("tessera") / "fsck", f"-storage_url={url}", f"-public_key={key}",
                "-ui=false", "-logtostderr", "-v=1", "-N=4",
            ],
            check=False, timeout=300, capture_output=True, text=True,
        )  # fmt: skip
        said = done.stderr
        whole = "Completed ranges" in said and "failed" not in said and done.returncode == 0
        return "" if whole else said or "nothing"


@pytest.fixture(scope="session")
def interop():
    """Our program in Go."""
    _not_in_containers(Interop)
    return Interop()


@pytest.fixture(scope="session")
def tessera_fsck():
    """tessera's fsck."""
    _not_in_containers(Fsck)
    return Fsck()


def _not_in_containers(kind):
    if availability.mode() == "containers":
        pytest.skip(f"{availability.SKIPPED}{kind.KIND}, and SEALTAPE_SERVERS=containers")
    availability.need(kind)
