"""HTTPS requests to the identity provider: small, bounded, no redirects. They block."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Final

from sealtape.schemas.errors import SettingsError

__all__ = ["MAX_BYTES", "Answer", "ask", "fetch", "provider_context"]

TIMEOUT_S: Final = 5.0
MAX_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What the provider answered; `date` is its clock, as HTTP writes it, or empty."""

    status: int
    body: bytes
    date: str


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A key set or token endpoint that moved is a change of trust: the settings must say so."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> None:
        return None


def provider_context(ca: str | None, base: Path) -> ssl.SSLContext | None:
    """Return the TLS trust for the provider: the PEM file `ca`; None for the system's roots.

    Raises `SettingsError` when the file cannot be read.
    """
    if not ca:
        return None
    try:
        return ssl.create_default_context(cafile=str(base / ca))
    except (OSError, ssl.SSLError) as exc:
        msg = f"The provider's CA certificates {base / ca} cannot be read."
        raise SettingsError(msg, hint="identity.ca names a PEM file.") from exc


def fetch(
    url: str, context: ssl.SSLContext | None, form: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Return status and body of a GET, or of a POST of `form`; see `ask`."""
    answer = ask(url, context, form)
    return answer.status, answer.body


def ask(url: str, context: ssl.SSLContext | None, form: Mapping[str, str] | None = None) -> Answer:
    """Return the answer to a GET, or to a POST of `form`; also when its status is an error.

    Blocks up to `TIMEOUT_S` for an answer. Raises OSError or ValueError; the text of neither holds
    what was posted.
    """
    if not url.startswith("https://"):
        raise ValueError(f"{url} is not an https:// address")
    handler = urllib.request.HTTPSHandler(context=context or ssl.create_default_context())
    opener = urllib.request.build_opener(handler, _NoRedirects())
    data = None if form is None else urllib.parse.urlencode(form).encode()
    accept = {"Accept": "application/json"}
    request = urllib.request.Request(url, data=data, headers=accept)  # noqa: S310 - https, checked
    try:
        return _answer(opener, request)
    except http.client.HTTPException:
        # No OSError, and not chained: its text is what came, which may be what was posted.
        raise ConnectionError("the answer is not HTTP, or ends inside") from None


def _answer(opener: urllib.request.OpenerDirector, request: urllib.request.Request) -> Answer:
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            return Answer(response.status, _body(response), response.headers.get("date", ""))
    except urllib.error.HTTPError as exc:
        with exc:
            return Answer(exc.code, _body(exc), exc.headers.get("date", ""))


def _body(response: IO[bytes]) -> bytes:
    body = response.read(MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        raise ValueError("the answer is larger than 1 MiB")
    return body
