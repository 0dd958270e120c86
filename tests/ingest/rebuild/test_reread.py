"""What a bus still says, with the real sealer; the bus itself is the embedded one."""

from dataclasses import replace

import pytest

from sealtape.capture.bus import open_bus
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.rebuild.objects import Leaves
from sealtape.ingest.rebuild.reread import Reread
from sealtape.ingest.vault import open_vault
from sealtape.schemas import messages
from tests.factories.deployments import make_site, put, seal
from tests.factories.ingest_world import MemoryBus


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "site")


class Run:
    """A sealed deployment and what its bus says."""

    def __init__(self, site):
        self.site = site

    async def __aenter__(self):
        urls, base = self.site.settings.stores, self.site.folder
        self.bus = open_bus(urls.bus, base)
        await self.bus.start()
        self.vault = await open_vault(urls.vault, base)
        self.ledger = await open_ledger(urls.ledger, base)
        return self

    async def __aexit__(self, *_):
        for store in (self.ledger, self.vault, self.bus):
            await store.close()

    async def read(self, position, *, bus=None, wanted=()):
        reread = Reread(
            ledger=self.ledger,
            leaves=Leaves(self.ledger, self.vault),
            bus=bus or self.bus,
            partition=0,
            verifiers=self.site.trusted,
            wanted=set(wanted),
        )
        return await reread.run(position)

    async def end(self):
        return (await self.bus.bounds(0))[1]


async def test_each_head_gets_the_offset_it_had(site):
    sessions = [site.session(commands=5) for _ in range(3)]
    await seal(site, sessions)
    async with Run(site) as run:
        found = await run.read(await run.end())
        heads = {
            (head.session, 0): head.offset
            for built in sessions
            for head in await run.ledger.epochs(built.session)
        }
        assert found.offsets == heads
        assert found.position == await run.end()
        assert (found.incidents, found.quarantined) == ([], [])


async def test_frames_that_are_asked_for_are_placed_where_they_came_first(site):
    built = site.session(commands=3)
    twice = [*built.encoded(), *built.encoded()]
    await seal(site, pairs=twice)
    async with Run(site) as run:
        name = (built.session, 0, 2)
        found = await run.read(await run.end(), wanted=[name, (built.session, 0, 99)])
        batch = await run.bus.read(0, 0, max_bytes=1 << 20, wait_s=0)
        third = messages.encode(built.frames[2])
        assert found.places == {name: next(r.offset for r in batch.records if r.value == third)}


async def test_what_is_not_sealed_is_where_reading_goes_on(site):
    await seal(site, [site.session()])
    built = site.session(commands=3)
    async with Run(site) as run:
        before = await run.end()
        await put(run.bus, built.encoded())
        # Its wraps come first; they were not put by anybody we know of.
        assert (await run.read(before)).position == before
        # Had they been put, the first frame is what waits.
        batch = await run.bus.read(0, before, max_bytes=1 << 20, wait_s=0)
        opening = messages.encode(built.frames[0])
        offset = next(r.offset for r in batch.records if r.value == opening)
        assert (await run.read(await run.end())).position == offset > before


async def test_a_position_below_wraps_stays_below_them(site):
    """Only below what the vault shows to be passed are all wraps known to be in the keyring."""
    built = site.session(commands=3)
    await seal(site, [built])
    async with Run(site) as run:
        assert (await run.read(await run.end())).position == await run.end()
        assert (await run.read(0)).position == 0


async def test_conflicts_and_strangers_are_found_again(site):
    built, other = site.session(commands=3), site.session(commands=3)
    forged = replace(built.frames[3], payload=b"forged")
    pairs = [
        *built.encoded(),
        (built.session, messages.encode(forged)),
        (built.session, b"noise"),
        *other.encoded(),
    ]
    await seal(site, pairs=pairs)
    async with Run(site) as run:
        expected = await run.ledger.quarantined(run.bus.topic, 0)
        found = await run.read(await run.end())
        assert [replace(item, at_ns=0) for item in found.quarantined] == [
            replace(item, at_ns=0) for item in expected
        ]
        assert {item.reason for item in expected} == {"conflict", "malformed"}
        assert [item.reason for item in found.incidents] == [item.reason for item in expected]


async def test_checkpoints_of_another_tree_or_too_late_are_found_again(site):
    options = {"seed": 70, "commands": 6, "close": None, "checkpoint_every": 100}
    built = site.session(**options, final_checkpoint=False)
    other = site.session(**options, row_bytes=7)  # signed by the same key
    assert (other.session, other.tree.root()) != (built.session, built.tree.root())
    await seal(site, pairs=[*built.encoded(), (built.session, messages.encode(other.messages[-1]))])
    await seal(site, pairs=[(built.session, messages.encode(built.checkpoint(5)))])
    async with Run(site) as run:
        expected = await run.ledger.quarantined(run.bus.topic, 0)
        assert [item.reason for item in expected] == ["checkpoint_root", "checkpoint_late"]
        found = await run.read(await run.end())
        assert [replace(item, at_ns=0) for item in found.quarantined] == [
            replace(item, at_ns=0) for item in expected
        ]


async def test_a_bus_that_lost_what_was_unread_is_left_to_ingest(site):
    """Positions are never moved over a hole that nobody has told of."""
    await seal(site, [site.session()])
    async with Run(site) as run:
        short = MemoryBus()
        found = await run.read(500, bus=short)
        assert (found.position, found.offsets) == (500, {})


async def test_what_was_passed_and_trimmed_is_no_hole(site):
    built = site.session()
    await seal(site, [built])
    async with Run(site) as run:
        end = await run.end()

        class Trimmed:
            topic, partitions = run.bus.topic, 1
            partition_of, read = run.bus.partition_of, run.bus.read
            mark_at = end

            async def bounds(self, partition):
                return end, end

            async def marks(self, partition):
                return {"ingest": self.mark_at}

        assert (await run.read(3, bus=Trimmed())).position == end
        Trimmed.mark_at = 3
        assert (await run.read(3, bus=Trimmed())).position == 3
