"""Where a target's password comes from: a file, an environment variable, or the settings.

It is read anew for each connection, so that a rotated one is taken without a restart, and it is
never kept.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from sealtape.capture.postgres.target import Credential
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.settings import Secret


def credential_of(secret: Secret | None, base: Path, *, target: str) -> Credential:
    """Return a function that reads the password that `secret` refers to.

    Raises:
        SettingsError: no provider of that kind is installed.
    """
    if secret is not None and secret.source == "provider":
        raise SettingsError(
            f"targets.{target}.password: no credential provider `{secret.reference}` is installed.",
            hint="Use { file = … } or { env = … }.",
        )

    async def read() -> str | None:
        if secret is None:
            return None
        if secret.source == "file":
            text = await asyncio.to_thread((base / secret.reference).read_text, "utf-8")
            return text.rstrip("\r\n")
        if secret.source == "env":
            if secret.reference not in os.environ:
                raise SettingsError(f"The environment has no {secret.reference}.")
            return os.environ[secret.reference]
        return secret.reference

    return read
