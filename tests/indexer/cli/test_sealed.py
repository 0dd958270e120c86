"""Sealed sessions by the first digits of their ids."""

import pytest

from sealtape.indexer.cli.sealed import session_of
from sealtape.ingest.ledger import open_ledger
from sealtape.schemas.errors import Ambiguous, NotFound


@pytest.fixture
async def ledger(recorded):
    site = recorded.site
    opened = await open_ledger(site.settings.stores.ledger, site.folder, read_only=True)
    yield opened
    await opened.close()


async def test_a_beginning_in_either_case(ledger, recorded):
    session = recorded.closed.session
    for given in (session.hex(), session.hex()[:10], session.hex()[:10].upper()):
        assert await session_of(ledger, given) == session


async def test_a_whole_id_is_not_looked_up(ledger):
    assert await session_of(ledger, "ab" * 16) == b"\xab" * 16


async def test_none_or_several(ledger):
    for given in ("no-id", "ffffffffffff0000"):
        with pytest.raises(NotFound):
            await session_of(ledger, given)
    with pytest.raises(Ambiguous, match="3 sessions"):
        await session_of(ledger, "")
