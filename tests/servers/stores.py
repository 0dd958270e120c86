"""The stores of one deployment on the run's real servers: URLs, and secrets in files.

    stores = StoreSet.new(folder, kafka=…, s3=…, postgres=…, opensearch=…)
    stores.text()          [stores] of a sealtape.toml; `sealtape setup` makes what they name

Each set has topics, a bucket, a database and an index prefix of its own, so deployments of a run
do not meet. `through` puts other addresses in place of servers' own: those of proxies.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

NAMES = ("bus", "keys", "events", "keyring", "vault", "ledger", "index")


@dataclass(frozen=True)
class StoreSet:
    """Store URLs by the names of `[stores]`."""

    urls: dict[str, str] = field(default_factory=dict)
    index_prefix: str = ""

    @classmethod
    def new(
        cls, folder, *, kafka, s3, postgres, opensearch, partitions=2, through=None, replicas=1,
        min_isr=1,
    ):  # fmt: skip
        """Draw names, and write the secrets that the URLs point at into `folder`."""
        own = secrets.token_hex(4)
        at = {"kafka": kafka.bootstrap, "s3": s3.address, "postgres": postgres.address,
              "opensearch": opensearch.address} | (through or {})  # fmt: skip
        secret = _written(folder, "s3", s3.secret_key)
        database = postgres.database()

        def topic(name, count):
            options = f"&replicas={replicas}&min_isr={min_isr}&retention=7d&tls=disable&timeout=10s"
            return f"kafka://{at['kafka']}/{own}.{name}?partitions={count}{options}"

        def schema(name):
            url = database.url(f"schema=sealtape_{name}")
            return url.replace(postgres.address, at["postgres"])

        prefix = opensearch.prefix()
        index = opensearch.index_url(prefix).replace(opensearch.address, at["opensearch"])
        return cls(
            {
                "bus": topic("frames", partitions),
                "keys": topic("keys", partitions),
                "events": topic("events", 1),
                "keyring": schema("keyring"),
                "vault": f"s3://{s3.access_key}@{s3.bucket()}/vault?endpoint=http://{at['s3']}"
                f"&allow_http=1&password_file={secret}",
                "ledger": schema("ledger"),
                "index": index,
            },
            prefix,
        )

    def text(self) -> str:
        """The `[stores]` table of a settings file."""
        return "[stores]\n" + "".join(f'{name} = "{self.urls[name]}"\n' for name in NAMES)


def _written(folder, name, secret):
    path = Path(folder) / f"{name}.secret"
    path.write_text(secret)
    path.chmod(0o600)
    return path
