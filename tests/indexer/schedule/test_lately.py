"""What a status says of verification."""

import time

from sealtape.indexer.schedule.lately import lately
from sealtape.ingest.ledger import open_ledger
from tests.indexer.schedule.conftest import DAY_NS, Clock, rounds_of


async def told(site, now_ns):
    ledger = await open_ledger("sqlite:ledger.db", site.folder, read_only=True)
    try:
        return await lately(site.settings, ledger, now_ns)
    finally:
        await ledger.close()


async def test_lately(site):
    now_ns = time.time_ns()
    assert await told(site, now_ns) == {"share": None, "last_finding": None}
    async with rounds_of(site, Clock(now_ns)) as (rounds, _):
        await rounds.step(1 << 30)
    whole = {"share": "100.0% in 30 days", "findings": 0, "last_finding": None}
    assert await told(site, now_ns) == whole
    assert await told(site, now_ns + 31 * DAY_NS) == whole | {"share": "0.0% in 30 days"}
