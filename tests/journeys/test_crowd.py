"""Many sessions at once, while strangers flood the listener and scanners talk nonsense to it."""

import asyncio
import contextlib
import os
import ssl
import struct
from collections import Counter

from sealtape.schemas.facts import HEARTBEAT, NODE, decode_facts
from sealtape.schemas.frames import Kind
from sealtape.schemas.slices import CLIENT_IN
from tests.journeys.lab import Lab

SESSIONS = 200
AT_ONCE = 16
FLOOD = 120
PER_ADDRESS = 32
SETTINGS = f"max_per_address = {PER_ADDRESS}\nauth_timeout_s = 3\nheartbeat_s = 0.5"

SSL_REQUEST = struct.pack(">II", 8, 80877103)
GARBAGE = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "zeroes": bytes(64),
    "ones": b"\xff" * 64,
    "huge": struct.pack(">II", 1 << 30, 3 << 16),
    "short": struct.pack(">I", 3),
    "half": struct.pack(">II", 200, 3 << 16) + b"user\0",
    "nothing": b"",
    "clear-behind-ssl": SSL_REQUEST + b"in clear, behind an SSLRequest",
    "twice": struct.pack(">II", 8, 80877104) * 2,
    "odd": struct.pack(">II", 16, 3 << 16) + b"user\0ada",
    "no-user": struct.pack(">II", 9, 3 << 16) + b"\0",
    "tls-hello": bytes.fromhex("1603010005") + b"hello",
}


async def stranger(lab, data, address="127.0.0.3"):
    """Say something and leave; return what was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port, local_addr=(address, 0))
    answer = b""
    with contextlib.suppress(OSError):
        writer.write(data)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(-1), 30)
    writer.close()
    return answer


async def silent(lab):
    """Connect and say nothing: how the gateway ends it."""
    connected = await asyncio.open_connection("127.0.0.1", lab.port, local_addr=("127.0.0.2", 0))
    with contextlib.suppress(OSError):
        assert await asyncio.wait_for(connected[0].read(-1), 30) == b""
    connected[1].close()


async def scanner(lab):
    """A scanner that tries TLS as a browser would."""
    context = ssl.create_default_context()  # it does not trust the certificate
    with contextlib.suppress(OSError, ssl.SSLError):
        await asyncio.open_connection(
            "127.0.0.1", lab.port, ssl=context, local_addr=("127.0.0.3", 0)
        )
        raise AssertionError


async def short(lab, number, gate):
    """One of many sessions."""
    async with gate, lab.asyncpg() as connection:
        await connection.execute("insert into crowd values ($1)", number)
        assert await connection.fetchval("select n from crowd where n = $1", number) == number
        await connection.execute(f"select 1 as crowd_{number}_")


async def counted(lab):
    """What the journal counted so far, and the most live sessions that a heartbeat listed."""
    counts, live = Counter(), 0
    async with lab.stores(indexer=True) as stores:
        (journal,) = await lab.sessions("protocol:journal")
        async for frame in stores.recording(journal.session).frames():
            if frame.kind != Kind.FACTS:
                continue
            for fact in decode_facts(await stores.keys.open(frame), frame.ts_ns).facts:
                if fact.kind == NODE and fact.status == "counted":
                    counts.update({name: int(n) for name, n in fact.attributes.items()})
                if fact.kind == HEARTBEAT:
                    live = max(live, len(fact.live))
    return counts, live


async def test_a_crowd_works_while_strangers_knock(tmp_path, postgres_server):
    postgres_server.sql("drop table if exists crowd; create table crowd (n int)")
    async with Lab(tmp_path, postgres_server.port, capture=SETTINGS) as lab:
        await lab.dev()
        gate = asyncio.Semaphore(AT_ONCE)
        noise = [*GARBAGE.values(), *(os.urandom(40) for _ in range(20))]
        strangers = [*(silent(lab) for _ in range(FLOOD)), *(stranger(lab, data) for data in noise)]
        strangers += [scanner(lab) for _ in range(3)]
        async with lab.asyncpg() as lasting:
            await asyncio.gather(
                *strangers, *(short(lab, number, gate) for number in range(SESSIONS))
            )
            assert await lasting.fetchval("select count(*) from crowd") == SESSIONS

            async def all_counted():
                return await counted(lab)

            counts, live = await lab.until(
                all_counted, lambda found: sum(found[0].values()) >= len(strangers)
            )
        assert sum(counts.values()) == len(strangers), counts
        assert counts["over-limit"] >= FLOOD - PER_ADDRESS
        assert counts["timeout"] >= PER_ADDRESS
        assert counts["garbage"] > 10
        assert "error" not in counts
        assert live >= 1

        found = await lab.sealed(SESSIONS + 1)
        assert await lab.front.stop() == 0
        assert {each.close_reason for each in found} == {"client"}
        await each_has_its_own(lab, found)
        report = await lab.verify()
        assert (report["verdict"], report["findings"]) == ("verified", [])
        assert report["sessions"] == SESSIONS + 2
        assert "Traceback" not in lab.logs()


async def each_has_its_own(lab, sessions):
    """No session's bytes are in another's recording."""
    seen = []
    for session in sessions:
        client_in = (await lab.legs(session.session))[CLIENT_IN]
        seen += [n for n in range(SESSIONS) if f"crowd_{n}_".encode() in client_in]
    assert sorted(seen) == list(range(SESSIONS))
