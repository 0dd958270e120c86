"""Whole deployments in a folder, sealed by the real ingest, without a capture node or a target.

site = make_site(folder)                # settings, keys and trust, as `sealtape init --dev`
built = site.session(commands=5)        # signed by its node, wrapped for its readers
await seal(site, [built])               # bus, ingest, vault and ledger are the real ones
report = await audit(site)              # read only; what `sealtape verify --all` does
"""

import asyncio
import hashlib
import random
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from sealtape.indexer.audit import Audit
from sealtape.indexer.cli.deployment import create
from sealtape.indexer.contents import ContentChecker
from sealtape.ingest.keyring import open_keyring
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.node import open_stores, start_ingest
from sealtape.ingest.sealer import Limits
from sealtape.ingest.vault import open_vault
from sealtape.schemas.layout import SEGMENT_PREFIX
from sealtape.schemas.notes import Signer
from sealtape.schemas.settings import load_settings
from sealtape.schemas.trust import parse_node_key, parse_trust
from sealtape.schemas.wraps import PrivateKey
from tests.factories.sessions import LOG, build_session

__all__ = [
    "QUICK",
    "Site",
    "audit",
    "interleaved",
    "make_site",
    "put",
    "random_site",
    "reading",
    "seal",
    "sealing",
    "settled",
    "tree_state",
]

QUICK = Limits(segment_ns=50_000_000, hold_ns=100_000_000, idle_ns=10_000_000)
"""Cut at once; wait 0.1 s for a signature that does not come."""


@dataclass(frozen=True)
class Site:
    """A deployment's folder and the keys that belong to it."""

    folder: Path
    node: Signer
    auditor: PrivateKey
    indexer: PrivateKey
    seeds: list[int] = field(default_factory=lambda: [0])

    @property
    def config(self):
        return self.folder / "sealtape.toml"

    @property
    def settings(self):
        return load_settings(self.config.read_text(), base=str(self.folder))

    @property
    def trusted(self):
        return parse_trust((self.folder / "trust.toml").read_text()).nodes

    def session(self, **options):
        """A session of this deployment; each one has a seed of its own."""
        self.seeds[0] += 1
        keys = {"node": self.node, "auditor": self.auditor, "indexer": self.indexer}
        return build_session(**({"seed": self.seeds[0]} | keys | options))

    def recovered(self, **options):
        """Two epochs: one that a crash ended unsigned, and the one that took it up."""
        first = self.session(**({"close": None, "final_checkpoint": False} | options))
        second = self.session(
            commands=0, session=first.session, epoch=1, continues=first.continues, close="aborted"
        )
        return [first, second]

    def journal(self, **options):
        """The journal of a node that runs now."""
        given = {"journal": True, "number": 0, "commands": 0, "close": None}
        return self.session(**given, user="", target="", **({"start_ns": time.time_ns()} | options))

    def objects(self, suffix=".parquet"):
        """Files of the vault's segments, in order of sealing."""
        return sorted((self.folder / "vault/seg").rglob("*" + suffix))

    def moved(self, folder):
        """The same deployment in another folder."""
        return replace(self, folder=folder)


def make_site(folder, *, partitions=1):
    """Make a deployment with the keys of `sealtape init --dev` and nothing in its stores."""
    create(folder, development=True)
    config = folder / "sealtape.toml"
    text = config.read_text().replace('log = "sealtape.dev/log"', f'log = "{LOG}"')
    text += f'\n[stores]\nbus = "dir:bus?partitions={partitions}"\n'
    config.write_text(text)
    return Site(
        folder=folder,
        node=parse_node_key((folder / "keys/node.key").read_text()),
        auditor=PrivateKey.from_text((folder / "keys/auditor.key").read_text()),
        indexer=PrivateKey.from_text((folder / "keys/indexer.key").read_text()),
    )


@asynccontextmanager
async def sealing(site, *, limits=QUICK):
    """The deployment's stores with ingest running on them."""
    stores = await open_stores(site.settings)
    try:
        running = await start_ingest(
            bus=stores.bus,
            keyring=stores.keyring,
            vault=stores.vault,
            ledger=stores.ledger,
            owner="dev-1",
            verifiers=site.trusted,
            limits=limits,
        )
        try:
            yield stores, running
        finally:
            await running.stop()
    finally:
        for store in (stores.bus, stores.keyring, stores.vault, stores.ledger):
            await store.close()


async def put(bus, pairs):
    """Put (key, value) pairs on the bus, all of a partition at once."""
    batches = {}
    for key, value in pairs:
        batches.setdefault(bus.partition_of(key), []).append((key, value))
    for partition, batch in batches.items():
        await bus.append(partition, batch)


async def seal(site, sessions=(), *, pairs=None, limits=QUICK):
    """Put sessions on the bus, or messages as they are, and run ingest until all is published."""
    if pairs is None:
        pairs = [pair for built in sessions for pair in built.encoded()]
    async with sealing(site, limits=limits) as (stores, running):
        await put(stores.bus, pairs)
        await settled(running)


async def settled(running):
    """Wait until ingest has published all that is on the bus."""
    until = time.monotonic() + 30
    while await running.lag() > 0:
        assert time.monotonic() < until, "ingest does not come to the end of the bus"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def reading(site):
    """Ledger, vault and keyring as verification opens them."""
    urls = site.settings.stores
    vault = await open_vault(urls.vault, site.folder)
    ledger = await open_ledger(urls.ledger, site.folder, read_only=True)
    keyring = await open_keyring(urls.keyring, site.folder, read_only=True)
    try:
        yield ledger, vault, keyring
    finally:
        for store in (keyring, ledger, vault):
            await store.close()


async def audit(site, session=None, *, trust=(), key=None, deep=None, now_ns=None):
    """Verify everything, or one session; `key` opens the payloads, `trust` None trusts any."""
    vault = await open_vault(site.settings.stores.vault, site.folder)
    listed = [name async for name in vault.keys(SEGMENT_PREFIX)]
    async with reading(site) as (ledger, vault, keyring):
        run = Audit(
            ledger=ledger,
            vault=vault,
            log=LOG,
            trust=site.trusted if trust == () else trust,
            now_ns=now_ns or time.time_ns(),
            contents=None if key is None else ContentChecker(keyring, key, deep=deep),
        )
        return await (run.everything(listed) if session is None else run.session(session))


def random_site(folder, seed):
    """A deployment and the sessions for it: sizes, epochs, classes and endings by chance."""
    luck = random.Random(seed)
    site = make_site(folder, partitions=luck.choice([1, 1, 2, 3]))
    site.seeds[0] = seed * 1000
    sessions = []
    for _ in range(luck.randrange(1, 7)):
        options = {
            "commands": luck.choice([0, 1, 2, 3, 10, 40]),
            "row_bytes": luck.choice([0, 1, 100, 5000]),
            "checkpoint_every": luck.choice([1, 3, 256]),
            "encrypt": luck.random() < 0.7,
            "facts_frames": luck.random() < 0.8,
        }
        kind = luck.random()
        if kind < 0.25:
            sessions += site.recovered(**options)
        elif kind < 0.4:
            sessions.append(site.session(**options, close=None))
        else:
            sessions.append(site.session(**options))
    sessions.append(site.journal())
    return site, sessions


def interleaved(sessions, seed=0):
    """(key, value) pairs of all sessions as nodes send them: mixed, each session's in order.

    An epoch comes after the one that it continues. Now and then a batch is sent again.
    """
    luck = random.Random(seed)
    queues = {}
    for built in sessions:
        queues.setdefault(built.session, []).extend(built.encoded())
    pairs = []
    while queues:
        name = luck.choice(sorted(queues))
        count = luck.randrange(1, 9)
        batch, rest = queues[name][:count], queues[name][count:]
        pairs += batch * (2 if luck.random() < 0.1 else 1)
        if rest:
            queues[name] = rest
        else:
            del queues[name]
    return pairs


def tree_state(folder):
    """What a folder holds: every name with kind, mode, size, time of change and content."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        facts = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (
            facts.st_mode,
            facts.st_size if digest else 0,
            facts.st_mtime_ns,
            digest,
        )
    return found
