"""The sealer: reads the bus, checks every frame, seals segments into vault and ledger."""
