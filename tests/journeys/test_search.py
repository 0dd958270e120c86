"""Search while it happens, lineage, groups; and the commands that the README shows."""

import contextlib
import json
import shlex
import statistics
import time
from pathlib import Path

from tests.journeys.lab import SEALTAPE, Lab, run
from tests.servers.postgres import program

ROOT = Path(__file__).resolve().parents[2]
PLACE = "USER:PASSWORD@HOST:5432/DATABASE"
# Below what a search would wait for that finds only what is sealed or closed, and far above the 3 s
# that bench_latency.py measures and asserts: this machine may do ten things at once.
WITHOUT_ITS_END_S = 20.0


async def live(lab, connection, mark):
    """Run the first statement of a session; how long until a search finds it while it is open."""
    began = time.monotonic()
    await connection.execute(f"select 1 as {mark}")

    async def hit():
        return await lab.commands(f"{mark} user:robo")

    await lab.until(hit, what="a live hit", seconds=60)
    return time.monotonic() - began


async def test_a_statement_is_found_before_its_session_ends(tmp_path, postgres_server):
    async with Lab(tmp_path, postgres_server.port) as lab:
        await lab.dev()
        claims = {"agent": "invoice-bot", "on_behalf_of": "grace", "run_id": "run-4711"}
        token = lab.token("robo", ("agents",), **claims)
        took = []
        async with contextlib.AsyncExitStack() as stack:
            for number in range(3):
                connection = await stack.enter_async_context(lab.asyncpg(token=token))
                took.append(await live(lab, connection, f"mark_{number}"))
            assert statistics.median(took) < WITHOUT_ITS_END_S, took
            (shown,) = await lab.lines("search", "mark_2", "agent:invoice-bot")
            assert (shown["state"], shown["ended"]) == ("live", None)
            assert (shown["user"], shown["agent"], shown["run"]) == (
                "robo", "invoice-bot", "run-4711",
            )  # fmt: skip
            assert shown["on_behalf_of"] == ["grace"]
            assert shown["groups"] == ["agents"]
            assert (shown["effect"], shown["rows"]) == ("read", 1)
            assert "mark_2" in await lab.cli("search", "run:run-4711")
            assert "mark_2" in await lab.cli("replay", shown["session"])  # live too
        await lab.sealed(3)
        for query, count in (
            ("group:agents", 3), ("group:dba", 0), ("agent:invoice-bot run:run-4711", 3),
            ("-agent:*", 0), ("user:ada", 0), ("user:robo target:shop mark_0", 1),
        ):  # fmt: skip
            assert len(await lab.sessions(query)) == count, query
        (hit,) = await lab.lines("search", "mark_0")
        assert "mark_0" in await lab.cli("replay", hit["session"], "--at", str(hit["seq"]))


def shell_lines(page, heading):
    """The commands of the fenced block behind a heading, without comments."""
    text = (ROOT / page).read_text().partition(heading)[2]
    block = text.partition("```sh\n")[2].partition("```")[0]
    return [shlex.split(line, comments=True) for line in block.splitlines() if line.strip()]


async def sealtape(lab, words, **environment):
    """Run a documented command as a person in the deployment's terminal does."""
    code, out, err = await run(*SEALTAPE, *words, SEALTAPE_CONFIG=str(lab.config), **environment)
    return code, out, err


async def test_the_commands_of_the_readme(tmp_path, postgres_server):
    _, dev = shell_lines("README.md", "## Five minutes further")
    assert dev[:4] == ["sealtape", "dev", "lab", "--target"]
    target = dev[4].replace(PLACE, postgres_server.url("scram").removeprefix("postgresql://"))
    assert target != dev[4]
    commands = shell_lines("README.md", "In a second terminal:")
    assert [words[:2] for words in commands[1:]] == [
        ["sealtape", "connect"], ["sealtape", "sessions"], ["sealtape", "search"],
        ["sealtape", "replay"], ["sealtape", "verify"], ["sealtape", "export"],
    ]  # fmt: skip
    async with Lab(tmp_path, postgres_server.port) as lab:
        lab.config.write_text(lab.config.read_text().partition("\n[targets.shop]")[0])  # its own
        await lab.dev("--target", target)
        path = f"{Path(program('psql')).parent}:/usr/bin:/bin"
        for words in commands[1:]:
            given = words[1:]
            if words[1] == "connect":
                given = [*given, "-XAt", "-c", "create temp table fresh (a int)"]
                given = [*given, "-c", "insert into fresh values (42)"]
            if words[1] in ("replay", "export"):
                (session,) = await lab.sealed(1)
                given = [session.session.hex()[:12] if w == "SESSION" else w for w in given]
            if words[1] == "export":
                given[given.index("case.zip")] = str(tmp_path / "case.zip")
            if words[1] == "search":
                await lab.until(lambda: lab.commands("fresh effect:write"))
            code, out, err = await sealtape(lab, given, PATH=path)
            assert code == 0, err
            if words[1] in ("sessions", "search", "replay"):
                assert "shop" in out or "fresh" in out
            if words[1] == "verify":
                assert "VERIFIED" in out
        # the first command that docs/connect.md shows, and what it says of `sealtape connect`
        code, out, _ = await sealtape(lab, ["connect", "shop", "--json"])
        assert json.loads(out)["password_env"] == "PGPASSWORD"
        code, token, _ = await sealtape(lab, ["token", "--user", "ada", "--group", "dba"])
        code, out, err = await run(
            program("psql"), json.loads(out)["dsn"], "-XAtc", "select 6 * 7",
            PGPASSWORD=token.strip(),
        )  # fmt: skip
        assert (code, out) == (0, "42\n"), err
        code, out, err = await run(
            program("psql"), f"host=127.0.0.1 port={lab.port} dbname=shop/template1 user=anything",
            "-XAtc", "select current_database()", PGPASSWORD=token.strip(),
        )  # fmt: skip
        assert (code, out) == (0, "template1\n"), err
