"""The port to the store of wrapped keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Protocol

from sealtape.capture.checkup import Check
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.layout import check_name
from sealtape.schemas.messages import KeyMessage
from sealtape.schemas.urls import shown_url
from sealtape.schemas.wraps import Wrap

__all__ = ["Keyring", "check_keyring", "open_keyring", "prepare_keyring", "wrap_of"]


def wrap_of(message: KeyMessage) -> Wrap:
    """The wrap in a key message; FormatError for one that no reader could use, or no store keep."""
    check_name(message.tenant, "tenant")
    check_name(message.retention, "retention class")
    return Wrap(
        message.session,
        message.epoch,
        message.label,
        message.recipient,
        message.suite,
        message.sealed,
    )


class Keyring(Protocol):
    """Wraps by (session, epoch, label, recipient). It holds no private key and can unwrap nothing.

    * Errors MUST be of the `StoreError` tree.
    * Any number of processes MAY use one keyring at the same time.
    * The keyring is not a cache: what it loses is lost. It has its own backup.
    """

    async def put(self, message: KeyMessage) -> bool:
        """Keep a wrap; True when the keyring holds it on return, durably.

        MUST raise `FormatError` where `wrap_of` does, and keep nothing.
        MUST be idempotent: the same wrap again changes nothing and returns True.
        MUST raise `Exists` when another wrap is kept under the same name; the first one stays.
        MUST return False, and keep nothing, when the session's keys were destroyed: a late or
        repeated message never brings a shredded session back.
        """
        ...

    async def dispute(self, message: KeyMessage) -> None:
        """Keep a wrap that `put` refused with `Exists` beside the first one. Idempotent.

        `get` does not return it (`disputed` does), so a forged wrap never displaces a true one.
        One that came before the true one does not shadow it either: readers try both, and frames
        commit to their key. `destroy` covers it like any other.
        """
        ...

    async def get(
        self, session: bytes, epoch: int | None, label: str, recipient: str | None = None
    ) -> list[Wrap]:
        """The wraps of one label: of one epoch or of all (None), for one recipient or all (None).

        In ascending order of epoch, then recipient; empty when there are none or they were
        destroyed.
        """
        ...

    async def disputed(self, session: bytes) -> list[Wrap]:
        """The wraps kept by `dispute` for a session, in the order they came."""
        ...

    async def destroy(self, session: bytes) -> int:
        """Destroy all wraps of a session, for ever; returns how many there were.

        On return no byte of them may remain in any file or table of the store, its journals
        included; where a server keeps a log of changes that it alone can clear, that log is the
        one exception, and docs/postgresql.md says how long bytes stay there.
        MUST be idempotent, and MUST work for sessions never seen (their wraps are then refused
        when they come). If it raises, MUST have destroyed all or be repeatable.
        """
        ...

    async def destroy_many(self, sessions: Sequence[bytes]) -> int:
        """`destroy` for many sessions, at little more than the price of one; returns the sum.

        If it raises, each session is destroyed or not, and the call can be repeated.
        """
        ...

    async def destroyed(self, session: bytes) -> bool:
        """Whether `destroy` was called for the session."""
        ...

    def sessions(self, after: bytes = b"") -> AsyncIterator[bytes]:
        """Sessions that have wraps, in ascending order, greater than `after`."""
        ...

    async def close(self) -> None:
        """Release what the adapter holds. Closing twice is fine."""
        ...


async def open_keyring(url: str, base: Path, *, read_only: bool = False) -> Keyring:
    """Open the keyring a URL names: `sqlite:FILE`, relative to `base`, or `postgresql://…`.

    `read_only` never creates or changes a file. Raises `SettingsError` and `StoreError`.
    """
    if _scheme(url) == "sqlite":
        from sealtape.ingest.keyring.sqlite import SqliteKeyring

        return await SqliteKeyring.open(url, base, read_only=read_only)
    from sealtape.ingest.keyring.postgresql.adapter import PostgresKeyring

    return await PostgresKeyring.open(url, base, read_only=read_only)


async def prepare_keyring(url: str, base: Path) -> list[str]:
    """Create what the keyring needs and does not have yet; returns what was done, in words.

    For `postgresql:` the URL's user becomes the owner of schema and tables. Raises the errors of
    `open_keyring`.
    """
    if _scheme(url) == "sqlite":
        from sealtape.ingest.keyring.sqlite import prepare_file

        return await prepare_file(url, base)
    from sealtape.ingest.keyring.postgresql.schema import prepare_schema

    return await prepare_schema(url, base)


async def check_keyring(url: str, base: Path, room: str = "") -> list[Check]:
    """Try what the adapter needs, and say what was found; a failure is an `error`, never raised.

    `room` is the one that uses the URL; without it any of the rights that one may have will do.
    """
    try:
        if _scheme(url) == "sqlite":
            from sealtape.ingest.keyring.sqlite import check_file

            return await check_file(url, base)
        from sealtape.ingest.keyring.postgresql.schema import check_schema

        return await check_schema(url, base, room)
    except SettingsError as error:
        return [Check("keyring: settings", "error", error.message, error.hint)]


def _scheme(url: str) -> str:
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" or (scheme == "postgresql" and rest.startswith("//")):
        return scheme
    raise SettingsError(
        f"{shown_url(url)!r} does not name a keyring.",
        hint="Write sqlite:FILE or postgresql://USER@HOST:PORT/DATABASE.",
        url=shown_url(url),
    )
