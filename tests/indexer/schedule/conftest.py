"""A sealed and logged deployment of several small objects, and schedules over copies of it."""

import asyncio
import shutil
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from sealtape.indexer.cli.verify_log import policy_of, trusted_nodes
from sealtape.indexer.schedule.rounds import Rounds
from sealtape.indexer.schedule.state import State
from sealtape.schemas.scheduling import DAY_NS
from tests.factories.deployments import make_site, put, seal, sealing, settled
from tests.factories.logs import grow_log

__all__ = ["DAY_NS", "Clock", "objects_of", "rounds_of"]


class Clock:
    """Time that passes when a test says so, from now on."""

    def __init__(self, now_ns):
        self.now_ns = now_ns

    def __call__(self):
        return self.now_ns


@pytest.fixture(scope="session")
def long_site(tmp_path_factory):
    """Objects of which a long session lies in several, others in one each; one is live.

    The log was witnessed twice.
    """
    site = make_site(tmp_path_factory.mktemp("schedule") / "site")
    long = site.session(commands=9)
    short = [site.session(commands=2) for _ in range(3)]
    live = site.session(commands=2, close=None)
    lot = long.encoded()
    third = len(lot) // 3

    async def fill():
        async with sealing(site) as (stores, running):
            for part in (
                lot[:third] + short[0].encoded(),
                lot[third : 2 * third] + short[1].encoded(),
                lot[2 * third :] + live.encoded(),
                short[2].encoded(),
            ):
                await put(stores.bus, part)
                await settled(running)
        await grow_log(site)
        await seal(site, [site.session(commands=1)])
        await grow_log(site)

    asyncio.run(fill())
    return site, long, short, live


@pytest.fixture
def site(long_site, tmp_path):
    """A copy to do harm to."""
    shutil.copytree(long_site[0].folder, tmp_path / "copy")
    return long_site[0].moved(tmp_path / "copy")


def objects_of(site):
    """The keys of the objects, in order of sealing."""
    return [str(path.relative_to(site.folder / "vault")) for path in site.objects()]


@asynccontextmanager
async def rounds_of(site, clock, **verify):
    """Rounds over a deployment, with a state of its own."""
    settings = site.settings
    settings = replace(settings, verify=replace(settings.verify, **verify))
    state = await State.open(site.folder / settings.verify.state)
    try:
        yield (
            Rounds(
                settings,
                state,
                trust=trusted_nodes(settings, None),
                policy=policy_of(settings, None),
                clock_ns=clock,
            ),
            state,
        )
    finally:
        await state.close()
