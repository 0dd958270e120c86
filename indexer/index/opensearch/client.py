"""Requests to an OpenSearch cluster, and what their failures mean.

opensearch-py does the connections: several hosts, dead ones set aside, idle ones kept. What it logs
is turned off, as it writes requests, which hold statements and names. No message of ours has more
of an answer than the type of its error, as reasons may quote documents.
"""

from __future__ import annotations

import asyncio
import io
import logging
import ssl
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from opensearchpy import (
    AsyncOpenSearch,
    AuthenticationException,
    ConnectionTimeout,
    NotFoundError,
    OpenSearchException,
    TransportError,
)
from opensearchpy import ConnectionError as NotConnected
from opensearchpy._async.http_aiohttp import AIOHttpConnection  # exported nowhere else

from sealtape.capture.access import password, tls_context
from sealtape.schemas.errors import SettingsError, StoreBusy, StoreError
from sealtape.schemas.urls import StoreUrl

__all__ = ["BLOCKED", "Cluster", "cause_of", "failure"]

PORT = 9200
TIMEOUT_S = 30.0
CONNECTIONS = 16
LARGE = 1 << 18
"""Bytes of a body that are handed to the socket at once."""
BUSY_S = 1.0
"""Seconds after which a cluster that is busy, or starting, may be asked again."""
BLOCKED_S = 5.0
"""The same for one whose indices are read-only: somebody has to make room first."""
BLOCKED = "cluster_block_exception"

_BUSY = frozenset({408, 429, 502, 503, 504})
_JSON = "application/json"

log = logging.getLogger(__name__)


class Cluster:
    """A cluster that answers requests. Every failure is a StoreError.

    Args:
        url: its hosts, user, TLS and password options.
        base: what relative paths of files are relative to.
    """

    def __init__(self, url: StoreUrl, base: Path) -> None:
        """Connects with the first request. Raises SettingsError."""
        if not url.hosts:
            raise SettingsError(
                f"{url.text_form!r} names no host.", hint="Write opensearch://HOST:9200/PREFIX."
            )
        self._url = url
        self._base = base
        self._context = tls_context(url, base)
        self._secret = password(url, base)
        if self._secret is not None and not url.user:
            raise SettingsError(
                f"{url.text_form!r} has a password and no user.",
                hint="Write opensearch://USER@HOST:9200/PREFIX.",
            )
        self._client: AsyncOpenSearch | None = self._connect()
        self._opened = [self._client]

    @property
    def user(self) -> str:
        """Who we are there; empty without a login."""
        return self._url.user

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
        missing_ok: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Return the answer, JSON that was read; None for what is not there and need not be.

        `body` is JSON to write, or bytes. A login that is refused is tried once more with the
        secret as it is now, for secrets are rotated.
        """
        for last in (False, True):
            client = self._client
            if client is None:
                raise StoreError("The index is closed.")
            try:
                return await client.transport.perform_request(
                    method, path, params=dict(params or {}), body=body, timeout=timeout_s,
                    headers={"content-type": _JSON, **(headers or {})},
                )  # fmt: skip
            except NotFoundError as exc:
                if missing_ok:
                    return None
                raise failure(exc, self._url) from None
            except AuthenticationException as exc:
                if last or not await self._rotated():
                    raise failure(exc, self._url) from None
            except (OpenSearchException, RuntimeError) as exc:
                # aiohttp raises RuntimeError for a session that was closed in the middle.
                raise failure(exc, self._url) from None
        raise AssertionError

    async def close(self) -> None:
        """Close all connections."""
        self._client = None
        while self._opened:
            client = self._opened.pop()
            await client.close()
            # It forgets those of hosts that were set aside as dead.
            connections: Any = client.transport.seed_connections
            for connection in connections:
                await connection.close()

    async def _rotated(self) -> bool:
        """Connect anew if the secret is another one now."""
        secret = await asyncio.to_thread(password, self._url, self._base)
        if secret == self._secret or self._client is None:
            return False
        self._secret = secret
        self._client = self._connect()
        self._opened.append(self._client)
        return True

    def _connect(self) -> AsyncOpenSearch:
        login: dict[str, Any] = {}
        if self._secret is not None:
            login["http_auth"] = (self._url.user, self._secret)
        if self._context is not None:
            login |= {"use_ssl": True, "ssl_context": self._context}
        return AsyncOpenSearch(
            hosts=[_host(host) for host in self._url.hosts],
            connection_class=_Connection,
            pool_maxsize=CONNECTIONS,
            timeout=TIMEOUT_S,
            max_retries=len(self._url.hosts),
            **login,
        )


class _Connection(AIOHttpConnection):
    """Logs nothing of requests, and takes a deprecation the server tells of as something to log."""

    async def perform_request(
        self, method: str, url: str, params: Any = None, body: Any = None, *args: Any, **more: Any
    ) -> Any:
        """Send a request; a large body goes in pieces, so that other tasks have their turns."""
        data: Any = body
        if isinstance(body, bytes) and len(body) > LARGE:
            data = io.BytesIO(body)
        return await super().perform_request(method, url, params, data, *args, **more)

    def log_request_success(self, *_: Any, **__: Any) -> None:
        """Nothing is logged."""

    def log_request_fail(self, *_: Any, **__: Any) -> None:
        """Nothing is logged; the failure is raised."""

    def _raise_warnings(self, warning_headers: Iterable[str]) -> None:
        for text in warning_headers:
            log.info("OpenSearch warns: %s", text)

    async def _create_aiohttp_session(self) -> None:
        with warnings.catch_warnings():
            # It asks aiohttp for a work-around that newer interpreters do not need.
            warnings.simplefilter("ignore", DeprecationWarning)
            await super()._create_aiohttp_session()


def _host(text: str) -> dict[str, Any]:
    name, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        name, port = text, str(PORT)
    return {"host": name.removeprefix("[").removesuffix("]"), "port": int(port)}


def cause_of(answer: Any) -> str:
    """The type of the error in an answer or in one item of it; empty if it has none."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict):
        return str(error.get("type", ""))
    return error if isinstance(error, str) and error.endswith("_exception") else ""


def failure(exc: Exception, url: StoreUrl) -> StoreError:
    """What an exception of the client's means."""
    where = ", ".join(url.hosts)
    if not isinstance(exc, TransportError):
        return StoreError(f"OpenSearch at {where} gave no answer to read: {type(exc).__name__}.")
    if isinstance(exc, NotConnected):
        return _unreachable(exc, where)
    return _refused(exc.status_code, cause_of(exc.info), url, where)


def _refused(status: str | int, cause: str, url: StoreUrl, where: str) -> StoreError:
    if cause == BLOCKED:
        return StoreBusy(
            f"OpenSearch at {where} keeps an index from being written.",
            retry_after_s=BLOCKED_S,
            hint="It does so when a disk is nearly full: make room, or lift the block.",
        )
    if status in _BUSY:
        return StoreBusy(
            f"OpenSearch at {where} is busy or not ready ({status} {cause}).".replace(" )", ")"),
            retry_after_s=BUSY_S,
        )
    if status == 401:
        message = f"OpenSearch at {where} refuses the login of {url.user or 'nobody'!r}."
        hint = "Check the user in the URL, and password_file or password_env."
    elif status == 403:
        message = f"OpenSearch at {where} does not permit this to {url.user or 'nobody'!r}."
        hint = "deploy/opensearch/roles.yml has the roles; `sealtape index setup` loads them."
    else:
        message, hint = f"OpenSearch at {where} answered {status} {cause}".rstrip() + ".", ""
    return StoreError(message, hint=hint, status=status, cause=cause)


def _unreachable(exc: NotConnected, where: str) -> StoreError:
    reason = exc.info
    if isinstance(reason, ssl.SSLError):
        return StoreError(
            f"No TLS with OpenSearch at {where}: {_tls_reason(reason)}.",
            hint="ca=FILE in the URL names the authority of its certificate.",
        )
    if isinstance(exc, ConnectionTimeout):
        return StoreBusy(f"OpenSearch at {where} did not answer in time.", retry_after_s=BUSY_S)
    return StoreError(
        f"OpenSearch at {where} cannot be reached ({type(reason).__name__}).",
        hint="Check that it runs, its address in the URL, and whether it speaks TLS (tls=).",
    )


def _tls_reason(error: Exception) -> str:
    """What is wrong with a certificate; aiohttp's errors are kinds of ssl's, without its parts."""
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    for name in ("verify_message", "reason"):
        if text := getattr(inner, name, None):
            return str(text)
    return "the handshake failed"
