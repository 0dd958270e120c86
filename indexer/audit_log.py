"""The auditor's walk over the log: every entry read, every tile computed anew, every rule applied.

What is sealed and what the log says of it must be the same, both ways. Whose checkpoints count is
in the verifier's own evidence policy; without one only the log's parts are compared.

The log grows while it is read. What counts is the part that the ledger knew at the moment that is
looked at; a ledger that knows less than was signed before that moment is an old copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from itertools import takewhile
from typing import Final

from sealtape.indexer.audit_stamps import Stamps, stamps_after
from sealtape.ingest.ledger.base import Ledger
from sealtape.ingest.ledger.rows import SegmentRow
from sealtape.ingest.tlog.names import open_name, seal_name, segment_name
from sealtape.ingest.tlog.store import CHECKPOINT, PENDING, LogStore, noted_key
from sealtape.ingest.vault import Vault
from sealtape.schemas.cosignatures import ML_DSA_44
from sealtape.schemas.errors import FormatError, Missing, StoreCorrupt
from sealtape.schemas.evidence import EvidencePolicy
from sealtape.schemas.layout import manifest_key
from sealtape.schemas.notes import ALGORITHM, Checkpoint, parse_checkpoint, parse_note
from sealtape.schemas.segments import SegmentRecord, record_hash
from sealtape.schemas.tlog.policy import Witnessed
from sealtape.schemas.tlog.records import SessionSeal, parse_entry
from sealtape.schemas.tlog.statements import DoneStatement, Statement
from sealtape.schemas.tlog.tiles import ENTRIES, WIDTH, Tile, grown, parse_entries
from sealtape.schemas.tree import inclusion_ranges, leaf_hash, verify_inclusion
from sealtape.schemas.verify import Report, SessionVerifier
from sealtape.schemas.verify.log_state import SeenLog
from sealtape.schemas.verify.log_tiles import Levels
from sealtape.schemas.verify.monitor import LogRules
from sealtape.schemas.verify.violations import BREACH, Violation

__all__ = ["LATE_NS", "LogAudit", "LogTrust", "signed_sizes"]

LATE_NS: Final = 300 * 1_000_000_000
"""So long what is sealed may be without an entry, or signed without a quorum, before it is said."""

_PAGE: Final = 1000


async def signed_sizes(vault: Vault) -> dict[int, int]:
    """How large each shard of the log was signed, by its own word; ask before the ledger is."""
    found: dict[int, int] = {}
    number = 1
    while True:
        store = LogStore(vault, number)
        sizes = []
        for name in (CHECKPOINT, PENDING):
            try:
                sizes.append(parse_checkpoint(parse_note(await store.get(name)).text).size)
            except FormatError:
                continue  # there is none, or it is damaged, which is found when it is read
        if not sizes:
            return found
        found[number] = max(sizes)
        number += 1


@dataclass(frozen=True, slots=True)
class LogTrust:
    """What the verifier brings.

    Attributes:
        policy: whose signatures count; None: nobody's were checked.
        signed: `signed_sizes`, asked before the ledger was opened.
        since: what an earlier run has seen.
        acknowledged: violations of the rules that the verifier's own monitor has acknowledged, by
            shard, entry and rule: who did, and why.
    """

    policy: EvidencePolicy | None = None
    signed: Mapping[int, int] = field(default_factory=dict)
    since: SeenLog | None = None
    acknowledged: Mapping[tuple[int, int, str], str] = field(default_factory=dict)


@dataclass(slots=True)
class _Shard:
    """One shard of the log as the vault has it."""

    number: int
    store: LogStore
    witnessed: Checkpoint | None = None
    counts: bool = True
    """Whether `witnessed` has all signatures that the policy wants."""
    pending: Checkpoint | None = None
    levels: Levels = field(default_factory=Levels)
    digests: dict[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Entries under a checkpoint."""
        return max((each.size for each in (self.witnessed, self.pending) if each), default=0)


class LogAudit:
    """One run over a deployment's log."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        vault: Vault,
        log: str,
        trust: LogTrust,
        now_ns: int,
        report: Report,
    ) -> None:
        """Take what to read and what to trust."""
        self._ledger = ledger
        self._vault = vault
        self._log = log
        self._policy = trust.policy
        self._now_ns = now_ns
        self._report = report
        self._since = trust.since
        self._acknowledged = trust.acknowledged
        self._signed = trust.signed
        self._end = (0, 0)
        self._known: dict[int, int] = {}
        self._rules: LogRules | None = None
        self._stamps: Stamps | None = None
        self._segments: dict[bytes, str] = {}
        self._counted: set[bytes] = set()
        self._removed: set[bytes] = set()
        self._seals: dict[tuple[bytes, int], tuple[str, SessionSeal]] = {}
        self.seen: SeenLog | None = None
        """The largest witnessed checkpoints of this run, for the next one."""

    # -- everything --------------------------------------------------------------------------------

    async def everything(
        self, segments: Sequence[SegmentRow], sessions: Mapping[bytes, SessionVerifier]
    ) -> None:
        """Read all of the log, and compare it with all that is sealed."""
        state = await self._ledger.log_state()
        self._end = (state.number, state.size)
        try:
            if state.witnessed:
                self._known[state.number] = parse_checkpoint(parse_note(state.witnessed).text).size
        except FormatError as exc:
            self._report.tampered("ledger", "log", f"its checkpoint cannot be read: {exc.message}")
        for number, size in self._signed.items():
            if (number, size) > self._end:
                self._report.tampered(
                    "ledger",
                    "log",
                    f"it is an old copy: {size} entries of shard {number} are signed",
                )
        if self._policy is None and state.number:
            self._report.note(
                "no evidence policy: whose signatures the log's checkpoints have was not checked"
            )
        if self._policy is not None:
            self._rules = LogRules(
                log=self._log,
                admins=self._policy.admins,
                threshold=self._policy.admin_threshold,
                logs=[item.verifier for item in self._policy.tlog.logs],
            )
            self._stamps = Stamps(self._policy, self._now_ns, self._report)
        shards = []
        highest = max(state.number, *self._signed, self._highest())
        for number in range(1, highest + 1):
            shard = _Shard(number, LogStore(self._vault, number))
            await self._shard(shard, state.size)
            shards.append(shard)
        self._finish_rules()
        # One that is gone is a finding; what comes after it has no place without it.
        unbroken = takewhile(lambda each: each is not None, map(self._seen, shards))
        self.seen = SeenLog.of(self._log, [each for each in unbroken if each is not None])
        await self._compare(segments, sessions)

    def _seen(self, shard: _Shard) -> Checkpoint | None:
        """How far a shard was verified: where a signature lacks, what was seen before stands."""
        if shard.counts:
            return shard.witnessed
        return None if self._since is None else self._since.of_shard(shard.number)

    def _highest(self) -> int:
        return 0 if self._since is None else len(self._since.checkpoints)

    async def _shard(self, shard: _Shard, ledger_size: int) -> None:
        where = shard.store.prefix
        shard.witnessed = await self._checkpoint(shard, CHECKPOINT, quorum=True)
        shard.pending = await self._checkpoint(shard, PENDING, quorum=False)
        if not shard.size:
            if self._expected(shard.number):
                self._tampered(where, "it was witnessed, and no checkpoint of it is there")
                self._end_rules()
            else:
                self._report.incomplete("log", where, "it has no checkpoint yet")
            return
        # Listed first: a checkpoint is kept before it is stamped.
        stamps = [key async for key in self._vault.keys(where + "timestamps/")]
        noted = await self._noted(shard)
        if self._stamps is not None:
            names = self._stamps.names(shard.store, stamps)
            await self._stamps.shard(shard.number, shard.store, names, shard.digests, noted)
        if not await self._entries(shard, noted):
            self._end_rules()
            return
        for found in (shard.witnessed, shard.pending):
            if found is not None and shard.levels.root(found.size) != found.root:
                self._tampered(
                    where, f"its {found.size} entries do not have the root that was signed"
                )
        await self._objects(shard)
        await self._earlier(shard)
        if shard.number <= self._end[0]:
            last = shard.number == self._end[0]
            await self._ledger_rows(shard, ledger_size if last else shard.size, ended=not last)

    def _expected(self, number: int) -> bool:
        """Whether the ledger, a later shard or an earlier run knows that it had a checkpoint."""
        before = None if self._since is None else self._since.of_shard(number)
        return number < self._end[0] or number in self._known or before is not None

    # -- checkpoints -------------------------------------------------------------------------------

    async def _checkpoint(self, shard: _Shard, name: str, *, quorum: bool) -> Checkpoint | None:
        note = await shard.store.get(name)
        if not note:
            if quorum:
                self._report.incomplete(
                    "log", shard.store.prefix + name, "nothing was witnessed yet"
                )
            return None
        return self._opened(shard, name, note, quorum=quorum)

    def _opened(self, shard: _Shard, name: str, note: bytes, *, quorum: bool) -> Checkpoint | None:
        where = shard.store.prefix + name
        try:
            if self._policy is None:
                found = parse_checkpoint(parse_note(note).text)
            else:
                opened = self._policy.tlog.open(note)
                found = opened.checkpoint
                lacking = _lacking(self._policy, opened, quorum=quorum)
                for reason in lacking:
                    self._report.incomplete("log", where, reason)
                if name == CHECKPOINT:
                    shard.counts = not lacking
        except FormatError as exc:
            self._tampered(where, f"it does not hold: {exc.message}")
            return None
        if found.origin != f"{self._log}/{shard.number}":
            self._tampered(where, f"it is of {found.origin}")
            return None
        return found

    async def _noted(self, shard: _Shard) -> dict[int, int]:
        """The kept witnessed checkpoints: POSIX nanoseconds of the quorum, by size."""
        found: dict[int, int] = {}
        prefix = shard.store.prefix
        keys = [key async for key in self._vault.keys(prefix + "checkpoints/")]
        for key in keys:
            name = key.removeprefix(prefix)
            note = await shard.store.get(name)
            shard.digests[name] = sha256(note).digest()
            checkpoint = self._opened(shard, name, note, quorum=True)
            if checkpoint is None:
                continue
            if name != noted_key(checkpoint.size):
                self._tampered(key, f"it is a checkpoint of {checkpoint.size} entries")
                continue
            shard.levels.expect(checkpoint.size, checkpoint.root)
            found[checkpoint.size] = self._witnessed_ns(note)
        self._newest(shard, [*found, self._known.get(shard.number, 0)])
        return found

    def _witnessed_ns(self, note: bytes) -> int:
        """When the last witness of the policy cosigned, POSIX nanoseconds; 0 without one."""
        times = [] if self._policy is None else self._policy.tlog.open(note).times.values()
        return max(times, default=0) * 1_000_000_000

    def _newest(self, shard: _Shard, sizes: Sequence[int]) -> None:
        """The checkpoint is the last one that was witnessed, but for one that just comes."""
        have = 0 if shard.witnessed is None else shard.witnessed.size
        larger = sorted(size for size in set(sizes) if size > have)
        if len(larger) > 1 or self._known.get(shard.number, 0) > have:
            self._tampered(
                shard.store.prefix + CHECKPOINT,
                f"it is of {have} entries, and {larger[-1]} were witnessed: rolled back",
            )

    # -- entries -----------------------------------------------------------------------------------

    async def _entries(self, shard: _Shard, noted: Mapping[int, int]) -> bool:
        """Read all entries; False when some cannot be had, which is a finding."""
        size = shard.size
        for first in range(0, size, WIDTH):
            tile = Tile(ENTRIES, first // WIDTH, min(WIDTH, size - first))
            try:
                entries = await shard.store.entries(first, first + tile.width)
            except StoreCorrupt as exc:
                self._tampered(shard.store.prefix + tile.path, f"{exc.message}")
                return False
            for index, entry in enumerate(entries, first):
                shard.levels.append(leaf_hash(entry))
                await self._entry(shard.number, index, entry)
                if self._rules is not None and index + 1 in noted:
                    self._rules.witnessed(index + 1, noted[index + 1])
        for wrong in shard.levels.unmet():
            self._tampered(
                shard.store.prefix + noted_key(wrong),
                f"the first {wrong} entries do not have the root that was witnessed",
            )
        if self._rules is not None:
            self._rules.turn()
        return True

    async def _entry(self, number: int, index: int, entry: bytes) -> None:
        where = f"entry {index} of shard {number}"
        if self._rules is not None:
            manifests = {
                digest: await self._manifest(digest, entry) for digest in self._rules.wanted(entry)
            }
            for violation in self._rules.take(index, entry, manifests):
                self._violation(violation)
        try:
            parsed = parse_entry(entry)
        except FormatError as exc:
            if self._rules is None:
                self._tampered(where, f"it is no entry: {exc.message}")
            return
        if isinstance(parsed, SegmentRecord):
            self._segments[record_hash(parsed)] = parsed.object
            if (number, index) < self._end:
                self._counted.add(record_hash(parsed))
        elif (number, index) >= self._end:
            return
        elif isinstance(parsed, SessionSeal):
            self._seals[parsed.session, parsed.epoch] = (where, parsed)
            if self._stamps is not None:
                self._stamps.sealed(number, index)
        elif isinstance(parsed, Statement) and isinstance(parsed.body, DoneStatement):
            self._removed |= set(parsed.body.objects)

    async def _manifest(self, digest: bytes, entry: bytes) -> bytes | None:
        """The manifest of a segment that this entry, or one before it, records."""
        key = self._segments.get(digest)
        if key is None and sha256(entry).digest() == digest:
            key = SegmentRecord.from_json(entry).object
        if key is None:
            return None
        try:
            return await self._vault.get(manifest_key(key))
        except Missing:
            return None

    def _violation(self, violation: Violation) -> None:
        where = f"entry {violation.index} of shard {violation.number}"
        reason = f"{violation.rule}: {violation.reason}"
        name = violation.number, violation.index, violation.rule
        if (known := self._acknowledged.get(name)) is not None:
            self._report.note(f"{where}: {reason}; acknowledged by {known}")
        elif violation.grade == BREACH:
            self._tampered(where, reason)
        else:
            self._report.incomplete("log", where, reason)

    def _end_rules(self) -> None:
        """Entries are missing, which is a finding: the rules have nothing to say behind them."""
        if self._rules is not None:
            self._rules = None
            self._report.note("the monitor's rules were applied up to the missing entries only")

    def _finish_rules(self) -> None:
        if self._rules is not None:
            for violation in self._rules.late:
                self._violation(violation)
        if self._stamps is not None:
            self._stamps.finish()

    # -- objects -----------------------------------------------------------------------------------

    async def _objects(self, shard: _Shard) -> None:
        """Every tile that must be there is, and each one there is what the entries make."""
        prefix = shard.store.prefix
        there = {key.removeprefix(prefix) async for key in self._vault.keys(prefix + "tile/")}
        for tile in grown(0, shard.size):
            whole = Tile(tile.level, tile.index).path
            if tile.path not in there and whole not in there:
                self._tampered(prefix + tile.path, "this tile of the log is gone")
        for path in sorted(there):
            try:
                tile = Tile.from_path(path)
            except FormatError:
                self._tampered(prefix + path, "it is no tile of a log")
                continue
            if shard.levels.has(tile):
                await self._tile(shard, tile)

    async def _tile(self, shard: _Shard, tile: Tile) -> None:
        data = await shard.store.get(tile.path)
        if tile.level == ENTRIES:
            try:
                leaves = [leaf_hash(entry) for entry in parse_entries(tile, data)]
            except FormatError as exc:
                self._tampered(shard.store.prefix + tile.path, exc.message)
                return
            same = leaves == shard.levels.hashes(Tile(0, tile.index, tile.width))
        else:
            same = data == b"".join(shard.levels.hashes(tile))
        if not same:
            self._tampered(shard.store.prefix + tile.path, "it is not what the log's entries make")

    async def _earlier(self, shard: _Shard) -> None:
        """What an earlier run saw is a prefix of what is here."""
        before = None if self._since is None else self._since.of_shard(shard.number)
        if before is None:
            return
        if shard.witnessed is None or shard.witnessed.size < before.size:
            have = 0 if shard.witnessed is None else shard.witnessed.size
            self._tampered(
                shard.store.prefix + CHECKPOINT,
                f"it was at {before.size} entries in an earlier run, and is at {have}: rolled back",
            )
        elif shard.levels.root(before.size) != before.root:
            self._tampered(
                shard.store.prefix + CHECKPOINT,
                f"its first {before.size} entries are not those of an earlier run: another history",
            )

    async def _ledger_rows(self, shard: _Shard, ledger_size: int, *, ended: bool) -> None:
        """The ledger's copy of the entries is the log's; of a shard that `ended`, it is whole."""
        first = 0
        while first < ledger_size:
            page = min(_PAGE, ledger_size - first)
            rows = await self._ledger.log_entries(shard.number, first, page)
            if not rows:
                break
            for row in rows:
                expected = shard.levels.leaf(row.index)
                if row.index != first or expected not in (None, leaf_hash(row.entry)):
                    where = f"log entry {row.index}" + (f" of shard {shard.number}" * ended)
                    self._report.tampered("ledger", where, "it is not the entry that was logged")
                first = row.index + 1
        if first != ledger_size:
            self._report.tampered("ledger", "log", f"it counts {ledger_size} entries, not {first}")
        elif ended and await self._ledger.log_entries(shard.number, ledger_size, 1):
            reason = f"shard {shard.number} ended with {ledger_size} entries, it has more"
            self._report.tampered("ledger", "log", reason)

    # -- what is sealed ----------------------------------------------------------------------------

    async def _compare(
        self, segments: Sequence[SegmentRow], sessions: Mapping[bytes, SessionVerifier]
    ) -> None:
        sealed = {record_hash(row.record): row for row in segments}
        missing = [row for digest, row in sealed.items() if digest not in self._segments]
        await self._unlogged(missing)
        for digest in sorted(self._counted - set(sealed) - self._removed):
            self._tampered(self._segments[digest], "the log has this segment, the ledger has not")
        for (session, epoch), (where, seal) in self._seals.items():
            verifier = sessions.get(session)
            if verifier is not None:
                self._sealed(where, seal, verifier)
            elif seal.fragments.count:
                self._absent(where, session, epoch)

    def _absent(self, where: str, session: bytes, epoch: int) -> None:
        if not self._removed:
            self._report.tampered(
                "log", where, "nothing of this sealed epoch is there", session=session, epoch=epoch
            )

    async def _unlogged(self, rows: Iterable[SegmentRow]) -> None:
        for row in rows:
            if self._now_ns - row.record.sealed_at_ns > LATE_NS:
                self._report.incomplete("log", row.key, "this segment is not in the log")

    def _sealed(self, where: str, seal: SessionSeal, verifier: SessionVerifier) -> None:
        """A seal says what the frames say."""
        size = verifier.sizes.get(seal.epoch)
        root = verifier.root(seal.epoch)
        if size is None or size < seal.frames:
            have = 0 if size is None else size
            reason = f"{seal.frames} frames were sealed, {have} are there"
        elif size == seal.frames and root is not None and not seal.lost and root != seal.root:
            reason = "the frames do not have the root of the seal"
        else:
            return
        self._report.tampered("log", where, reason, session=seal.session, epoch=seal.epoch)

    # -- one session -------------------------------------------------------------------------------

    async def session(
        self, session: bytes, verifier: SessionVerifier | None, segments: Sequence[SegmentRow]
    ) -> None:
        """A session's entries are in the log, under its checkpoint, and say what the frames say."""
        if verifier is None:
            return
        names = [segment_name(record_hash(row.record)) for row in segments]
        for epoch in verifier.sizes:
            names += [open_name(session, epoch), seal_name(session, epoch)]
        places = await self._ledger.log_find(names)
        if self._policy is not None and self._policy.authorities:
            self._stamps = Stamps(self._policy, self._now_ns, self._report)
        shards: dict[int, _Shard] = {}
        for name, (number, index) in sorted(places.items(), key=lambda item: item[1]):
            shard = shards.get(number)
            if shard is None:
                shard = shards[number] = _Shard(number, LogStore(self._vault, number))
                shard.witnessed = await self._checkpoint(shard, CHECKPOINT, quorum=True)
            await self._included(shard, index, name, verifier)
        await self._unlogged(
            row for row in segments if segment_name(record_hash(row.record)) not in places
        )

    async def _included(
        self, shard: _Shard, index: int, name: str, verifier: SessionVerifier
    ) -> None:
        where = f"entry {index} of shard {shard.number}"
        checkpoint = shard.witnessed
        if checkpoint is None:
            return
        if index >= checkpoint.size:
            self._report.note(f"{name} is in the log at {index}, not witnessed yet")
            return
        try:
            entry = await _entry_at(shard.store, index, checkpoint.size)
            await _include(shard.store, index, entry, checkpoint)
            parsed = parse_entry(entry)
        except (StoreCorrupt, FormatError) as exc:
            self._tampered(where, f"it is not in the log that was witnessed: {exc.message}")
            return
        if isinstance(parsed, SessionSeal):
            self._sealed(where, parsed, verifier)
            await self._stamped(shard, index, entry, parsed.epoch)

    async def _stamped(self, shard: _Shard, index: int, seal: bytes, epoch: int) -> None:
        """Tell before when a seal was there, by the first time-stamp over it."""
        prefix = shard.store.prefix
        if self._stamps is None or not self._stamps.able:
            return
        keys = self._vault.keys(prefix + "timestamps/", prefix + stamps_after(index))
        stamp = await self._stamps.first(shard.store, keys)
        if stamp is None:
            await self._unstamped(shard, index, epoch)
            return
        checkpoint = self._opened(shard, stamp.name, stamp.note, quorum=True)
        if checkpoint is None:
            return
        try:
            await _include(shard.store, index, seal, checkpoint)
        except (StoreCorrupt, FormatError) as exc:
            self._tampered(prefix + stamp.name, f"entry {index} is not under it: {exc.message}")
            return
        at = datetime.fromtimestamp(-(-stamp.latest_ns // 10**9), UTC).strftime(
            "%Y-%m-%dT%H:%M:%SZ"
        )
        self._report.note(f"epoch {epoch} was sealed before {at}: time-stamp of {stamp.authority}")

    async def _unstamped(self, shard: _Shard, index: int, epoch: int) -> None:
        prefix, last = shard.store.prefix, (await self._ledger.log_state()).number
        self._report.note(f"no time-stamp in shard {shard.number} covers the seal of epoch {epoch}")
        if shard.number != last or self._stamps is None:
            return  # one of a later shard covers this one's entries
        async for key in self._vault.keys(prefix + "checkpoints/", prefix + noted_key(index)):
            note = await self._vault.get(key)
            if self._opened(shard, key.removeprefix(prefix), note, quorum=True) is None:
                return
            if self._stamps.due(self._witnessed_ns(note)):
                self._report.incomplete("timestamp", prefix, f"none covers the seal, entry {index}")
            return

    def _tampered(self, where: str, reason: str) -> None:
        self._report.tampered("log", where, reason)


def _lacking(policy: EvidencePolicy, opened: Witnessed, *, quorum: bool) -> list[str]:
    """What a policy wants on a checkpoint and is not there; raises FormatError for what must be."""
    if ALGORITHM not in opened.algorithms:
        raise FormatError("the log's Ed25519 signature is missing")
    checkpoint = opened.checkpoint
    found = []
    if quorum and not opened.quorum:
        found.append("the policy's quorum did not cosign it")
    if policy.wants_ml_dsa(checkpoint.origin, checkpoint.size) and (
        ML_DSA_44 not in opened.algorithms
    ):
        found.append("the log's ML-DSA-44 signature is missing, which the policy wants")
    return found


async def _include(store: LogStore, index: int, entry: bytes, checkpoint: Checkpoint) -> None:
    """Check that an entry is under a checkpoint; raises StoreCorrupt and FormatError."""
    path = await store.roots(inclusion_ranges(index, checkpoint.size), checkpoint.size)
    verify_inclusion(leaf_hash(entry), index, checkpoint.size, path, checkpoint.root)


async def _entry_at(store: LogStore, index: int, size: int) -> bytes:
    first = index // WIDTH * WIDTH
    tile = Tile(ENTRIES, index // WIDTH, min(WIDTH, size - first))
    return parse_entries(tile, (await store.tiles([tile]))[tile])[index - first]
