import asyncio
from dataclasses import replace

import pytest

from sealtape.indexer.cli.log_files import make_log_files
from sealtape.ingest import node as module
from sealtape.ingest.node import limits_of, open_stores, portion, read_trust, serve, start_ingest
from sealtape.ingest.sealer import SECOND_NS, Limits
from sealtape.schemas.errors import FormatError, SettingsError, StoreError
from sealtape.schemas.messages import KeyMessage
from sealtape.schemas.settings import load_settings
from sealtape.schemas.trust import format_trust
from tests.factories.sessions import build_session, node_signer

TOML = """
[deployment]
node = "node-1"
[stores]
bus = "dir:bus?partitions=3"
[ingest]
segment_s = "1s"
segment_bytes = "1MiB"
"""


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "trust.toml").write_text(format_trust([node_signer().verifier.vkey]))
    make_log_files(tmp_path, "sealtape.local/log", development=False)
    return load_settings(TOML, base=str(tmp_path))


@pytest.fixture
async def stores(settings):
    stores = await open_stores(settings)
    yield stores
    for store in (stores.bus, stores.keyring, stores.vault, stores.ledger):
        await store.close()


def kwargs_of(stores):
    return {
        "bus": stores.bus,
        "keyring": stores.keyring,
        "vault": stores.vault,
        "ledger": stores.ledger,
        "owner": "node-1",
        "verifiers": None,
    }


async def send(stores, *sessions):
    for built in sessions:
        await stores.bus.append(stores.bus.partition_of(built.session), built.encoded())


async def sealed(stores, sessions):
    for built in sessions:
        while (row := await stores.ledger.session(built.session)) is None or row.state != "sealed":
            await asyncio.sleep(0.02)


async def test_all_partitions_are_sealed(stores):
    sessions = [build_session(seed=number) for number in range(8)]
    assert len({stores.bus.partition_of(built.session) for built in sessions}) == 3
    running = await start_ingest(**kwargs_of(stores), limits=Limits(segment_ns=SECOND_NS // 2))
    await send(stores, *sessions)
    await asyncio.wait_for(sealed(stores, sessions), 20)
    assert await running.lag() == 0
    await running.stop()
    assert {row.record.shard async for row in stores.ledger.segments()} == {
        f"{stores.bus.topic}/{partition}" for partition in range(3)
    }


async def test_without_keys_of_the_log_it_says_what_makes_them(settings, tmp_path):
    (tmp_path / "log.policy").unlink()
    with pytest.raises(SettingsError, match="sealtape log init"):
        await serve(settings, asyncio.Event())


async def test_a_process_without_a_signer_seals_and_writes_no_log(settings, tmp_path):
    (tmp_path / "log.policy").unlink()
    settings = replace(settings, log=replace(settings.log, signer=""))
    stores = await open_stores(settings)
    built = build_session()
    await send(stores, built)
    await stores.close()
    stop = asyncio.Event()
    stop.set()
    await serve(settings, stop)
    after = await open_stores(settings)
    assert (await after.ledger.session(built.session)).state == "sealed"
    assert (await after.ledger.log_state()).number == 0
    await after.close()


async def test_two_workers_share_the_partitions(stores):
    first = await start_ingest(**kwargs_of(stores) | {"owner": "one"}, lease_s=1.0)
    second = await start_ingest(**kwargs_of(stores) | {"owner": "two"}, lease_s=1.0)

    def held(running):
        return [found.partition for found in running.snapshot().partitions]

    async with asyncio.timeout(60):
        while len(held(first)) + len(held(second)) < 3 or not (held(first) and held(second)):
            await asyncio.sleep(0.02)
    snapshot = second.snapshot()
    assert (snapshot.worker, snapshot.workers) == ("two", ("one", "two"))
    assert snapshot.beaten_s < 2
    assert not snapshot.claiming
    assert sorted(held(first) + held(second)) == [0, 1, 2]
    await first.stop()
    sessions = [build_session(seed=number) for number in range(6)]
    await send(stores, *sessions)
    async with asyncio.timeout(60):
        while len(held(second)) < 3:
            await asyncio.sleep(0.02)
    await second.stop()
    await asyncio.wait_for(sealed(stores, sessions), 60)
    assert second.snapshot().frames == sum(len(built.frames) for built in sessions)
    assert {row.owner for row in await stores.ledger.leases()} == {""}


async def test_keys_have_their_own_bus(tmp_path, settings):
    text = TOML.replace("[ingest]", 'keys = "dir:keys?partitions=3"\n[ingest]')
    settings = load_settings(text, base=str(tmp_path))
    built = build_session()
    stores = await open_stores(settings)
    for message, pair in zip(built.messages, built.encoded(), strict=True):
        bus = stores.keys if isinstance(message, KeyMessage) else stores.bus
        await bus.append(bus.partition_of(built.session), [pair])
    await stores.close()
    stop = asyncio.Event()
    stop.set()
    await serve(settings, stop)
    after = await open_stores(settings)
    assert (await after.ledger.session(built.session)).state == "sealed"
    assert len(await after.keyring.get(built.session, 0, "facts")) == 2
    assert await after.ledger.incidents() == []
    await after.close()
    text = text.replace("keys?partitions=3", "other?partitions=2")
    with pytest.raises(SettingsError, match="3 partitions, the one for keys has 2"):
        await open_stores(load_settings(text, base=str(tmp_path)))


async def test_the_bus_lets_go_of_what_all_have_passed(stores, monkeypatch):
    trimmed = asyncio.Queue()

    async def trim(partition, consumers):
        trimmed.put_nowait((partition, tuple(consumers)))

    monkeypatch.setattr(stores.bus, "trim", trim)
    running = await start_ingest(**kwargs_of(stores))
    found = [await asyncio.wait_for(trimmed.get(), 60) for _ in range(3)]
    assert found == [(partition, ("ingest", "indexer")) for partition in range(3)]
    await running.stop()


async def test_stopping_seals_what_is_signed(stores):
    built = build_session()
    await send(stores, built)
    running = await start_ingest(**kwargs_of(stores))
    await running.stop()
    assert (await stores.ledger.session(built.session)).state == "sealed"


async def test_a_failure_ends_it_and_is_raised(stores, monkeypatch):
    async def broken(*arguments, **options):
        raise KeyError("bug")

    monkeypatch.setattr(stores.bus, "read", broken)
    running = await start_ingest(**kwargs_of(stores))
    with pytest.raises(KeyError):
        await asyncio.wait_for(running.wait(), 60)
    with pytest.raises(KeyError):
        await running.stop()


async def test_cleaning_up_that_fails_does_not_end_it(stores, monkeypatch, caplog):
    caplog.set_level("INFO")

    async def broken():
        raise StoreError("no")

    async def found(self, older_than_s=0.0):
        return 2

    monkeypatch.setattr(stores.vault, "tidy", broken)
    monkeypatch.setattr(module.Collector, "collect", found)
    monkeypatch.setattr(module, "COLLECT_EVERY_S", 0.01)
    running = await start_ingest(**kwargs_of(stores))
    while "cleaning up" not in caplog.text or "removed 2 objects" not in caplog.text:
        await asyncio.sleep(0.01)
    await running.stop()


async def test_serving_opens_seals_and_closes(settings, tmp_path):
    first = await open_stores(settings)
    built, foreign = build_session(seed=1), build_session(seed=2, node=node_signer(seed=9))
    await send(first, built, foreign)
    for store in (first.bus, first.keyring, first.vault, first.ledger):
        await store.close()
    stop = asyncio.Event()
    stop.set()
    await serve(settings, stop)
    after = await open_stores(settings)
    assert (await after.ledger.session(built.session)).state == "sealed"
    assert await after.ledger.session(foreign.session) is None
    assert "open_untrusted" in {item.reason for item in await after.ledger.incidents()}
    for store in (after.bus, after.keyring, after.vault, after.ledger):
        await store.close()


async def test_serving_raises_what_ends_it(settings, monkeypatch):
    async def broken(self):
        raise KeyError("bug")

    monkeypatch.setattr(module.Consumer, "run", broken)
    with pytest.raises(KeyError):
        await asyncio.wait_for(serve(settings, asyncio.Event()), 10)


def test_limits_come_from_the_settings(settings):
    assert limits_of(settings.ingest) == Limits(segment_bytes=1 << 20, segment_ns=SECOND_NS)
    slow = limits_of(replace(settings.ingest, segment_s=300.0))
    assert (slow.segment_ns, slow.hold_ns) == (300 * SECOND_NS, 900 * SECOND_NS)


def test_partitions_of_a_worker_share_its_memory():
    limits = Limits()
    assert portion(limits, 1) == portion(limits, 4) == limits
    assert portion(limits, 8).segment_bytes == 32 << 20
    assert portion(limits, 1000).segment_bytes == 4 << 20
    small = replace(limits, segment_bytes=1 << 20)
    assert portion(small, 1000) == small


def test_trust_is_read_from_the_file_the_settings_name(settings, tmp_path):
    (verifier,) = read_trust(settings)
    assert verifier.vkey == node_signer().verifier.vkey
    (tmp_path / "trust.toml").write_text("[[node]]\nvkey = 'x'\n")
    with pytest.raises(FormatError):
        read_trust(settings)
    (tmp_path / "trust.toml").unlink()
    with pytest.raises(SettingsError, match=r"trust\.toml"):
        read_trust(settings)
