"""A private key sealed by the transit engine of OpenBao (or a HashiCorp Vault).

    transit:https://HOST:PORT/MOUNT/keys/NAME?file=FILE[&token_file=FILE|&token_env=NAME][&…]

`file` holds the sealed key, which is useless without the engine's key NAME. That key never leaves
the server; whoever may post to `MOUNT/decrypt/NAME` may use it, and each use is in its audit log.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import os
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sealtape.capture.access import password, tls_context
from sealtape.capture.kms.file import write_new
from sealtape.schemas.errors import Exists, FormatError, KeyUnavailable, SettingsError
from sealtape.schemas.sealed import SealedKey, associated_data
from sealtape.schemas.urls import TLS_OPTIONS, StoreUrl, parse_store_url, shown_url
from sealtape.schemas.wraps import PrivateKey

__all__ = ["TransitKms"]

OPTIONS = ("file", "token_file", "token_env", "namespace", "allow_http", *TLS_OPTIONS)
TOKEN_VARIABLES = ("BAO_TOKEN", "VAULT_TOKEN")
TIMEOUT_S: Final = 5.0
ATTEMPTS: Final = 3
PAUSE_S: Final = 0.5
BUSY: Final = {429, 500, 502, 503, 504}
MAX_ANSWER: Final = 1 << 16
_PLACE = re.compile(r"([A-Za-z0-9_.\-/]+)/keys/([A-Za-z0-9_.\-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitKms:
    """See `Kms` for the contract. The token's file is read at each use, as agents renew it."""

    url: StoreUrl
    base: Path
    mount: str
    name: str
    tls: ssl.SSLContext | None = field(repr=False)

    @classmethod
    def of_setting(cls, place: str, base: Path) -> TransitKms:
        """Read the setting; raises `SettingsError`."""
        url = parse_store_url(place.removeprefix("transit:"), options=OPTIONS)
        match = _PLACE.fullmatch(url.path)
        if url.scheme not in {"https", "http"} or len(url.hosts) != 1 or match is None or url.user:
            raise SettingsError(
                f"{shown_url(place)!r} does not name a key of a transit engine.",
                hint="Write transit:https://HOST:PORT/transit/keys/NAME?file=FILE.",
            )
        if not url.text("file"):
            raise SettingsError(
                f"{shown_url(place)!r} does not say where the sealed key is: file=FILE."
            )
        if url.scheme == "http" and not url.flag("allow_http"):
            raise SettingsError(
                f"{shown_url(place)!r} would send the private key in the clear.",
                hint="Use https://; allow_http=1 is for a proxy on this very host.",
            )
        if not (url.text("namespace").isprintable() and url.text("namespace").isascii()):
            raise SettingsError(f"{shown_url(place)!r}: `namespace` must be printable ASCII.")
        tls = tls_context(url, base) if url.scheme == "https" else None
        return cls(url=url, base=base, mount=match[1], name=match[2], tls=tls)

    @property
    def file(self) -> Path:
        """Where the sealed key is."""
        return self.base / self.url.text("file")

    def read(self) -> PrivateKey:
        """Have the service unseal the key; see `Kms.read`."""
        try:
            text = self.file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise KeyUnavailable(
                f"The sealed private key {self.file} cannot be read.",
                hint="`sealtape keys seal` makes it from a key file.",
            ) from error
        return self._unsealed(SealedKey.from_text(text))

    def keep(self, private: PrivateKey) -> None:
        """Have the service seal the key and write the file; see `Kms.keep`."""
        if self.file.exists():
            message = f"{self.file} exists already, and nothing is ever overwritten."
            raise Exists(message, hint="Choose another name.")
        answer = self._ask(
            "encrypt",
            plaintext=_text(private.raw),
            associated_data=_text(associated_data(private.suite, private.id)),
        )
        sealed = SealedKey("transit", private.suite, private.id, str(answer.get("ciphertext", "")))
        if self._unsealed(SealedKey.from_text(sealed.text())) != private:
            raise KeyUnavailable(f"{self._what} does not unseal to what was sealed.")
        write_new(self.file, sealed.text())

    def _unsealed(self, sealed: SealedKey) -> PrivateKey:
        answer = self._ask(
            "decrypt", ciphertext=sealed.sealed, associated_data=_text(sealed.associated)
        )
        try:
            raw = base64.b64decode(str(answer["plaintext"]), validate=True)
        except (KeyError, binascii.Error):
            # Not chained: the text of such an error may hold what could not be decoded.
            raise FormatError(f"{self._what} answered something that is no key.") from None
        return PrivateKey(sealed.id, sealed.suite, raw)

    @property
    def _what(self) -> str:
        return f"The transit key {self.name} at {self.url.hosts[0]}"

    def _ask(self, operation: str, **body: str) -> Mapping[str, Any]:
        """Post to the engine; tried again while the service does not answer or is busy."""
        data = json.dumps(body).encode("ascii")
        for attempt in range(1, ATTEMPTS + 1):
            last = attempt == ATTEMPTS
            try:
                status, answer = self._post(operation, data)
            except (OSError, http.client.HTTPException) as error:
                if last:
                    raise self._no_answer(error) from error
            else:
                if status == 200:
                    return _data(answer)
                if last or status not in BUSY:
                    raise self._refused(operation, status)
            time.sleep(PAUSE_S)
        raise AssertionError

    def _post(self, operation: str, body: bytes) -> tuple[int, bytes]:
        headers = {"X-Vault-Token": self._token(), "Content-Type": "application/json"}
        if self.url.text("namespace"):
            headers["X-Vault-Namespace"] = self.url.text("namespace")
        host = self.url.hosts[0]
        connection = (
            http.client.HTTPConnection(host, timeout=TIMEOUT_S)
            if self.tls is None
            else http.client.HTTPSConnection(host, timeout=TIMEOUT_S, context=self.tls)
        )
        try:
            connection.request("POST", f"/v1/{self.mount}/{operation}/{self.name}", body, headers)
            response = connection.getresponse()
            answer = response.read(MAX_ANSWER)
            if response.length and len(answer) < MAX_ANSWER:  # what read(n) says nothing of
                raise http.client.IncompleteRead(b"")
            return response.status, answer
        finally:
            connection.close()

    def _token(self) -> str:
        token = password(self.url, self.base, "token")
        if token is None:
            token = next(filter(None, map(os.environ.get, TOKEN_VARIABLES)), None)
        if not token or not token.isprintable() or not token.isascii():
            raise SettingsError(
                f"There is no token for {self.url.hosts[0]}.",
                hint=f"Name token_file or token_env, or set {TOKEN_VARIABLES[0]}.",
            )
        return token

    def _no_answer(self, error: Exception) -> KeyUnavailable:
        reason = "the connection failed"
        hint = "Start it, or check the address."
        if isinstance(error, ssl.SSLCertVerificationError):
            reason = "its certificate is not trusted"
            hint = "Name its CA with ca=FILE."
        elif isinstance(error, TimeoutError):
            reason = "no answer in time"
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror.lower()
        return KeyUnavailable(f"{self._what} gave no answer: {reason}.", hint=hint)

    def _refused(self, operation: str, status: int) -> KeyUnavailable:
        hints = {
            307: "It is a standby that sends its callers on: name the active one.",
            400: "The key is another one or was deleted, its min_decryption_version is above the "
            "file's, the file was changed, or the key's type has no associated data; "
            "aes256-gcm96 has.",
            403: f"The token is wrong or has expired, or may not post to "
            f"{self.mount}/{operation}/{self.name}.",
            404: "There is no such engine or key there.",
            503: "It is sealed or a standby: unseal it.",
        }
        return KeyUnavailable(
            f"{self._what} refused to {operation}: {status}.",
            hint=hints.get(status, "See its own log."),
            status=status,
        )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _data(answer: bytes) -> Mapping[str, Any]:
    try:
        data = json.loads(answer)["data"]
    except (ValueError, KeyError, TypeError):
        data = None  # not chained: it may hold a key
    if not isinstance(data, dict):
        raise FormatError("The transit engine's answer is not of its form.")
    return data
