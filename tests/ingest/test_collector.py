import pytest

from sealtape.ingest.collector import FORGET_S, GRACE_S, Collector
from sealtape.ingest.ledger.sqlite import SqliteLedger
from sealtape.schemas.errors import StoreBusy
from sealtape.schemas.layout import manifest_key, quarantine_key
from tests.conformance.ledger import A, claimed, key_of, published, sealed_segment
from tests.factories.ingest_world import MemoryVault, WorldClock


@pytest.fixture
def clock():
    return WorldClock()


@pytest.fixture
async def ledger(tmp_path, clock):
    ledger = await SqliteLedger.open("sqlite:ledger.db", tmp_path)
    ledger._clock_ns = clock
    yield ledger
    await ledger.close()


async def put_segment(vault, number):
    await vault.put_new(key_of(number), b"segment")
    await vault.put_new(manifest_key(key_of(number)), b"manifest")


async def test_only_what_is_old_and_not_published_goes(ledger, clock):
    vault = MemoryVault()
    lease = await claimed(ledger)
    await published(ledger, lease, 0, 0, sealed_segment(1, [(A, 0, 0, 3)]))
    bytes_key = quarantine_key("main", "2026-11-22", "0192f0a0b0c07000800000000000abcd")
    await ledger.stage(lease, [key_of(2), key_of(3), bytes_key])
    clock.forward(GRACE_S + 1)
    await ledger.stage(lease, [key_of(4)])
    for number in (1, 2, 4):
        await put_segment(vault, number)
    await vault.put_new(bytes_key, b"bytes")
    assert await Collector(ledger, vault).collect() == 3
    kept = {key_of(1), key_of(4)}
    assert set(vault.objects) == kept | {manifest_key(key) for key in kept}
    assert await Collector(ledger, vault).collect() == 0


async def test_what_a_slow_writer_puts_after_that_is_erased_too(ledger, clock):
    vault = MemoryVault()
    await ledger.stage(await claimed(ledger), [key_of(1)])
    collector = Collector(ledger, vault)
    assert await collector.collect(0.0) == 1
    await put_segment(vault, 1)
    assert await collector.collect(0.0) == 0
    assert vault.objects == {}
    clock.forward(FORGET_S + 1)
    await collector.collect(0.0)
    assert await ledger.abandoned(0.0) == []


async def test_a_new_term_clears_what_earlier_terms_left(ledger, clock):
    vault = MemoryVault()
    first = await claimed(ledger)
    await ledger.stage(first, [key_of(1)])
    await put_segment(vault, 1)
    other = await claimed(ledger, partition=1)
    await ledger.stage(other, [key_of(2)])
    await put_segment(vault, 2)
    second = await claimed(ledger)
    await ledger.stage(second, [key_of(3)])
    assert await Collector(ledger, vault).abandon_before(second) == 1
    assert set(vault.objects) == {key_of(2), manifest_key(key_of(2))}
    assert {item.key for item in await ledger.staged(0.0)} == {key_of(2), key_of(3)}


async def test_what_cannot_be_erased_is_tried_again(ledger, clock, caplog):
    class Locked(MemoryVault):
        locked = True

        async def erase(self, key):
            if self.locked and key == key_of(1):
                raise StoreBusy("It is locked.", retry_after_s=60)
            await super().erase(key)

    vault = Locked()
    lease = await claimed(ledger)
    await ledger.stage(lease, [key_of(1), key_of(2)])
    await put_segment(vault, 1)
    await put_segment(vault, 2)
    collector = Collector(ledger, vault)
    assert await collector.abandon_before(await claimed(ledger)) == 2
    clock.forward(FORGET_S + 1)
    await collector.collect(0.0)
    assert set(vault.objects) == {key_of(1)}
    assert "stays for now: It is locked." in caplog.text
    assert await ledger.abandoned(0.0) == [key_of(1)]
    vault.locked = False
    await collector.collect(0.0)
    assert (vault.objects, await ledger.abandoned(0.0)) == ({}, [])
