"""The log: what ingest sealed, and what was found or decided, under signed checkpoints."""
