"""The embedded bus: a folder of append-only files (`docs/spec/bus-dir.md`).

Files are written and read in threads of its own, so the event loop never waits for a disk. Appends
that come while one is being written are written together, under one fdatasync.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl

from sealtape.capture.bus.base import Batch, partition_of
from sealtape.capture.bus.partition import PartitionReader, PartitionWriter
from sealtape.capture.bus.records import check_lengths
from sealtape.capture.files import (
    DIRECTORY_MODE,
    AppendFile,
    create_file,
    locked,
    mapped,
    open_file,
    sync_directory,
    write_atomic,
)
from sealtape.schemas.errors import (
    Missing,
    Replaced,
    SettingsError,
    StoreCorrupt,
    StoreError,
    UsageError,
)
from sealtape.schemas.settings.values import parse_duration
from sealtape.schemas.urls import shown_url

FILE_BYTES = 64 << 20
POLL_S = 0.02
MAX_PARTITIONS = 1024
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_OPTIONS = ("partitions", "retention")
T = TypeVar("T")


def open_dir_bus(url: str, base: Path) -> DirBus:
    """Open `dir:PATH?partitions=N&retention=7d`, creating it when it is not there."""
    path, _, query = url.removeprefix("dir:").partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(options) - set(_OPTIONS))
    count, retention_s = options.get("partitions", "1"), 0.0
    try:
        retention_s = parse_duration(options.get("retention", "0s"))
    except ValueError:
        unknown.append("retention")
    if not path or unknown or not count.isdecimal() or not 1 <= int(count) <= MAX_PARTITIONS:
        raise SettingsError(
            f"The bus URL {shown_url(url)!r} is not understood.",
            hint=f"Use dir:PATH?partitions=N with N from 1 to {MAX_PARTITIONS}; &retention=7d to"
            " delete what is older.",
            setting="stores.bus",
        )
    return DirBus(
        base / path,
        partitions=int(count) if "partitions" in options else None,
        retention_s=retention_s or None,
    )


class DirBus:
    """See `base.Bus` for the rules this keeps."""

    def __init__(
        self,
        path: Path,
        *,
        partitions: int | None = None,
        file_bytes: int = FILE_BYTES,
        retention_s: float | None = None,
        create: Callable[[Path], AppendFile] = create_file,
        reopen: Callable[[Path], AppendFile] = open_file,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Open or create; `partitions` None takes what is there, or 1 for a new one.

        `trim` deletes what is older than `retention_s`, whether or not it was read.
        """
        self._path = path
        self._retention_s = retention_s
        self._topic, self._partitions, self._identity = _describe(path, partitions)
        self._lanes = [
            _Lane(
                PartitionWriter(
                    _folder(path, number),
                    number,
                    file_bytes=file_bytes,
                    create=create,
                    reopen=reopen,
                    clock_ns=clock_ns,
                )
            )
            for number in range(self._partitions)
        ]
        self._threads = ThreadPoolExecutor(
            max_workers=min(self._partitions, 4) + 2, thread_name_prefix="bus"
        )
        self._idle_readers: dict[int, list[PartitionReader]] = {}
        self._closed = False

    @property
    def topic(self) -> str:
        """Name fixed when the folder was created."""
        return self._topic

    @property
    def partitions(self) -> int:
        """Number of partitions, fixed when the folder was created."""
        return self._partitions

    @property
    def retention_s(self) -> float | None:
        """What the URL says; None when messages go only by `trim` for all consumers."""
        return self._retention_s

    async def start(self) -> None:
        """Do nothing: the folder was opened at once."""

    def partition_of(self, session: bytes) -> int:
        """Return the partition all messages of a session go to."""
        return partition_of(session, self._partitions)

    async def append(self, partition: int, messages: Sequence[tuple[bytes, bytes]]) -> int:
        """Append durably; see the port."""
        lane = self._lane(partition)
        check_lengths(messages)
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        lane.waiting.append((messages, done))
        if lane.task is None:
            lane.task = asyncio.create_task(self._commit(lane))
        return await done

    async def read(self, partition: int, offset: int, *, max_bytes: int, wait_s: float) -> Batch:
        """Read from an offset; see the port."""
        lane = self._lane(partition)
        deadline = time.monotonic() + wait_s
        while True:
            appended = lane.appended
            batch = await self._borrow(partition, lambda reader: reader.read(offset, max_bytes))
            left = deadline - time.monotonic()
            if batch.records or left <= 0:
                return batch
            await _either(appended, min(POLL_S, left))

    async def bounds(self, partition: int) -> tuple[int, int]:
        """Return first offset and end; see the port."""
        return await self._borrow(partition, PartitionReader.bounds)

    async def mark(self, consumer: str, partition: int, offset: int) -> None:
        """Remember a consumer's position; see the port."""
        if not _NAME.fullmatch(consumer) or offset < 0:
            raise UsageError(f"Not a consumer's position: {consumer!r} at {offset}.")
        self._lane(partition)
        path = _folder(self._path, partition) / f"{consumer}.mark"
        data = json.dumps({"offset": str(offset), "v": 1}).encode()
        await self._run(lambda: write_atomic(path, data))

    async def marks(self, partition: int) -> dict[str, int]:
        """Return all consumers' positions; see the port."""
        self._lane(partition)
        return await self._run(lambda: _read_marks(_folder(self._path, partition)))

    async def trim(self, partition: int, consumers: Sequence[str]) -> None:
        """Delete whole files that all named consumers have passed; see the port."""
        lane = self._lane(partition)
        age_s = self._retention_s
        if age_s is not None:
            async with lane.writing:
                await self._run(lambda: lane.writer.expire(age_s))
        marks = await self.marks(partition)
        if not consumers or any(name not in marks for name in consumers):
            return
        below = min(marks[name] for name in consumers)
        async with lane.writing:
            await self._run(lambda: lane.writer.trim(below))

    async def close(self) -> None:
        """Finish appends under way and close all files."""
        if self._closed:
            return
        self._closed = True
        for lane in self._lanes:
            if lane.task is not None:
                await lane.task
        await asyncio.to_thread(self._threads.shutdown)
        for lane in self._lanes:
            lane.writer.close()
        for readers in self._idle_readers.values():
            for reader in readers:
                reader.close()

    async def _commit(self, lane: _Lane) -> None:
        """Write what waits, again and again, until nothing waits."""
        while lane.waiting:
            group, lane.waiting = lane.waiting, []
            messages = [message for some, _ in group for message in some]
            try:
                async with lane.writing:
                    ends = await self._run(partial(lane.writer.append, messages))
            except Exception as exc:  # noqa: BLE001 - each waiting appender gets it raised
                _fail(group, exc)
            else:
                _succeed(group, ends)
                lane.announce()
        lane.task = None

    async def _borrow(self, partition: int, use: Callable[[PartitionReader], T]) -> T:
        """Run `use` in a thread with a reader nobody else uses meanwhile."""
        self._lane(partition)
        idle = self._idle_readers.setdefault(partition, [])
        reader = idle.pop() if idle else PartitionReader(_folder(self._path, partition))
        try:
            return await self._run(lambda: use(reader))
        except Missing:
            reader.close()
            raise
        finally:
            idle.append(reader)

    async def _run(self, work: Callable[[], T]) -> T:
        """Do something in a thread, if the folder is still the one that was opened."""

        def checked() -> T:
            if _identity(self._path) != self._identity:
                raise Replaced(
                    f"The bus {self._path} was deleted and made anew.",
                    hint="Start this process again; ingest records what was lost.",
                )
            return work()

        return await asyncio.get_running_loop().run_in_executor(self._threads, checked)

    def _lane(self, partition: int) -> _Lane:
        if self._closed:
            raise StoreError(f"The bus {self._path} is closed.")
        if not 0 <= partition < self._partitions:
            raise UsageError(f"The bus {self._path} has no partition {partition}.")
        return self._lanes[partition]


class _Lane:
    """What one partition has under way in this process."""

    def __init__(self, writer: PartitionWriter) -> None:
        self.writer = writer
        self.waiting: list[tuple[Sequence[tuple[bytes, bytes]], asyncio.Future[int]]] = []
        self.task: asyncio.Task[None] | None = None
        self.writing = asyncio.Lock()
        self.appended = asyncio.Event()

    def announce(self) -> None:
        """Wake the readers of this process."""
        self.appended.set()
        self.appended = asyncio.Event()


def _succeed(
    group: list[tuple[Sequence[tuple[bytes, bytes]], asyncio.Future[int]]], ends: list[int]
) -> None:
    """Tell each appender of a group where its own messages end."""
    at = 0
    for messages, done in group:
        at += len(messages)
        if not done.done():
            done.set_result(ends[at])


def _fail(
    group: list[tuple[Sequence[tuple[bytes, bytes]], asyncio.Future[int]]], exc: Exception
) -> None:
    """Raise the same error for each appender of a group."""
    for _, done in group:
        if not done.done():
            done.set_exception(exc)


async def _either(event: asyncio.Event, wait_s: float) -> None:
    """Return when an event happens or a time is over."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), wait_s)


def _folder(path: Path, partition: int) -> Path:
    return path / f"{partition:04d}"


def _identity(path: Path) -> tuple[int, int, int]:
    """Return what tells the folder of a bus from one that was made anew, at little cost.

    The description is written once. Its number alone may be given to the next one's.
    """
    with mapped("look at", path):
        try:
            found = os.stat(path / "bus.json")  # noqa: PTH116 - every poll does it: no Path objects
        except FileNotFoundError as exc:
            raise StoreError(
                f"The bus {path} is not there any more.",
                hint="Bring the folder back; when it is lost, `sealtape setup` makes a new one.",
            ) from exc
    return found.st_dev, found.st_ino, found.st_mtime_ns


def _describe(path: Path, partitions: int | None) -> tuple[str, int, tuple[int, int, int]]:
    """Return (topic, partitions, identity) of the bus in a folder; it is made if there is none."""
    with mapped("create", path):
        path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    with locked(path / "lock"), mapped("create", path):
        return (*_load(path, partitions), _identity(path))


def _load(path: Path, partitions: int | None) -> tuple[str, int]:
    description = path / "bus.json"
    if not description.exists():
        topic, count = f"frames-{secrets.token_hex(4)}", partitions or 1
        for number in range(count):
            _folder(path, number).mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        sync_directory(path)
        text = json.dumps({"partitions": count, "topic": topic, "v": 1})
        write_atomic(description, text.encode())
    topic, count = _parse_description(description)
    if partitions not in {None, count}:
        raise SettingsError(
            f"The bus {path} was created with {count} partitions, not {partitions}.",
            hint="The number never changes; correct the URL or start a new folder.",
            setting="stores.bus",
        )
    return topic, count


def _parse_description(path: Path) -> tuple[str, int]:
    try:
        data = json.loads(path.read_bytes())
        version, topic, count = data["v"], data["topic"], data["partitions"]
    except (ValueError, KeyError, TypeError) as exc:
        raise _unreadable(path) from exc
    if version != 1 or type(topic) is not str or type(count) is not int or count < 1:
        raise _unreadable(path)
    return topic, count


def _read_marks(folder: Path) -> dict[str, int]:
    marks: dict[str, int] = {}
    with mapped("read", folder):
        for path in folder.glob("*.mark"):
            if path.name.startswith("."):
                continue
            try:
                marks[path.stem] = int(json.loads(path.read_bytes())["offset"])
            except (ValueError, KeyError, TypeError) as exc:
                raise _unreadable(path) from exc
    return marks


def _unreadable(path: Path) -> StoreCorrupt:
    return StoreCorrupt(f"Cannot understand {path}.", hint="Restore it from a copy.")
