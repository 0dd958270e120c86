"""Reads a log up to a checkpoint, and applies the rules to what it reads.

Entries count only when they give the root that was signed: they are hashed first and judged then.
Times are those of the policy's quorum where the vault has its checkpoints, else the follower's own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from sealtape.indexer.monitor.folder import MonitorFolder, Read, name_of
from sealtape.indexer.monitor.source import PAGE, LogSource, Noted
from sealtape.schemas.errors import DigestError, FormatError, StoreBusy, StoreCorrupt, StoreError
from sealtape.schemas.evidence import EvidencePolicy
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.segments import SegmentRecord
from sealtape.schemas.tlog.records import parse_entry
from sealtape.schemas.tree import leaf_hash
from sealtape.schemas.verify.monitor import LogRules
from sealtape.schemas.verify.violations import BREACH, Limits, Place, Violation

__all__ = ["Follower"]

KEEP_EVERY: Final = 2_000
"""The rules' state is kept every so many entries, and an eighth of all where that is more."""
AT_ONCE: Final = 16
HELD: Final = 8 * PAGE
"""So many entries are kept between hashing and judging; more are read twice."""

REACHED: Final = 1_000
"""So many checkpoints are remembered, in case an older one is shown once more."""
MOMENT_S: Final = 5.0

log = logging.getLogger(__name__)


class Follower:
    """What was read so far, and what is wrong with it. Calls of `reach` take turns."""

    def __init__(
        self,
        source: LogSource,
        policy: EvidencePolicy,
        *,
        limits: Limits | None = None,
        folder: MonitorFolder | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Go on from what the folder has, without one from the log's first entry."""
        self._source = source
        self._policy = policy
        self._limits = limits or Limits()
        self._folder = folder
        self._clock_ns = clock_ns
        self._ends: dict[int, Noted] = {}
        self._reached: deque[Checkpoint] = deque(maxlen=REACHED)
        self._own: dict[tuple[int, int], Read] = {}
        self.rules = self._begin()
        self._kept = self._rested = (self.rules.number, self.rules.size)
        self._stopping = False
        self._reading = asyncio.Lock()

    def _begin(self) -> LogRules:
        rules = self._new_rules()
        if self._folder is None:
            return rules
        self._own = {(item.number, item.size): item for item in self._folder.read()}
        kept = self._folder.rules()
        if not kept:
            return rules
        try:
            rules.read(kept)
        except FormatError as exc:
            log.warning("the log is read again from its beginning: %s", exc.message)
            self._folder.forget_rules()
            return self._new_rules()
        return rules

    def _new_rules(self) -> LogRules:
        policy = self._policy
        return LogRules(
            log=policy.log,
            admins=policy.admins,
            threshold=policy.admin_threshold,
            limits=self._limits,
            logs=[item.verifier for item in policy.tlog.logs],
        )

    # -- what stands against a cosignature ---------------------------------------------------------

    def objections(self) -> list[Violation]:
        """Breaches that nobody has acknowledged, and what is late now. Raises StoreError."""
        if self._folder is None:
            found = [item for item in self.rules.violations if item.grade == BREACH]
            return [*found, *self.rules.late]
        open_ = self._folder.unacknowledged()
        names = {name_of(item) for item in open_}
        late = [item for item in self.rules.late if name_of(item) in names]
        return [item for item in open_ if item.grade == BREACH] + late

    # -- reading -----------------------------------------------------------------------------------

    def stop(self) -> None:
        """Have `reach` end at the next page, with what it has read so far."""
        self._stopping = True

    async def reach(self, checkpoint: Checkpoint) -> None:
        """Read and judge all entries under a checkpoint that the log has signed.

        Raises `DigestError` when they do not give its root, which makes one of the two another
        history, and `StoreError` when they cannot be had now.
        """
        number = self._source.number(checkpoint.origin)
        async with self._reading:  # shards are cosigned apart, and read one after the other
            await self._reach(number, checkpoint)

    async def _reach(self, number: int, checkpoint: Checkpoint) -> None:
        while self.rules.number < number:
            await self._turn(checkpoint if number == self.rules.number + 1 else None)
        if number < self.rules.number:
            end = await self._end_of(number)
            if end is None or end.checkpoint != checkpoint:
                raise DigestError(f"{checkpoint.origin} has ended with another checkpoint.")
        elif checkpoint.size < self.rules.size:
            if checkpoint not in self._reached:
                raise StoreBusy(
                    f"{checkpoint.origin} was read up to {self.rules.size} already,"
                    f" further than {checkpoint.size}.",
                    retry_after_s=MOMENT_S,
                )
        else:
            await self._grow(checkpoint)

    async def _turn(self, following: Checkpoint | None) -> None:
        """Read all of the present shard, and go on to the next one."""
        number = self.rules.number
        end = await self._end_of(number, following)
        # The next shard's first entry has to say where this one ends; if not, a rule says so.
        if end is not None and end.checkpoint.size > self.rules.size:
            await self._grow(end.checkpoint, end.at_ns)
        self.rules.turn()
        self._rested = (self.rules.number, self.rules.size)
        await asyncio.to_thread(self.keep)
        log.info("shard %d of %s has ended", number, self._source.log)

    async def _end_of(self, number: int, following: Checkpoint | None = None) -> Noted | None:
        """The checkpoint that the next shard begins with."""
        if number not in self._ends:
            following = following or await self._source.largest(number + 1)
            if following is None:
                return None
            end = await self._source.before(number + 1, following.size)
            if end is None:
                return None
            self._ends[number] = end
        return self._ends[number]

    async def _grow(self, target: Checkpoint, at_ns: int | None = None) -> None:
        """Read up to a signed checkpoint, over those that were witnessed on the way.

        `at_ns` is when the target was witnessed: 0 for never, None for now.
        """
        number, first = self.rules.number, self.rules.size
        times: dict[int, tuple[Checkpoint, int | None]] = {target.size: (target, at_ns)}
        for item in await self._source.noted(number, first, target.size):
            times[item.checkpoint.size] = (item.checkpoint, item.at_ns)
        for (shard, size), own in self._own.items():
            if shard == number and first < size <= target.size:
                times[size] = (Checkpoint(target.origin, size, own.root), own.at_ns)
        for size in sorted(times):
            await self._step(*times[size])
        if self.rules.root != target.root:  # a witnessed one of that size has another
            raise _other(target)

    async def _step(self, checkpoint: Checkpoint, at_ns: int | None) -> None:
        """Read up to a checkpoint that was witnessed at that time; at 0 never, at None now."""
        await self._judge(checkpoint)
        now_ns = self._clock_ns()
        if at_ns != 0:
            self.rules.witnessed(self.rules.size, now_ns if at_ns is None else at_ns)
        self._rested = (self.rules.number, self.rules.size)
        await asyncio.to_thread(self._remember, checkpoint, now_ns, own=at_ns is None)
        self._reached.append(checkpoint)  # only now: what stands against it is in the folder

    async def _judge(self, checkpoint: Checkpoint) -> None:
        """Hash the entries up to a checkpoint, and only when that holds, take them."""
        number, first = self.rules.number, self.rules.size
        tree, held, digests = self.rules.tree, [], []
        async for page in self._source.pages(number, first, checkpoint.size):
            digest = await asyncio.to_thread(_digest, page, tree.append)
            digests.append(digest)
            if checkpoint.size - first <= HELD:
                held.append(page)
        if tree.root() != checkpoint.root:
            raise _other(checkpoint)
        for page in held:
            await self._take(page, checkpoint.size)
        if not held:
            expected = iter(digests)
            async for page in self._source.pages(number, first, checkpoint.size):
                if await asyncio.to_thread(_digest, page) != next(expected):
                    raise StoreCorrupt(
                        f"The entries of {checkpoint.origin} change as they are read."
                    )
                await self._take(page, checkpoint.size)

    async def _take(self, page: Sequence[bytes], size: int) -> None:
        if self._stopping:
            raise StoreBusy("The monitor stops.", retry_after_s=MOMENT_S)
        have = await self._own_manifests(page)
        at = 0
        while at < len(page):
            at, wanted = await asyncio.to_thread(self._run, page, at, have)
            for digest, place in wanted.items():
                have[digest] = await self._manifest(place, size)

    def _run(
        self, page: Sequence[bytes], at: int, have: dict[bytes, bytes | None]
    ) -> tuple[int, dict[bytes, Place]]:
        """Take entries until one wants a manifest that is not there; returns which."""
        rules = self.rules
        for index in range(at, len(page)):
            wanted = rules.wanted(page[index])
            missing = {digest: place for digest, place in wanted.items() if digest not in have}
            if missing:
                return index, missing
            rules.take(rules.size, page[index], have)
        return len(page), {}

    # -- manifests ---------------------------------------------------------------------------------

    async def _own_manifests(self, page: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """The manifests of the segments in a page."""
        records = await asyncio.to_thread(_segments, page)
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(record: SegmentRecord) -> bytes | None:
            async with turns:
                return await self._source.manifest(record)

        found = await asyncio.gather(*(one(record) for record in records.values()))
        return dict(zip(records, found, strict=True))

    async def _manifest(self, place: Place, size: int) -> bytes | None:
        """The manifest of a segment whose entry stands at a place that was read before."""
        number, index = place
        if number != self.rules.number:
            end = await self._end_of(number)
            size = size if end is None else end.checkpoint.size
        record = parse_entry(await self._source.entry(number, index, size))
        assert isinstance(record, SegmentRecord)
        return await self._source.manifest(record)

    # -- keeping -----------------------------------------------------------------------------------

    def _remember(self, checkpoint: Checkpoint, now_ns: int, *, own: bool) -> None:
        """Keep what was found, and the time of a checkpoint where nobody else has it."""
        folder, (number, size) = self._folder, self._rested
        if folder is None:
            return
        try:
            new = folder.add_found(self.rules.violations, now_ns)
        except StoreError:
            for violation in folder.unknown(self.rules.violations):
                log.error("%s (not kept)", violation)  # noqa: TRY400 - raised below
            raise
        for violation in new:
            log.error("%s", violation)
        if own and (number, size) not in self._own:
            read = Read(number, size, checkpoint.root, now_ns)
            folder.add_read(read)
            self._own[number, size] = read
        kept = self._kept[1] if self._kept[0] == number else 0
        if size - kept >= max(KEEP_EVERY, size // 8):
            self.keep()

    def keep(self) -> None:
        """Keep the rules' state, if it is that of a checkpoint and another than is kept. Blocks."""
        here = (self.rules.number, self.rules.size)
        if self._folder is not None and here == self._rested != self._kept:
            self._folder.keep_rules(self.rules.to_json())
            self._own, self._kept = {}, here


def _other(checkpoint: Checkpoint) -> DigestError:
    return DigestError(
        f"The first {checkpoint.size} entries of {checkpoint.origin} do not have the root that was"
        " signed.",
        hint="Keep a copy of the vault and of the checkpoint: one of them is another history.",
    )


def _digest(page: Sequence[bytes], leaf: Callable[[bytes], None] | None = None) -> bytes:
    """A digest of a page; its leaves are added to a tree on the way."""
    digest = sha256()
    for entry in page:
        found = leaf_hash(entry)
        digest.update(found)
        if leaf is not None:
            leaf(found)
    return digest.digest()


def _segments(page: Sequence[bytes]) -> dict[bytes, SegmentRecord]:
    """The segment records in a page, by their hash."""
    found = {}
    for entry in page:
        if b'"type":"segment"' in entry:
            try:
                found[sha256(entry).digest()] = SegmentRecord.from_json(entry)
            except FormatError:
                continue  # it is no segment; the rules say what it is
    return found
