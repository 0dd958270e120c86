"""Stores opened for reading are neither made nor changed."""

import pytest

from sealtape.indexer.cli.stores import index_of, keyring_of, ledger_of
from sealtape.schemas.errors import StoreError
from tests.factories.deployments import make_site, seal, tree_state


@pytest.mark.parametrize("opened", [index_of, ledger_of, keyring_of])
async def test_a_store_that_is_not_there_is_not_made(tmp_path, opened):
    site = make_site(tmp_path / "site")
    before = tree_state(site.folder)
    with pytest.raises(StoreError, match="There is no"):
        async with opened(site.settings):
            pass
    assert tree_state(site.folder) == before


async def test_reading_changes_nothing(recorded):
    settings = recorded.site.settings
    before = tree_state(recorded.site.folder)
    async with index_of(settings) as index, ledger_of(settings) as ledger:
        assert await ledger.session(recorded.closed.session) is not None
        assert (await index.session(recorded.closed.session.hex())).user == "ada"
    async with keyring_of(settings) as keyring:
        assert await keyring.get(recorded.closed.session, 0, "data")
    assert tree_state(recorded.site.folder) == before


async def test_a_snapshot_stays_as_it_was(tmp_path):
    site = make_site(tmp_path / "site")
    await seal(site, [site.session()])
    async with ledger_of(site.settings, snapshot=True) as early:
        assert len([row async for row in early.sessions()]) == 1
        await seal(site, [site.session()])
        assert len([row async for row in early.sessions()]) == 1
        async with ledger_of(site.settings) as late:
            assert len([row async for row in late.sessions()]) == 2


async def test_writing_is_refused(recorded):
    async with keyring_of(recorded.site.settings) as keyring:
        with pytest.raises(StoreError):
            await keyring.destroy(recorded.closed.session)
