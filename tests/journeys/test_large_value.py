"""The largest value that PostgreSQL sends goes through in little memory, every byte recorded."""

import asyncio
import contextlib
import hashlib
import struct

import psutil

from sealtape.indexer.replay import raw
from sealtape.schemas.slices import CLIENT_IN, CLIENT_OUT, TARGET_IN, TARGET_OUT
from tests.journeys.lab import SEALTAPE, Lab
from tests.journeys.taps import AUTHENTICATION_OK, Tap

LARGEST = 1_073_741_800
GROWTH = 16 << 20


class Hashed:
    """The hash and size of a stream too large to keep, from a mark in its first bytes on."""

    def __init__(self):
        self.hash, self.size = hashlib.sha256(), 0
        self._head = b""

    def take(self, data, mark=b""):
        if not self.size:
            self._head += data
            data = self._head[self._head.index(mark) :] if mark in self._head else b""
            assert data or len(self._head) < 1 << 20, "it does not begin"
        self.hash.update(data)
        self.size += len(data)

    @property
    def told(self):
        return self.hash.hexdigest(), self.size


class HashingTap(Tap):
    """A tap that keeps what is sent, and only a hash of what is received."""

    async def _pass(self, reader, writer, kept):
        if not any(kept is each.received for each in self.connections):
            await super()._pass(reader, writer, kept)
            return
        (each,) = (each for each in self.connections if each.received is kept)
        each.hashed = Hashed()
        with contextlib.suppress(OSError, RuntimeError):
            while data := await reader.read(1 << 20):
                each.hashed.take(data, AUTHENTICATION_OK)
                writer.write(data)
                await writer.drain()
            writer.write_eof()


def message(kind, text):
    data = text.encode() + b"\0"
    return kind + struct.pack(">I", len(data) + 4) + data


def asked(statement):
    """What is sent after authentication: a query, and that it was the last."""
    return message(b"Q", statement) + b"X\0\0\0\4"


async def ask(lab, statement):
    """Run a statement with the barest client: hash and size of what came from AuthenticationOk."""
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port, limit=256 << 10)
    startup = struct.pack(">I", 3 << 16) + b"user\0ada\0database\0shop\0\0"
    writer.write(struct.pack(">I", len(startup) + 4) + startup)
    await reader.readexactly(9)
    writer.write(message(b"p", lab.token()) + asked(statement))
    found = Hashed()
    while data := await reader.read(256 << 10):
        found.take(data)
    writer.close()
    return found.told


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
    found = Hashed()
    while data := await process.stdout.read(1 << 20):
        found.take(data)
    assert await process.wait() == 0
    return found.told


async def recorded(lab, session):
    """Hash and size of each leg of a recording, read as it streams."""
    found = {}
    async with lab.stores() as stores:
        for leg in (CLIENT_IN, TARGET_OUT, TARGET_IN, CLIENT_OUT):
            found[leg] = Hashed()
            async for chunk in raw(stores.recording(session), stores.keys, leg):
                found[leg].take(chunk)
    return {leg: each.told for leg, each in found.items()}


def told_of(data):
    return hashlib.sha256(data).hexdigest(), len(data)


async def test_the_largest_value_streams_through_a_window(tmp_path, postgres_server):
    async with HashingTap(postgres_server.port) as tap, Lab(tmp_path, tap.port) as lab:
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
        legs = await recorded(lab, session.session)
        at_target = tap.sessions()[-1]
        assert legs[TARGET_IN] == at_target.hashed.told
        assert legs[TARGET_OUT] == told_of(at_target.client_bytes())
        assert legs[CLIENT_OUT] == told
        assert legs[CLIENT_IN] == told_of(asked(f"select repeat('x', {LARGEST})"))
        assert session.bytes_server == told[1]
        assert await node.stop() == 0
        assert await ingest.stop() == 0
        assert await index.stop() == 0
        report = await lab.verify("--all")
        assert report["verdict"] == "verified"
