"""The modules whose servers there are; each is a pytest plugin with their fixtures, too."""

import importlib

# What a module registers in the cache is fetched by `make fetch-servers`, and its fixtures can be
# asked for by every test.
MODULES = (
    "tests.servers.compose",
    "tests.servers.interop",
    "tests.servers.kafka",
    "tests.servers.kafka_tls",
    "tests.servers.kafka_tools",
    "tests.servers.keycloak",
    "tests.servers.litewitness",
    "tests.servers.openbao",
    "tests.servers.opensearch",
    "tests.servers.postgres_stores",
    "tests.servers.promtool",
    "tests.servers.s3",
    "tests.servers.strace",
    "tests.servers.timestamp",
    "tests.servers.toxiproxy",
)

# What `make servers` starts: the names it takes, and the classes of those modules.
WHOLE_SET = {
    "kafka": ("tests.servers.kafka", "KafkaServer"),
    "postgres": ("tests.servers.postgres_stores", "PostgresStores"),
    "s3": ("tests.servers.s3", "S3Server"),
    "opensearch": ("tests.servers.opensearch", "OpenSearchServer"),
    "keycloak": ("tests.servers.keycloak", "KeycloakServer"),
}


def server(name: str):
    """The class of a server of the whole set."""
    module, kind = WHOLE_SET[name]
    return getattr(importlib.import_module(module), kind)


def load() -> None:
    """Import them all, so that their recipes are registered."""
    for module in MODULES:
        importlib.import_module(module)
