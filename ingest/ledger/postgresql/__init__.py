"""`postgresql:`, a ledger in a schema of its own on a PostgreSQL server."""
