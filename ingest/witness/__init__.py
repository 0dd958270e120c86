"""A small witness: it cosigns a log's checkpoints as long as the log only grows.

`open_witness` is a whole one with its HTTP server, in a process of its own (`sealtape witness`) or
inside another's. `docs/spec/witness.md` is the protocol.
"""

from sealtape.ingest.witness.cosigner import Admit, Witness, WitnessSnapshot
from sealtape.ingest.witness.server import WitnessServer, open_witness

__all__ = ["Admit", "Witness", "WitnessServer", "WitnessSnapshot", "open_witness"]
