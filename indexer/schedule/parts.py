"""The auditor's walk over a part of what is sealed, so that all of it is walked in time.

A batch of objects is read and judged as `sealtape verify --all` does. A session is judged as a
whole with the object that holds its last frames: the objects of its beginning are read with it, and
for those in between the hashes of their chained records stand in. Their bytes have their own turn.

What is no object has a pass of its own: every chain and row of the ledger, every entry of the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence

from sealtape.indexer.audit import Audit
from sealtape.indexer.audit_log import LogTrust
from sealtape.indexer.judging import Judged, JudgedFragment
from sealtape.indexer.reconcile import MALFORMED
from sealtape.ingest.ledger.base import Ledger
from sealtape.ingest.ledger.rows import SegmentRow
from sealtape.ingest.vault import Vault
from sealtape.schemas.notes import Verifier
from sealtape.schemas.segments import FragmentRecord, fragments_root
from sealtape.schemas.verification import PASS
from sealtape.schemas.verify import Report, SegmentVerifier, SessionVerifier
from sealtape.schemas.verify.findings import Finding, Verdict

__all__ = ["PartAudit"]

_OF_OBJECTS = frozenset({"object", "manifest", "chain"})


class PartAudit(Audit):
    """One batch, or one pass; `follow` comes first."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        vault: Vault,
        log: str,
        trust: Sequence[Verifier] | None,
        now_ns: int,
        log_trust: LogTrust,
    ) -> None:
        """Take what to read and whom to trust."""
        super().__init__(
            ledger=ledger, vault=vault, log=log, trust=trust, now_ns=now_ns, log_trust=log_trust
        )
        self.read: dict[str, int] = {}
        """How many bytes were read, by object."""
        self.frames: dict[str, int] = {}
        self.held: dict[str, int] = {}
        """How many frames were read, and sessions they are of, by object of the batch."""
        self._ends: dict[bytes, str] = {}  # sessions that are judged whole, by their last object
        self._within: dict[str, set[bytes]] = {}  # those of them that an object has frames of
        self._live: set[str] = set()
        self._of: dict[int, tuple[Finding, str]] = {}  # whose a finding is, by its id()

    async def follow(self) -> Sequence[SegmentRow]:
        """Follow the chains of records, and return what they hold."""
        await self._follow_chains()
        return self._segments

    def found(self) -> Iterable[tuple[str, Finding]]:
        """Every finding, and the object that has to be read without it before it is gone."""
        known = {segment.key for segment in self._segments}
        for finding in self.report.findings:
            yield self._whose(finding, known), finding

    def _whose(self, finding: Finding, known: Collection[str]) -> str:
        if (told := self._of.get(id(finding))) is not None:
            return told[1]
        if finding.layer == "log":
            return PASS
        if finding.layer not in _OF_OBJECTS and finding.session is not None:
            last = self._ends.get(bytes.fromhex(finding.session))
            if last is not None:
                return last
        return finding.object if finding.object in known else PASS

    # -- a batch ---------------------------------------------------------------------------------

    async def objects(self, keys: Collection[str]) -> None:
        """Read these objects, and judge the sessions that end in them."""
        for segment in self._segments:
            if segment.key in keys:
                await self._find_ends(segment, keys)
        for segment in self._segments:
            if segment.key in keys or segment.key in self._within:
                await self._part(segment, asked=segment.key in keys)
        await self._judge_sessions()

    async def _find_ends(self, segment: SegmentRow, keys: Collection[str]) -> None:
        """Which sessions of an object have their last frames in one of these."""
        rows = await self._fragment_rows(segment) or ()
        sessions = {record.session for record in rows}
        self.held[segment.key] = len(sessions)
        for session in sorted(sessions - self._ends.keys()):
            try:
                row = await self._ledger.session(session)
                places = [place.segment_key for place in await self._ledger.fragments(session)]
            except MALFORMED as exc:
                self._row(session, None, f"its rows in the ledger cannot be read: {exc}")
                continue
            last = places[-1] if places else segment.key
            if last not in keys:
                continue
            self._ends[session] = last
            if row is not None and row.state == "live":
                self._live.add(session.hex())
            for place in places:
                self._within.setdefault(place, set()).add(session)

    async def _part(self, segment: SegmentRow, *, asked: bool) -> None:
        """Read an object that is asked for, or begins a session; else its record stands in."""
        fragments = await self._fragments(segment, SegmentVerifier(segment.record, self.report))
        own = [record for record in fragments if record.session in self._ends]
        for record in own:
            self._sealed.setdefault(record.session, []).append(record)
        if asked or any(record.lo == 0 for record in own):
            wanted = fragments if asked else own
            await self._take(
                segment, wanted, asyncio.create_task(self._judged(segment.key, wanted))
            )
            return
        for record in own:
            self._verifier(record.session).absent(record, segment.key)

    async def _judged(self, key: str, fragments: Sequence[FragmentRecord]) -> Judged | None:
        judged = await super()._judged(key, fragments)
        if judged is not None:
            self.read[key] = judged.size
        return judged

    def _fragment(self, fragment: JudgedFragment, key: str) -> None:
        self._say_whose(key, fragment.report.findings)
        self.frames[key] = self.frames.get(key, 0) + fragment.report.frames
        if fragment.record.session in self._ends:
            super()._fragment(fragment, key)
        else:
            self.report.merge(fragment.report)

    def _absent(self, fragments: Sequence[FragmentRecord], key: str) -> None:
        before = len(self.report.findings)
        super()._absent(fragments, key)
        gone = [found for found in self.report.findings[before:] if found.layer == "frame"]
        self._say_whose(key, gone)

    def _without(self, record: FragmentRecord, key: str) -> None:
        if record.session in self._ends:
            super()._without(record, key)

    def _say_whose(self, key: str, findings: Iterable[Finding]) -> None:
        self._of.update((id(finding), (finding, key)) for finding in findings)

    async def _judge_sessions(self) -> None:
        before = len(self.report.findings)
        await self._finish_sessions()
        told = self.report.findings[before:]
        self.report.findings[before:] = [one for one in told if not self._is_only_live(one)]
        for session, last in self._ends.items():
            before = len(self.report.findings)
            places = [row for row in self._segments if session in self._within.get(row.key, ())]
            await self.log.session(session, self._sessions.get(session), places)
            await self._incidents(session)
            for finding in self.report.findings[before:]:
                # What the log lacks comes without the object being read again: the pass looks.
                late = (finding.layer, finding.verdict) == ("log", Verdict.INCOMPLETE)
                self._say_whose(PASS if late else last, [finding])

    def _is_only_live(self, finding: Finding) -> bool:
        """Whether it says no more than that a session which the ledger calls live goes on."""
        return (
            finding.session in self._live
            and finding.verdict == Verdict.INCOMPLETE
            and finding.layer == "session"
            and finding.seq is None
        )

    # -- a pass ----------------------------------------------------------------------------------

    async def pass_over(self, listed: Sequence[str]) -> None:
        """Compare all that is no object: rows, names of objects, the whole log, incidents.

        Args:
            listed: the vault's keys below `seg/v1/`, listed before the ledger was opened.
        """
        aside = Report()
        for segment in self._segments:
            rows = await self._fragment_rows(segment) or ()
            if rows and fragments_root(rows) != segment.record.fragments.root:
                self._fragments_differ(segment)
            for record in rows:
                self._counted(record.session, aside).absent(record, segment.key)
        await self._strangers(listed)
        await self.log.everything(self._segments, self._sessions)
        await self._unverified_rows()
        await self._partitions()
        for incident in await self._ledger.incidents():
            if not incident.session:
                self._incident(incident)

    def _counted(self, session: bytes, aside: Report) -> SessionVerifier:
        """How far a session goes by its records alone; what they lack is a batch's to say."""
        found = self._sessions.get(session)
        if found is None:
            found = self._sessions[session] = SessionVerifier(
                session, log=self._log, trust=None, now_ns=self._now_ns, report=aside
            )
        return found
