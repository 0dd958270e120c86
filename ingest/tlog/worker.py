"""The log's worker: entries, checkpoints, witnesses, time-stamps, one after the other.

One works at a time, whoever holds the lease ("log", 0); a process that ends or dies is followed by
another within the lease's time. Sealing never waits for the log. Two histories of the log are a
`StoreCorrupt`: then this process writes no more to it until it is started again, and says so.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from sealtape.ingest.crew import Hold, Leaving, persist, while_held
from sealtape.ingest.serving import end, together
from sealtape.ingest.tlog.kept import recall
from sealtape.ingest.tlog.parts import LogParts
from sealtape.ingest.tlog.pending import PendingSeals, Seals, read_seals
from sealtape.ingest.tlog.publish import Publisher
from sealtape.ingest.tlog.timestamping import AuthorityStatus
from sealtape.ingest.tlog.witnesses import WitnessStatus
from sealtape.ingest.tlog.writer import LOG, Writer
from sealtape.schemas.errors import StoreCorrupt

__all__ = ["LogSnapshot", "LogWorker"]

FLUSH_S: Final = 10.0
"""How long a process that ends adds what was sealed last, and asks witnesses about it."""
RETRY_S: Final = 5.0
"""Until witnesses are asked again when there was no quorum."""
AGAIN_S: Final = 0.5
"""The same while the process ends."""
ROTATE_S: Final = 30.0
"""How long the last checkpoint of a shard may take to be witnessed, when another is to begin."""
DAY_NS: Final = 86_400_000_000_000

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSnapshot:
    """The log as its worker has it. Ages are seconds, None for what never was.

    Attributes:
        held: whether this process is the one that writes; the numbers are its own last ones.
        size: entries of the shard `number`.
        signed: size of the last checkpoint that the log signed: pending until it is witnessed.
        witnessed: size of the last one with the policy's quorum.
        pending: seals that are under no witnessed checkpoint.
        pending_s: the age of the oldest of them.
        appended: entries that this process added.
        stopped: why it writes no more; empty while it does.
        witnesses, authorities: how each does, in the policy's and the settings' order.
    """

    held: bool = False
    number: int = 0
    size: int = 0
    signed: int = 0
    witnessed: int = 0
    pending: int = 0
    pending_s: float | None = None
    appended: int = 0
    witnessed_s: float | None = None
    stamped_s: float | None = None
    stopped: str = ""
    witnesses: tuple[WitnessStatus, ...] = ()
    authorities: tuple[AuthorityStatus, ...] = ()


class LogWorker:
    """Works while it holds the lease, waits for it while another process does."""

    def __init__(self, parts: LogParts, *, owner: str, ttl_s: float = 15.0) -> None:
        """`owner` is this process's name."""
        self._parts = parts
        self._owner = owner
        self._ttl_s = ttl_s
        self._leaving = Leaving()
        self._asked_at = math.inf
        self._news = asyncio.Event()
        self._over = False
        self._writer: Writer | None = None
        self._publisher: Publisher | None = None
        self._appended = 0
        self._witnessed_at: float | None = None
        self._stamped: dict[str, tuple[float, int]] = {}
        """When, by `monotonic`, and on which day each authority last stamped a checkpoint."""
        self._stopped = ""

    async def run(self) -> None:
        """Work until `leave`; failures of stores are logged and tried again."""
        await persist(self._attempt, self._leaving, "the log")

    def leave(self) -> None:
        """End `run`, after what was sealed last is in the log and signed."""
        self._asked_at = min(self._asked_at, self._parts.monotonic())
        self._leaving.ask(0.0)

    def snapshot(self) -> LogSnapshot:
        """How the log stands."""
        writer, publisher = self._writer, self._publisher
        now = self._parts.monotonic()
        if writer is None or publisher is None:
            return LogSnapshot(appended=self._appended, stopped=self._stopped)
        witnessed = publisher.witnessed_at or self._witnessed_at
        cosigners, stamping = self._parts.cosigners, self._parts.stamping
        pending = writer.pending.left(publisher.witnessed_size)
        stamped = max((at for at, _ in self._stamped.values()), default=None)
        return LogSnapshot(
            held=True,
            number=writer.summary.number,
            size=writer.summary.size,
            signed=publisher.size,
            witnessed=publisher.witnessed_size,
            pending=pending.count,
            pending_s=self._age_s(pending),
            appended=self._appended + writer.appended,
            witnessed_s=None if witnessed is None else now - witnessed,
            stamped_s=None if stamped is None else now - stamped,
            stopped=self._stopped,
            witnesses=() if cosigners is None else cosigners.snapshot(),
            authorities=() if stamping is None else stamping.snapshot(),
        )

    def _age_s(self, pending: Seals) -> float | None:
        if pending.oldest_ns is None:
            return None
        return max(0.0, (self._parts.clock_ns() - pending.oldest_ns) / 1e9)

    async def _attempt(self) -> bool:
        if self._stopped:
            await self._leaving.asked.wait()
            return True
        ledger = self._parts.ledger
        try:
            return await while_held(ledger, LOG, 0, self._owner, self._ttl_s, self._work)
        except StoreCorrupt as error:
            self._stopped = error.message
            log.critical("nothing is written to the log any more: %s", error)
            return False

    async def _work(self, hold: Hold) -> None:
        try:
            await self._write(hold)
        except StoreCorrupt:
            # Who was followed by another meanwhile sees that one's work, and it is no fork: Fenced.
            await self._parts.ledger.renew(hold.lease, self._ttl_s)
            raise

    async def _write(self, hold: Hold) -> None:
        parts = self._parts
        state = await parts.ledger.log_state()
        summary, cursor = await recall(parts.ledger, parts.vault, state)
        writer = Writer(parts, hold.lease, summary, cursor)
        if not state.number:
            await writer.begin()
            state = await parts.ledger.log_state()
        publisher = await Publisher.open(parts, hold.lease, state)
        if await self._next_shard(writer, publisher):
            state = await parts.ledger.log_state()
            publisher = await Publisher.open(parts, hold.lease, state)
        await self._recount(writer, publisher)
        self._writer, self._publisher, self._over = writer, publisher, False
        self._news.set()  # what was signed before and not witnessed
        try:
            await together(self._grow(writer, publisher), self._attend(publisher))
        finally:
            self._appended += writer.appended
            self._witnessed_at = publisher.witnessed_at or self._witnessed_at
            self._writer = self._publisher = None

    async def _recount(self, writer: Writer, publisher: Publisher) -> None:
        """Count what others added and nobody has witnessed; later ones are counted as they come."""
        summary = writer.summary
        witnessed, signed = publisher.witnessed_size, publisher.size
        writer.pending = PendingSeals()
        for first, size in ((witnessed, signed), (signed, summary.size)):
            found = await read_seals(self._parts.ledger, summary.number, first, size)
            writer.pending.add(size, found)

    # -- entries and checkpoints -------------------------------------------------------------------

    async def _grow(self, writer: Writer, publisher: Publisher) -> None:
        """Append and sign; return when it is time to end and all is in the log."""
        pace = self._parts.pace
        while True:
            ending = self._leaving.asked.is_set()
            if ending:
                writer.look()
            moved = await writer.step()
            late = self._parts.monotonic() - self._asked_at > FLUSH_S
            if ending and (late or not moved):
                break
            if self._parts.monotonic() - publisher.signed_at >= pace.checkpoint_s:
                await self._sign(writer, publisher)
            if not moved and not ending:
                await self._leaving.within(pace.idle_s)
        if writer.summary.since_beat:
            await writer.heartbeat()
        await self._sign(writer, publisher)
        self._over = True
        self._news.set()

    async def _sign(self, writer: Writer, publisher: Publisher) -> None:
        if await publisher.sign(writer.summary.size):
            self._news.set()

    async def _next_shard(self, writer: Writer, publisher: Publisher) -> bool:
        """Begin the next shard of the log if there is a key for it, which the policy names."""
        origin = f"{self._parts.log}/{writer.summary.number + 1}"
        known = any(key.verifier.name == origin for key in self._parts.policy.logs)
        if not known or await self._parts.signer.signed(origin) is None:
            return False
        if not await writer.introduced():
            log.error("%s waits: no statement that introduces a node's key is submitted", origin)
            return False
        until = self._parts.monotonic() + ROTATE_S
        if writer.summary.since_beat:
            # Nothing is ever added behind it: what was sealed last would have no heartbeat.
            await writer.heartbeat()
        await publisher.sign(writer.summary.size)
        while publisher.witnessed_size < publisher.size:
            if await publisher.witness(publisher.note):
                break
            if self._parts.monotonic() > until or await self._leaving.within(RETRY_S):
                log.error("%s waits: the last checkpoint before it is not witnessed", origin)
                return False
        if self._parts.stamping is not None:
            await self._stamp(publisher, self._parts.stamping.names)
        await writer.begin(publisher.witnessed)
        return True

    # -- witnesses and time-stamps -----------------------------------------------------------------

    async def _attend(self, publisher: Publisher) -> None:
        """Have the newest checkpoint witnessed, and stamped now and then, until it is over."""
        while True:
            await self._news.wait()
            self._news.clear()
            last = self._over
            if publisher.witnessed_size < publisher.size:
                if await publisher.witness(publisher.note):
                    await self._stamp(publisher)
                else:
                    log.warning("no quorum of witnesses for %d entries", publisher.size)
                    last = await self._pause()
            if last:
                return

    async def _pause(self) -> bool:
        """Wait before witnesses are asked again; True when it is not to be tried any more."""
        if self._over:
            await asyncio.sleep(AGAIN_S)
            self._news.set()
            return self._parts.monotonic() - self._asked_at > FLUSH_S
        waits = [
            asyncio.create_task(self._leaving.asked.wait()),
            asyncio.create_task(self._news.wait()),
        ]
        try:
            await asyncio.wait(waits, timeout=RETRY_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(waits)
        if not self._leaving.asked.is_set():
            self._news.set()
        return False

    async def _stamp(self, publisher: Publisher, names: Sequence[str] | None = None) -> None:
        """Have a witnessed checkpoint time-stamped: hourly, and first thing on a new day.

        By all that are due, or by these. An authority that did not is asked for the next
        checkpoint again, whatever the others did.
        """
        stamping = self._parts.stamping
        if stamping is None:
            return
        now, day = self._parts.monotonic(), self._parts.clock_ns() // DAY_NS
        if names is None:
            names = [name for name in stamping.names if self._due(name, now, day)]
        for item in await stamping.stamp(sha256(publisher.witnessed).digest(), names):
            name = f"timestamps/{publisher.witnessed_size:020d}/{item.name}"
            await publisher.store.create(f"{name}.tsr", item.der)
            if item.chain_pem:
                await publisher.store.create(f"{name}.pem", item.chain_pem)
            self._stamped[item.name] = (now, day)

    def _due(self, name: str, now: float, day: int) -> bool:
        at, on = self._stamped.get(name, (-math.inf, day))
        return on != day or now - at >= self._parts.pace.timestamp_s
