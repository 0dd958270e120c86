"""How to log in to the brokers: TLS, SASL, and where bearer tokens come from.

Everything is read anew for each connection, in a thread: rotated passwords, tokens and certificates
are taken without a restart.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import AIOKafkaConnection, OAuthAuthenticator

from sealtape.capture.access import password, tls_context
from sealtape.capture.bus.kafka.trouble import busy
from sealtape.capture.bus.kafka.url import KafkaUrl
from sealtape.capture.identity.fetch import fetch, provider_context
from sealtape.schemas.errors import StoreError

__all__ = ["Connection", "Tokens", "connect"]

IDLE_MS = 240_000
NEVER_MS = 86_400_000
CLOSED_S = 1.0
RENEW_S = 30.0
"""A token is not used for a new connection when it ends within this time."""

# At level DEBUG aiokafka logs every request whole, those that hold passwords and tokens among them.
logging.getLogger("aiokafka").setLevel(logging.WARNING)


class Tokens(AbstractTokenProvider):
    """Bearer tokens from a file or from the provider's token endpoint (client credentials)."""

    def __init__(self, url: KafkaUrl) -> None:
        """Nothing is read before the first connection."""
        self._url = url
        self._token = ""
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def token(self) -> str:
        """Return a token that is valid for a while. Raises `StoreBusy`, `StoreError`."""
        store = self._url.store
        if store.text("token_file"):
            return await asyncio.to_thread(self._read)
        async with self._asking:
            if time.monotonic() > self._until - RENEW_S:
                self._token, lasts_s = await asyncio.to_thread(self._ask)
                self._until = time.monotonic() + lasts_s
            return self._token

    def _read(self) -> str:
        path = self._url.base / self._url.store.text("token_file")
        try:
            return path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise StoreError(
                f"The token file {path} cannot be read.", hint="token_file of the URL names it."
            ) from exc

    def _ask(self) -> tuple[str, float]:
        store = self._url.store
        form = {
            "grant_type": "client_credentials",
            "client_id": store.text("client_id"),
            "client_secret": password(store, self._url.base, "client_secret") or "",
        }
        if store.text("scope"):
            form["scope"] = store.text("scope")
        address = store.text("token_url")
        context = provider_context(store.text("token_ca"), self._url.base)
        try:
            status, body = fetch(address, context, form)
        except (OSError, ValueError) as exc:
            raise busy(f"No token can be had from {address}: {exc}.") from exc
        return _parse_token(address, status, body)


def _parse_token(address: str, status: int, body: bytes) -> tuple[str, float]:
    """Return (token, seconds it lasts) of an answer (RFC 6749 section 5)."""
    try:
        answer = json.loads(body)
        if status == 200:
            return str(answer["access_token"]), float(answer.get("expires_in", 60))
        reason = str(answer["error"])
    except (ValueError, KeyError, TypeError) as exc:
        raise busy(f"{address} answers with status {status} and no token.") from exc
    raise StoreError(
        f"{address} gives no token: {reason}.",
        hint="Check client_id, client_secret_file and scope in the URL.",
    )


class Connection(AIOKafkaConnection):
    """A connection of aiokafka, with two things mended: it hears a refusal, and it ends at once."""

    def authenticator_oauth(self) -> OAuthAuthenticator:
        return _Bearer(sasl_oauth_token_provider=self._sasl_oauth_token_provider)

    def close(self, reason: Any = None, exc: Any = None) -> Any:
        """Close without a word to a peer that may not listen any more: TLS would wait for it."""
        if self._writer is not None:
            self._writer.transport.abort()
        return super().close(reason, exc)

    async def end(self) -> None:
        """Close, and return when it is closed."""
        was_open = self._protocol is not None
        closed = self.close()
        if was_open:
            await asyncio.wait([closed], timeout=CLOSED_S)


class _Bearer(OAuthAuthenticator):
    """Ends a refused exchange as RFC 7628 section 3.2.3 says, upon which the broker tells why.

    aiokafka takes the refusal for success, and the next request finds the connection closed.
    """

    _refused = False

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        if self._token_sent and payload and not self._refused:
            self._refused = True
            return b"\x01", True
        found: tuple[bytes, bool] | None = await super().step(payload)
        return found


async def connect(url: KafkaUrl, tokens: Tokens, host: str, port: int) -> Connection:
    """Connect and log in. Whoever calls sets the time limit."""
    store, base = url.store, url.base
    context = await asyncio.to_thread(tls_context, store, base)
    secret = await asyncio.to_thread(password, store, base) if url.sasl != "oauthbearer" else None
    connection = Connection(
        host,
        port,
        client_id="sealtape",
        request_timeout_ms=NEVER_MS,
        ssl_context=context,
        security_protocol=("SASL_" if url.sasl else "") + ("SSL" if context else "PLAINTEXT"),
        max_idle_ms=IDLE_MS,
        sasl_mechanism=url.sasl.upper() or None,
        sasl_plain_username=store.user,
        sasl_plain_password=secret,
        sasl_oauth_token_provider=tokens if url.sasl == "oauthbearer" else None,
    )
    try:
        await connection.connect()
    except BaseException:
        await connection.end()
        raise
    return connection
