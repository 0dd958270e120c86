"""A witness that dies, by kill -9, at each step between a request and its answer."""

import signal
import subprocess
import sys
import textwrap

import pytest

from sealtape.ingest.witness.cosigner import Witness
from sealtape.ingest.witness.memory import Memory
from sealtape.schemas.tlog import witnessing
from tests.factories.growing import ORIGIN, GrowingLog, witness_key

CHILD = """
import asyncio, os, pathlib, signal, sys
from sealtape.capture import files
from sealtape.ingest.witness.cosigner import Witness
from sealtape.ingest.witness.memory import Memory
from tests.factories.growing import GrowingLog, witness_key

folder, point = sys.argv[1:]
log = GrowingLog().grow(40)


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def dies_before(owner, name):
    setattr(owner, name, die)


def dies_after(owner, name):
    real = getattr(owner, name)

    def call(*words, **options):
        real(*words, **options)
        die()

    setattr(owner, name, call)


async def main():
    witness = Witness(Memory(pathlib.Path(folder)), [witness_key()], [log.verifier])
    await witness.cosign(log.request(0, 10))
    when, name = point.split(":")
    owners = {"keep": Memory, "replace": pathlib.Path, "sync_directory": files}
    owner = owners.get(name, os)
    {"before": dies_before, "after": dies_after}[when](owner, name)
    lines = await witness.cosign(log.request(10, 20))
    sys.stdout.buffer.write(lines)


asyncio.run(main())
"""

# In the order in which they happen; whether what was seen is then the new tree.
POINTS = {
    "before:keep": False,
    "before:write": False,
    "after:write": False,
    "before:fdatasync": False,
    "after:fdatasync": False,
    "before:replace": False,
    "after:replace": True,
    "before:sync_directory": True,
    "after:sync_directory": True,
    "after:keep": True,
}


@pytest.mark.parametrize("point", POINTS)
async def test_killed_between_keeping_and_answering(tmp_path, point):
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), tmp_path, point],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    assert child.stdout == b""  # nothing was released
    log = GrowingLog().grow(40)
    memory = Memory(tmp_path)  # whoever died holds no lock
    witness = Witness(memory, [witness_key()], [log.verifier])
    size = 20 if POINTS[point] else 10
    assert witness.seen(ORIGIN) == witnessing.Seen(size, log.checkpoint(size).root)
    # Another history from before what may have been cosigned is refused in any case.
    fork = log.fork(5)
    for old in (10, 20):
        with pytest.raises(witnessing.Refusal):
            await witness.cosign(fork.request(old, 20))
    if POINTS[point]:
        # One that goes on from 10 and differs below 20, too.
        with pytest.raises(witnessing.Behind):
            await witness.cosign(log.fork(12).request(10, 20))
        with pytest.raises(witnessing.Inconsistent):
            await witness.cosign(log.fork(12).request(20, 30))
    # The log itself goes on, from what it is told.
    assert await witness.cosign(log.request(size, 40))
    await witness.close()
