"""Time-stamp authorities, asked to stamp the log's witnessed checkpoints (docs/spec/timestamps.md).

All are asked at once, and what an authority does wrong is its own state, never an error of the log.
An answer is kept only if it is granted, for the same digest and with the same nonce; where the
authority's roots are known here it is verified, too.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Final

from sealtape.capture.outbound import Destination, OutboundError, destination, post
from sealtape.schemas.errors import FormatError, SettingsError
from sealtape.schemas.timestamps import (
    MAX_PEM,
    MAX_TOKEN,
    Timestamp,
    check_verifiable,
    make_request,
    read_timestamp,
    verify_timestamp,
)
from sealtape.schemas.urls import shown_url

__all__ = [
    "STATES",
    "Authority",
    "AuthorityStatus",
    "Stamp",
    "Timestamping",
    "read_authorities",
    "stamp",
]

STATES: Final = ("unasked", "ok", "down", "refused", "invalid")
"""unasked (yet), ok (it stamped), down (no answer), refused (an error, or not granted), invalid (it
answered what is no time-stamp of what it was asked for)."""

QUERY: Final = "application/timestamp-query"
REPLY: Final = "application/timestamp-reply"
_GOOD: Final = {HTTPStatus.OK, HTTPStatus.CREATED}
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_HINT: Final = "Write NAME=URL, and behind it what is known: roots=FILE, chain=FILE, ca=FILE."

log = logging.getLogger(__name__)

Nonce = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Authority:
    """Who stamps.

    Attributes:
        name: for objects and reports, `[a-z0-9][a-z0-9_-]{0,62}`.
        place: where it is asked.
        roots: PEM of the roots that its answers are verified by; empty: they are only read.
        chain: PEM of certificates that lead to a root, for one that does not send them.
    """

    name: str
    place: Destination
    roots: bytes = b""
    chain: bytes = b""


@dataclass(frozen=True, slots=True)
class Stamp:
    """An authority's answer, as it came, and certificates to verify it with."""

    name: str
    der: bytes
    chain_pem: bytes


@dataclass(frozen=True, slots=True)
class AuthorityStatus:
    """How one authority does.

    Attributes:
        name, url: in the settings.
        state: one of `STATES`, as of its last answer.
        reason: why, where it is not `ok`.
        answers: how many ended in which state since the start.
        time_ns: what its last time-stamp states; None for none.
        offset_s: how far that was ahead of this host's clock when it came, in seconds.
        seconds: how long its last answer took, in seconds.
    """

    name: str
    url: str
    state: str
    reason: str
    answers: Mapping[str, int]
    time_ns: int | None
    offset_s: float
    seconds: float


@dataclass(slots=True)
class _Record:
    """An authority with what came of asking it."""

    authority: Authority
    state: str = "unasked"
    reason: str = ""
    answers: Counter[str] = field(default_factory=Counter)
    time_ns: int | None = None
    offset_s: float = 0.0
    seconds: float = 0.0


class _Trouble(Exception):
    """Why an answer does not count: a state and a reason."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason


class Timestamping:
    """The authorities of a deployment.

    Args:
        authorities: whom to ask; their names differ.
        timeout_s: for one answer, in seconds.
        nonce: draws a request's nonce.
        clock_ns: this host's clock, which the stated times are compared with.
    """

    def __init__(
        self,
        authorities: Sequence[Authority],
        *,
        timeout_s: float = 5.0,
        nonce: Nonce = lambda: secrets.randbits(128),
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._records = [_Record(one) for one in authorities]
        self._timeout_s = timeout_s
        self._nonce = nonce
        self._clock_ns = clock_ns

    @property
    def names(self) -> list[str]:
        """The authorities' names."""
        return [one.authority.name for one in self._records]

    async def stamp(self, digest: bytes, names: Collection[str] | None = None) -> list[Stamp]:
        """Have a SHA-256 stamped by all, or by these; who fails is left out, logged and counted."""
        asked = [one for one in self._records if names is None or one.authority.name in names]
        found = await asyncio.gather(*(self._ask(one, digest) for one in asked))
        return [one for one in found if one is not None]

    def snapshot(self) -> tuple[AuthorityStatus, ...]:
        """Say how each authority does, in the settings' order."""
        return tuple(
            AuthorityStatus(
                one.authority.name,
                one.authority.place.url,
                one.state,
                one.reason,
                dict(one.answers),
                one.time_ns,
                one.offset_s,
                one.seconds,
            )
            for one in self._records
        )

    async def _ask(self, record: _Record, digest: bytes) -> Stamp | None:
        authority = record.authority
        started = time.monotonic()
        found: Stamp | None = None
        try:
            der, stamped = await self._answer(authority, digest)
            record.state, record.reason = "ok", ""
            record.time_ns = stamped.info.time_ns
            record.offset_s = (stamped.info.time_ns - self._clock_ns()) / 1e9
            found = Stamp(authority.name, der, _chain(stamped, authority))
        except _Trouble as error:
            record.state, record.reason = error.state, error.reason
            log.warning("no time-stamp by %s: %s", authority.name, error.reason)
        record.answers[record.state] += 1
        record.seconds = time.monotonic() - started
        return found

    async def _answer(self, authority: Authority, digest: bytes) -> tuple[bytes, Timestamp]:
        nonce = self._nonce()
        try:
            answer = await post(
                authority.place,
                make_request(digest, nonce),
                kind=QUERY,
                timeout_s=self._timeout_s,
                max_answer=MAX_TOKEN,
            )
        except OutboundError as error:
            raise _Trouble("down", str(error)) from error
        if answer.status not in _GOOD:
            raise _Trouble("refused", f"HTTP status {answer.status}")
        if answer.kind != REPLY:
            raise _Trouble("invalid", f"an answer of type {answer.kind}")
        try:
            stamped = read_timestamp(answer.body)
            if stamped.digest != digest or stamped.nonce != nonce:
                raise FormatError("the answer is to another request")
            if authority.roots:
                verify_timestamp(answer.body, digest, authority.roots, authority.chain)
        except FormatError as error:
            state = "refused" if "status" in error.context else "invalid"
            raise _Trouble(state, error.message) from error
        return answer.body, stamped


async def stamp(
    authorities: Sequence[Authority],
    digest: bytes,
    *,
    timeout_s: float,
    nonce: Nonce = lambda: secrets.randbits(128),
) -> list[Stamp]:
    """Have a SHA-256 stamped once, by all that answer rightly; see `Timestamping`."""
    return await Timestamping(authorities, timeout_s=timeout_s, nonce=nonce).stamp(digest)


def read_authorities(entries: Sequence[str], base: Path) -> tuple[Authority, ...]:
    """The authorities of `log.timestamps`: `NAME=URL`, then `roots=`, `chain=` and `ca=` files.

    `ca` are the roots of an `https` server, `roots` those of what it signs. Paths start at `base`.
    Raises `SettingsError`, also where `roots` are named and time-stamps cannot be verified here.
    """
    found: dict[str, Authority] = {}
    for entry in entries:
        first, *options = entry.split()
        shown = shown_url(entry)
        name, _, url = first.partition("=")
        if not _NAME.fullmatch(name) or name in found:
            raise SettingsError(
                f"log.timestamps: {shown!r} does not give an authority a name of its own.",
                hint=_HINT,
            )
        files = dict(one.partition("=")[::2] for one in options)
        if len(files) != len(options) or not set(files) <= {"roots", "chain", "ca"}:
            raise SettingsError(f"log.timestamps: {shown!r} has an unknown option.", hint=_HINT)
        place = destination(url, _path(base, files.get("ca")), what=f"log.timestamps: {name}")
        roots, chain = (_pem(_path(base, files.get(kind)), name) for kind in ("roots", "chain"))
        if roots:
            check_verifiable()
        found[name] = Authority(name, place, roots, chain)
    return tuple(found.values())


def _chain(stamped: Timestamp, authority: Authority) -> bytes:
    """The certificates of the answer, then those that the settings add."""
    return stamped.chain_pem() + authority.chain


def _path(base: Path, name: str | None) -> Path | None:
    return None if name is None else base / name


def _pem(path: Path | None, name: str) -> bytes:
    if path is None:
        return b""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"log.timestamps: {name}: {path} cannot be read.") from error
    if b"-----BEGIN CERTIFICATE-----" not in text or len(text) > MAX_PEM:
        raise SettingsError(f"log.timestamps: {name}: {path} does not hold certificates in PEM.")
    return text if text.endswith(b"\n") else text + b"\n"
