"""Several ingest and indexer processes on one deployment, fed with built sessions.

    async with Fleet(folder, stores) as fleet:
        one = fleet.start("ingest", "one")
        await fleet.shared("ingest", ["one"])
        feeding = asyncio.create_task(fleet.feed(sessions))
        await one.kill()
        await fleet.all_sealed(sessions); await fleet.check(sessions)

The stores are embedded, or those of a `tests.servers.stores.StoreSet`. No capture node runs: what
one would send is put on the bus, interleaved, now and then again.
"""

import asyncio
import random
import re
import signal
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from sealtape.capture.bus import open_bus
from sealtape.indexer.cli.setup import STORES
from sealtape.indexer.index import Page, open_index
from sealtape.indexer.node import indexer_stores
from sealtape.indexer.query import parse
from sealtape.indexer.worker import lease_topic
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.shares import shares
from sealtape.ingest.vault import open_vault
from sealtape.schemas.errors import StoreError
from sealtape.schemas.messages import KeyMessage
from sealtape.schemas.tree import CompactRange
from tests.factories.deployments import make_site
from tests.journeys.aftermath import segment_leaves
from tests.journeys.lab import Room

LEASE_S = 4.0
PARTITIONS = 6
SETTINGS = f"""
[ingest]
lease_s = {LEASE_S}
segment_s = 0.5
[indexer]
lease_s = {LEASE_S}
"""
EMBEDDED = f'[stores]\nbus = "dir:bus?partitions={PARTITIONS}"\n'
PAGE = Page(limit=10_000)


class Fleet:
    """A deployment and its processes; all of them end with the block."""

    def __init__(self, folder, stores=None, *, settings=SETTINGS):
        self.folder = Path(folder) / "fleet"
        self.rooms = {}
        self._stores = stores
        self._settings = settings
        self.writers = Counter()

    async def __aenter__(self):
        self.site = make_site(self.folder)
        text = self.site.config.read_text().partition("\n[stores]")[0]
        text = re.sub(r"^\[(ingest|indexer)\]\n([^\[\n].*\n)*", "", text, flags=re.MULTILINE)
        stores = EMBEDDED if self._stores is None else self._stores.text()
        self.site.config.write_text(f"{text}\n{stores}\n{self._settings}")
        if self._stores is not None:
            for name, prepare in STORES:
                await prepare(getattr(self.settings.stores, name), self.folder)
        return self

    async def __aexit__(self, *error):
        for room in self.rooms.values():
            if room.process.poll() is None:
                room.process.kill()
            await room._ended()

    @property
    def settings(self):
        return self.site.settings

    def logs(self):
        return "\n".join(
            f"--- {path.name}\n{path.read_text()[-2000:]}" for path in self.folder.glob("*.log")
        )

    # -- processes ---------------------------------------------------------------------------------

    def start(self, room, worker):
        """Start `ingest` or `index` under a name."""
        words = ("-c", self.site.config, room, "--worker", worker)
        self.rooms[worker] = found = Room(words, self.folder / f"{worker}.log")
        return found

    async def kill(self, worker):
        await self.rooms.pop(worker).kill()

    def freeze(self, worker):
        self.rooms[worker].process.send_signal(signal.SIGSTOP)

    def thaw(self, worker):
        self.rooms[worker].process.send_signal(signal.SIGCONT)

    async def drain(self):
        """SIGTERM for all; their exit codes."""
        rooms, self.rooms = self.rooms, {}
        return await asyncio.gather(*(room.stop(signal.SIGTERM) for room in rooms.values()))

    async def rebuild(self):
        """Make the index anew."""
        words = ("-c", self.site.config, "index", "rebuild")
        room = Room(words, self.folder / "rebuild.log")
        assert await room._ended() == 0, self.logs()

    # -- who has what ------------------------------------------------------------------------------

    async def holders(self, room):
        """Who holds each partition at the moment, by partition."""
        async with self._opened() as (bus, ledger):
            topic = bus.topic if room == "ingest" else lease_topic(bus.topic)
            rows = await ledger.leases()
        return {
            row.partition: row.owner
            for row in rows
            if row.topic == topic and row.expires_in_s > 0 and row.owner
        }

    async def shared(self, room, workers, *, seconds=60.0):
        """Wait until each of these has its share and nobody else has any; say how long it took."""
        wanted = {p: w for w in workers for p in shares(PARTITIONS, workers, w)}
        began = time.monotonic()
        await self.until(
            lambda: self.holders(room), lambda found: found == wanted, seconds=seconds, what=wanted
        )
        return time.monotonic() - began

    @asynccontextmanager
    async def _opened(self):
        async with AsyncExitStack() as stack:
            bus = open_bus(self.settings.stores.bus, self.folder)
            stack.push_async_callback(bus.close)
            await bus.start()
            ledger = await open_ledger(self.settings.stores.ledger, self.folder, read_only=True)
            stack.push_async_callback(ledger.close)
            yield bus, ledger

    async def until(self, question, good=bool, *, seconds=60.0, what="it"):
        """Ask until the answer is good; what is asked may fail while processes come up."""
        deadline, answer = time.monotonic() + seconds, None
        while True:
            try:
                answer = await question()
                if good(answer):
                    return answer
            except StoreError as error:
                answer = error
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not in {seconds} s: {answer}\n{self.logs()}")
            await asyncio.sleep(0.1)

    # -- sessions ----------------------------------------------------------------------------------

    async def feed(self, sessions, *, seconds):
        """Put sessions on the bus within about that time, interleaved, some of it twice."""
        queues = [list(zip(built.messages, built.encoded(), strict=True)) for built in sessions]
        pieces = sum(len(queue) // 4 + 1 for queue in queues)
        async with indexer_stores(self.settings) as stores:
            while any(queues):
                queue = random.choice([queue for queue in queues if queue])
                portion = queue[:4] if random.random() < 0.8 else queue[:4] * 2
                del queue[:4]
                for message, pair in portion:
                    apart = stores.keys is not None and isinstance(message, KeyMessage)
                    bus = stores.keys if apart else stores.bus
                    await bus.append(bus.partition_of(pair[0]), [pair])
                await asyncio.sleep(seconds / pieces)

    async def all_sealed(self, sessions, *, seconds=120.0):
        """Wait until ledger and index say of all these sessions that they are sealed."""
        names = {built.session for built in sessions}

        async def unsealed():
            async with self._opened() as (_, ledger):
                rows = [await ledger.session(name) for name in names]
            found = (await self.documents())["sessions"]
            return [row for row in rows if row is None or row.state != "sealed"] + [
                name.hex()
                for name in names
                if name.hex() not in found or found[name.hex()].state != "sealed"
            ]

        await self.until(unsealed, lambda left: not left, seconds=seconds, what="sealing it all")

    async def documents(self):
        """All that the index holds, by id."""
        index = await open_index(self.settings.stores.index, self.folder, read_only=True)
        try:
            query = parse("", now_ns=time.time_ns())
            sessions = (await index.search_sessions(query, PAGE)).documents
            commands = (await index.search_commands(query, PAGE)).documents
        finally:
            await index.close()
        return {
            "sessions": {each.id: each for each in sessions},
            "commands": {each.id: each for each in commands},
        }

    # -- what must hold ----------------------------------------------------------------------------

    async def check(self, sessions):
        """Raise AssertionError unless all frames are sealed once and in order, roots are equal."""
        expected = {(b.session, b.epoch, f.seq): f.leaf() for b in sessions for f in b.frames}
        async with self._opened() as (_, ledger):
            assert await ledger.incidents() == []
            assert await self._leaves(ledger) == expected
            for built in sessions:
                merged, seq = CompactRange(), 0
                for fragment in await ledger.fragments(built.session):
                    assert fragment.record.lo == seq, "out of order"
                    merged.extend(fragment.record.range)
                    seq = fragment.record.hi
                assert merged.root() == built.tree.root()
            for row in await ledger.leases():
                assert row.owner == "", f"{row} is still held"
        documents = await self.documents()
        frames = {each.session: each.frames for each in documents["sessions"].values()}
        assert frames == {built.session: len(built.frames) for built in sessions}

    async def _leaves(self, ledger):
        vault = await open_vault(self.settings.stores.vault, self.folder)
        try:
            leaves = await segment_leaves(ledger, vault)
            self.writers = Counter([s.record.writer async for s in ledger.segments()])
        finally:
            await vault.close()
        return leaves
