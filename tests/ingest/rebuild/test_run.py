"""A deployment, its ledger lost, and the ledger made anew: row by row the same."""

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from sealtape.capture.bus import open_bus
from sealtape.ingest.ledger import open_ledger, prepare_ledger
from sealtape.ingest.ledger.sqlite import SqliteLedger
from sealtape.ingest.rebuild import rebuild_ledger
from sealtape.ingest.sealer import Limits
from sealtape.ingest.vault import open_vault
from sealtape.schemas import messages
from sealtape.schemas.errors import StoreCorrupt, StoreError
from sealtape.schemas.frames import Frame, Kind
from tests.factories.deployments import (
    interleaved,
    make_site,
    put,
    random_site,
    seal,
    sealing,
)
from tests.factories.s3_vaults import SECRET_VARIABLE, s3_url


async def contents(ledger):
    """All rows that do not say when or by whom they were written."""
    sessions = [row async for row in ledger.sessions()]
    heads = [head for row in sessions for head in await ledger.epochs(row.session)]
    segments = [row async for row in ledger.segments()]
    positions = {place: at for place, at in (await ledger.positions()).items() if at}
    quarantined = [item for place in sorted(positions) for item in await ledger.quarantined(*place)]
    return {
        "segments": {row.key: row.record for row in segments},
        "fragments": {row.key: await fragments_of(ledger, row.id) for row in segments},
        "heads": heads,
        "sessions": sessions,
        "shards": await ledger.shards(),
        "positions": positions,
        "quarantined": [replace(item, at_ns=0, key=bool(item.key)) for item in quarantined],
        "incidents": sorted(
            (replace(item, id=0, at_ns=0) for item in await ledger.incidents()), key=repr
        ),
        "staged": await ledger.staged(0.0),
    }


async def fragments_of(ledger, number):
    return [(row.index, row.record) for row in await ledger.fragments_of(number)]


async def rebuilt(site, url="sqlite:again.db", *, with_bus=True, vault_url=None):
    """Rebuild into another ledger and return what was done, and what it holds."""
    names = site.settings.stores
    bus = open_bus(names.bus, site.folder)
    await bus.start()
    vault = await open_vault(vault_url or names.vault, site.folder)
    ledger = await open_ledger(url, site.folder)
    try:
        done = await rebuild_ledger(
            ledger=ledger,
            vault=vault,
            bus=bus if with_bus else None,
            verifiers=site.trusted,
        )
        return done, await contents(ledger)
    finally:
        for store in (ledger, vault, bus):
            await store.close()


async def original(site):
    ledger = await open_ledger(site.settings.stores.ledger, site.folder, read_only=True)
    try:
        return await contents(ledger)
    finally:
        await ledger.close()


def use(site, url, *, store="ledger"):
    """Let the deployment go on with another store."""
    text = site.config.read_text()
    assert "[stores]\n" in text
    site.config.write_text(text.replace("[stores]\n", f'[stores]\n{store} = "{url}"\n'))


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        assert found[name] == rows, name


@pytest.mark.parametrize("seed", range(6))
async def test_every_row_comes_back(tmp_path, seed):
    site, sessions = random_site(tmp_path / "site", seed)
    pairs = interleaved(sessions, seed)
    half = len(pairs) // 2
    await seal(site, pairs=pairs[:half])
    await seal(site, pairs=pairs[half:])
    expected = await original(site)
    done, found = await rebuilt(site)
    assert_same(found, expected)
    assert (done.segments, done.left, done.unplaced) == (len(expected["segments"]), [], 0)
    assert done.frames == sum(row.frames for row in expected["sessions"])


def trouble(site, *, seed=1):
    """Sessions with all that can go wrong on the way, as (key, value) pairs."""
    luck = random.Random(seed)
    good = [site.session(commands=4, checkpoint_every=3) for _ in range(3)]
    pairs = [pair for built in good for pair in built.encoded()]
    # A frame that never comes, though a signature covers it.
    gapped = site.session(commands=5, checkpoint_every=2)
    pairs += [
        (gapped.session, messages.encode(message))
        for message in gapped.messages
        if not (isinstance(message, Frame) and message.seq == 4)
    ]
    # Another frame under a number that is taken, small and large.
    first = good[0]
    for size in (10, 200_000):
        forged = replace(first.frames[3], payload=luck.randbytes(size))
        pairs.append((first.session, messages.encode(forged)))
    # What is no message at all, what belongs elsewhere, what nobody opened.
    pairs.append((first.session, b"not a message"))
    pairs.append((first.session, messages.encode(good[1].frames[2])))
    stray = site.session(commands=1)
    pairs += [pair for pair in stray.encoded() if pair[1] != messages.encode(stray.frames[0])]
    # A frame after CLOSE, and one whose time went back.
    late = site.session(commands=2)
    extra = replace(late.frames[-1], seq=len(late.frames), kind=Kind.DATA, ts_ns=5)
    pairs += [*late.encoded(), (late.session, messages.encode(extra))]
    # A recovery epoch that does not go on where the one before it ended.
    ended = site.session(commands=2)
    torn = replace(ended.continues, size=ended.continues.size + 1)
    again = site.session(commands=0, session=ended.session, epoch=1, continues=torn)
    return pairs + ended.encoded() + again.encoded()


@pytest.fixture
async def ledgers(postgres_stores):
    """URLs of two ledgers on PostgreSQL, as ingest has them."""
    database = postgres_stores.database()
    urls = []
    for number in (1, 2):
        url = database.url(f"schema={database.name}_{number}")
        await prepare_ledger(url, Path())
        urls.append(url)
    return urls


async def test_on_real_stores_too(tmp_path, ledgers, s3_server, monkeypatch):
    """Ledger on PostgreSQL, vault on S3."""
    monkeypatch.setenv(SECRET_VARIABLE, s3_server.secret_key)
    site, sessions = random_site(tmp_path / "site", 7)
    vault = s3_url(s3_server, s3_server.bucket())
    use(site, ledgers[0])
    use(site, vault, store="vault")
    await seal(site, pairs=[*interleaved(sessions, 7), *trouble(site)])
    await seal(site, [site.session()])
    expected = await original(site)
    done, found = await rebuilt(site, ledgers[1])
    assert_same(found, expected)
    assert (done.left, done.unplaced) == ([], 0)
    _, found = await rebuilt(site)  # and into a file
    assert_same(found, expected)


async def test_what_went_wrong_comes_back_too(tmp_path):
    site = make_site(tmp_path / "site", partitions=2)
    await seal(site, pairs=trouble(site))
    await seal(site, [site.session()])
    expected = await original(site)
    reasons = {item.reason for item in expected["incidents"]}
    assert reasons >= {
        "gap",
        "conflict",
        "malformed",
        "key_mismatch",
        "no_open",
        "after_close",
        "time_backwards",
        "continuation",
    }
    assert any(item.key for item in expected["quarantined"])
    done, found = await rebuilt(site)
    assert_same(found, expected)
    assert done.quarantined == len(expected["quarantined"])


PATIENT = Limits(segment_ns=50_000_000, hold_ns=60 * 10**9, idle_ns=10_000_000)


async def seal_patiently(site, pairs):
    """Seal what is signed; what waits for a signature stays on the bus."""
    async with sealing(site, limits=PATIENT) as (stores, running):
        await put(stores.bus, pairs)
        del running  # leaving the block reads to the end and publishes


async def test_ingest_goes_on_where_it_was(tmp_path):
    """In the middle of sessions, with frames that wait for their signature."""
    site = make_site(tmp_path / "site", partitions=2)
    live = [site.session(commands=9, checkpoint_every=3) for _ in range(6)]
    luck = random.Random(3)
    early, late = [], []
    for built in live:
        at = luck.randrange(5, 25)
        early += built.encoded()[:at]
        late += built.encoded()[at:]
    await seal_patiently(site, early)
    await seal_patiently(site, [pair for _ in range(2) for pair in site.session().encoded()])
    expected = await original(site)
    assert any(row.state == "live" for row in expected["sessions"])
    _, found = await rebuilt(site)
    assert_same(found, expected)
    use(site, "sqlite:again.db")
    await seal_patiently(site, late)
    found = await original(site)
    assert {row.state for row in found["sessions"]} == {"sealed"}
    assert (found["incidents"], found["quarantined"]) == ([], [])
    for built in live:
        (head,) = [head for head in found["heads"] if head.session == built.session]
        assert (head.hi, head.nodes) == (built.tree.hi, built.tree.nodes)


async def crashed(site, built, monkeypatch):
    """A publication whose objects are in the vault and that never was committed; the objects."""
    before, kept = objects_of(site), {}

    async def publish(*_):
        kept.update({path: data for path, data in objects_of(site).items() if path not in before})
        raise StoreError("away")

    with monkeypatch.context() as patch:
        patch.setattr(SqliteLedger, "publish", publish)
        async with sealing(site) as (stores, running):
            await put(stores.bus, built.encoded())
            while not kept:
                await asyncio.sleep(0.01)
            await asyncio.gather(running.stop(0.0), return_exceptions=True)
    for path in set(objects_of(site)) - set(before):  # of attempts after the first
        path.unlink()
    return kept


def objects_of(site):
    return {path: path.read_bytes() for path in (site.folder / "vault/seg").rglob("*.*")}


def put_back(kept):
    for path, data in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(data)


async def test_what_never_was_committed_counts_when_nothing_came_after(tmp_path, monkeypatch):
    """Whole or in part: no frame is lost, none is sealed twice."""
    site = make_site(tmp_path / "site")
    await seal(site, [site.session()])
    built = site.session(commands=20, tenant="other")
    kept = await crashed(site, built, monkeypatch)
    put_back(kept)
    done, found = await rebuilt(site)
    assert done.left == []
    assert built.session in {row.session for row in found["sessions"]}
    use(site, "sqlite:again.db")
    await seal(site, [])
    found = await original(site)
    assert {row.state for row in found["sessions"]} == {"sealed"}
    assert (found["incidents"], found["quarantined"]) == ([], [])


async def test_half_a_publication_is_read_again(tmp_path, monkeypatch):
    site = make_site(tmp_path / "site")
    await seal(site, [site.session()])
    both = [site.session(), site.session(tenant="other")]
    pairs = [pair for built in both for pair in built.encoded()]

    class Both:
        def encoded(self):
            return pairs

    kept = await crashed(site, Both(), monkeypatch)
    first = [path for path in kept if "tenant=main" in str(path)]
    assert 0 < len(first) < len(kept)
    put_back({path: kept[path] for path in first})
    _, found = await rebuilt(site)
    assert {row.tenant for row in found["sessions"]} == {"main"}
    use(site, "sqlite:again.db")
    await seal(site, [])
    found = await original(site)
    assert [row.state for row in found["sessions"]] == ["sealed"] * 3
    assert sum(row.frames for row in found["sessions"]) == 9 + 9 + 9
    assert (found["incidents"], found["quarantined"]) == ([], [])


async def test_orphans_are_told_from_what_was_published(tmp_path, monkeypatch):
    site = make_site(tmp_path / "site")
    await seal(site, [site.session()])
    kept = await crashed(site, site.session(), monkeypatch)
    await seal(site, [site.session()])
    expected = await original(site)
    put_back(kept)
    done, found = await rebuilt(site)
    assert_same(found, expected)
    orphans = {path.name for path in kept if path.suffix == ".parquet"}
    assert {key.rsplit("/", 1)[-1] for key in done.left} == orphans


async def test_without_the_bus_the_last_publication_is_read_again(tmp_path):
    site = make_site(tmp_path / "site")
    sessions = [site.session(commands=3) for _ in range(3)]
    for built in sessions:
        await seal(site, [built])
    expected = await original(site)
    _, found = await rebuilt(site, with_bus=False)
    (place,) = expected["positions"]
    assert found["positions"][place] < expected["positions"][place]
    for name in ("segments", "fragments", "sessions", "shards"):
        assert found[name] == expected[name]
    use(site, "sqlite:again.db")
    await seal(site, [site.session()])
    found = await original(site)
    assert (found["incidents"], found["quarantined"]) == ([], [])
    assert len(found["sessions"]) == 4


async def test_what_the_bus_has_not_kept_is_said(tmp_path):
    site = make_site(tmp_path / "site")
    for _ in range(2):
        await seal(site, [site.session(commands=2)])
    expected = await original(site)
    for file in (site.folder / "bus").rglob("*.log"):
        file.unlink()
    done, found = await rebuilt(site)
    assert done.unplaced == 2
    assert found["positions"] == expected["positions"]
    assert found["sessions"] == expected["sessions"]


async def test_a_ledger_that_is_used_is_left_alone(tmp_path):
    site = make_site(tmp_path / "site")
    await seal(site, [site.session()])
    before = await original(site)
    with pytest.raises(StoreError, match="not empty"):
        await rebuilt(site, url="sqlite:ledger.db")
    assert_same(await original(site), before)


@pytest.mark.parametrize("which", ["object", "manifest", "bytes"])
async def test_a_vault_with_a_hole_is_refused(tmp_path, which):
    site = make_site(tmp_path / "site")
    for _ in range(3):
        await seal(site, [site.session()])
    path = site.objects()[1]
    path.chmod(0o644)
    if which == "object":
        path.unlink()
    elif which == "manifest":
        path.with_suffix(".manifest.jsonl").unlink()
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    with pytest.raises(StoreCorrupt):
        await rebuilt(site)


async def test_terms_go_on_above_all_that_were(tmp_path):
    site = make_site(tmp_path / "site")
    for _ in range(4):
        await seal(site, [site.session()])
    await rebuilt(site)
    ledger = await open_ledger("sqlite:again.db", site.folder)
    (row,) = await ledger.leases()
    assert (row.term >= 4, row.owner) == (True, "")
    await ledger.close()


async def test_a_publication_in_flight_does_not_hold_the_position_too_high(tmp_path):
    """A frame that waits for its signature stays unread, also when later ones are sealed."""
    site = make_site(tmp_path / "site")
    waiting = site.session(commands=3, close=None, final_checkpoint=False, checkpoint_every=100)
    done = site.session(commands=3)
    pairs = [*waiting.encoded(), *done.encoded()]
    async with sealing(site, limits=PATIENT) as (stores, running):
        await put(stores.bus, pairs)
        while (row := await stores.ledger.session(done.session)) is None or row.state != "sealed":
            await asyncio.sleep(0.02)
        del running
    expected = await original(site)
    (position,) = expected["positions"].values()
    _, found = await rebuilt(site)
    assert list(found["positions"].values()) == [position]
    assert_same(found, expected)
