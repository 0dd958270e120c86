"""A deployment folder for tests of a whole capture node."""

import asyncio
import contextlib
import json
import os
import sys
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.capture.identity import DevelopmentIssuer
from sealtape.schemas.settings import load_settings
from sealtape.schemas.trust import format_node_key
from sealtape.schemas.wraps import X25519, generate
from tests.servers.tls import write_certificate

ISSUER = "https://issuer.test"


class NodeLab:
    """Keys, settings and tokens under one folder."""

    def __init__(self, folder, server, *, capture=""):
        self.folder = folder
        self.issuer = DevelopmentIssuer.generate()
        keys = folder / "keys"
        keys.mkdir()
        (keys / "node.key").write_text(format_node_key("n.test", Ed25519PrivateKey.generate()))
        (keys / "spool.key").write_text("11" * 32 + "\n")
        for purpose in ("auditor", "indexer"):
            private, public = generate(purpose, X25519, lambda size: bytes(range(size)))
            (keys / f"{purpose}.pub").write_text(public.text())
            (keys / f"{purpose}.key").write_text(private.text())
        write_certificate(keys)
        (keys / "jwks.json").write_text(json.dumps(self.issuer.jwks()))
        self.path = folder / "sealtape.toml"
        self.path.write_text(f"""
[deployment]
mode = "dev"
node = "n1"
[capture]
grace_s = 1
{capture}
[capture.postgres]
listen = "127.0.0.1:0"
plaintext = "loopback"
[identity]
issuer = "{ISSUER}"
jwks = "file:keys/jwks.json"
[targets.shop]
address = "127.0.0.1:{server.port}"
database = "postgres"
user = "scram"
password = {{ env = "SHOP_PASSWORD" }}
tls = "disable"
groups = ["*"]
""")

    @property
    def settings(self):
        return load_settings(self.path.read_text(), base=str(self.folder))

    def token(self, user="ada"):
        return self.issuer.mint(
            issuer=ISSUER, audience="sealtape", user=user, groups=[], now_s=time.time()
        )

    def dsn(self, address, **options):
        host, port = address.split(":")
        pairs = {
            "host": host, "port": port, "dbname": "shop", "user": "ada", "sslmode": "disable",
            "password": self.token(), **options,
        }  # fmt: skip
        return " ".join(f"{key}='{value}'" for key, value in pairs.items())


@contextlib.asynccontextmanager
async def node(lab, *arguments):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sealtape.capture", "-c", str(lab.path), "--json", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "SHOP_PASSWORD": "scram-secret"},
    )  # fmt: skip
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        if not line:
            pytest.fail((await process.stderr.read()).decode())
        yield process, json.loads(line)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(30):
            await process.stderr.read()
            await process.wait()
