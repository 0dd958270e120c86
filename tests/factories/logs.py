"""The log of a deployment in a folder, written by the real worker, read back from its objects.

async with writing(site) as (stores, worker): ...      # until it is left, which flushes it
entries, checkpoint = await read_log(site)             # checked against the signed root
await grow_log(site, life=Life(3))         # killed at the third write; raises Killed
rotate(site)                               # the next writer begins another shard
"""

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import replace

from sealtape.indexer.cli.lab import lab_log
from sealtape.indexer.cli.log_files import introductions
from sealtape.indexer.cli.main import main
from sealtape.ingest.node import open_stores
from sealtape.ingest.tlog.opening import log_parts, read_policy
from sealtape.ingest.tlog.parts import Pace
from sealtape.ingest.tlog.store import CHECKPOINT, LogStore
from sealtape.ingest.tlog.worker import LogWorker
from sealtape.ingest.vault import open_vault
from sealtape.schemas import tree
from sealtape.schemas.tlog.records import parse_entry

__all__ = [
    "QUICK_PACE",
    "Killed",
    "Life",
    "grow_log",
    "kinds",
    "log_of",
    "read_log",
    "rotate",
    "writing",
]

QUICK_PACE = Pace(checkpoint_s=0.05, heartbeat_s=600.0, final_s=0.2, idle_s=0.02)


class Killed(Exception):
    """The process died here."""


class Life:
    """Ends with the `last`-th write, before it is done or after it; 0 is never."""

    def __init__(self, last=0, *, after=False):
        self.last = last
        self.after = after
        self.writes = []

    def of(self, store, *names):
        """A store whose methods of these names are writes."""
        return _Mortal(self, store, names)


class _Mortal:
    def __init__(self, life, store, names):
        self._life = life
        self._store = store
        self._names = names

    def __getattr__(self, name):
        found = getattr(self._store, name)
        if name not in self._names:
            return found

        async def call(*arguments, **options):
            life = self._life
            life.writes.append(name)
            last = len(life.writes) == life.last
            if last and not life.after:
                raise Killed(name)
            result = await found(*arguments, **options)
            if last:
                raise Killed(name)
            return result

        return call


@asynccontextmanager
async def log_of(site, *, stores=None, witnesses=True, **changes):
    """Stores of a deployment, and what its log is made with; quick unless told otherwise.

    One at a time has its `witnesses`; without them its log asks none and needs none.
    """
    settings = site.settings
    opened = stores or await open_stores(settings)
    lab = lab_log(settings, opened.ledger, opened.vault)
    if not witnesses:
        policy = replace(read_policy(settings), witnesses=(), groups=(), quorum=None)
        introduce = introductions(settings)
        lab = log_parts(settings, opened.ledger, opened.vault, policy=policy, introduce=introduce)
    try:
        async with lab as parts:
            yield opened, replace(parts, **({"pace": QUICK_PACE} | changes))
    finally:
        if stores is None:
            await opened.close()


@asynccontextmanager
async def writing(site, *, owner="dev-1", life=None, **options):
    """The deployment's stores with the log's worker running on them until it is left."""
    async with log_of(site, **options) as (opened, parts):
        if life is not None:
            parts = replace(
                parts,
                ledger=life.of(opened.ledger, "log_append", "log_noted", "publish", "taken"),
                vault=life.of(opened.vault, "put_new", "swap"),
                signer=life.of(parts.signer, "sign"),
            )
        worker = LogWorker(parts, owner=owner, ttl_s=5.0)
        task = asyncio.create_task(worker.run())
        try:
            yield opened, worker
        finally:
            worker.leave()
            await task


async def grow_log(site, seconds=0.0, **options):
    """Run the worker until all that is sealed is in the log, and at least so long."""
    async with writing(site, **options) as (_, worker):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(0.02)
        return worker


async def read_log(site, number=1, vault=None):
    """The entries under the last witnessed checkpoint, and that; its root is computed anew."""
    opened = vault or await open_vault(site.settings.stores.vault, site.folder)
    try:
        store = LogStore(opened, number)
        found = read_policy(site.settings).open(await store.get(CHECKPOINT))
        size = found.checkpoint.size
        entries = await store.entries(0, size)
        assert tree.root([tree.leaf_hash(entry) for entry in entries]) == found.checkpoint.root
        assert await store.root(size) == found.checkpoint.root
        return [parse_entry(entry) for entry in entries], found.checkpoint
    finally:
        if vault is None:
            await opened.close()


def rotate(site):
    """Prepare the log's next shard, as `sealtape log rotate` does."""
    assert main(["-c", str(site.config), "log", "rotate"]) == 0


def kinds(entries):
    """The types of entries, in their order."""
    return [getattr(entry, "kind", "segment") for entry in entries]
