"""The largest value that PostgreSQL sends goes through in little memory, every byte recorded."""

import asyncio
import hashlib
import struct

import psutil

from tests.journeys.lab import SEALTAPE, Lab
from tests.journeys.taps import AUTHENTICATION_OK

LARGEST = 1_073_741_800
GROWTH = 16 << 20


async def ask(lab, statement):
    """Run a statement with the barest client: hash and size of what came from AuthenticationOk."""
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port, limit=256 << 10)
    startup = struct.pack(">I", 3 << 16) + b"user\0ada\0database\0shop\0\0"
    writer.write(struct.pack(">I", len(startup) + 4) + startup)
    await reader.readexactly(9)
    for kind, body in ((b"p", lab.token()), (b"Q", statement)):
        data = body.encode() + b"\0"
        writer.write(kind + struct.pack(">I", len(data) + 4) + data)
    writer.write(b"X\0\0\0\4")
    found, size = hashlib.sha256(), 0
    while data := await reader.read(256 << 10):
        if not size:
            assert data.startswith(AUTHENTICATION_OK)
        found.update(data)
        size += len(data)
    writer.close()
    return found.hexdigest(), size


async def most_memory(process, stopping):
    """Watch the resident size until told to stop; return the most there was."""
    most = 0
    while not stopping.is_set():
        most = max(most, process.memory_info().rss)
        await asyncio.sleep(0.02)
    return most


async def replayed(lab, session):
    """Hash and size of `replay --raw server`, and the most memory it took."""
    process = await asyncio.create_subprocess_exec(
        *SEALTAPE, "replay", "-c", str(lab.config), session, "--raw", "server",
        stdout=asyncio.subprocess.PIPE, limit=1 << 20,
    )  # fmt: skip
    found, size = hashlib.sha256(), 0
    while data := await process.stdout.read(1 << 20):
        found.update(data)
        size += len(data)
    assert await process.wait() == 0
    return found.hexdigest(), size


async def test_the_largest_value_streams_through_a_window(tmp_path, postgres_server):
    async with Lab(tmp_path, postgres_server.port) as lab:
        node = await lab.capture()
        _, size = await ask(lab, "select repeat('x', 40000000)")  # all that is allocated once
        assert size > 40_000_000
        process, stopping = psutil.Process(node.pid), asyncio.Event()
        before = process.memory_info().rss
        watching = asyncio.create_task(most_memory(process, stopping))
        told = await ask(lab, f"select repeat('x', {LARGEST})")
        stopping.set()
        most = await watching
        assert told[1] > LARGEST
        assert most - before <= GROWTH, f"it grew by {(most - before) / 2**20:.1f} MiB"
        ingest, index = lab.ingest(), lab.index()
        _, session = await lab.sealed(2, seconds=120)
        assert await replayed(lab, session.session.hex()) == told
        assert session.bytes_server == told[1]
        assert await node.stop() == 0
        assert await ingest.stop() == 0
        assert await index.stop() == 0
        report = await lab.verify("--all")
        assert report["verdict"] == "verified"
