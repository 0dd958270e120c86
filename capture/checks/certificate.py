"""The certificate shown to clients: whole, in its time, and its key beside it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from sealtape.capture.checkup import Check
from sealtape.capture.postgres.handshake import server_context
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.settings import Settings

__all__ = ["check_certificate", "own_certificate"]

SOON: Final = dt.timedelta(days=30)
NAME: Final = "listener: certificate"


def check_certificate(settings: Settings, now: dt.datetime) -> list[Check]:
    """Look at the listener's certificate and key; `now` is in UTC."""
    listen = settings.capture.postgres
    base = Path(settings.base)
    try:
        server_context(str(base / listen.tls_certificate), str(base / listen.tls_key))
        found = own_certificate(settings)
    except SettingsError as exc:
        return [Check(NAME, "error", exc.message, exc.hint)]
    except (OSError, ValueError, UnsupportedAlgorithm):
        message = f"{listen.tls_certificate} is not a certificate in PEM."
        return [Check(NAME, "error", message, "Correct tls_certificate in [capture.postgres].")]
    checks = [_time(found, now)]
    if not _names(found):
        message = "The certificate names no host: clients with sslmode=verify-full refuse it."
        hint = "Have one made with the names and addresses that clients connect to."
        checks.append(Check(NAME, "warning", message, hint))
    if settings.deployment.mode != "dev" and found.issuer == found.subject:
        message = "The certificate is self-signed: each client must be given it to verify it."
        checks.append(Check(NAME, "warning", message, "Use one of your own CA."))
    return checks


def own_certificate(settings: Settings) -> x509.Certificate:
    """Return the listener's certificate, the first of its chain. Raises OSError, ValueError."""
    path = Path(settings.base, settings.capture.postgres.tls_certificate)
    return x509.load_pem_x509_certificate(path.read_bytes())


def _time(found: x509.Certificate, now: dt.datetime) -> Check:
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    names = ", ".join(_names(found)) or "no names"
    message = f"Valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}, for {names}."
    if now < begins:
        hint = "Wait, correct this host's clock, or have another one made."
        return Check(NAME, "error", f"It is not valid yet. {message}", hint)
    if now >= ends:
        hint = "Renew it, then restart the node: its workers read it at their start."
        return Check(NAME, "error", f"It has expired. {message}", hint)
    if ends - now < SOON:
        hint = "Renew it, then restart the node: its workers read it at their start."
        return Check(NAME, "warning", f"It expires soon. {message}", hint)
    return Check(NAME, "ok", message)


def _names(found: x509.Certificate) -> list[str]:
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    hosts = names.get_values_for_type(x509.DNSName)
    return [*hosts, *map(str, names.get_values_for_type(x509.IPAddress))]
