"""`postgresql:`, a keyring in a schema of its own on a PostgreSQL server."""
