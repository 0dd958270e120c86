"""Vaults on the S3 server of the tests."""

from contextlib import asynccontextmanager
from pathlib import Path

from sealtape.ingest.vault import open_vault

SECRET_VARIABLE = "SEALTAPE_TEST_S3_SECRET"


def s3_url(server, bucket, prefix="deep/prefix", *, endpoint="", **options):
    """The URL of a vault; `endpoint` names a proxy in front of the server."""
    given = {
        "endpoint": endpoint or server.endpoint,
        "allow_http": 1,
        "password_env": SECRET_VARIABLE,
        **options,
    }
    query = "&".join(f"{name}={value}" for name, value in given.items())
    return f"s3://{server.access_key}@{bucket}/{prefix}?{query}"


@asynccontextmanager
async def s3_vault(server, bucket, prefix="deep/prefix", **options):
    """Open one and close it again."""
    vault = await open_vault(s3_url(server, bucket, prefix, **options), Path())
    try:
        yield vault
    finally:
        await vault.close()
