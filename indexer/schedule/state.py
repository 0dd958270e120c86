"""What scheduled verification keeps: records, findings that stand, alarms to be sent.

One SQLite file, the verifier's own (docs/spec/verification.md). It is not part of the deployment:
lost, everything is verified anew; nothing in it is ever read from what is verified.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sealtape.ingest.ledger.rows import SegmentRow
from sealtape.ingest.sqlite import Database, Migration
from sealtape.schemas.errors import FormatError, StoreCorrupt
from sealtape.schemas.scheduling import Part
from sealtape.schemas.settings import Settings
from sealtape.schemas.verification import PASS, Alarm, Verification
from sealtape.schemas.verify.log_state import SeenLog

__all__ = ["KEPT", "State", "Waiting", "open_state", "parts_of", "state_path"]

KEPT: Final = 20
"""Records of an object that are kept, the newest."""

_LAYOUT: Final[Sequence[Migration]] = (
    (
        1,
        """
CREATE TABLE verification (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  object TEXT NOT NULL, at_ns INTEGER NOT NULL, bytes INTEGER NOT NULL, record BLOB NOT NULL
);
CREATE INDEX verification_object ON verification (object, at_ns);
CREATE INDEX verification_at ON verification (at_ns);
CREATE TABLE finding (id BLOB PRIMARY KEY, object TEXT NOT NULL, alarm BLOB NOT NULL);
CREATE INDEX finding_object ON finding (object);
CREATE TABLE waiting (id INTEGER PRIMARY KEY AUTOINCREMENT, alarm BLOB NOT NULL);
CREATE TABLE seen (one INTEGER PRIMARY KEY CHECK (one = 1), state BLOB NOT NULL);
""",
    ),
)

_PRUNE: Final = """
DELETE FROM verification WHERE object = ?1 AND id NOT IN
  (SELECT id FROM verification WHERE object = ?1 ORDER BY id DESC LIMIT ?2)
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An alarm that nobody has taken yet."""

    id: int
    alarm: Alarm


class State:
    """The file, open. Errors are of the `StoreError` tree."""

    def __init__(self, database: Database) -> None:
        """Only `open` calls this."""
        self._database = database

    @classmethod
    async def open(cls, path: Path, *, read_only: bool = False) -> State:
        """Open it, and make it unless `read_only`."""
        return cls(await Database.open(path, _LAYOUT, read_only=read_only))

    async def close(self) -> None:
        """Close the file. Closing twice is fine."""
        await self._database.close()

    # -- records ---------------------------------------------------------------------------------

    async def keep(
        self,
        records: Sequence[Verification],
        found: Mapping[bytes, tuple[str, Alarm]],
        *,
        seen: SeenLog | None = None,
        send: bool = False,
    ) -> list[Alarm]:
        """Keep what one batch has read and found, all of it or nothing; returns what is new.

        Args:
            records: one for each object that was read, or one of a pass.
            found: by id what was found, and the object that it is of (`PASS` for none). What
                stood of the objects of `records` and is not among it stands no longer.
            seen: how far the log was seen.
            send: have what is new wait for somebody who sends it.
        """
        return await self._database.write(
            lambda connection: _keep(connection, records, found, seen, send=send)
        )

    async def verified(self) -> dict[str, int]:
        """When each object was last read, in POSIX nanoseconds."""
        sql = "SELECT object, max(at_ns) FROM verification GROUP BY object"
        return await self._database.read(lambda connection: dict(connection.execute(sql)))

    async def last(self) -> tuple[int, int]:
        """When the last batch of objects was begun, and how many bytes it read; 0 and 0."""
        sql = (
            "SELECT at_ns, sum(bytes) FROM verification WHERE object <> '' GROUP BY at_ns"
            " ORDER BY at_ns DESC LIMIT 1"
        )
        row = await self._database.read(lambda connection: connection.execute(sql).fetchone())
        return (0, 0) if row is None else (row[0], row[1])

    async def read_since(self, at_ns: int, until_ns: int) -> int:
        """How many bytes were read in batches begun between two moments.

        What a clock that was ahead says to have been read later takes nothing from any day.
        """
        sql = "SELECT coalesce(sum(bytes), 0) FROM verification WHERE at_ns >= ? AND at_ns <= ?"
        rows = await self._rows(sql, at_ns, until_ns)
        return int(rows[0][0])

    async def history(
        self, objects: Iterable[str] | None = None, limit: int = 1000
    ) -> list[Verification]:
        """The last records, in order of time: of all, or of these objects and of passes."""
        if objects is None:
            rows = await self._rows(
                "SELECT record FROM verification ORDER BY id DESC LIMIT ?", limit
            )
            return [_record(row[0]) for row in reversed(rows)]
        found: list[tuple[int, bytes]] = []
        for name in {*objects, PASS}:
            sql = "SELECT id, record FROM verification WHERE object = ? ORDER BY id DESC LIMIT ?"
            found += [(row[0], row[1]) for row in await self._rows(sql, name, limit)]
        return [_record(data) for _, data in sorted(found)[-limit:]]

    # -- findings --------------------------------------------------------------------------------

    async def standing(self, thing: str | None = None) -> list[Alarm]:
        """What was found and is not gone, in the order of finding: all, or that of an object."""
        sql = "SELECT alarm FROM finding WHERE ?1 IS NULL OR object = ?1 ORDER BY rowid"
        return [_alarm(row[0]) for row in await self._rows(sql, thing)]

    async def waiting(self, limit: int = 100) -> list[Waiting]:
        """The first alarms that are still to be sent."""
        rows = await self._rows("SELECT id, alarm FROM waiting ORDER BY id LIMIT ?", limit)
        return [Waiting(row[0], _alarm(row[1])) for row in rows]

    async def waiting_count(self) -> int:
        """How many alarms are still to be sent."""
        return int((await self._rows("SELECT count(*) FROM waiting"))[0][0])

    async def sent(self, number: int) -> None:
        """Say that an alarm was taken by who it was for."""
        await self._database.write(
            lambda connection: connection.execute("DELETE FROM waiting WHERE id = ?", (number,))
        )

    # -- the log ---------------------------------------------------------------------------------

    async def seen(self) -> SeenLog | None:
        """How far the log was seen; None before the first pass that found nothing wrong."""
        rows = await self._rows("SELECT state FROM seen")
        with _whole():
            return SeenLog.from_json(rows[0][0]) if rows else None

    async def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return await self._database.read(
            lambda connection: connection.execute(sql, values).fetchall()
        )


def _keep(
    connection: sqlite3.Connection,
    records: Sequence[Verification],
    found: Mapping[bytes, tuple[str, Alarm]],
    seen: SeenLog | None,
    *,
    send: bool,
) -> list[Alarm]:
    for record in records:
        connection.execute(
            "INSERT INTO verification (object, at_ns, bytes, record) VALUES (?,?,?,?)",
            (record.object, record.at_ns, record.bytes, record.to_json()),
        )
        connection.execute(_PRUNE, (record.object, KEPT))
        _settle(connection, record.object, found)
    if seen is not None:
        connection.execute("INSERT OR REPLACE INTO seen VALUES (1, ?)", (seen.to_json(),))
    fresh = []
    for name, (thing, alarm) in found.items():
        row = (name, thing, alarm.to_json())
        if connection.execute("INSERT OR IGNORE INTO finding VALUES (?,?,?)", row).rowcount:
            fresh.append(alarm)
            if send:
                connection.execute("INSERT INTO waiting (alarm) VALUES (?)", row[2:])
    return fresh


def _settle(connection: sqlite3.Connection, thing: str, found: Mapping[bytes, object]) -> None:
    """Forget what stood of an object and was not found again."""
    rows = connection.execute("SELECT id FROM finding WHERE object = ?", (thing,)).fetchall()
    gone = [row for row in rows if row[0] not in found]
    connection.executemany("DELETE FROM finding WHERE id = ?", gone)


@contextmanager
def _whole() -> Iterator[None]:
    try:
        yield
    except FormatError as error:
        raise StoreCorrupt(
            f"The verifier's own state is damaged: {error.message}.",
            hint="verify.state names it. Move it away: everything is then verified anew.",
        ) from error


def _record(data: bytes) -> Verification:
    with _whole():
        return Verification.from_json(data)


def _alarm(data: bytes) -> Alarm:
    with _whole():
        return Alarm.from_json(data)


def state_path(settings: Settings) -> Path:
    """Where the verifier's own file is."""
    return Path(settings.base) / settings.verify.state


async def open_state(settings: Settings, *, read_only: bool = False) -> State:
    """The verifier's own file."""
    return await State.open(state_path(settings), read_only=read_only)


def parts_of(rows: Sequence[SegmentRow], verified: Mapping[str, int]) -> list[Part]:
    """Sealed objects as the schedule sees them."""
    return [
        Part(
            object=row.key,
            bytes=row.record.bytes,
            sealed_ns=row.record.sealed_at_ns,
            verified_ns=verified.get(row.key),
        )
        for row in rows
    ]
