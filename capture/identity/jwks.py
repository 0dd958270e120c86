"""The issuer's public keys (JWKS), from a file or over HTTPS, fetched in a thread, found by `kid`.

* A set older than `REFRESH_S / 2` is fetched again in the background. A known `kid` waits for that
  only when the set is older than `REFRESH_S`, at most `STALE_WAIT_S`: nobody may have come for
  hours, and the key may have been withdrawn since.
* An unknown `kid` fetches at most once in `UNKNOWN_KID_S`: junk tokens cannot make this node hammer
  the provider.
* When the provider is down, or serves nonsense, the last good set stays.
* A file is read again when it changes.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from sealtape.capture.identity.fetch import fetch
from sealtape.schemas.errors import FormatError, Refused, SettingsError

REFRESH_S: Final = 300.0
UNKNOWN_KID_S: Final = 60.0
STALE_WAIT_S: Final = 5.0
NO_KEYS_S: Final = 5.0  # after a failed first fetch, the next try no sooner than this
_MIN_RSA_BITS: Final = 2048
_KINDS: Final = frozenset({"RSA", "EC", "OKP"})

Jwk = Mapping[str, Any]


class KeySet:
    """The keys of one issuer.

    Args:
        source: `file:PATH` or `https://…`.
        base: folder that a relative PATH starts from.
        context: TLS trust for the fetch; the system's when None.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        source: str,
        base: Path,
        context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        scheme, _, rest = source.partition(":")
        if scheme not in {"file", "https"} or not rest:
            raise SettingsError(
                f"The key set `{source}` is neither file:PATH nor https://….",
                hint="Correct identity.jwks in the settings.",
            )
        self._url = source if scheme == "https" else None
        self._path = None if self._url else base / rest
        self._context = context
        self._clock = clock
        self._keys: dict[str, Jwk] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._fetched: float | None = None  # when the last good set came
        self._tried: float | None = None
        self._task: asyncio.Task[None] | None = None
        self.error = ""  # why the last fetch failed, for the status page; empty when it did not

    async def key(self, kid: str | None) -> Jwk:
        """Return the key named `kid`; without a name, the only key of a set of one.

        Raises:
            Refused: there is no such key, or no key set could be had yet.
        """
        if self._path is not None:
            await self._read_if_changed(self._path)
        elif self._url is not None:
            await self._fetch_if_due(kid)
        if not self._keys:
            raise Refused(
                "Identities cannot be verified now: the identity provider's keys cannot be had.",
                reason="keys-unavailable",
                protocol_code="",
                hint="Try again shortly; if it stays so, tell whoever runs the gateway.",
            )
        found = self._find(kid)
        if found is None:
            raise Refused(
                "The token is not valid: the identity provider does not list its signing key.",
                reason="token-invalid",
                protocol_code="",
                hint="Get a new token.",
            )
        return found

    async def close(self) -> None:
        """Wait for a fetch under way (it ends within its timeout)."""
        if self._task is not None:
            await self._task

    def _find(self, kid: str | None) -> Jwk | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    # -- file ------------------------------------------------------------------------------------

    async def _read_if_changed(self, path: Path) -> None:
        try:
            stamp = await asyncio.to_thread(_stamp, path)
            if stamp != self._stamp:
                self._keys = parse_key_set(await asyncio.to_thread(path.read_bytes))
                self._stamp = stamp
                self.error = ""
        except (OSError, FormatError) as exc:
            self.error = str(exc)

    # -- https -----------------------------------------------------------------------------------

    async def _fetch_if_due(self, kid: str | None) -> None:
        now = self._clock()
        known = self._find(kid) is not None
        if known:
            age_s = now - (self._fetched or 0.0)
            if age_s > REFRESH_S / 2:
                self._start(now, UNKNOWN_KID_S)
            if age_s > REFRESH_S and self._task is not None:
                await asyncio.wait([self._task], timeout=STALE_WAIT_S)
            return
        self._start(now, UNKNOWN_KID_S if self._keys else NO_KEYS_S)
        if self._task is not None:
            await asyncio.shield(self._task)

    def _start(self, now: float, pause_s: float) -> None:
        """Start a fetch unless one is under way or the last one was tried within `pause_s`."""
        if self._task is not None and not self._task.done():
            return
        self._task = None
        if self._tried is None or now - self._tried > pause_s:
            self._tried = now
            self._task = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        assert self._url is not None
        try:
            body = await asyncio.to_thread(_download, self._url, self._context)
            self._keys = parse_key_set(body)
            self._fetched = self._clock()
            self.error = ""
        except (OSError, ValueError, FormatError) as exc:
            self.error = str(exc)


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def parse_key_set(body: bytes) -> dict[str, Jwk]:
    """Return the signature keys of a JWKS document by `kid` (a key without one is named "").

    Keys for encryption, symmetric keys and RSA keys under 2048 bits are left out.

    Raises:
        FormatError: it is no JWKS document, or has no usable key.
    """
    try:
        listed = json.loads(body)["keys"]
        usable = [key for key in listed if _usable(key)]
        keys = {str(key.get("kid", "")): key for key in usable}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise FormatError("The key set is not a JWKS document.") from exc
    if not keys:
        raise FormatError("The key set has no key that verifies signatures.")
    return keys


def _usable(key: Mapping[str, Any]) -> bool:
    if key.get("kty") not in _KINDS or key.get("use", "sig") != "sig" or "d" in key:
        return False
    bits = len(key.get("n", "")) * 6  # base64url
    return key["kty"] != "RSA" or bits >= _MIN_RSA_BITS


def _download(url: str, context: ssl.SSLContext | None) -> bytes:
    """Return the body at an https:// address. Blocks; raises OSError or ValueError."""
    status, body = fetch(url, context)
    if status != HTTPStatus.OK:
        raise ValueError(f"status {status}")
    return body
