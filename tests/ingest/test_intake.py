"""What goes from one batch into the sealer, the keyring and back out of the vault."""

from dataclasses import replace

import pytest

from sealtape.ingest.intake import Intake, Stores
from sealtape.ingest.keyring.sqlite import SqliteKeyring
from sealtape.ingest.ledger.sqlite import SqliteLedger
from sealtape.ingest.sealer import Limits, Sealer
from sealtape.schemas.messages import KeyMessage
from tests.factories.ingest_world import MemoryBus, MemoryVault, WorldClock
from tests.factories.sessions import build_session, node_signer


@pytest.fixture
async def stores(tmp_path):
    stores = Stores(
        bus=MemoryBus(),
        keyring=await SqliteKeyring.open("sqlite:keyring.db", tmp_path),
        vault=MemoryVault(),
        ledger=await SqliteLedger.open("sqlite:ledger.db", tmp_path),
    )
    yield stores
    await stores.close()


def new_sealer():
    return Sealer(
        topic="frames",
        partition=0,
        position=0,
        verifiers=[node_signer().verifier],
        limits=Limits(),
    )


async def taken(stores, pairs, *, keys_only=False):
    sealer = new_sealer()
    bus = stores.keys if keys_only else stores.bus
    bus.records[0] = list(pairs)
    batch = await bus.read(0, 0, max_bytes=1 << 30, wait_s=0)
    intake = Intake(stores, 0, clock_ns=WorldClock(), keys_only=keys_only)
    await intake.take(sealer, batch)
    return sealer


def reasons(sealer):
    return [incident.reason for incident in sealer.findings.incidents]


async def test_frames_and_keys_on_one_bus(stores):
    built = build_session(commands=1)
    sealer = await taken(stores, built.encoded())
    assert reasons(sealer) == []
    assert sealer.read_to == len(built.messages)
    assert len(await stores.keyring.get(built.session, 0, "facts")) == 2


async def test_nothing_but_keys_may_come_on_the_keys_bus(stores):
    built = build_session(commands=1)
    apart = replace(stores, keys=MemoryBus())
    sealer = await taken(apart, built.encoded(), keys_only=True)
    others = sum(not isinstance(message, KeyMessage) for message in built.messages)
    assert reasons(sealer) == ["misplaced"] * others
    assert [item.session for item in sealer.findings.quarantined] == [built.session] * others
    assert len(await stores.keyring.get(built.session, 0, "facts")) == 2


async def test_a_key_among_the_frames_is_kept_and_said(stores):
    built = build_session(commands=1)
    sealer = await taken(replace(stores, keys=MemoryBus()), built.encoded())
    keys = sum(isinstance(message, KeyMessage) for message in built.messages)
    assert reasons(sealer) == ["key_misplaced"] * keys
    assert len(await stores.keyring.get(built.session, 0, "data")) == 1


async def test_closing_closes_the_keys_bus_too(stores, tmp_path):
    closed = []

    class Counted(MemoryBus):
        async def close(self):
            closed.append(self)

    apart = replace(stores, keys=Counted(), bus=Counted())
    await apart.close()
    assert closed == [apart.keys, apart.bus]
