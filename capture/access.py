"""What opens a store on a server: passwords from files or variables, and TLS contexts."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from sealtape.schemas.errors import SettingsError
from sealtape.schemas.urls import StoreUrl

__all__ = ["password", "tls_context"]


def password(url: StoreUrl, base: Path, name: str = "password") -> str | None:
    """Read the secret that the options `NAME_file` or `NAME_env` refer to; None without either.

    A file's trailing line break is not part of the secret. Read anew at each call, so a rotated
    secret is taken by the next connection. Raises `SettingsError`; no message holds the secret.
    """
    file, variable = url.text(f"{name}_file"), url.text(f"{name}_env")
    if file and variable:
        raise SettingsError(f"{url.text_form!r} names both {name}_file and {name}_env.")
    if file:
        try:
            return (base / file).read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"The {name} file {base / file} cannot be read.",
                hint=f"{name}_file of {url.scheme}: names it; check that it is there and ours.",
            ) from error
    if variable:
        if variable not in os.environ:
            raise SettingsError(
                f"The environment has no {variable}.", hint=f"{name}_env of {url.scheme}: names it."
            )
        return os.environ[variable]
    return None


def tls_context(url: StoreUrl, base: Path) -> ssl.SSLContext | None:
    """Return the TLS context the options `tls`, `ca`, `cert` and `key` ask for; None for none.

    `verify-full` (unless told) checks chain and host name, `require` encrypts and checks neither,
    `disable` is plaintext. `ca` is a PEM file, else the system's roots count; `cert` and `key` are
    the client's own. Raises `SettingsError`.
    """
    mode = url.choice("tls", ("verify-full", "require", "disable"), "verify-full")
    if mode == "disable":
        return None
    ca, certificate, key = (url.text(name) for name in ("ca", "cert", "key"))
    try:
        context = ssl.create_default_context(cafile=str(base / ca) if ca else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate:
            context.load_cert_chain(base / certificate, base / key if key else None)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"{url.text_form!r}: ca, cert or key cannot be read as PEM files.",
            hint=f"Relative paths start at {base}.",
        ) from error
    if mode == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
