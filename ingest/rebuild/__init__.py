"""The ledger made anew from what it is a cache of: the vault's records, and the bus."""

from sealtape.ingest.rebuild.run import Rebuilt, rebuild_ledger

__all__ = ["Rebuilt", "rebuild_ledger"]
