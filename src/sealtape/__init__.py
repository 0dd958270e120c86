"""Sealtape records sessions at the gateway they pass and seals the recording.

The four rooms, in the one direction imports may go:

``sealtape.schemas``
    What the bytes mean: formats, hashes, keys, rules. No I/O.
``sealtape.capture``
    The gateway: speaks the protocols, records, spools, appends to the bus.
``sealtape.ingest``
    Reads the bus, checks every frame, seals segments into the vault and the ledger.
``sealtape.indexer``
    The reading end: search, replay, verify, the command line.
"""

__version__ = "0.1.0"
