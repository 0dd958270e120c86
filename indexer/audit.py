"""The auditor's walk: fetch what the ledger and the vault hold, and let `schemas.verify` judge it.

It reads only. Every object is hashed, every frame's digest and leaf computed, every session's tree
rebuilt and compared with the signatures made while it was recorded; then the ledger's own rows are
compared with what came out. With a key, every payload is opened too; `deep` decodes DATA again and
compares it with the facts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import islice

from sealtape.indexer.contents import ContentChecker
from sealtape.ingest.ledger.base import Ledger
from sealtape.ingest.ledger.rows import FragmentRow, SegmentRow
from sealtape.ingest.parquet import Row, read_rows
from sealtape.ingest.vault import Vault
from sealtape.schemas.errors import FormatError, Missing
from sealtape.schemas.layout import SEGMENT_PREFIX, manifest_key, segment_of_manifest
from sealtape.schemas.notes import Verifier
from sealtape.schemas.segments import FragmentRecord, parse_manifest
from sealtape.schemas.tree import CompactRange
from sealtape.schemas.verify import ChainVerifier, Report, SegmentVerifier, SessionVerifier
from sealtape.schemas.verify.base import StoredRow

Progress = Callable[[int, str], None]


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
    ) -> None:
        """Take what to read and whom to trust; `contents` opens payloads where a key is given."""
        self._ledger = ledger
        self._vault = vault
        self._log = log
        self._trust = trust
        self._now_ns = now_ns
        self._contents = contents
        self._progress = progress
        self.report = Report()
        self._sessions: dict[bytes, SessionVerifier] = {}
        self._done = 0

    async def everything(self, listed: Sequence[str]) -> Report:
        """Verify all that is sealed.

        Args:
            listed: the vault's keys below `seg/v1/`, listed before the ledger was opened, so that
                what is sealed meanwhile does not look like a stranger.
        """
        chains = await self._chains()
        known = set()
        async for segment in self._ledger.segments():
            known.add(segment.key)
            await self._segment(segment, None)
        await self._strangers(listed, known)
        await self._finish(chains, None)
        return self.report

    async def session(self, session: bytes) -> Report:
        """Verify one session: the segments it lies in, the chains, its rows in the ledger."""
        chains = await self._chains()
        wanted: dict[str, list[FragmentRow]] = {}
        for fragment in await self._ledger.fragments(session):
            wanted.setdefault(fragment.segment_key, []).append(fragment)
        for key in wanted:
            segment = await self._ledger.segment(key)
            if segment is None:
                self.report.tampered(
                    "ledger", key, "the ledger names fragments of a segment that it lacks"
                )
            else:
                await self._segment(segment, session)
        if not wanted:
            self.report.incomplete(
                "session", "ledger", "no frame of it is sealed yet", session=session
            )
        await self._finish(chains, session)
        return self.report

    # -- segments ---------------------------------------------------------------------------------

    async def _chains(self) -> dict[str, ChainVerifier]:
        chains: dict[str, ChainVerifier] = {}
        async for segment in self._ledger.segments():
            shard = segment.record.shard
            chain = chains.setdefault(shard, ChainVerifier(shard, self.report))
            chain.record(segment.record)
            if segment.key != segment.record.object:
                self.report.tampered("ledger", segment.key, "its row names another object")
        return chains

    async def _segment(self, segment: SegmentRow, only: bytes | None) -> None:
        verifier = SegmentVerifier(segment.record, self.report)
        fragments = await self._fragments(segment, verifier)
        data = await self._object(segment.key)
        if data is None:
            self._absent(fragments, segment.key, only)
            return
        verifier.object(len(data), sha256(data).digest())
        reader = _Reader(data, whole=only is None)
        for record in fragments:
            if only is not None and record.session != only:
                continue
            try:
                rows = reader.rows(record)
            except FormatError as exc:
                self.report.tampered(
                    "object",
                    segment.key,
                    f"frames {record.lo} to {record.hi - 1} cannot be read: {exc.message}",
                    session=record.session,
                    epoch=record.epoch,
                    seq=record.lo,
                )
                self._verifier(record.session).absent(record, segment.key)
                continue
            await self._fragment(verifier, record, rows, segment.key)

    async def _fragments(
        self, segment: SegmentRow, verifier: SegmentVerifier
    ) -> Sequence[FragmentRecord]:
        """Return the manifest's fragments, or the ledger's where the manifest cannot be used."""
        rows = [row.record for row in await self._ledger.fragments_of(segment.id)]
        data = await self._object(manifest_key(segment.key))
        if data is None:
            return rows
        try:
            record, fragments = parse_manifest(data)
        except FormatError as exc:
            self.report.tampered("manifest", segment.key, f"it cannot be read: {exc.message}")
            return rows
        if not verifier.manifest(record, fragments):
            return rows
        if list(fragments) != rows:
            self.report.tampered(
                "ledger", segment.key, "the ledger's fragments are not those of the manifest"
            )
        return fragments

    async def _fragment(
        self, verifier: SegmentVerifier, record: FragmentRecord, rows: Sequence[Row], key: str
    ) -> None:
        session = self._verifier(record.session)
        session.fragment(record, key)
        contents = self._contents
        if contents is not None:
            await contents.prepare(record.session, record.epoch)

        def take(row: StoredRow, leaf: bytes) -> None:
            session.frame(row, leaf)
            if contents is not None:
                contents.frame(row, key, self.report)

        verifier.fragment(record, rows, take)
        self._done += len(rows)
        if self._progress is not None:
            self._progress(self._done, key)

    async def _object(self, key: str) -> bytes | None:
        try:
            return await self._vault.get(key)
        except Missing:
            self.report.tampered("object", key, "it is gone, and nothing says it was deleted")
            return None

    def _absent(self, fragments: Sequence[FragmentRecord], key: str, only: bytes | None) -> None:
        for record in fragments:
            if only is None or record.session == only:
                self.report.tampered(
                    "frame",
                    key,
                    f"frames {record.lo} to {record.hi - 1} are gone with their object",
                    session=record.session,
                    epoch=record.epoch,
                    seq=record.lo,
                )
                self._verifier(record.session).absent(record, key)

    def _verifier(self, session: bytes) -> SessionVerifier:
        found = self._sessions.get(session)
        if found is None:
            found = self._sessions[session] = SessionVerifier(
                session, log=self._log, trust=self._trust, now_ns=self._now_ns, report=self.report
            )
        return found

    # -- the ledger's own rows --------------------------------------------------------------------

    async def _strangers(self, listed: Sequence[str], known: set[str]) -> None:
        """An object that the ledger never heard of: it came, or its row went, by another way."""
        pending = {item.key for item in await self._ledger.staged(0)}
        pending.update(await self._ledger.abandoned(0))
        for key in listed:
            segment = key if key.endswith(".parquet") else segment_of_manifest(key)
            if key.startswith(SEGMENT_PREFIX) and segment not in known and key not in pending:
                self.report.tampered("ledger", key, "the ledger does not know this object")

    async def _finish(self, chains: dict[str, ChainVerifier], only: bytes | None) -> None:
        heads = await self._ledger.shards()
        for shard in sorted(set(heads) | set(chains)):
            chain = chains.get(shard) or ChainVerifier(shard, self.report)
            head = heads.get(shard)
            if head is None:
                self.report.tampered("ledger", f"shard {shard}", "the ledger has lost its head")
            else:
                chain.finish(head.n, head.hash)
        for session, verifier in self._sessions.items():
            verifier.finish()
            if self._contents is not None:
                await self._contents.finish(session, self.report)
            await self._compare(session, verifier)
        self.report.sessions = len(self._sessions)
        if only is None:
            await self._unverified_rows()
        for incident in await self._ledger.incidents(session=only):
            self.report.incomplete(
                "session",
                f"{incident.topic}/{incident.partition}@{incident.offset}",
                f"incident {incident.reason}: {incident.detail}",
                session=incident.session or None,
                seq=None if incident.seq < 0 else incident.seq,
            )

    async def _compare(self, session: bytes, verifier: SessionVerifier) -> None:
        heads = {head.epoch: head for head in await self._ledger.epochs(session)}
        for epoch, size in verifier.sizes.items():
            head = heads.pop(epoch, None)
            if head is None or head.hi != size:
                there = "no" if head is None else str(head.hi)
                self._row(session, epoch, f"the ledger says {there} frames, {size} are sealed")
            elif not head.lost and verifier.root(epoch) not in (None, _root(head.nodes, size)):
                self._row(session, epoch, "the ledger's head is not the root of the sealed frames")
        for epoch in heads:
            self._row(session, epoch, "the ledger has an epoch of which no frame is sealed")
        if await self._ledger.session(session) is None:
            self._row(session, None, "the ledger has lost the session's row")

    async def _unverified_rows(self) -> None:
        async for row in self._ledger.sessions():
            if row.session not in self._sessions:
                self._row(row.session, None, "the ledger has a session of which no frame is sealed")

    def _row(self, session: bytes, epoch: int | None, reason: str) -> None:
        self.report.tampered("ledger", "ledger", reason, session=session, epoch=epoch)


class _Reader:
    """The rows of a segment's fragments: in one pass over the file, or just those asked for.

    After damage the pass ends, and each fragment is read by itself, so that only those in the
    damaged row group are lost.
    """

    def __init__(self, data: bytes, *, whole: bool) -> None:
        self._data = data
        self._pass = read_rows(data, page_checksums=False) if whole else None
        self._next = 0

    def rows(self, record: FragmentRecord) -> list[Row]:
        """Return the rows that a fragment names. Raises `FormatError`."""
        start, end = record.rows
        if self._pass is not None and start == self._next:
            try:
                found = [row for _, row in islice(self._pass, end - start)]
            except FormatError:
                self._pass = None
            else:
                self._next = end
                return found
        return [row for _, row in read_rows(self._data, start, end, page_checksums=False)]


def _root(nodes: Sequence[bytes], size: int) -> bytes | None:
    try:
        return CompactRange(0, size, nodes).root()
    except FormatError:
        return None
