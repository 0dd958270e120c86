"""The ledger: positions, heads, segments, sessions and incidents, published in one transaction."""

from sealtape.ingest.ledger.base import Ledger, check_ledger, open_ledger, prepare_ledger

__all__ = ["Ledger", "check_ledger", "open_ledger", "prepare_ledger"]
