"""The ledger: positions, heads, segments, sessions and incidents, published in one transaction."""

from sealtape.ingest.ledger.base import Ledger, open_ledger

__all__ = ["Ledger", "open_ledger"]
