"""Whole deployments in a folder, sealed by the real ingest, without a capture node or a target.

site = make_site(folder)                # settings, keys and trust, as `sealtape init --dev`
built = site.session(commands=5)        # signed by its node, wrapped for its readers
await seal(site, [built])               # bus, ingest, vault and ledger are the real ones
report = await audit(site)              # read only; what `sealtape verify --all` does
"""

import asyncio
import hashlib
import random
import sqlite3
import time
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from sealtape.indexer.audit import Audit
from sealtape.indexer.audit_log import LogTrust, signed_sizes
from sealtape.indexer.cli.deployment import create
from sealtape.indexer.contents import ContentChecker
from sealtape.ingest.keyring import open_keyring
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.node import open_stores, start_ingest
from sealtape.ingest.parquet import read_rows, row_of, write_segment
from sealtape.ingest.sealer import Limits
from sealtape.ingest.vault import open_vault
from sealtape.schemas.layout import SEGMENT_PREFIX
from sealtape.schemas.notes import Signer
from sealtape.schemas.segments import (
    Fragments,
    encode_manifest,
    fragments_root,
    parse_manifest,
    record_hash,
)
from sealtape.schemas.settings import load_settings
from sealtape.schemas.tree import CompactRange
from sealtape.schemas.trust import parse_node_key, parse_trust
from sealtape.schemas.wraps import PrivateKey
from tests.factories.sessions import LOG, build_session

__all__ = [
    "QUICK",
    "Forger",
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
    "site_at",
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
    numbers: dict[bytes, int] = field(default_factory=dict)

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
        """A session of this deployment; each one has a seed and a number of its own."""
        self.seeds[0] += 1
        known = self.numbers.get(options.get("session"), max(self.numbers.values(), default=0) + 1)
        keys = {"node": self.node, "auditor": self.auditor, "indexer": self.indexer}
        own = {"seed": self.seeds[0], "number": known}
        built = build_session(**(own | keys | options))
        self.numbers[built.session] = built.opening.number
        return built

    def recovered(self, **options):
        """Two epochs: one that a crash ended unsigned, and the one that took it up."""
        first = self.session(**({"close": None, "final_checkpoint": False} | options))
        second = self.session(
            commands=0, session=first.session, epoch=1, continues=first.continues, close="aborted",
            number=first.opening.number,
        )  # fmt: skip
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
    create(folder, development=True, log=LOG)
    config = folder / "sealtape.toml"
    text = config.read_text()
    text += f'\n[stores]\nbus = "dir:bus?partitions={partitions}"\n'
    config.write_text(text)
    return site_at(folder)


def site_at(folder):
    """The deployment that is in a folder."""
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


async def audit(site, session=None, **options):
    """Verify everything, or one session, and return the report; see `audited`."""
    return (await audited(site, session, **options)).report


async def audited(
    site, session=None, *, trust=(), key=None, deep=None, now_ns=None, stores=None,
    policy=None, since=None, judge=None,
):  # fmt: skip
    """Verify everything, or one session; `key` opens the payloads, `trust` None trusts any.

    `stores` are those of `reading`, where many runs are to be quick. `policy` and `since` are for
    the log; `judge` is where segments are judged.
    """
    vault = await open_vault(site.settings.stores.vault, site.folder)
    listed = [name async for name in vault.keys(SEGMENT_PREFIX)]
    log_trust = LogTrust(policy, await signed_sizes(vault), since)
    async with reading(site) if stores is None else nullcontext(stores) as (ledger, vault, keyring):
        run = Audit(
            ledger=ledger,
            vault=vault,
            log=LOG,
            trust=site.trusted if trust == () else trust,
            now_ns=now_ns or time.time_ns(),
            contents=None if key is None else ContentChecker(keyring, key, deep=deep),
            log_trust=log_trust,
            judge=judge,
        )
        await (run.everything(listed) if session is None else run.session(session))
        return run


class Forger:
    """An intruder who may write every store, but holds no node's or session's private key.

    Works on the last segment of a shard and makes all else agree with what he put into it: object,
    manifest, records, heads and the end of the chain.
    """

    def __init__(self, site):
        self.site = site
        self.path = site.objects()[-1]
        self.manifest = self.path.with_name(self.path.stem + ".manifest.jsonl")
        self.record, self.fragments = parse_manifest(self.manifest.read_bytes())
        rows = [row for _, row in read_rows(self.path.read_bytes())]
        self.stretches = [rows[slice(*fragment.rows)] for fragment in self.fragments]

    def find(self, built, seq):
        """Where a frame lies: stretch and row."""
        for at, fragment in enumerate(self.fragments):
            ours = (fragment.session, fragment.epoch) == (built.session, built.epoch)
            if ours and fragment.lo <= seq < fragment.hi:
                return at, seq - fragment.lo
        raise LookupError(seq)

    def put(self, built, seq, frame):
        """Put a frame in the place of another, with the hashes it needs."""
        at, row = self.find(built, seq)
        self.stretches[at][row] = row_of(frame)

    def write_object(self):
        """Write the changed rows into the object alone."""
        self._write(self.path, write_segment(self.stretches, {}))

    def write_all(self):
        """Write the object and make manifest and ledger agree with it."""
        data = write_segment(self.stretches, {})
        self._write(self.path, data)
        fragments, first = [], 0
        for fragment, rows in zip(self.fragments, self.stretches, strict=True):
            fragments.append(self._fragment(fragment, rows, first))
            first += len(rows)
        self.fragments = fragments
        self.record = replace(
            self.record,
            sha256=hashlib.sha256(data).digest(),
            bytes=len(data),
            rows=first,
            fragments=Fragments(len(fragments), fragments_root(fragments)),
        )
        self._write(self.manifest, encode_manifest(self.record, fragments))
        with sqlite3.connect(self.site.folder / "ledger.db") as ledger:
            self._ledger(ledger)
        ledger.close()

    def _fragment(self, fragment, rows, first):
        run = CompactRange(fragment.lo)
        for row in rows:
            run.append(row.leaf)
        signed = fragment.checkpoint
        return replace(
            fragment,
            checkpoint=signed if signed is not None and signed.size <= run.hi else None,
            hi=run.hi,
            nodes=run.nodes,
            rows=(first, first + len(rows)),
            first_ts_ns=min(row.ts_ns for row in rows),
            last_ts_ns=max(row.ts_ns for row in rows),
            bytes=sum(row.payload_len for row in rows),
        )

    def _ledger(self, ledger):
        (number,) = ledger.execute(
            "SELECT id FROM segment WHERE key=?", (self.record.object,)
        ).fetchone()
        ledger.execute("UPDATE segment SET record=? WHERE id=?", (self.record.to_json(), number))
        ledger.execute("UPDATE shard SET hash=?", (record_hash(self.record),))
        for index, fragment in enumerate(self.fragments):
            ledger.execute(
                "UPDATE fragment SET hi=?, record=? WHERE segment_id=? AND idx=?",
                (fragment.hi, fragment.to_json(), number, index),
            )
            if fragment.lo == 0:
                opening = self.stretches[index][0].payload
                ledger.execute(
                    "UPDATE head SET hi=?, nodes=?, last_ts_ns=?, attested=?,"
                    " opening=? WHERE session=? AND epoch=?",
                    (
                        fragment.hi,
                        b"".join(fragment.nodes),
                        fragment.last_ts_ns,
                        fragment.checkpoint.size if fragment.checkpoint else 0,
                        opening,
                        fragment.session,
                        fragment.epoch,
                    ),
                )
        for session in {fragment.session for fragment in self.fragments}:
            own = [fragment for fragment in self.fragments if fragment.session == session]
            ledger.execute(
                "UPDATE session SET frames=?, bytes=?, last_ts_ns=? WHERE session=?",
                (
                    sum(fragment.hi - fragment.lo for fragment in own),
                    sum(fragment.bytes for fragment in own),
                    max(fragment.last_ts_ns for fragment in own),
                    session,
                ),
            )

    @staticmethod
    def _write(path, data):
        path.chmod(0o644)
        path.write_bytes(data)


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
