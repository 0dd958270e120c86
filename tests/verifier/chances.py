"""Deployments with sessions of every honest sort, sealed by the real ingest and in the real log.

recorded = await record(folder, seed, count=60)
for chance in recorded.chances:
    data = await recorded.bundle(chance, place)       # redacted, and with keys, by chance
    ...                                               # chance.verdict is what is true of it
"""

import random
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.indexer.cli.log_files import ADMIN, admin_key, key_statement
from sealtape.indexer.export import Exporter, Frames
from sealtape.indexer.reading import Keys
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.sealer import Limits
from sealtape.ingest.tlog.names import statement_name
from sealtape.schemas import messages, notes
from sealtape.schemas.evidence import parse_evidence_policy
from sealtape.schemas.frames import Frame, Suite
from sealtape.schemas.tlog.statements import (
    DoneStatement,
    Heading,
    HoldStatement,
    IntentStatement,
    ReleaseStatement,
    sign_statement,
)
from tests.factories.deployments import make_site, put, reading, sealing, settled
from tests.factories.logs import grow_log
from tests.factories.sessions import LOG, START_NS

__all__ = ["Chance", "Recorded", "record"]

# On a busy machine a signature may come a second behind what it signs, and both are read by then.
PATIENT = Limits(segment_ns=300_000_000, hold_ns=3_000_000_000, idle_ns=50_000_000)
SORTS = {
    "whole": "verified",
    "empty": "verified",
    "recovered": "verified",
    "recovered twice": "verified",
    "held": "verified",
    "released": "verified",
    "live": "incomplete",
    "lost": "incomplete",
    "lost tail": "incomplete",
    "unsigned": "incomplete",
    "erased": "deleted",
}
WEIGHTS = (8, 2, 4, 1, 2, 1, 2, 3, 1, 2, 1)
SECOND, REAPER = (
    notes.Signer(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))
    for name, seed in (("second.example/admin", 0x21), ("reaper.example/reaper", 0x22))
)


@dataclass
class Chance:
    """A session: its epochs as built, what was done to it, and what verification has to say."""

    sort: str
    epochs: list
    missing: set = field(default_factory=set)

    @property
    def session(self):
        return self.epochs[0].session

    @property
    def verdict(self):
        return SORTS[self.sort]

    def encoded(self):
        """What reaches the bus."""
        return [
            (self.session, messages.encode(message))
            for built in self.epochs
            for message in built.messages
            if not (isinstance(message, Frame) and message.seq in self.missing)
        ]


class Recorded:
    """A deployment with all of it sealed, and in the log as far as it is final."""

    def __init__(self, site, luck, chances):
        self.site = site
        self.luck = luck
        self.chances = chances
        self.rules = (site.folder / "policy.toml").read_text(encoding="utf-8")

    @property
    def policy(self):
        return parse_evidence_policy(self.rules.encode())

    async def bundles(self, folder):
        """(chance, bytes of its bundle), with some payloads withheld and some keys given."""
        async with reading(self.site) as (ledger, vault, keyring):
            for number, chance in enumerate(self.chances):
                keys = Keys(keyring, self.site.auditor) if self.luck.random() < 0.3 else None
                exporter = Exporter(ledger, vault, keys=keys, progress=lambda *_: None)
                place = folder / f"{number}.zip"
                await exporter.export(chance.session, place, redact=self._redacted(chance))
                yield chance, place.read_bytes()
                place.unlink()

    def _redacted(self, chance):
        if self.luck.random() < 0.6:
            return None
        hidden = [
            (built.epoch, frame.seq, frame.seq + 1)
            for built in chance.epochs
            for frame in built.frames
            if frame.suite != Suite.PUBLIC
            and frame.seq not in chance.missing
            and self.luck.random() < 0.4
        ]
        return Frames(tuple(hidden))


async def record(folder: Path, seed: int, count: int) -> Recorded:
    """A deployment of so many sessions, all by chance; the same for the same seed."""
    luck = random.Random(f"chances {seed}")
    site = make_site(folder, partitions=luck.choice([1, 2, 3]))
    site.seeds[0] = seed * 100_000
    chances = [_chance(site, luck, sort) for sort in luck.choices([*SORTS], WEIGHTS, k=count)]
    async with sealing(site, limits=PATIENT) as (stores, running):
        await put(stores.bus, _mixed(chances, luck))
        await settled(running)
    await grow_log(site, 0.4)
    await _decide(site, luck, chances)
    return Recorded(site, luck, chances)


def _chance(site, luck, sort):
    options = {
        "commands": 0 if sort == "empty" else luck.choice([1, 1, 2, 3, 5, 9]),
        "row_bytes": luck.choice([0, 1, 100, 3000]),
        "checkpoint_every": luck.choice([1, 3, 256]),
        "encrypt": luck.random() < 0.7,
        "facts_frames": luck.random() < 0.7,
        "start_ns": START_NS + luck.randrange(10**12),
        "close": luck.choice(["client", "target", "expired", "error", "max_session"]),
    }
    if sort.startswith("recovered"):
        return Chance(sort, _recovered(site, options, twice=sort.endswith("twice")))
    if sort in ("live", "unsigned"):
        options |= {"final_checkpoint": False, "checkpoint_every": 256}
        options |= {"close": None} if sort == "live" else {}
    built = site.session(**options)
    last = len(built.frames) - 1
    missing = set()
    if sort == "lost":
        missing = set(luck.sample(range(2, last), luck.randrange(1, max(2, last // 2))))
    elif sort == "lost tail":
        missing = set(range(luck.randrange(2, last + 1), last + 1))
    return Chance(sort, [built], missing)


def _recovered(site, options, *, twice):
    """Epochs that crashes ended, and the one in which a node took up what was left."""
    crashed = options | {"close": None, "final_checkpoint": False}
    epochs = [site.session(**crashed)]
    for number in range(1, 3 if twice else 2):
        last = number == (2 if twice else 1)
        before = epochs[-1]
        own = {"commands": 0, "close": "aborted", "final_checkpoint": True} if last else crashed
        later = before.opening.anchor_ns + 10**9 * number
        follows = {
            "session": before.session, "epoch": number, "continues": before.continues,
            "number": before.opening.number, "start_ns": later,
        }  # fmt: skip
        epochs.append(site.session(**(options | own | follows)))
    return epochs


def _mixed(chances, luck):
    """All messages, those of each session in order; now and then some are sent twice."""
    queues = [chance.encoded() for chance in chances]
    pairs = []
    while queues:
        queue = luck.choice(queues)
        count = luck.randrange(1, 12)
        batch = queue[:count]
        pairs += batch * (2 if luck.random() < 0.1 else 1)
        del queue[:count]
        queues = [each for each in queues if each]
    return pairs


# -- the log's statements --------------------------------------------------------------------------


async def _decide(site, luck, chances):
    """Holds, releases and erasures, in the order in which they have to be made."""
    first = admin_key(site.folder / ADMIN)
    sessions = {
        sort: tuple(sorted(each.session for each in chances if each.sort == sort)) for sort in SORTS
    }

    def heading():
        return Heading(LOG, luck.randbytes(16), START_NS + luck.randrange(10**12))

    held = tuple(sorted(sessions["held"] + sessions["released"]))
    early = [key_statement(LOG, "admin", SECOND.vkey, [first])]  # two have to sign what follows
    early.append(key_statement(LOG, "reaper", REAPER.vkey, [first]))
    hold = HoldStatement(heading(), luck.randbytes(32), held)
    intent = IntentStatement(heading(), "erasure", luck.randbytes(32), sessions["erased"])
    early += [sign_statement(hold, [first]).to_json()] if held else []
    early += [sign_statement(intent, [first, SECOND]).to_json()] if intent.sessions else []
    await _submit(site, early)
    late = []
    if sessions["released"]:
        body = ReleaseStatement(heading(), hold.heading.id, sessions["released"])
        late.append(sign_statement(body, [first, SECOND]).to_json())
    if intent.sessions:
        ledger = await open_ledger(site.settings.stores.ledger, site.folder)
        name = statement_name(intent.heading.id)
        _, index = (await ledger.log_find([name]))[name]
        await ledger.close()
        body = DoneStatement(heading(), intent.heading.id, index, 3, 2, ())
        late.append(sign_statement(body, [REAPER]).to_json())
    await _submit(site, late)


async def _submit(site, entries):
    ledger = await open_ledger(site.settings.stores.ledger, site.folder)
    try:
        for entry in entries:
            await ledger.submit("statement", entry)
    finally:
        await ledger.close()
    await grow_log(site, 0.2)
