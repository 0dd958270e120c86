"""The embedded ledger against the model."""

from itertools import count

from sealtape.ingest.ledger import open_ledger, prepare_ledger
from tests.conformance.ledger_machine import check


def test_it_is_the_model(tmp_path):
    numbers = count()

    async def opened():
        url = f"sqlite:{next(numbers)}.db"
        await prepare_ledger(url, tmp_path)
        return await open_ledger(url, tmp_path)

    check(opened)
