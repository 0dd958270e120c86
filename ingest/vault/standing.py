"""Whether a vault can be worked with: asked now and then, for who may have nothing to put there."""

from __future__ import annotations

import logging
import math
import time

from sealtape.ingest.vault.base import Vault
from sealtape.ingest.vault.probing import PROBE_PREFIX
from sealtape.schemas.errors import StoreError

__all__ = ["ASK_EVERY_S", "Standing"]

ASK_EVERY_S = 30.0
"""For how long a good answer counts, in seconds; what failed is asked again each time."""

log = logging.getLogger(__name__)


class Standing:
    """Asks a vault for a listing of nothing, which wrong credentials and no bucket do not give."""

    def __init__(self, vault: Vault) -> None:
        """Nothing is asked before the first `ask`; the vault stays the caller's to close."""
        self._vault = vault
        self._good = -math.inf
        self._told = ""

    async def ask(self) -> None:
        """Return when the vault answers, or did lately. Raises `StoreError`; the log says it once.

        What may not be put is not found out: that shows with the first segment.
        """
        if time.monotonic() - self._good < ASK_EVERY_S:
            return
        try:
            async for _ in self._vault.keys(f"{PROBE_PREFIX}none/"):
                pass
        except StoreError as exc:
            if exc.message != self._told:
                log.warning("the vault does not answer: %s", exc)
            self._told = exc.message
            raise
        self._good, self._told = time.monotonic(), ""
