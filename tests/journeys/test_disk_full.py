"""A spool without room: clients stall, then are told; no request goes on unrecorded."""

import asyncio
import contextlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import asyncpg
import psycopg
import pytest

from sealtape.schemas.slices import TARGET_OUT
from tests.journeys.lab import Room, tapped_lab
from tests.journeys.taps import Tap

# More than what may be left of a file's last block, or become free when the bus has taken the first
# statement; nothing that gets smaller.
PADDING = f"/*{os.urandom(30_000).hex()}*/"
SECOND = f"insert into room values (2) {PADDING}"


class Tmpfs:
    """A small disk of its own for the spool."""

    def __init__(self, lab):
        self.folder = lab.folder / "disk"
        self.filler = self.folder / "filler"

    def __enter__(self):
        self.folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", self.folder]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            pytest.skip("a tmpfs cannot be mounted here; ENOSPC is injected in the other tests")
        return self

    def __exit__(self, *error):
        subprocess.run(["umount", "-l", self.folder], check=True)

    def fill(self):
        descriptor = os.open(self.filler, os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(descriptor, bytes(4096))
        os.close(descriptor)

    def free(self):
        self.filler.unlink()

    async def capture(self, lab):
        return await lab.capture()


class Injected:
    """ENOSPC from the file layer."""

    def __init__(self, lab):
        self.flag = lab.outer / "full"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def fill(self):
        self.flag.touch()

    def free(self):
        self.flag.unlink()

    async def capture(self, lab):
        script = Path(__file__).with_name("full_disk.py")
        command = (sys.executable, "-P", script, self.flag, "-c", lab.config, "--json")
        lab.front = Room(command, lab.outer / "capture.log", program=())
        lab.rooms.append(lab.front)
        return await lab.front.started()


def query(text):
    """A simple query's message."""
    return b"Q" + struct.pack(">I", len(text) + 5) + text.encode() + b"\0"


DISKS = {"tmpfs": Tmpfs, "injected": Injected}


@contextlib.asynccontextmanager
async def world(folder, server, disk, *, grace_s, target=""):
    """A lab whose spool is on `disk`: (lab, tap before the target, disk)."""
    server.sql("drop table if exists room; create table room (n int)")
    spool = "disk/spool" if disk == "tmpfs" else "spool"
    capture = f"grace_s = {grace_s}\ncheckpoint_s = 0.5"
    settings = {"spool": spool, "capture": capture, "target": target}
    async with tapped_lab(folder, server, **settings) as (lab, inner):
        with DISKS[disk](lab) as full:
            await full.capture(lab)
            ingest, index = lab.ingest(), lab.index()
            try:
                yield lab, inner, full
            finally:
                with contextlib.suppress(FileNotFoundError):
                    full.free()
                assert await lab.front.stop() == 0
                assert await ingest.stop() == 0
                assert await index.stop() == 0


async def refused(lab):
    """What a new client is told, empty when it gets in."""
    try:
        async with lab.asyncpg():
            return ""
    except asyncpg.PostgresError as exc:
        return exc.sqlstate


async def unforwarded(lab, inner, session):
    """What of a session's recording the target did not see; it saw nothing that is not there."""
    recorded = (await lab.legs(session.session))[TARGET_OUT]
    seen = [each.client_bytes() for each in inner.sessions()]
    (first,) = (each for each in seen if each and recorded.startswith(each))
    return recorded.removeprefix(first)


async def all_but_the_journal(lab):
    """Sessions are whole; the node's journal states that it could not record for a while."""
    (journal,) = await lab.lines("sessions", "protocol:journal")
    report = await lab.verify(expect=2)
    assert {each["session"] for each in report["findings"]} == {journal["session"]}
    assert {each["verdict"] for each in report["findings"]} == {"incomplete"}


@pytest.mark.parametrize("disk", DISKS)
async def test_clients_are_told_and_nothing_goes_on_unrecorded(tmp_path, postgres_server, disk):
    async with world(tmp_path, postgres_server, disk, grace_s=1.5) as (lab, inner, full):
        async with Tap(lab.port) as outer:
            dsn = lab.dsn(port=outer.port)
            connection = await asyncio.to_thread(psycopg.connect, dsn, autocommit=True)
            await asyncio.to_thread(connection.execute, "insert into room values (1)")
            before = bytes(inner.sessions()[0].sent)
            full.fill()
            waiting = asyncio.create_task(asyncio.to_thread(connection.execute, SECOND))
            await asyncio.sleep(0.5)
            assert not waiting.done()  # it stalls
            with pytest.raises(psycopg.Error) as told:
                await asyncio.wait_for(waiting, 30)
            assert told.value.sqlstate == "58030"
            assert "can no longer be recorded" in str(told.value)
            connection.close()
        assert await refused(lab) == "57P03"
        assert bytes(inner.sessions()[0].sent) == before
        assert postgres_server.sql("select n from room") == "1"
        full.free()
        await lab.until(lambda: refused(lab), lambda code: not code, what="room again")
        async with lab.asyncpg() as connection:
            await connection.execute("insert into room values (3)")

        async def over():
            return [each for each in await lab.sessions() if each.state == "sealed"]

        found = await lab.until(over, lambda found: len(found) >= 3)
        assert found[0].close_reason == "spool"
        for session in (found[0], found[-1]):
            assert await unforwarded(lab, inner, session) == b""
        client_in, _, _, client_out = await lab.legs(found[0].session)
        assert client_out == outer.connections[0].server_bytes()  # the error too
        assert outer.connections[0].client_bytes().startswith(client_in)
        assert query(SECOND) in client_in  # it was read, and went no further
        assert postgres_server.sql("select n from room order by n") == "1\n3"
    await all_but_the_journal(lab)


async def test_room_within_the_grace_time_and_nobody_notices(tmp_path, postgres_server):
    async with world(tmp_path, postgres_server, "injected", grace_s=60) as (lab, inner, full):
        async with lab.asyncpg() as connection:
            await connection.execute("insert into room values (1)")
            full.fill()
            before = bytes(inner.sessions()[0].sent)
            waiting = asyncio.create_task(connection.execute(SECOND))
            await asyncio.sleep(1)
            assert not waiting.done()
            assert bytes(inner.sessions()[0].sent) == before
            full.free()
            await asyncio.wait_for(waiting, 30)
            assert await connection.fetchval("select count(*) from room") == 2
        (session,) = await lab.sealed(1)
        assert session.close_reason == "client"
        assert await unforwarded(lab, inner, session) == b""
    await all_but_the_journal(lab)


async def test_who_may_go_on_unrecorded_leaves_a_gap_that_is_stated(tmp_path, postgres_server):
    settings = {"grace_s": 1, "target": 'on_failure = "continue"'}
    async with world(tmp_path, postgres_server, "injected", **settings) as (lab, _, full):
        async with lab.asyncpg() as connection:
            await connection.execute("insert into room values (1)")
            full.fill()
            await asyncio.wait_for(connection.execute(SECOND), 30)
            await connection.execute("insert into room values (3)")
            full.free()

            async def recording():
                await connection.execute("select 1 as after_the_gap")
                return await lab.commands("after_the_gap")

            await lab.until(recording, what="recording again")
        (session,) = await lab.sealed(1)
        assert session.close_reason == "client"
        assert postgres_server.sql("select n from room order by n") == "1\n2\n3"
        raw = await lab.raw(session.session.hex(), "client")
        assert b"values (1)" in raw
        assert b"after_the_gap" in raw
        assert b"values (3)" not in raw
    report = await lab.verify(session.session.hex(), expect=2)
    assert report["verdict"] == "incomplete"
    assert [finding["reason"] for finding in report["findings"]] == [
        "the node states that it did not record here"
    ]
    report = await lab.verify(expect=2)
    assert report["verdict"] == "incomplete"
