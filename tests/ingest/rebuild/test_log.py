"""The log after its ledger was lost: the same entries, and it goes on without a fork."""

from dataclasses import replace

import pytest

from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.tlog.kept import recall
from sealtape.ingest.tlog.names import name_of
from sealtape.ingest.tlog.store import CHECKPOINT, PENDING, LogStore
from sealtape.ingest.vault import open_vault
from sealtape.schemas.errors import StoreCorrupt
from sealtape.schemas.tlog.records import LogStart, encode_entry, parse_entry
from sealtape.schemas.tlog.tiles import ENTRIES, Growth, Tile, encode_entries
from tests.factories.deployments import make_site, seal
from tests.factories.logs import Killed, Life, grow_log, kinds, read_log
from tests.factories.s3_vaults import SECRET_VARIABLE, s3_url
from tests.ingest.rebuild.test_run import (  # noqa: F401 - `ledgers` is a fixture
    assert_same,
    ledgers,
    original,
    rebuilt,
    trouble,
    use,
)

AGAIN = "sqlite:again.db"


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "site")


async def log_rows(site, url):
    """All that the ledger has of the log, but for its writer's cursor."""
    ledger = await open_ledger(url, site.folder, read_only=True)
    try:
        state = await ledger.log_state()
        entries = [
            entry
            for number in range(1, state.number + 1)
            for entry in await ledger.log_entries(number, limit=100_000)
        ]
        unsealed = [item.head for item in await ledger.unsealed()]
        return replace(state, cursor=b""), entries, unsealed
    finally:
        await ledger.close()


async def recalled(site, url):
    """What the log's writer begins with."""
    ledger = await open_ledger(url, site.folder)
    vault = await open_vault(site.settings.stores.vault, site.folder)
    try:
        return await recall(ledger, vault, await ledger.log_state())
    finally:
        await ledger.close()
        await vault.close()


async def edit_log(site, work):
    """Change the log's objects in the vault."""
    vault = await open_vault(site.settings.stores.vault, site.folder)
    try:
        return await work(vault, LogStore(vault, 1))
    finally:
        await vault.close()


async def test_the_log_comes_back_and_goes_on(site):
    await seal(site, [site.session(commands=3), site.session(close=None), site.session()])
    await grow_log(site)
    expected, before = await original(site), await log_rows(site, site.settings.stores.ledger)
    done, found = await rebuilt(site)
    assert_same(found, expected)
    assert done.entries == len(before[1]) == before[0].size
    assert await log_rows(site, AGAIN) == before
    assert all(place[0] != "log" for place in done.positions)
    entries, _ = await read_log(site)
    use(site, AGAIN)
    await seal(site, [site.session()])
    worker = await grow_log(site)
    assert worker.snapshot().stopped == ""
    grown, _ = await read_log(site)
    assert grown[: len(entries)] == entries
    fresh = [kind for kind in kinds(grown[len(entries) :]) if kind != "heartbeat"]
    assert fresh == ["session-open", "segment", "session-seal"]


async def test_incidents_come_back_from_the_log(site):
    """With the time at which they were found, and where, though the bus has not kept it."""
    pairs = trouble(site)
    await seal(site, pairs=pairs)
    await grow_log(site)
    ledger = await open_ledger(site.settings.stores.ledger, site.folder, read_only=True)
    incidents = {(i.topic, i.offset, i.reason): i for i in await ledger.incidents()}
    await ledger.close()
    assert len(incidents) > 4
    done, _ = await rebuilt(site, with_bus=False)
    ledger = await open_ledger(AGAIN, site.folder)
    found = {(i.topic, i.offset, i.reason): i for i in await ledger.incidents()}
    rows = [row async for row in ledger.sessions()]
    await ledger.close()
    assert found.keys() == incidents.keys()
    for name, item in found.items():
        was = incidents[name]
        same = (item.session, item.epoch, item.seq, item.at_ns)
        assert same == (was.session, was.epoch, was.seq, was.at_ns)
        assert item.detail
    assert done.incidents == len(incidents)
    for row in rows:
        assert row.incidents == sum(i.session == row.session for i in incidents.values())
    entries, _ = await read_log(site)
    use(site, AGAIN)
    await grow_log(site)
    grown, _ = await read_log(site)
    assert [kind for kind in kinds(grown[len(entries) :]) if kind != "heartbeat"] == []


@pytest.mark.parametrize("last", range(1, 14))
async def test_whatever_the_vault_had_when_its_writer_died(site, last):
    """Killed at any write, ledger lost too: the log goes on from what there is."""
    await seal(site, [site.session()])
    await grow_log(site)
    await seal(site, [site.session(), site.session()])
    entries, _ = await read_log(site)
    try:
        await grow_log(site, life=Life(last))
    except* Killed:
        pass
    await rebuilt(site)
    use(site, AGAIN)
    worker = await grow_log(site)
    assert worker.snapshot().stopped == ""
    grown, _ = await read_log(site)
    assert grown[: len(entries)] == entries
    assert kinds(grown).count("session-seal") == 3


async def test_bundles_behind_a_hole_are_removed(site):
    """A writer died among its puts: what nobody signed is made anew, under another time."""
    await seal(site, [site.session()])
    await grow_log(site)
    stray = Tile(ENTRIES, 7)

    async def plant(vault, store):
        await store.create(stray.path, encode_entries([b"x"] * 256))

    await edit_log(site, plant)
    before = await log_rows(site, site.settings.stores.ledger)
    await rebuilt(site)
    assert await log_rows(site, AGAIN) == before

    async def look(vault, store):
        assert await store.get(stray.path) == b""

    await edit_log(site, look)


async def test_a_second_shard_comes_back_with_the_first(site):
    await seal(site, [site.session()])
    await grow_log(site)

    async def begin(vault, store):
        note = await store.get(CHECKPOINT)
        start = encode_entry(LogStart(site.settings.deployment.log, 2, 7, note.decode()))
        await LogStore(vault, 2).put(Growth(0, {}).append([start]))
        return start

    start = await edit_log(site, begin)
    _, entries, _ = await log_rows(site, site.settings.stores.ledger)
    done, _ = await rebuilt(site)
    state, found, _ = await log_rows(site, AGAIN)
    assert (state.number, state.size, state.note, state.witnessed) == (2, 1, b"", b"")
    assert found[:-1] == entries
    assert (found[-1].name, found[-1].entry) == (name_of(parse_entry(start), 0, 2), start)
    assert done.entries == len(found)


async def test_a_long_log_is_summed_up_for_its_writer(site, monkeypatch):
    monkeypatch.setattr("sealtape.ingest.rebuild.log.KEEP_EVERY", 5)
    await seal(site, [site.session()])
    await grow_log(site)
    expected = await recalled(site, site.settings.stores.ledger)
    await rebuilt(site)
    summary, cursor = await recalled(site, AGAIN)
    assert summary.to_json() == expected[0].to_json()
    assert (cursor.segment, cursor.incident, cursor.size) == (0, 0, summary.size)
    use(site, AGAIN)
    assert (await grow_log(site)).snapshot().stopped == ""


async def test_a_pending_checkpoint_that_is_gone_leaves_the_witnessed_one(site):
    await seal(site, [site.session()])
    await grow_log(site)

    async def lose(vault, store):
        await store.drop(PENDING)
        return await store.get(CHECKPOINT)

    note = await edit_log(site, lose)
    await rebuilt(site)
    state, _, _ = await log_rows(site, AGAIN)
    assert (state.note, state.witnessed) == (note, note)
    use(site, AGAIN)
    assert (await grow_log(site)).snapshot().stopped == ""


def bundle_of(site):
    """The widest bundle of the log's first entries."""
    found = list((site.folder / "vault/log/v1/1/tile/entries/000.p").iterdir())
    return max(found, key=lambda path: int(path.name))


HARM = {
    "a bundle is gone": lambda bundle: [path.unlink() for path in bundle.parent.iterdir()],
    "a bundle is cut": lambda bundle: bundle.write_bytes(bundle.read_bytes()[:-1]),
    "an entry is another": lambda bundle: bundle.write_bytes(
        bundle.read_bytes().replace(b'"every_s":600', b'"every_s":601')
    ),
    "an entry is none": lambda bundle: bundle.write_bytes(
        bundle.read_bytes().replace(b'"type":"heartbeat"', b'"type":"heartbleed"'[:18])
    ),
    "a name is none": lambda bundle: bundle.with_name("257").write_bytes(b""),
    "a checkpoint is none": lambda bundle: (bundle.parents[3] / "checkpoint").write_bytes(
        b"nothing"
    ),
}


@pytest.mark.parametrize("harm", HARM)
async def test_a_log_that_was_changed_is_refused(site, harm):
    await seal(site, [site.session()])
    await grow_log(site)
    HARM[harm](bundle_of(site))
    with pytest.raises(StoreCorrupt):
        await rebuilt(site)


async def test_a_segment_that_only_the_log_has_is_missing(site):
    """The end of a chain can be cut off without a trace in it; the log has its last record."""
    await seal(site, [site.session()])
    await seal(site, [site.session()])
    await grow_log(site)
    ledger = await open_ledger(site.settings.stores.ledger, site.folder, read_only=True)
    last = [row.key async for row in ledger.segments()][-1]
    await ledger.close()
    for path in (site.folder / "vault").rglob(last.rpartition("/")[2].split(".")[0] + "*"):
        path.unlink()
    with pytest.raises(StoreCorrupt, match="no manifest in the vault is it"):
        await rebuilt(site)


async def test_a_ledger_with_a_log_is_not_empty(site):
    await grow_log(site)
    with pytest.raises(Exception, match="not empty"):
        await rebuilt(site, url=site.settings.stores.ledger)


async def test_without_a_log_nothing_comes_back(site):
    await seal(site, [site.session()])
    done, _ = await rebuilt(site)
    assert done.entries == 0
    ledger = await open_ledger(AGAIN, site.folder)
    assert (await ledger.log_state()).number == 0
    await ledger.close()


async def test_on_real_stores_too(tmp_path, ledgers, s3_server, monkeypatch):  # noqa: F811
    """Ledger on PostgreSQL, vault on S3."""
    monkeypatch.setenv(SECRET_VARIABLE, s3_server.secret_key)
    site = make_site(tmp_path / "site")
    use(site, s3_url(s3_server, s3_server.bucket()), store="vault")
    use(site, ledgers[0])
    await seal(site, [site.session(), site.session(close=None)])
    await grow_log(site)
    entries, _ = await read_log(site)
    expected, before = await original(site), await log_rows(site, ledgers[0])
    done, found = await rebuilt(site, url=ledgers[1])
    assert_same(found, expected)
    assert await log_rows(site, ledgers[1]) == before
    assert done.entries == len(entries)
