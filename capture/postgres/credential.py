"""Where a target's password comes from: a file, an environment variable, a provider, the settings.

It is read anew for each connection, so that a rotated one is taken without a restart, and it is
never kept. A provider is a function that another package offers under the entry point group
`sealtape.credentials`; `{ provider = "NAME:REFERENCE" }` calls the one called NAME with REFERENCE,
in a thread, and takes the text it returns.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from sealtape.capture.postgres.target import Credential
from sealtape.schemas.errors import SettingsError, StoreError
from sealtape.schemas.settings import Secret

PROVIDERS = "sealtape.credentials"


def credential_of(
    secret: Secret | None, base: Path, *, target: str = "", where: str = ""
) -> Credential:
    """Return a function that reads the password that `secret` refers to.

    `where` is the setting that names it, that of a target's password without.

    Raises:
        SettingsError: no provider of that name is installed, or it cannot be loaded.
    """
    if secret is None:
        return _nothing
    read = _reader(secret, base, where or f"targets.{target}.password")

    async def credential() -> str | None:
        return await asyncio.to_thread(read)

    return credential


async def _nothing() -> str | None:
    return None


def _reader(secret: Secret, base: Path, where: str) -> Callable[[], str]:
    if secret.source == "provider":
        return _from_provider(secret.reference, where)
    if secret.source == "file":
        path = base / secret.reference
        return lambda: path.read_text("utf-8").rstrip("\r\n")
    if secret.source == "env":
        return lambda: _from_environment(secret.reference)
    return lambda: secret.reference


def _from_environment(name: str) -> str:
    if name not in os.environ:
        raise SettingsError(f"The environment has no {name}.")
    return os.environ[name]


def _from_provider(reference: str, where: str) -> Callable[[], str]:
    name, _, rest = reference.partition(":")
    found = list(entry_points(group=PROVIDERS, name=name))
    if len(found) != 1:
        installed = ", ".join(sorted(point.name for point in entry_points(group=PROVIDERS)))
        raise SettingsError(
            f"{where}: {len(found)} credential providers `{name}` are installed.",
            hint=f"Installed: {installed or 'none'}. Or use {{ file = … }} or {{ env = … }}.",
        )
    try:
        provide = found[0].load()
    except Exception as exc:  # whatever a stranger's module raises when it is imported
        raise SettingsError(f"{where}: the provider `{name}` cannot be loaded.") from exc

    def read() -> str:
        try:
            return str(provide(rest))
        except Exception:  # noqa: BLE001 - its message may hold the secret: it is not passed on
            raise StoreError(f"{where}: the provider `{name}` failed.") from None

    return read
