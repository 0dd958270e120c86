"""A deployment on real servers whose clients are at work, and all that must hold afterwards.

    async with loaded(folder, target, stores) as (lab, watch):
        ...                     # trouble that clients do not notice

Every statement that a client ran is then in the record once, and verified; every byte of both wires
is in it; the index holds what the ledger does; and no room took more memory than it may.
"""

import asyncio
import contextlib
import time

from tests.journeys.aftermath import check_recorded, check_taps, documents
from tests.journeys.lab import tapped_lab
from tests.journeys.taps import Tap
from tests.journeys.traffic import bulk, work
from tests.journeys.watch import Watch

CLIENTS = 2
LEASE_S = 3
SETTINGS = {"ingest": f"segment_s = 0.5\nlease_s = {LEASE_S}", "index": f"lease_s = {LEASE_S}"}
MEMORY = 400 << 20
CAUGHT_UP_S = 120.0
FIRST_S = 180.0


@contextlib.asynccontextmanager
async def loaded(folder, target, stores, *, preparing=None, noise_s=0.1, caught_up_s=CAUGHT_UP_S):
    """A lab with metrics, under load: (lab, watch).

    `target` has the table of `make_noise`, of which a client reads a row every `noise_s`. Labs that
    share a PostgreSQL for stores are prepared one at a time: `preparing` is their lock.
    """
    async with contextlib.AsyncExitStack() as stack:
        async with preparing or contextlib.nullcontext():
            tapped = tapped_lab(folder, target, stores=stores, metrics=True, **SETTINGS)
            lab, inner = await stack.enter_async_context(tapped)
        outer = await stack.enter_async_context(Tap(0))
        rooms = {"capture": await lab.capture(), "ingest": lab.ingest(), "indexer": lab.index()}
        outer.target = lab.port
        quiet = asyncio.Event()
        clients = [work(lab, quiet, 0.1, port=outer.port) for _ in range(CLIENTS)]
        load = asyncio.gather(*clients, bulk(lab, quiet, noise_s, port=outer.port))
        try:
            async with Watch(lab, **rooms) as watch:
                await watch.well()
                await lab.until(lab.sessions, seconds=FIRST_S, what="the first session")
                yield lab, watch
                quiet.set()
                statements = sum(await load)
                leaves = await _drained(lab, rooms, caught_up_s)
        finally:
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)
        assert all(peak < MEMORY for peak in watch.peak.values()), watch.peak
        await check_recorded(lab, leaves)
        commands = (await documents(lab))["commands"]
        assert sum(each.effect == "read" for each in commands) == statements
        assert set(await check_taps(lab, outer.sessions(), inner.sessions())) == {"client"}


async def _drained(lab, rooms, within_s):
    """Stop the node, let the others catch up, and stop them; the leaves that were on the bus."""
    ended = time.monotonic()
    assert await rooms["capture"].stop() == 0
    leaves = await lab.all_sealed(seconds=within_s)
    print(f"caught up in {time.monotonic() - ended:.1f} s")
    assert await rooms["ingest"].stop() == 0
    assert await rooms["indexer"].stop() == 0
    return leaves
