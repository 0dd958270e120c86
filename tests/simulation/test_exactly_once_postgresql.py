"""The same schedules with the ledger that is PostgreSQL; there are fewer, as each call travels."""

from collections import Counter
from pathlib import Path

import pytest

from sealtape.ingest.keyring.sqlite import SqliteKeyring
from sealtape.ingest.ledger import open_ledger, prepare_ledger
from tests.conformance.postgresql import Schema
from tests.ingest.ledger.postgresql.conftest import EMPTY
from tests.servers.postgres import postgres_server  # noqa: F401 - a fixture
from tests.simulation.actors import without_threads
from tests.simulation.ingest import IngestWorld
from tests.simulation.test_exactly_once import play


@pytest.fixture
async def schema(postgres_server):  # noqa: F811
    schema = Schema(postgres_server, "simulated")
    await prepare_ledger(schema.url(), Path())
    schema.make_users("ingest", "reader")
    yield schema
    schema.drop()


async def run_schedule(seed, schema, folder):
    schema.sql(EMPTY)
    ledger = await open_ledger(schema.url("ingest"), Path())
    keyring = await SqliteKeyring.open("sqlite:keyring.db", folder)
    without_threads(keyring._database)

    async def expire():
        """The store keeps its own time, so leases are made to run out there."""
        await ledger._database.change("UPDATE lease SET expires_at = '-infinity'")

    try:
        return await play(IngestWorld(seed, ledger=ledger, keyring=keyring, expire=expire), seed)
    finally:
        await ledger.close()
        await keyring.close()


async def test_everything_is_sealed_exactly_once(schema, tmp_path):
    seen = sum([await run_schedule(seed, schema, tmp_path) for seed in range(15)], start=Counter())
    assert seen["Fenced"] >= 5


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_everything_is_sealed_exactly_once_soak(schema, tmp_path):
    for seed in range(1000, 1500):
        await run_schedule(seed, schema, tmp_path)
