"""The port to where a reader's private key is kept.

`keys.auditor_private` and `keys.indexer_private` name the place: a file, or
`transit:https://HOST:PORT/MOUNT/keys/NAME?file=FILE&…`. All calls block: on an event loop, make
them in a thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from sealtape.capture.checkup import Check
from sealtape.schemas.errors import FormatError, KeyUnavailable, SettingsError
from sealtape.schemas.wraps import PrivateKey

__all__ = ["Kms", "check_kms", "open_kms", "read_private_key"]


class Kms(Protocol):
    """One private key's place.

    * No error, log line or repr MUST show the key or what gives access to it.
    * An outage MUST be told within seconds.
    """

    def read(self) -> PrivateKey:
        """The key.

        Raises:
            KeyUnavailable: there is none, it may not be read, or the service does not answer.
            FormatError: what is there is damaged, or belongs to another key.
            SettingsError: what gives access to the service is missing.
        """
        ...

    def keep(self, private: PrivateKey) -> None:
        """Put a key into a place that is empty; it MUST be readable again before this returns.

        Raises `Exists` when the place is taken, and changes nothing then; else as `read`.
        """
        ...


def open_kms(place: str, base: Path) -> Kms:
    """The place that a setting names; relative paths start at `base`. Raises `SettingsError`."""
    if place.startswith("transit:"):
        from sealtape.capture.kms.transit import TransitKms

        return TransitKms.of_setting(place, base)
    from sealtape.capture.kms.file import FileKms

    return FileKms(base / place)


def read_private_key(place: str, base: Path) -> PrivateKey:
    """Read the private key a setting names; raises as `Kms.read` and `open_kms`."""
    return open_kms(place, base).read()


def check_kms(place: str, base: Path, name: str) -> tuple[PrivateKey | None, list[Check]]:
    """Read the key and say what was found; never raises."""
    try:
        private = read_private_key(place, base)
    except (KeyUnavailable, FormatError, SettingsError) as error:
        return None, [Check(name, "error", error.message, error.hint or "See docs/kms.md.")]
    return private, [Check(name, "ok", f"The private key {private.id} can be read.")]
