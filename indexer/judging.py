"""Reading a segment's object and judging its bytes: in this process, or in several others.

Segments are independent of each other up to here. What has to be known of the ones before, a
session's tree and its signatures, is told by the events that come back (`indexer.audit`).
"""

from __future__ import annotations

import asyncio
import mmap
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import ClassVar, Protocol

from sealtape.indexer.contents import ContentChecker
from sealtape.ingest.parquet import ColumnReader
from sealtape.ingest.vault import Vault, open_vault
from sealtape.schemas.errors import FormatError, StoreError
from sealtape.schemas.segments import FragmentRecord
from sealtape.schemas.verify import FragmentVerifier, Report, Run, Single
from sealtape.schemas.verify.columns import Columns

__all__ = [
    "JudgePool",
    "Judged",
    "JudgedFragment",
    "LocalJudge",
    "SegmentJudge",
    "Whole",
    "judge",
]

_Look = Callable[[Columns, FragmentRecord, str, Report], None]


@dataclass(frozen=True, slots=True)
class JudgedFragment:
    """What was found of one fragment.

    Attributes:
        record: which fragment.
        report: findings and counts; empty when it could not be read.
        events: what its session's verifier has to be told.
        unreadable: why its rows cannot be had; "" when they can.
    """

    record: FragmentRecord
    report: Report = field(default_factory=Report)
    events: Sequence[Run | Single] = ()
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found of one object: its size, its SHA-256, and its fragments in order."""

    size: int
    sha256: bytes
    fragments: Sequence[JudgedFragment]


class SegmentJudge(Protocol):
    """Where segments are judged."""

    @property
    def ahead(self) -> int:
        """How many segments may wait for their turn while one is waited for."""
        ...

    async def segment(self, key: str, fragments: Sequence[FragmentRecord]) -> Judged:
        """Read an object and judge these fragments of it. Raises `Missing`, `StoreError`."""
        ...


class Whole:
    """The hash of a whole object, brought on in steps behind the hashes of its payloads.

    So each byte is fetched from memory once, not twice: what was hashed right before is in the
    core's cache, and memory takes half as long again as the hash itself.
    """

    def __init__(self, data: memoryview) -> None:
        """Nothing is hashed yet."""
        self._data = data
        self._hash = sha256()
        self._at = 0

    def upto(self, end: int) -> None:
        """Hash up to there, unless that was done."""
        if end > self._at:
            self._hash.update(self._data[self._at : end])
            self._at = min(end, len(self._data))

    def on(self, size: int) -> None:
        """Hash so many bytes more."""
        self.upto(self._at + size)

    def digest(self) -> bytes:
        """Hash what is left, and return the whole's SHA-256."""
        self.upto(len(self._data))
        return self._hash.digest()


def judge(
    data: memoryview,
    fragments: Sequence[FragmentRecord],
    key: str,
    look: _Look | None = None,
    whole: Whole | None = None,
) -> list[JudgedFragment]:
    """Verify fragments of a segment's bytes; `look` is shown the rows of each on the way.

    `whole` is brought on beside them.
    """
    try:
        reader = ColumnReader(data)
    except FormatError as exc:
        return [JudgedFragment(record, unreadable=exc.message) for record in fragments]
    return [_fragment(reader, record, key, look, whole) for record in fragments]


def _fragment(
    reader: ColumnReader,
    record: FragmentRecord,
    key: str,
    look: _Look | None,
    whole: Whole | None,
) -> JudgedFragment:
    verifier = FragmentVerifier(record, key, None if whole is None else whole.on)
    try:
        for columns in reader.read(*record.rows):
            if whole is not None:
                whole.upto(reader.at)
            verifier.take(columns)
            if look is not None:
                look(columns, record, key, verifier.report)
    except FormatError as exc:
        return JudgedFragment(record, unreadable=exc.message)
    verifier.finish()
    return JudgedFragment(record, verifier.report, verifier.events)


class LocalJudge:
    """Judges in this process, one segment at a time; with a key, opens every payload too."""

    ahead: ClassVar[int] = 0

    def __init__(self, vault: Vault, contents: ContentChecker | None = None) -> None:
        """Read from `vault`; `contents` opens payloads, of which it must have the keys already."""
        self._vault = vault
        self._look = None if contents is None else _opening(contents)
        self._memory = _Memory()

    async def segment(self, key: str, fragments: Sequence[FragmentRecord]) -> Judged:
        """Read an object and judge it; see `SegmentJudge.segment`."""
        size = await self._vault.size(key)
        buffer = self._memory.of(size)
        data = buffer[: await self._vault.fill(key, buffer)]
        whole = Whole(data)
        found = judge(data, fragments, key, self._look, whole)
        return Judged(len(data), whole.digest(), found)


def _opening(contents: ContentChecker) -> _Look:
    def look(columns: Columns, record: FragmentRecord, key: str, report: Report) -> None:
        for row in columns.rows():
            if (row.session, row.epoch) == (record.session, record.epoch):
                contents.frame(row, key, report)

    return look


class _Memory:
    """One stretch of memory for object after object; it only grows.

    Fresh memory for each costs more than reading it: every page is cleared and mapped first. It
    begins at a page, as copying from the page cache to 16 bytes behind one, where `bytes` of this
    size begin, is four times slower on some processors.
    """

    def __init__(self) -> None:
        self._map = _pages(mmap.PAGESIZE)

    def of(self, size: int) -> memoryview:
        """The first `size` bytes; valid until asked again."""
        if size > len(self._map):
            self._map = _pages(size)
        return memoryview(self._map)[:size]


def _pages(size: int) -> mmap.mmap:
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if advice := getattr(mmap, "MADV_HUGEPAGE", None):
        with suppress(OSError):  # the kernel has none; it was only a wish
            pages.madvise(advice)
    return pages


# -- in other processes ----------------------------------------------------------------------------


class JudgePool:
    """Judges in `jobs` processes. Payloads are not opened there: they have no key."""

    def __init__(self, url: str, base: Path, jobs: int) -> None:
        """Each process opens the vault by its URL. They start when they are first needed."""
        self.ahead = 2 * jobs
        self._pool = ProcessPoolExecutor(
            jobs, mp_context=get_context("spawn"), initializer=_begin, initargs=(url, base)
        )

    async def segment(self, key: str, fragments: Sequence[FragmentRecord]) -> Judged:
        """Have an object read and judged; see `SegmentJudge.segment`."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, _judged, key, fragments)
        except BrokenProcessPool as error:
            raise StoreError(
                "A process that verifies ended before its time.",
                hint="Memory may be short: try fewer --jobs.",
            ) from error

    def close(self) -> None:
        """Let what runs come to its end, and the processes with it."""
        self._pool.shutdown(cancel_futures=True)


class _Process:
    """What a process of the pool keeps from segment to segment."""

    runner: asyncio.Runner
    local: LocalJudge


def _begin(url: str, base: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    _Process.runner = asyncio.Runner()
    _Process.local = LocalJudge(_Process.runner.run(open_vault(url, base)))


def _judged(key: str, fragments: Sequence[FragmentRecord]) -> Judged:
    return _Process.runner.run(_Process.local.segment(key, fragments))
