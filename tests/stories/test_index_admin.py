"""Who may edit and delete any document of the search index."""

import asyncio
import json
import sqlite3
from contextlib import closing

import pytest

from sealtape.indexer.cli.main import main
from sealtape.indexer.node import rebuild_index
from tests.factories.deployments import make_site, seal
from tests.stories.deployed import STATEMENTS, found, judged


@pytest.fixture
async def searched(tmp_path):
    site = make_site(tmp_path / "searched")
    built = site.session(commands=2, statements=STATEMENTS)
    await seal(site, [built])
    await rebuild_index(site.settings)
    return site


@pytest.fixture
def command(searched, capsys):
    """Run a command on it: the exit code, and the one line of JSON."""

    async def call(*words):
        capsys.readouterr()
        code = await asyncio.to_thread(main, ["-c", str(searched.config), *words])
        return code, json.loads(capsys.readouterr().out)

    return call


def harm(site, statement):
    with closing(sqlite3.connect(site.folder / "index.db")) as index, index:
        assert index.execute(statement).rowcount


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE commands SET body=replace(body, 'secrets', 'weather')",
        "DELETE FROM commands WHERE body LIKE '%secrets%'",
    ],
)
async def test_he_edits_and_hides_and_the_recordings_say_what_was(searched, command, statement):
    """Verification never reads the index, and the index is made anew from what verifies."""
    assert await found(searched) == STATEMENTS
    harm(searched, statement)
    assert await found(searched) != STATEMENTS
    (name,) = (session.hex() for session in searched.numbers)
    _, shown = await command("show", name, "--json")
    assert shown["verified"] is False, "nobody is told that an index is evidence"
    code, checked = await command("show", name, "--verify", "--json")
    assert (code, checked["verified"]) == (1, False)
    assert checked["verify_reason"].startswith("index differs from the record")
    report = await judged(searched, key=searched.indexer)
    assert report.verdict == "verified"
    await rebuild_index(searched.settings)
    assert await found(searched) == STATEMENTS


async def test_what_he_left_alone_is_confirmed(searched, command):
    (name,) = (session.hex() for session in searched.numbers)
    code, shown = await command("show", name, "--verify", "--json")
    assert (code, shown["verified"], shown["verify_reason"]) == (0, True, None)
    assert all(line["verified"] for line in shown["statements"])


async def test_a_hit_that_he_edited_is_not_what_was_recorded(searched, command):
    code, hit = await command("search", "secrets", "--verify", "--json")
    assert (code, hit["verified"]) == (0, True)
    harm(searched, """UPDATE commands SET body=replace(body, '"read"', '"write"')""")
    code, hit = await command("search", "secrets", "--verify", "--json")
    assert (code, hit["verified"]) == (1, False)
    assert hit["verify_reason"] == "index differs from the record: effect"
