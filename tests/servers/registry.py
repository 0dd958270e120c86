"""The modules whose servers there are; each is a pytest plugin with their fixtures, too."""

import importlib

# What a module registers in the cache is fetched by `make fetch-servers`, and its fixtures can be
# asked for by every test.
MODULES = (
    "tests.servers.kafka",
    "tests.servers.kafka_tls",
    "tests.servers.keycloak",
    "tests.servers.openbao",
    "tests.servers.opensearch",
    "tests.servers.postgres_stores",
    "tests.servers.s3",
    "tests.servers.toxiproxy",
)


def load() -> None:
    """Import them all, so that their recipes are registered."""
    for module in MODULES:
        importlib.import_module(module)
