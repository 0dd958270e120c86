from tests.servers.postgres import postgres_server  # noqa: F401
