import asyncio
from pathlib import Path

import pytest

from sealtape.ingest.ledger import open_ledger, prepare_ledger
from tests.conformance.postgresql import OwnServer, Schema
from tests.servers.postgres import postgres_server  # noqa: F401 - a fixture

TABLES = (
    "lease, worker, object, shard, segment, fragment, head, session, incident, quarantine, outbox,"
    " log_entry, inbox"
)
EMPTY = (
    f"TRUNCATE {TABLES} RESTART IDENTITY; UPDATE counter SET segment=0, incident=0, event=0;"
    " UPDATE log_state SET number=0, size=0, cursor='', note='', witnessed=''"
)


@pytest.fixture(scope="session")
def prepared(postgres_server):  # noqa: F811
    """One schema for all tests of this process."""
    schema = Schema(postgres_server, "ledger")
    asyncio.run(prepare_ledger(schema.url(), Path()))
    schema.make_users("ingest", "reader")
    yield schema
    schema.drop()


@pytest.fixture
def schema(prepared):
    """The schema, empty."""
    prepared.sql(EMPTY)
    return prepared


@pytest.fixture(scope="module")
def own_server():
    """A server that may be killed."""
    server = OwnServer().start()
    yield server
    server.stop()


@pytest.fixture
def own_schema(own_server):
    schema = Schema(own_server, "ledger")
    asyncio.run(prepare_ledger(schema.url(), Path()))
    schema.make_users("ingest", "reader")
    return schema


class Clock:
    """Moves a store's own time forward: everything it holds gets older."""

    def __init__(self, schema):
        self._schema = schema

    def forward(self, seconds):
        self._schema.sql(
            f"UPDATE lease SET expires_at = expires_at - interval '{seconds} s';"
            f"UPDATE worker SET expires_at = expires_at - interval '{seconds} s';"
            f"UPDATE object SET staged_at = staged_at - interval '{seconds} s';"
            f"UPDATE head SET changed_at = changed_at - interval '{seconds} s';"
        )


@pytest.fixture
def clock(schema):
    return Clock(schema)


@pytest.fixture
async def ledger(schema):
    ledger = await open_ledger(schema.url("ingest"), Path())
    yield ledger
    await ledger.close()
