"""What a SIEM gets of real sessions: all of it, in time, valid, twice only with the same id."""

import asyncio
import contextlib
import json
import signal
import subprocess
import time

import asyncpg
import pytest

from tests.factories.ocsf import problems
from tests.journeys.lab import SEALTAPE, Lab
from tests.servers.postgres import client_environment

IN_TIME_S = 3.0
SECRET = "hunter2-a-literal"


class Follower:
    """`sealtape events --follow` beside a deployment; each line with the time it came at."""

    def __init__(self, lab):
        self.lab = lab
        self.lines = []

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            *SEALTAPE, "events", "-c", str(self.lab.config), "--follow", "--from-start", "--json",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=client_environment(),
            limit=1 << 20,
        )  # fmt: skip
        self.reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        await self.process.wait()
        await self.reading

    async def _read(self):
        async for line in self.process.stdout:
            self.lines.append((time.monotonic(), json.loads(line)))

    @property
    def events(self):
        return [event for _, event in self.lines]

    async def event(self, good, seconds=60.0):
        """The first event that is good, and when it came."""

        async def found():
            return next(((at, event) for at, event in self.lines if good(event)), None)

        return await self.lab.until(found, seconds=seconds, what="an event")


def code(event):
    return event["metadata"]["event_code"]


def text(event):
    return event.get("query_info", {}).get("query_string", "")


def by_code(events, *codes):
    return [event for event in events if code(event) in codes]


def consistent(events):
    """Events by id; those that came again say the same."""
    by_id = {}
    for event in events:
        assert by_id.setdefault(event["metadata"]["uid"], event) == event
        assert not problems(event)
    return by_id


async def test_a_session_as_a_siem_sees_it(tmp_path, postgres_server, stores):
    async with Lab(tmp_path, postgres_server.port, stores=stores) as lab:
        await lab.dev()
        async with Follower(lab) as siem:
            await siem.event(lambda event: code(event) == "node-start")
            script = f"select '{SECRET}' as mark_one;\nselect nothing from nowhere;\n"
            await lab.psql(lab.dsn(), stdin=script.encode())
            with pytest.raises(asyncpg.PostgresError):
                await lab.connect(token="not.a.token")
            (session,) = await lab.sealed(1)
            await siem.event(lambda event: code(event) == "session-sealed")
            await siem.event(lambda event: code(event) == "session-refused")
        name = session.session.hex()
        of_session = [e for e in siem.events if e["metadata"]["correlation_uid"] == name]
        indexed = by_code(of_session, "session-start", "statement", "session-end")
        start, one, failed, end = [e for e in indexed if e["status"] != "Running"]
        assert (code(start), start["user"]["name"]) == ("session-start", "ada")
        assert start["src_endpoint"]["ip"] == "127.0.0.1"
        assert text(one) == "select ? as mark_one"
        assert (one["status"], one["unmapped"]["sealtape"]["rows"]) == ("Success", 1)
        assert (failed["status"], failed["status_code"]) == ("Failure", "42P01")
        assert end["unmapped"]["sealtape"]["close_reason"] == "client"
        assert end["unmapped"]["sealtape"]["errors"] == 1
        ledger = {code(event) for event in of_session} - {code(event) for event in indexed}
        assert ledger >= {"session-open", "session-sealed", "key-wrapped"}
        assert by_code(siem.events, "segment-sealed", "policy-applied")
        (refused,) = by_code(siem.events, "session-refused")
        assert (refused["status_code"], refused["user"]["name"]) == ("28P01", "unknown")
        assert len(consistent(siem.events)) == len(siem.events), "each came once"
        assert SECRET not in json.dumps(siem.events)
        people = await lab.cli("events", "--class", "session-start")
        assert "ada opened a session on shop." in people


async def test_statements_come_in_time_also_while_they_run(tmp_path, postgres_server, stores):
    async with Lab(tmp_path, postgres_server.port, stores=stores) as lab:
        await lab.dev()
        async with Follower(lab) as siem:
            await siem.event(lambda event: code(event) == "node-start")
            async with lab.asyncpg() as connection:
                took = []
                for attempt in range(
                    5
                ):  # a machine that does ten things at once is no fault of ours
                    began = time.monotonic()
                    await connection.execute(f"select 1 as mark_{attempt}")
                    at, _ = await siem.event(lambda e, n=attempt: f"mark_{n}" in text(e))
                    took.append(at - began)
                assert min(took) < IN_TIME_S, took
                began = time.monotonic()
                sleeping = asyncio.create_task(connection.execute("select pg_sleep(6) as nap"))
                at, running = await siem.event(lambda event: "nap" in text(event))
                assert running["status"] == "Running"
                assert at - began < 6, "it is told while it runs"
                await sleeping
            _, done = await siem.event(lambda e: "nap" in text(e) and e["status"] == "Success")
            assert running["metadata"]["uid"] == done["metadata"]["uid"] + ":0"
            assert done["duration"] >= 6000


async def load(lab, seconds):
    """Sessions of a few statements, one after the other; how many statements there were."""
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        async with lab.asyncpg() as connection:
            for _ in range(5):
                count += 1
                await connection.execute(f"select {count} as mark_{count}")
    return count


async def test_nothing_is_missing_after_readers_were_killed(tmp_path, postgres_server):
    async with Lab(tmp_path, postgres_server.port) as lab:
        await lab.capture()
        rooms = {"ingest": lab.ingest(), "index": lab.index()}
        loads = [asyncio.create_task(load(lab, 8)) for _ in range(2)]
        for _ in range(3):
            for name, make in (("index", lab.index), ("ingest", lab.ingest)):
                await asyncio.sleep(1.0)
                await rooms[name].kill()
                rooms[name] = make()
        counts = await asyncio.gather(*loads)
        sessions = sum(-(-count // 5) for count in counts)
        await lab.sealed(sessions, seconds=120)
        commands = await lab.commands("effect:read")
        assert len(commands) == sum(counts)
        told = set()

        async def complete():
            events = [json.loads(line) for line in (await lab.cli("events", "--json")).splitlines()]
            told.clear()
            told.update(consistent(events))
            return wanted(commands, await lab.sessions()) - told

        await lab.until(complete, lambda missing: not missing, seconds=60, what="all events")
        with contextlib.suppress(AssertionError):
            for room in rooms.values():
                await room.stop(signal.SIGTERM)


def wanted(commands, sessions):
    """The ids that a SIEM must have got."""
    found = {f"{c.session.hex()}:{c.epoch}:{c.seq}:{c.n}" for c in commands}
    found |= {f"{session.id}:0:1:0" for session in sessions}
    return found | {f"{s.id}:0:{s.frames}:session-sealed" for s in sessions}
