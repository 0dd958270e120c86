"""Who may edit and delete any document of the search index."""

import sqlite3
from contextlib import closing

import pytest

from sealtape.indexer.index import Page, open_index
from sealtape.indexer.node import rebuild_index
from sealtape.indexer.query import parse
from tests.factories.deployments import make_site, seal
from tests.stories.deployed import judged

QUERY = parse("select", now_ns=0)
STATEMENTS = ["select 1 from secrets", "select 2 from orders"]


@pytest.fixture
async def searched(tmp_path):
    site = make_site(tmp_path / "searched")
    built = site.session(commands=2, statements=STATEMENTS)
    await seal(site, [built])
    await rebuild_index(site.settings)
    return site


async def found(site):
    index = await open_index(site.settings.stores.index, site.folder)
    try:
        hits = await index.search_commands(QUERY, Page(limit=10))
        return sorted(hit.text for hit in hits.documents)
    finally:
        await index.close()


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
async def test_he_edits_and_hides_and_the_recordings_say_what_was(searched, statement):
    """Verification never reads the index, and the index is made anew from what verifies."""
    assert await found(searched) == STATEMENTS
    harm(searched, statement)
    assert await found(searched) != STATEMENTS
    report = await judged(searched, key=searched.indexer)
    assert report.verdict == "verified"
    await rebuild_index(searched.settings)
    assert await found(searched) == STATEMENTS
