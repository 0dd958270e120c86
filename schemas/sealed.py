"""A private key that a key management service has sealed: one line in a file.

    sealtape-sealed-key-1 transit x25519-sha256-aes256gcm auditor-0123456789abcdef vault:v1:…

The service seals the raw private half under associated data that names suite and id. So a line
whose id was changed, or that was put in another's place, does not open. `docs/kms.md` describes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sealtape.schemas.errors import FormatError
from sealtape.schemas.wraps import PURPOSES, suite_of

__all__ = ["SEALED_TAG", "SealedKey"]

SEALED_TAG = "sealtape-sealed-key-1"
MECHANISMS = ("transit",)
_LINE = re.compile(
    rf"{SEALED_TAG} ([a-z0-9]+) ([!-~]{{1,64}}) ([!-~]{{1,64}}) ([!-~]{{1,4096}})\n?"
)
_ID = re.compile(rf"(?:{'|'.join(PURPOSES)})-[0-9a-f]{{16}}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SealedKey:
    """What the file holds.

    Attributes:
        mechanism: what kind of service sealed it; `transit` is OpenBao's engine of that name.
        suite: the key's wrap suite.
        id: the key's id, its public half's.
        sealed: what the service answered, in its own form.
    """

    mechanism: str
    suite: str
    id: str
    sealed: str

    def __post_init__(self) -> None:
        """Refuse what no writer makes."""
        if self.mechanism not in MECHANISMS:
            raise FormatError(f"a key sealed by {self.mechanism!r} cannot be opened here")
        if not _ID.fullmatch(self.id):
            raise FormatError(f"a sealed key has the id {self.id!r}, which is none")
        suite_of(self.suite)

    @property
    def associated(self) -> bytes:
        """What the service is told the key belongs to."""
        return associated_data(self.suite, self.id)

    def text(self) -> str:
        """The line for the file."""
        return f"{SEALED_TAG} {self.mechanism} {self.suite} {self.id} {self.sealed}\n"

    @classmethod
    def from_text(cls, text: str) -> SealedKey:
        """Read the line; raises `FormatError`."""
        match = _LINE.fullmatch(text)
        if match is None:
            raise FormatError("this is not a sealed private key")
        return cls(*match.groups())


def associated_data(suite: str, key_id: str) -> bytes:
    """What a private key of this suite and id is sealed under."""
    return f"sealtape/1 private-key {suite} {key_id}".encode("ascii")
