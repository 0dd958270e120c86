"""How much was verified lately, and what was found, for whoever only asks.

It reads the verifier's file and the ledger's rows, and imports nothing that verifies.
"""

from __future__ import annotations

from typing import Any

from sealtape.indexer.schedule.state import open_state, parts_of, state_path
from sealtape.ingest.ledger import Ledger
from sealtape.schemas.scheduling import coverage
from sealtape.schemas.settings import Settings

__all__ = ["lately"]


async def lately(settings: Settings, ledger: Ledger, now_ns: int) -> dict[str, Any]:
    """What a status says of verification; nothing is known where no schedule has run."""
    if not state_path(settings).exists():
        return {"share": None, "last_finding": None}
    state = await open_state(settings, read_only=True)
    try:
        verified = await state.verified()
        standing = await state.standing()
    finally:
        await state.close()
    rows = [row async for row in ledger.segments()]
    window_ns = int(settings.verify.window * 1e9)
    found = coverage(parts_of(rows, verified), now_ns, window_ns)
    days = settings.verify.window / 86400
    last = standing[-1].finding if standing else None
    return {
        "share": f"{found.share:.1%} in {days:g} days",
        "findings": len(standing),
        "last_finding": None if last is None else f"{last.verdict}: {last.reason}",
    }
