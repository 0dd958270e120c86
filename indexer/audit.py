"""The auditor's walk: fetch what the ledger and the vault hold, and let `schemas.verify` judge it.

It reads only. Every object is hashed, every frame's digest and leaf computed, every session's tree
rebuilt and compared with the signatures made while it was recorded; then the ledger's own rows are
compared with what came out (`indexer.reconcile`). With a key, every payload is opened too; `deep`
decodes DATA again and compares it with the facts.

Ingest may publish meanwhile. What is verified is the ledger up to one moment, the one at which
every chain of records reached the head that the ledger keeps of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from hashlib import sha256

from sealtape.indexer.audit_log import LogAudit, LogTrust
from sealtape.indexer.contents import ContentChecker
from sealtape.indexer.judging import Judged, JudgedFragment, LocalJudge, SegmentJudge
from sealtape.indexer.reconcile import MALFORMED, Ending, differences
from sealtape.ingest.findings import QUARANTINE_REASONS
from sealtape.ingest.ledger.base import Ledger
from sealtape.ingest.ledger.rows import Incident, Quarantined, SegmentRow, ShardHead
from sealtape.ingest.vault import Vault, check_key
from sealtape.schemas.bodies import Close
from sealtape.schemas.errors import FormatError, Missing, StoreError
from sealtape.schemas.frames import Kind
from sealtape.schemas.layout import SEGMENT_PREFIX, manifest_key, segment_of_manifest
from sealtape.schemas.notes import Verifier
from sealtape.schemas.segments import FragmentRecord, fragments_root, parse_manifest
from sealtape.schemas.verify import ChainVerifier, Report, Run, SegmentVerifier, SessionVerifier
from sealtape.schemas.verify.base import StoredRow

Progress = Callable[[int, str], None]

_UNREADABLE_ROWS = 100


class Audit:
    """One run of verification over a ledger and a vault."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        vault: Vault,
        log: str,
        trust: Sequence[Verifier] | None,
        now_ns: int,
        contents: ContentChecker | None = None,
        progress: Progress | None = None,
        log_trust: LogTrust | None = None,
        judge: SegmentJudge | None = None,
    ) -> None:
        """Take what to read and whom to trust; `contents` opens payloads where a key is given.

        Segments are judged here unless another `judge` is given, which cannot open payloads.
        """
        self._ledger = ledger
        self._vault = vault
        self._log = log
        self._trust = trust
        self._now_ns = now_ns
        self._contents = contents
        self._progress = progress
        self._judge = judge or LocalJudge(vault, contents)
        self.report = Report()
        self.log = LogAudit(
            ledger=ledger,
            vault=vault,
            log=log,
            trust=log_trust or LogTrust(),
            now_ns=now_ns,
            report=self.report,
        )
        self._chains: dict[str, ChainVerifier] = {}
        self._segments: list[SegmentRow] = []
        self._read_to = 0
        self._sessions: dict[bytes, SessionVerifier] = {}
        self._sealed: dict[bytes, list[FragmentRecord]] = {}
        self._endings: dict[bytes, dict[int, Ending]] = {}
        self._damaged: set[tuple[bytes, int]] = set()
        self._done = 0

    async def everything(self, listed: Sequence[str]) -> Report:
        """Verify all that is sealed.

        Args:
            listed: the vault's keys below `seg/v1/`, listed before the ledger was opened, so that
                what is sealed meanwhile does not look like a stranger.
        """
        await self._follow_chains()
        await self._walk(self._segments, None)
        await self._strangers(listed)
        await self._finish_sessions()
        await self.log.everything(self._segments, self._sessions)
        await self._unverified_rows()
        await self._partitions()
        await self._incidents(None)
        return self.report

    async def session(self, session: bytes) -> Report:
        """Verify one session: the segments it lies in, the chains, its rows in the ledger."""
        wanted = await self._places(session)
        await self._follow_chains()
        places = [row for row in self._segments if wanted is None or row.key in wanted]
        await self._walk(places, session)
        for key in sorted((wanted or set()) - {segment.key for segment in self._segments}):
            self.report.tampered(
                "ledger", key, "the ledger names fragments of a segment that it lacks"
            )
        if session not in self._sessions:
            self.report.incomplete(
                "session", "ledger", "no frame of it is sealed yet", session=session
            )
        await self._finish_sessions()
        await self.log.session(session, self._sessions.get(session), places)
        await self._incidents(session)
        return self.report

    async def _places(self, session: bytes) -> set[str] | None:
        """The segments that hold a session; None when the ledger cannot be asked which they are."""
        try:
            rows = await self._ledger.fragments(session)
        except MALFORMED as exc:
            self._row(session, None, f"its fragments in the ledger cannot be read: {exc}")
            return None
        if any(row.record.session != session for row in rows):
            return None  # said when the session's rows are compared
        if not rows and (
            await self._ledger.epochs(session) or await self._ledger.session(session) is not None
        ):
            self._row(session, None, "the ledger knows the session, and none of its fragments")
            return None
        return {row.segment_key for row in rows}

    # -- the chain of segments --------------------------------------------------------------------

    async def _follow_chains(self) -> None:
        """Read records until they reach the heads; what is published after that is left alone."""
        before: dict[str, ShardHead] | None = None
        while True:
            known = len(self._segments)
            async for segment in self._records():
                self._segments.append(segment)
                shard = segment.record.shard
                chain = self._chains.setdefault(shard, ChainVerifier(shard, self.report))
                chain.record(segment.record)
                if segment.key != segment.record.object:
                    self.report.tampered("ledger", segment.key, "its row names another object")
            heads = await self._ledger.shards()
            reached = {shard: ShardHead(c.n, c.head) for shard, c in self._chains.items()}
            if heads == reached or (heads == before and len(self._segments) == known):
                break
            before = heads
        for shard in sorted(set(heads) | set(self._chains)):
            chain = self._chains.get(shard) or ChainVerifier(shard, self.report)
            head = heads.get(shard)
            if head is None:
                self.report.tampered("ledger", f"shard {shard}", "the ledger has lost its head")
            else:
                chain.finish(head.n, head.hash)

    async def _records(self) -> AsyncIterator[SegmentRow]:
        """The ledger's segments that were not read yet; a row that cannot be read is passed by."""
        for _ in range(_UNREADABLE_ROWS):
            try:
                async for segment in self._ledger.segments(self._read_to):
                    self._read_to = segment.id
                    yield segment
            except MALFORMED as exc:
                self._read_to += 1
                self.report.tampered(
                    "ledger",
                    f"segment {self._read_to}",
                    f"its row in the ledger cannot be read: {exc}",
                )
            else:
                return

    # -- segments ---------------------------------------------------------------------------------

    async def _walk(self, segments: Sequence[SegmentRow], only: bytes | None) -> None:
        """Have the segments judged, some ahead of the one whose turn it is, and take them in order.

        Only so is each session's tree fed from its beginning.
        """
        ahead: deque[tuple[SegmentRow, Sequence[FragmentRecord], asyncio.Task[Judged | None]]]
        ahead = deque()
        try:
            for segment in segments:
                fragments = await self._announced(segment, only)
                if fragments is None:
                    continue
                judging = asyncio.create_task(self._judged(segment.key, fragments))
                ahead.append((segment, fragments, judging))
                if len(ahead) > self._judge.ahead:
                    await self._take(*ahead.popleft())
            while ahead:
                await self._take(*ahead.popleft())
        finally:
            for _, _, judging in ahead:
                judging.cancel()

    async def _announced(
        self, segment: SegmentRow, only: bytes | None
    ) -> Sequence[FragmentRecord] | None:
        """Which fragments of a segment to judge; None: nothing of it is asked for."""
        fragments = await self._fragments(segment, SegmentVerifier(segment.record, self.report))
        if only is not None:
            fragments = [record for record in fragments if record.session == only]
            if not fragments:
                return None
        for record in fragments:
            self._sealed.setdefault(record.session, []).append(record)
            if self._contents is not None:
                await self._contents.prepare(record.session, record.epoch, self.report)
        return fragments

    async def _judged(self, key: str, fragments: Sequence[FragmentRecord]) -> Judged | None:
        """Return what was found of an object; None when there is none."""
        if not self._is_key(key):
            return None
        try:
            return await self._judge.segment(key, fragments)
        except Missing:
            self._gone(key)
            return None

    async def _take(
        self,
        segment: SegmentRow,
        fragments: Sequence[FragmentRecord],
        judging: asyncio.Task[Judged | None],
    ) -> None:
        """Tell each session's verifier what was found of its fragments."""
        judged = await judging
        if judged is None:
            self._absent(fragments, segment.key)
            return
        SegmentVerifier(segment.record, self.report).object(judged.size, judged.sha256)
        for fragment in judged.fragments:
            record = fragment.record
            if fragment.unreadable:
                self.report.tampered(
                    "object",
                    segment.key,
                    f"frames {record.lo} to {record.hi - 1} cannot be read: {fragment.unreadable}",
                    session=record.session,
                    epoch=record.epoch,
                    seq=record.lo,
                )
                self._without(record, segment.key)
            else:
                self._fragment(fragment, segment.key)

    async def _fragments(
        self, segment: SegmentRow, verifier: SegmentVerifier
    ) -> Sequence[FragmentRecord]:
        """Return the manifest's fragments, or the ledger's where the manifest cannot be used.

        The ledger's are used only when they have the root that the chained record names.
        """
        rows = await self._fragment_rows(segment)
        fragments = await self._manifest(segment, verifier)
        if fragments is None:
            if rows is None or fragments_root(rows) != segment.record.fragments.root:
                self._fragments_differ(segment)
                return ()
            return rows
        if rows is not None and list(fragments) != list(rows):
            self._fragments_differ(segment)
        return fragments

    async def _manifest(
        self, segment: SegmentRow, verifier: SegmentVerifier
    ) -> Sequence[FragmentRecord] | None:
        try:
            data = await self._object(manifest_key(segment.key))
            if data is None:
                return None
            record, fragments = parse_manifest(data)
        except FormatError as exc:
            self.report.tampered("manifest", segment.key, f"it cannot be read: {exc.message}")
            return None
        return fragments if verifier.manifest(record, fragments) else None

    async def _fragment_rows(self, segment: SegmentRow) -> Sequence[FragmentRecord] | None:
        try:
            return [row.record for row in await self._ledger.fragments_of(segment.id)]
        except MALFORMED as exc:
            self.report.tampered(
                "ledger", segment.key, f"its fragments in the ledger cannot be read: {exc}"
            )
            return None

    def _fragments_differ(self, segment: SegmentRow) -> None:
        self.report.tampered(
            "ledger", segment.key, "the ledger's fragments are not those that were sealed"
        )

    def _fragment(self, fragment: JudgedFragment, key: str) -> None:
        session = self._verifier(fragment.record.session)
        session.fragment(fragment.record, key)
        self.report.merge(fragment.report)
        for event in fragment.events:
            if isinstance(event, Run):
                session.run(event)
            else:
                session.frame(event.row, event.leaf)
                self._ending(event.row, event.leaf)
        self._done += fragment.report.frames
        if self._progress is not None:
            self._progress(self._done, key)

    def _ending(self, row: StoredRow, leaf: bytes) -> None:
        """Keep what the ledger's head of the epoch has to agree with."""
        if leaf != row.leaf:
            self._damaged.add((row.session, row.epoch))
        if row.kind not in (Kind.OPEN, Kind.CLOSE):
            return
        if sha256(row.payload).digest() != row.payload_sha256:
            self._damaged.add((row.session, row.epoch))
        endings = self._endings.setdefault(row.session, {})
        if row.seq == 0:
            endings[row.epoch] = Ending(row.payload, "")
        elif row.epoch in endings:
            endings[row.epoch] = replace(endings[row.epoch], closed=_reason(row.payload))

    def _whole(self, session: bytes) -> dict[int, Ending]:
        """The endings of the epochs whose frames are all as they were sealed."""
        endings = self._endings.get(session, {})
        return {e: found for e, found in endings.items() if (session, e) not in self._damaged}

    async def _object(self, key: str) -> bytes | None:
        if not self._is_key(key):
            return None
        try:
            return await self._vault.get(key)
        except Missing:
            self._gone(key)
            return None

    def _is_key(self, key: str) -> bool:
        try:
            check_key(key)
        except StoreError as exc:
            self.report.tampered("ledger", key, exc.message)
            return False
        return True

    def _gone(self, key: str) -> None:
        self.report.tampered("object", key, "it is gone, and nothing says it was deleted")

    def _absent(self, fragments: Sequence[FragmentRecord], key: str) -> None:
        for record in fragments:
            self.report.tampered(
                "frame",
                key,
                f"frames {record.lo} to {record.hi - 1} are gone with their object",
                session=record.session,
                epoch=record.epoch,
                seq=record.lo,
            )
            self._without(record, key)

    def _without(self, record: FragmentRecord, key: str) -> None:
        self._damaged.add((record.session, record.epoch))
        self._verifier(record.session).absent(record, key)

    def _verifier(self, session: bytes) -> SessionVerifier:
        found = self._sessions.get(session)
        if found is None:
            found = self._sessions[session] = SessionVerifier(
                session, log=self._log, trust=self._trust, now_ns=self._now_ns, report=self.report
            )
        return found

    # -- the ledger's own rows --------------------------------------------------------------------

    async def _strangers(self, listed: Sequence[str]) -> None:
        """An object that the ledger never heard of: it came, or its row went, by another way."""
        known = {segment.key for segment in self._segments}
        staged = {item.key for item in await self._ledger.staged(0)}
        abandoned = set(await self._ledger.abandoned(0))
        for key in sorted(known & abandoned):
            self.report.tampered("ledger", key, "it is sealed, and the ledger calls it abandoned")
        for key in listed:
            try:
                segment = key if key.endswith(".parquet") else segment_of_manifest(key)
            except FormatError:
                self.report.tampered("object", key, "it is no segment and no manifest of one")
                continue
            if not key.startswith(SEGMENT_PREFIX) or segment in known | staged | abandoned:
                continue
            if not await self._published_since(segment):
                self.report.tampered("ledger", key, "the ledger does not know this object")

    async def _published_since(self, key: str) -> bool:
        try:
            segment = await self._ledger.segment(key)
        except MALFORMED:
            return False
        return segment is not None and segment.id > self._read_to

    async def _finish_sessions(self) -> None:
        for session, verifier in self._sessions.items():
            verifier.finish()
            if self._contents is not None:
                await self._contents.finish(session, self.report)
            found = await differences(
                self._ledger,
                session,
                sealed=self._sealed.get(session, ()),
                endings=self._whole(session),
                last=self._read_to,
            )
            for epoch, reason in found:
                self._row(session, epoch, reason)
        self.report.sessions = len(self._sessions)

    async def _unverified_rows(self) -> None:
        async for row in self._ledger.sessions():
            if row.session in self._sessions:
                continue
            try:
                fragments = await self._ledger.fragments(row.session)
                if fragments and all(item.segment_id > self._read_to for item in fragments):
                    continue
                self._row(row.session, None, "the ledger has a session of which nothing is sealed")
            except MALFORMED as exc:
                self._row(b"", None, f"a session's rows in the ledger cannot be read: {exc}")

    def _row(self, session: bytes, epoch: int | None, reason: str) -> None:
        self.report.tampered("ledger", "ledger", reason, session=session or None, epoch=epoch)

    # -- what could not be sealed -----------------------------------------------------------------

    async def _partitions(self) -> None:
        """Positions and quarantine of the partitions that something is sealed from."""
        ends: dict[tuple[str, int], int] = {}
        for segment in self._segments:
            bus = segment.record.bus
            place = bus.topic, bus.partition
            ends[place] = max(ends.get(place, 0), bus.next)
        before = await self._ledger.incidents()
        for (topic, partition), end in sorted(ends.items()):
            if await self._ledger.position(topic, partition) < end:
                reason = "its position lies before what is sealed"
                self.report.tampered("ledger", f"{topic}/{partition}", reason)
            kept = await self._ledger.quarantined(topic, partition)
            here = [i for i in before if (i.topic, i.partition) == (topic, partition)]
            await self._quarantine(kept, here)

    async def _quarantine(self, kept: Sequence[Quarantined], before: Sequence[Incident]) -> None:
        """What is in quarantine is whole, and stated by an incident; and the other way round."""
        there = {(item.offset, item.session) for item in kept}
        for incident in before:
            if incident.reason not in QUARANTINE_REASONS:
                continue
            if (incident.offset, incident.session) not in there:
                self._quarantined(incident, "the message that was put in quarantine is gone")
        stated = {
            (i.topic, i.partition, i.offset, i.reason, i.session)
            for i in await self._ledger.incidents()
        }
        for item in kept:
            place = item.topic, item.partition, item.offset
            if (*place, item.reason, item.session) not in stated:
                self._quarantined(item, "the incident that states it is gone")
            data = await self._object(item.key) if item.key else item.data
            if data is not None and (len(data), sha256(data).digest()) != (item.size, item.sha256):
                self._quarantined(item, "its bytes are not those that came")

    def _quarantined(self, item: Incident | Quarantined, reason: str) -> None:
        place = f"{item.topic}/{item.partition}@{item.offset}"
        self.report.tampered("ledger", place, reason, session=item.session or None)

    async def _incidents(self, only: bytes | None) -> None:
        for incident in await self._ledger.incidents(session=only):
            self._incident(incident)

    def _incident(self, incident: Incident) -> None:
        self.report.incomplete(
            "session",
            f"{incident.topic}/{incident.partition}@{incident.offset}",
            f"incident {incident.reason}: {incident.detail}",
            session=incident.session or None,
            seq=None if incident.seq < 0 else incident.seq,
        )


def _reason(payload: bytes) -> str | None:
    try:
        return Close.from_json(payload).reason
    except FormatError:
        return None
