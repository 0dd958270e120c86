"""Sealed sessions by the first digits of their ids, as commands take them."""

from __future__ import annotations

from sealtape.ingest.ledger import Ledger
from sealtape.schemas.errors import Ambiguous, NotFound

__all__ = ["session_of"]


async def session_of(ledger: Ledger, prefix: str) -> bytes:
    """Return the sealed session whose id begins so. Raises NotFound or Ambiguous."""
    wanted = prefix.lower()
    if len(wanted) == 32 and all(c in "0123456789abcdef" for c in wanted):
        return bytes.fromhex(wanted)
    found = [row.session async for row in ledger.sessions() if row.session.hex().startswith(wanted)]
    if not found:
        msg = f"No sealed session's id begins with `{prefix}`."
        raise NotFound(msg, hint="A session can be verified once the first part of it is sealed.")
    if len(found) > 1:
        msg = f"{len(found)} sessions begin with `{prefix}`."
        raise Ambiguous(msg, hint="Give more digits.")
    return found[0]
