"""kill -9 of a capture node under load: nothing that went on is missing, nothing is there twice."""

import asyncio
import random

from tests.journeys.lab import run, tapped_lab
from tests.journeys.taps import Tap
from tests.servers.postgres import program

KILLS = 20
CLIENTS = 4
SCRIPT = """\
\\set id random(1000000000000, 9000000000000)
insert into kills values (:id);
select repeat('y', (:id::bigint % 20000)::int), :id::bigint;
"""
MODES = ("simple", "extended", "prepared")


async def load(lab, outer, script, mode):
    """pgbench until its gateway dies."""
    return await run(
        program("pgbench"), "-n", "-c", CLIENTS, "-T", 60, "-M", mode, "-f", script,
        lab.dsn(port=outer.port),
    )  # fmt: skip


async def one_life(lab, inner, outer, script, mode):
    """Start a node, put it under load, kill it."""
    node = await lab.capture()
    outer.target = node.port
    before = len(inner.connections)
    bench = asyncio.create_task(load(lab, outer, script, mode))

    async def busy():
        assert not bench.done(), bench.result()
        return sum(len(each.sent) > 3000 for each in inner.connections[before:])

    await lab.until(busy, lambda count: count >= CLIENTS - 1, what="load")
    await asyncio.sleep(random.random() * 0.25)  # anywhere
    await node.kill()
    code, _, _ = await bench
    assert code != 0  # it was cut off


async def idle(lab, server):
    """Wait until the target has ended all it was asked to do."""

    async def working():
        return server.sql("select count(*) from pg_stat_activity where usename = 'scram'")

    await lab.until(working, lambda count: count == "0", what="the target at rest")


async def test_twenty_times_killed_and_every_byte_is_there_once(tmp_path, postgres_server):
    postgres_server.sql("drop table if exists kills; create table kills (id bigint)")
    script = tmp_path / "script.sql"
    script.write_text(SCRIPT)
    capture = "frame_ms = 50\ncheckpoint_s = 0.5"
    async with (
        tapped_lab(tmp_path, postgres_server, capture=capture) as (lab, inner),
        Tap(0) as outer,
    ):
        ingest, index = lab.ingest(), lab.index()
        for life in range(KILLS):
            await one_life(lab, inner, outer, script, MODES[life % len(MODES)])
        last = await lab.capture()
        await outer.quiet()
        await inner.quiet()
        await idle(lab, postgres_server)
        clients = outer.sessions()
        assert sum(each.server_bytes() != b"" for each in clients) >= KILLS * (CLIENTS - 1)

        await lab.adopted()
        assert await last.stop() == 0
        await lab.all_sealed()
        sessions = await lab.sessions()
        asked = await compare(lab, sessions, clients, inner.sessions())
        executed = postgres_server.sql("select id from kills").split()
        assert len(executed) == len(set(executed)) > KILLS
        assert [each for each in executed if each.encode() not in asked] == []

        found = await lab.sessions("protocol:journal")
        ends = sorted(each.close_reason for each in found)
        assert ends == ["aborted"] * KILLS + ["shutdown"]  # every boot's journal is there
        assert await ingest.stop() == 0
        assert await index.stop() == 0
        report = await lab.verify()
        assert (report["verdict"], report["findings"]) == ("verified", [])
        assert report["sessions"] == len(sessions) + KILLS + 1


async def compare(lab, sessions, clients, targets):
    """Compare recordings with taps; return all that clients asked, by the recordings."""
    asked, ended = [], {"aborted": 0, "client": 0}
    clients = list(clients)
    unmatched = [each for each in targets if each.client_bytes()]
    async with lab.stores() as stores:
        for session in sessions:
            client_in, target_out, target_in, client_out = await lab.legs(session.session)
            # what is recorded was sent, and whatever was received is recorded
            theirs = [
                each
                for each in clients  # a port may come again in another life; a cancel key does not
                if session.source == f"127.0.0.1:{each.port}"
                and each.client_bytes().startswith(client_in)
                and client_out.startswith(each.server_bytes())
            ]
            assert len(theirs) >= 1
            clients.remove(max(theirs, key=lambda each: len(each.server_bytes())))
            assert client_in.startswith(target_out)
            for target in list(unmatched):
                received = target.server_bytes().startswith(target_in)  # its cancel key is unique
                if received and target_out.startswith(target.client_bytes()):
                    unmatched.remove(target)
            ended[session.close_reason] += 1
            epochs = await stores.ledger.epochs(session.session)
            assert len(epochs) == 1 + (session.close_reason == "aborted")
            asked.append(client_in)
    assert unmatched == []
    assert ended["aborted"] >= KILLS * (CLIENTS - 1)
    assert [each for each in clients if each.server_bytes()] == []  # all others were told nothing
    return b"\n".join(asked)
