"""One lane of a worker's spool: the files of one durability level.

The event loop decides what a batch holds; `LaneFiles` puts it down, also from a thread, but never
from two at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from threading import Lock

from sealtape.capture.files import AppendFile, mapped, sync_directory
from sealtape.capture.spool.files import SpoolFile, file_name, number_of
from sealtape.capture.spool.records import (
    FILE_HEADER,
    FRAMES,
    RECORD_OVERHEAD,
    SALT_SIZE,
    SLICES,
    FileKey,
)
from sealtape.capture.spool.settled import write_settled
from sealtape.schemas.errors import StoreError, StoreFull


class Budget:
    """How much of its limit a worker's spool takes, in bytes, over all lanes and orphans."""

    __slots__ = ("_lock", "limit", "used")

    def __init__(self, limit: int) -> None:
        """Nothing is used yet."""
        self.limit = limit
        self.used = 0
        self._lock = Lock()

    def add(self, more: int) -> None:
        """Count bytes put down, or (negative) given back; from any thread."""
        with self._lock:
            self.used += more

    def take(self, more: int) -> None:
        """Count bytes before they are put down; `StoreFull` when they go beyond the limit.

        Lanes write side by side: if each only looked, all could find room for the same bytes.
        """
        with self._lock:
            if self.used + more <= self.limit:
                self.used += more
                return
        raise StoreFull(
            f"The spool holds {self.used} of {self.limit} bytes.",
            hint="The bus must take some first, or raise capture.spool_limit.",
        )


def _most_bytes(records: Sequence[tuple[int, Sequence[bytes]]]) -> int:
    """What records take at most when they are put down."""
    return sum(RECORD_OVERHEAD + sum(map(len, pieces)) for _, pieces in records)


class Place:
    """Where a FRAMES record stands, until the bus has acknowledged its messages."""

    __slots__ = ("end", "file", "start")

    def __init__(self, file: SpoolFile, start: int, end: int) -> None:
        """Name the bytes."""
        self.file = file
        self.start = start
        self.end = end


class LaneFiles:
    """The files of a lane: one is written to, older ones wait for the bus.

    Those of a lane that `keeps` wait for receipts too: for all sessions that have messages in them.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        spool_key: bytes,
        budget: Budget,
        file_bytes: int,
        sync: bool,
        keeps: bool = False,
        create: Callable[[Path], AppendFile],
        random: Callable[[int], bytes],
    ) -> None:
        """Nothing is created before the first batch."""
        self.name = name
        self.keeps = keeps
        self._folder = folder
        self._spool_key = spool_key
        self._budget = budget
        self._file_bytes = file_bytes
        self._sync = sync
        self._create = create
        self._random = random
        self._number = 0
        self._active: SpoolFile | None = None
        self._old: list[SpoolFile] = []
        self._settled: dict[int, int] = {}
        """Sessions with a receipt, each with the number of the last file that may speak of it."""
        self._failed = False
        self._lock = Lock()

    @property
    def wants_fresh(self) -> bool:
        """True when the next batch must be `fresh`: it starts a file that needs no older one."""
        active = self._active
        return active is None or self._failed or active.size >= self._file_bytes

    def write(self, records: Sequence[tuple[int, Sequence[bytes]]], *, fresh: bool) -> list[Place]:
        """Put a batch down and return the places of its FRAMES records.

        A `fresh` batch goes to a new file and must hold the snapshots of all live sessions. After
        a failure nothing of the batch counts as written, and the next one must be fresh.
        """
        fresh, self._failed = fresh or self._failed, True
        starts = fresh or self._active is None
        taken = _most_bytes(records) + (FILE_HEADER if starts else 0)
        self._budget.take(taken)
        put = 0
        try:
            file = self._start() if starts else self._active
            assert file is not None
            before = file.size
            try:
                spans = file.write(records)
                if self._sync:
                    file.sync()
            except StoreError:
                self._give_up(file)
                raise
            finally:
                put = file.size - before
        finally:
            self._budget.add(put - taken)
        places = [
            Place(file, start, end)
            for (kind, _), (start, end) in zip(records, spans, strict=True)
            if kind == FRAMES
        ]
        with self._lock:
            file.unacked += len(places)
            if file is not self._active:
                self._retire(file)
        self._failed = False
        return places

    def write_slices(self, body: bytes) -> None:
        """Put down one SLICES record and nothing else; as `write`, for the hot path."""
        file = self._active
        assert file is not None
        self._failed = True
        taken = len(body) + RECORD_OVERHEAD
        self._budget.take(taken)
        before = file.size
        try:
            file.write_one(SLICES, body)
        finally:
            self._budget.add(file.size - before - taken)
        self._failed = False

    def acknowledge(self, place: Place) -> None:
        """The bus has the messages of a FRAMES record."""
        with self._lock:
            place.file.unacked -= 1

    def hold(self, place: Place, numbers: Iterable[int]) -> None:
        """Keep a place's file until these sessions, whose messages it has, have their receipts."""
        if self.keeps:
            with self._lock:
                place.file.owed.update(numbers)

    def settle(self, number: int) -> None:
        """A session has its receipt, and nothing more will come of it."""
        with self._lock:
            self._settled[number] = self._number
            for file in self._files():
                file.owed.discard(number)

    def holding(self, numbers: Iterable[int]) -> list[Path]:
        """The files with messages of sessions that have no receipt, oldest first."""
        wanted = frozenset(numbers)
        with self._lock:
            return [file.path for file in self._files() if file.owed & wanted]

    @property
    def holding_any(self) -> bool:
        """Whether a session with messages here has no receipt yet."""
        with self._lock:
            return any(file.owed for file in self._files())

    def deletable(self) -> list[SpoolFile]:
        """Take out the old files of whose messages nothing is waited for any more."""
        with self._lock:
            done = [file for file in self._old if not (file.unacked or file.owed)]
            if done:
                self._old = [file for file in self._old if file.unacked or file.owed]
        return done

    def delete(self, files: Sequence[SpoolFile]) -> None:
        """Delete files that `deletable` returned (this takes time: not in the event loop).

        A lane that keeps its files may delete the end of a session before its beginning: what has a
        receipt is written down first, or an adopter would take it for unfinished.
        """
        left = list(files)
        try:
            if self.keeps:
                write_settled(self._folder, self.name, self._forget_settled(left), self._create)
            while left:
                size = left[0].size
                with mapped("delete", left[0].path):
                    left[0].path.unlink(missing_ok=True)
                self._budget.add(-size)
                left.pop(0)
        finally:
            with self._lock:
                self._old = [*left, *self._old]

    def _forget_settled(self, leaving: Sequence[SpoolFile]) -> list[int]:
        """The sessions with a receipt of which a file may speak, those of `leaving` among them."""
        with self._lock:
            files = [*leaving, *self._files()]
            oldest = min(number_of(file.path) for file in files)
            self._settled = {n: last for n, last in self._settled.items() if last >= oldest}
            return sorted(self._settled)

    def _files(self) -> list[SpoolFile]:
        return self._old if self._active is None else [*self._old, self._active]

    def close(self) -> list[SpoolFile]:
        """Close the active file and return all files there are."""
        if self._active is not None:
            self._active.close()
            self._old.append(self._active)
            self._active = None
        return self._old

    def _start(self) -> SpoolFile:
        self._number += 1
        path = self._folder / file_name(self.name, self._number)
        key = FileKey(self._spool_key, self._random(SALT_SIZE))
        try:
            file = SpoolFile(path, key, self._create, sync=self._sync)
            if self._sync:
                sync_directory(self._folder)
        except StoreError:
            with mapped("delete", path):
                path.unlink(missing_ok=True)
            raise
        self._budget.add(file.size)
        return file

    def _give_up(self, file: SpoolFile) -> None:
        """A file that failed is not written to again; one that holds nothing yet is removed."""
        if file is self._active:
            return
        file.close()
        with mapped("delete", file.path):
            file.path.unlink(missing_ok=True)
        self._budget.add(-file.size)

    def _retire(self, file: SpoolFile) -> None:
        if self._active is not None:
            self._active.close()
            self._old.append(self._active)
        self._active = file
