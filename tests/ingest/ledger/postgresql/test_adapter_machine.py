"""The ledger on PostgreSQL against the model."""

from pathlib import Path

from sealtape.ingest.ledger import open_ledger
from tests.conformance.ledger_machine import check
from tests.ingest.ledger.postgresql.conftest import EMPTY


def test_it_is_the_model(schema):
    async def opened():
        schema.sql(EMPTY)
        return await open_ledger(schema.url("ingest"), Path())

    check(opened, examples=10)
