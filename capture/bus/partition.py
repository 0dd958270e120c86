"""One partition of the `dir:` bus: files on a disk, written and read without an event loop.

The writer takes the partition's lock around each append, so several processes may append. What it
finds at the end of the newest file and did not write itself, it walks record by record.
"""

from __future__ import annotations

import fcntl
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise, takewhile
from pathlib import Path

from sealtape.capture.bus.base import Batch, Record
from sealtape.capture.bus.records import (
    FILE_HEADER,
    RECORD_HEADER,
    FileHeader,
    encode_records,
    parse_file_header,
    parse_record,
    proves_damage,
)
from sealtape.capture.files import (
    FILE_MODE,
    AppendFile,
    create_file,
    mapped,
    open_file,
    sync_directory,
)
from sealtape.schemas.errors import FormatError, Missing, StoreCorrupt, StoreError

WINDOW = 1 << 20
SUFFIX = ".log"


def file_of(folder: Path, base: int) -> Path:
    """Return the file that starts at offset `base`."""
    return folder / f"{base:020d}{SUFFIX}"


def bases_of(folder: Path) -> list[int]:
    """Return the first offsets of all files of a partition, in order."""
    with mapped("list", folder):
        names = os.listdir(folder)  # noqa: PTH208 - every poll does it: no Path objects
    return sorted(int(name[: -len(SUFFIX)]) for name in names if name.endswith(SUFFIX))


class LogFile:
    """One file of a partition, open for reading at offsets."""

    def __init__(self, path: Path, base: int) -> None:
        """Open; raises `Missing` when it was trimmed meanwhile."""
        self.path = path
        self.base = base
        with mapped("open", path):
            try:
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError as exc:
                raise Missing(f"The bus file {path} was trimmed away.") from exc

    def header(self) -> FileHeader | None:
        """Return the file's header, or None while it is not whole."""
        try:
            return parse_file_header(self._pread(FILE_HEADER, 0))
        except FormatError:
            return None

    def end(self) -> int:
        """Return the offset that the physical end of the file stands for."""
        with mapped("look at", self.path):
            return self.base + max(os.fstat(self._fd).st_size - FILE_HEADER, 0)

    def window(self, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset` on."""
        return self._pread(length, FILE_HEADER + offset - self.base)

    def sync(self) -> None:
        """Make what the file holds durable, whoever wrote it."""
        with mapped("sync", self.path):
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Close."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def records(self, offset: int, window_bytes: int = WINDOW) -> Iterator[tuple[Record, int]]:
        """Yield whole records and their `synced` from `offset` on; stop where one is not whole."""
        while True:
            window = self.window(offset, max(window_bytes, RECORD_HEADER))
            at = 0
            while True:
                parsed = parse_record(window, at, offset)
                if parsed.record is None:
                    break
                yield parsed.record, parsed.synced
                at += parsed.needed
                offset += parsed.needed
            if not parsed.needed or self.end() - offset < parsed.needed:
                return
            window_bytes = max(WINDOW, parsed.needed)

    def _pread(self, length: int, at: int) -> bytes:
        with mapped("read", self.path):
            return os.pread(self._fd, length, at)


class PartitionWriter:
    """Appends to one partition; not safe for threads (the adapter calls it from one at a time)."""

    def __init__(
        self,
        folder: Path,
        partition: int,
        *,
        file_bytes: int,
        create: Callable[[Path], AppendFile] = create_file,
        reopen: Callable[[Path], AppendFile] = open_file,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Nothing is opened before the first append."""
        self._folder = folder
        self._partition = partition
        self._file_bytes = file_bytes
        self._create = create
        self._reopen = reopen
        self._clock_ns = clock_ns
        self._file: AppendFile | None = None
        self._base = 0
        self._end = 0
        with mapped("open", folder):
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)

    def append(self, messages: Sequence[tuple[bytes, bytes]]) -> list[int]:
        """Write and sync messages; return where they start, then the offset after each."""
        with self._locked():
            file = self._newest()
            pieces, ends = encode_records(
                messages,
                offset=self._end,
                synced=self._end,
                ts_ms=self._clock_ns() // 1_000_000,
            )
            try:
                file.write(pieces)
            except StoreError:
                self._keep_whole(file, ends)
                raise
            try:
                file.sync()
            except StoreError:
                self._leave(file)
                raise
            starts, self._end = self._end, ends[-1] if ends else self._end
            return [starts, *ends]

    def trim(self, below: int) -> None:
        """Delete all files whose messages all stand below an offset, but never the newest."""
        with self._locked():
            bases = bases_of(self._folder)
            self._delete([base for base, after in pairwise(bases) if after <= below])

    def expire(self, age_s: float) -> None:
        """Delete all files that begin with a message older than `age_s` seconds.

        The newest is ended before it holds messages of more than an eighth of that time.
        """
        now_ms = self._clock_ns() // 1_000_000
        with self._locked():
            bases = bases_of(self._folder)
            begun = self._begun_ms(bases[-1]) if bases else None
            if begun is None:
                return
            if begun < now_ms - age_s * 125:
                self._newest()
                if self._base == bases[-1]:
                    self._start(self._end, self._end)
            old = takewhile(
                lambda base: (self._begun_ms(base) or 0) < now_ms - age_s * 1000,
                bases_of(self._folder)[:-1],
            )
            self._delete(list(old))

    def close(self) -> None:
        """Close all files."""
        self._drop()
        if self._lock >= 0:
            fd, self._lock = self._lock, -1
            os.close(fd)

    def _delete(self, bases: Sequence[int]) -> None:
        for base in bases:
            with mapped("delete", file_of(self._folder, base)):
                file_of(self._folder, base).unlink()
        if bases:
            sync_directory(self._folder)

    def _begun_ms(self, base: int) -> int | None:
        """When the first message of a file was written; None when it has none."""
        log = LogFile(file_of(self._folder, base), base)
        try:
            first = next(log.records(base, 1 << 16), None)
        finally:
            log.close()
        return None if first is None else first[0].ts_ms

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with mapped("lock", self._folder):
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _newest(self) -> AppendFile:
        """Return the file to append to, standing at the end of its last whole record."""
        bases = bases_of(self._folder)
        if not bases:
            return self._start(0, 0)
        unknown = self._file is None or self._base != bases[-1]
        if self._file is None or unknown:
            self._drop()
            self._file = self._reopen(file_of(self._folder, bases[-1]))
            self._base = self._end = bases[-1]
        if self._file.refresh() != FILE_HEADER + self._end - self._base or unknown:
            self._catch_up(self._file)
            return self._newest()
        if self._end - self._base >= self._file_bytes:
            return self._start(self._end, self._end)
        return self._file

    def _catch_up(self, file: AppendFile) -> None:
        """Walk what others, or a crash, left behind our last known end."""
        log = LogFile(file.path, self._base)
        try:
            if log.header() is None:
                self._discard_headless(file)
                return
            for record, _ in log.records(self._end):
                self._end = record.next_offset
            tail = log.window(self._end, max(log.end() - self._end, 0))
            log.sync()
        finally:
            log.close()
        if not tail:
            return
        if proves_damage(tail, self._end):
            self._start(self._base + file.size - FILE_HEADER, self._base + file.size - FILE_HEADER)
            return
        if parse_record(tail, 0, self._end).needed == 0:
            self._set_aside(tail)
        file.truncate(FILE_HEADER + self._end - self._base)
        file.sync()

    def _discard_headless(self, file: AppendFile) -> None:
        """A crash came before a new file had its header, so it holds nothing: remove it."""
        if file.size > FILE_HEADER:
            raise StoreCorrupt(
                f"The bus file {file.path} has a damaged header.",
                hint="Move it aside and restore it from a copy.",
            )
        self._drop()
        with mapped("delete", file.path):
            file.path.unlink()

    def _set_aside(self, tail: bytes) -> None:
        """Keep bytes that look damaged rather than cut short, for a person to look at."""
        path = self._folder / f"{self._end:020d}.{self._clock_ns()}.damaged"
        copy = self._create(path)
        try:
            copy.write([tail])
            copy.sync()
        finally:
            copy.close()

    def _keep_whole(self, file: AppendFile, ends: Sequence[int]) -> None:
        """After a failed write keep the whole messages it put down: a reader may have seen them."""
        written = self._base + file.size - FILE_HEADER
        whole = max([self._end, *(end for end in ends if end <= written)])
        try:
            file.truncate(FILE_HEADER + whole - self._base)
            file.sync()
        except StoreError:
            self._drop()
        else:
            self._end = whole

    def _leave(self, file: AppendFile) -> None:
        """After a failed sync go on in a new file, beyond every offset a reader may have seen."""
        beyond = self._base + file.size - FILE_HEADER
        try:
            self._start(beyond, self._end)
        except StoreError:
            self._drop()

    def _start(self, base: int, previous_end: int) -> AppendFile:
        self._drop()
        path = file_of(self._folder, base)
        file = self._create(path)
        try:
            file.write([FileHeader(self._partition, base, previous_end).encode()])
            file.sync()
            sync_directory(self._folder)
        except StoreError:
            file.close()
            with mapped("delete", path):
                path.unlink()
            raise
        self._file, self._base, self._end = file, base, base
        return file

    def _drop(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class PartitionReader:
    """Reads one partition; any number of them may be open in any process."""

    def __init__(self, folder: Path) -> None:
        """Nothing is opened before the first read."""
        self._folder = folder
        self._file: LogFile | None = None
        self._end = 0
        self._judged = (-1, -1)

    def read(self, offset: int, max_bytes: int) -> Batch:
        """Return the durable messages from `offset` on that are there now, maybe none."""
        while True:
            bases = bases_of(self._folder)
            file, stop = self._file_at(bases, offset)
            if file is None:
                return Batch([], offset)
            if stop is None or offset < stop:
                return self._take(file, offset, stop, max_bytes)
            offset = bases[bisect_right(bases, file.base)]

    def bounds(self) -> tuple[int, int]:
        """Return the first offset kept and the end of the last whole message."""
        bases = bases_of(self._folder)
        if not bases:
            return 0, 0
        file = self._open(bases[-1])
        self._end = max(self._end, file.base)
        for record, _ in file.records(self._end):
            self._end = record.next_offset
        return bases[0], self._end

    def close(self) -> None:
        """Close the file that is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _file_at(self, bases: list[int], offset: int) -> tuple[LogFile | None, int | None]:
        """Return the file an offset lies in, and where that file ends if it is not the newest."""
        if not bases:
            if offset:
                raise self._beyond(offset, 0)
            return None, None
        if offset < bases[0]:
            raise Missing(
                f"Offset {offset} of {self._folder} was trimmed away; the first is {bases[0]}.",
                first=bases[0],
            )
        place = bisect_right(bases, offset) - 1
        file = self._open(bases[place])
        if place + 1 == len(bases):
            return file, None
        after = LogFile(file_of(self._folder, bases[place + 1]), bases[place + 1])
        try:
            header = after.header()
        finally:
            after.close()
        return file, None if header is None else header.previous_end

    def _open(self, base: int) -> LogFile:
        if self._file is None or self._file.base != base:
            self.close()
            self._file = LogFile(file_of(self._folder, base), base)
        return self._file

    def _take(self, file: LogFile, offset: int, stop: int | None, max_bytes: int) -> Batch:
        records: list[Record] = []
        size, durable, start = 0, stop or 0, offset
        for record, synced in file.records(offset, min(max(max_bytes, 1 << 16), 8 << 20)):
            size += len(record.key) + len(record.value)
            if records and size > max_bytes:
                break
            if stop is not None and record.next_offset > stop:
                break
            records.append(record)
            durable = max(durable, synced)
            offset = record.next_offset
        if not records:
            self._explain_nothing(file, start, stop)
        elif durable < offset:
            file.sync()
        return Batch(records, offset)

    def _explain_nothing(self, file: LogFile, offset: int, stop: int | None) -> None:
        """Raise when there is no message at `offset` although one must be there."""
        end = file.end()
        if stop is not None and offset < stop:
            raise self._damaged(file, offset, stop)
        if offset > end:
            raise self._beyond(offset, end)
        if end > offset and self._judged != (offset, end):
            if proves_damage(file.window(offset, end - offset), offset):
                raise self._damaged(file, offset, end)
            self._judged = (offset, end)

    def _damaged(self, file: LogFile, offset: int, stop: int) -> StoreCorrupt:
        return StoreCorrupt(
            f"The bus file {file.path} is damaged at offset {offset}.",
            hint="Restore it from a copy; readers stop there rather than skip.",
            offset=offset,
            file_end=stop,
        )

    def _beyond(self, offset: int, end: int) -> Missing:
        return Missing(
            f"Offset {offset} is beyond the end {end} of {self._folder}.",
            hint="The bus was replaced or lost its end; restore it.",
            offset=offset,
            end=end,
        )
