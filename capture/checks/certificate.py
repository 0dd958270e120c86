"""Certificates: that shown to clients, and those by which stores are logged in to."""

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
from sealtape.schemas.urls import parse_store_url

__all__ = ["check_certificate", "check_client_certificate", "own_certificate"]

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


def check_client_certificate(store: str, url: str, base: Path, now: dt.datetime) -> list[Check]:
    """Look at the certificate by which a store's URL logs in, if it does so; `now` is in UTC.

    One that cannot be read is told by whoever opens the store.
    """
    try:
        path = parse_store_url(url).text("cert")
        found = x509.load_pem_x509_certificate((base / path).read_bytes()) if path else None
    except (SettingsError, OSError, ValueError):
        return []
    if found is None:
        return []
    told = f"{path}: {_span(found)[0].lower()}{_span(found)[1:]}."
    renew = "Renew it: once it has expired the store lets nobody in. A running room takes it at its"
    return [
        _judged(f"{store}: certificate", found, now, told, f"{renew} next connection or start.")
    ]


def own_certificate(settings: Settings) -> x509.Certificate:
    """Return the listener's certificate, the first of its chain. Raises OSError, ValueError."""
    path = Path(settings.base, settings.capture.postgres.tls_certificate)
    return x509.load_pem_x509_certificate(path.read_bytes())


def _time(found: x509.Certificate, now: dt.datetime) -> Check:
    names = ", ".join(_names(found)) or "no names"
    told = f"{_span(found)}, for {names}."
    return _judged(
        NAME, found, now, told, "Renew it, then restart the node: its workers read it then."
    )


def _span(found: x509.Certificate) -> str:
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    return f"Valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}"


def _judged(name: str, found: x509.Certificate, now: dt.datetime, told: str, renew: str) -> Check:
    begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
    if now < begins:
        hint = "Wait, correct this host's clock, or have another one made."
        return Check(name, "error", f"It is not valid yet. {told}", hint)
    if now >= ends:
        return Check(name, "error", f"It has expired. {told}", renew)
    if ends - now < SOON:
        return Check(name, "warning", f"It expires soon. {told}", renew)
    return Check(name, "ok", told)


def _names(found: x509.Certificate) -> list[str]:
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    hosts = names.get_values_for_type(x509.DNSName)
    return [*hosts, *map(str, names.get_values_for_type(x509.IPAddress))]
