import asyncio
from pathlib import Path

import pytest

from sealtape.ingest.keyring import open_keyring, prepare_keyring
from tests.conformance.postgresql import Schema
from tests.servers.postgres import postgres_server  # noqa: F401 - a fixture

ROLES = ("ingest", "indexer", "auditor", "reaper")


@pytest.fixture(scope="session")
def prepared(postgres_server):  # noqa: F811
    """One schema for all tests of this process."""
    schema = Schema(postgres_server, "keyring")
    asyncio.run(prepare_keyring(schema.url(), Path()))
    schema.make_users(*ROLES)
    yield schema
    schema.drop()


@pytest.fixture
def schema(prepared):
    """The schema, empty."""
    filled = prepared.sql("SELECT string_agg(DISTINCT tableoid::regclass::text, ', ') FROM wrap")
    prepared.sql(f"TRUNCATE destroyed{', ' if filled else ''}{filled}")
    return prepared


@pytest.fixture
async def ingest(schema):
    """The keyring as ingest has it."""
    keyring = await open_keyring(schema.url("ingest"), Path())
    yield keyring
    await keyring.close()


@pytest.fixture
async def auditor(schema):
    keyring = await open_keyring(schema.url("auditor"), Path(), read_only=True)
    yield keyring
    await keyring.close()


@pytest.fixture
async def reaper(schema):
    keyring = await open_keyring(schema.url("reaper"), Path())
    yield keyring
    await keyring.close()
