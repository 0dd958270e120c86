"""A deployment is one folder: stopped, copied, verified elsewhere; or started again to go on."""

import shutil

from tests.journeys.lab import Lab


async def some_work(lab, mark):
    """A session with rows, an error and a COPY."""
    script = f"""
    select '{mark}' as {mark}, n from generate_series(1, 5) n;
    select nope;
    copy (select generate_series(1, 2000)) to stdout;
    """
    code, _, err = await lab.psql(lab.dsn(), stdin=script.encode())
    assert code == 0
    assert "nope" in err


def modified(folder):
    """Every file with its size and time of change."""
    stats = {path: path.stat() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


async def test_a_stopped_deployment_is_copied_and_the_copy_is_whole(tmp_path, postgres_server):
    async with Lab(tmp_path / "here", postgres_server.port) as lab:
        await lab.dev()
        await some_work(lab, "first")
        async with lab.asyncpg() as connection:  # still open when the interrupt comes
            await connection.execute("select 1 as while_it_stops")
            assert await lab.front.stop() == 0
            assert connection.is_closed()
        assert not (lab.folder / "run/listeners.json").exists()
        copy = tmp_path / "elsewhere" / "copy"
        shutil.copytree(lab.folder, copy)
        config = copy / "sealtape.toml"
        shutil.rmtree(lab.folder)

        before = modified(copy)
        report = await lab.verify(config=config)
        assert (report["verdict"], report["findings"]) == ("verified", [])
        assert report["sessions"] == 3
        after = modified(copy)
        changed = {path.name for path in set(before) ^ set(after)}
        changed |= {path.name for path in set(before) & set(after) if before[path] != after[path]}
        assert changed == set()

        sessions = await lab.lines("sessions", config=config)
        assert [each["state"] for each in sessions] == ["sealed", "sealed"]
        assert [each["close_reason"] for each in sessions] == ["shutdown", "client"]
        shown = await lab.cli("replay", sessions[1]["session"], config=config)
        assert "first" in shown
        assert 'column "nope" does not exist' in shown
        raw = await lab.cli(
            "replay", sessions[0]["session"], "--raw", "server", config=config, binary=True
        )
        assert b"this gateway is shutting down" in raw


async def test_a_deployment_is_started_again_and_goes_on(tmp_path, postgres_server):
    async with Lab(tmp_path, postgres_server.port) as lab:
        for boot, mark in enumerate(("first", "second", "third"), 1):
            await lab.dev()
            await some_work(lab, mark)
            found = await lab.sealed(boot)
            assert [each.commands for each in found] == [3] * boot
            if boot == 2:
                await lab.front.kill()  # all in one process: its journal is recovered
            else:
                assert await lab.front.stop() == 0
        report = await lab.verify()
        assert (report["verdict"], report["findings"]) == ("verified", [])
        assert report["sessions"] == 6
        journals = await lab.lines("sessions", "protocol:journal")
        assert [each["close_reason"] for each in journals] == ["shutdown", "aborted", "shutdown"]
        hits = await lab.lines("search", "first")
        shown = await lab.cli("replay", hits[0]["session"], "--at", str(hits[0]["seq"]))
        assert "first" in shown
