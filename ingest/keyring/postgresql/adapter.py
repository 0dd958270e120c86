"""The keyring's methods on PostgreSQL. What the user's role does not cover is refused there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import groupby
from pathlib import Path

from sealtape.ingest.keyring.base import wrap_of
from sealtape.ingest.keyring.postgresql.schema import LAYOUT, keyring_server
from sealtape.ingest.postgresql.database import Database
from sealtape.ingest.postgresql.layout import check_layout
from sealtape.schemas.errors import Exists
from sealtape.schemas.messages import KeyMessage
from sealtape.schemas.wraps import Wrap

__all__ = ["PostgresKeyring"]

_PAGE = 1000
_TABLES = 256
_LAST = b"\xff" * 17
_WRAP = "SELECT session, epoch, label, recipient, suite, sealed FROM wrap WHERE session = $1"


class PostgresKeyring:
    """See `Keyring` for the contract. Open with `await PostgresKeyring.open(url, base)`."""

    def __init__(self, database: Database) -> None:
        """Only `open` calls this."""
        self._database = database

    @classmethod
    async def open(cls, url: str, base: Path, *, read_only: bool = False) -> PostgresKeyring:
        """Connect, and compare the layout; it is made by `prepare_keyring`, never here."""
        database = await Database.open(keyring_server(url, base), read_only=read_only)
        try:
            await check_layout(database, LAYOUT)
        except BaseException:
            await database.close()
            raise
        return cls(database)

    async def put(self, message: KeyMessage) -> bool:
        wrap_of(message)
        rows = await self._database.change(
            "SELECT put($1, $2, $3, $4, $5, $6, $7, $8)", *_values(message)
        )
        if rows[0][0] == "exists":
            raise Exists(
                "The keyring holds another wrap under this name; the first one stays.",
                session=message.session.hex(),
                epoch=message.epoch,
                label=message.label,
                recipient=message.recipient,
            )
        return bool(rows[0][0] == "kept")

    async def dispute(self, message: KeyMessage) -> None:
        wrap_of(message)
        await self._database.change(
            "SELECT dispute($1, $2, $3, $4, $5, $6, $7, $8)", *_values(message)
        )

    async def get(
        self, session: bytes, epoch: int | None, label: str, recipient: str | None = None
    ) -> list[Wrap]:
        rows = await self._database.fetch(
            _WRAP + " AND label = $2 AND NOT disputed"
            " AND ($3::bigint IS NULL OR epoch = $3) AND ($4::text IS NULL OR recipient = $4)"
            " ORDER BY epoch, recipient",
            session,
            label,
            epoch,
            recipient,
        )
        return [Wrap(*row) for row in rows]

    async def disputed(self, session: bytes) -> list[Wrap]:
        rows = await self._database.fetch(_WRAP + " AND disputed ORDER BY came", session)
        return [Wrap(*row) for row in rows]

    async def destroy(self, session: bytes) -> int:
        return await self.destroy_many([session])

    async def destroy_many(self, sessions: Sequence[bytes]) -> int:
        count = 0
        for together in _by_table(sessions):
            # Each table is written anew once, in a transaction of its own.
            rows = await self._database.once("SELECT destroy($1::bytea[])", together)
            count += rows[0][0]
        return count

    async def destroyed(self, session: bytes) -> bool:
        rows = await self._database.fetch("SELECT 1 FROM destroyed WHERE session = $1", session)
        return bool(rows)

    async def sessions(self, after: bytes = b"") -> AsyncIterator[bytes]:
        # One table after the other, which lie in order.
        for byte in range(after[0] if after else 0, _TABLES):
            end = bytes([byte + 1]) if byte + 1 < _TABLES else _LAST
            start = max(after, bytes([byte]))
            while True:
                rows = await self._database.fetch(
                    "SELECT DISTINCT session FROM wrap WHERE session > $1 AND session < $2"
                    " ORDER BY session LIMIT $3",
                    start,
                    end,
                    _PAGE,
                )
                for row in rows:
                    yield row[0]
                if len(rows) < _PAGE:
                    break
                start = rows[-1][0]

    async def close(self) -> None:
        """Close the connections."""
        await self._database.close()


def _values(message: KeyMessage) -> tuple[object, ...]:
    return (
        message.session,
        message.epoch,
        message.label,
        message.recipient,
        message.suite,
        message.sealed,
        message.tenant,
        message.retention,
    )


def _by_table(sessions: Iterable[bytes]) -> list[list[bytes]]:
    """The sessions of each table together."""
    return [list(group) for _, group in groupby(sorted(set(sessions)), key=lambda s: s[0])]
