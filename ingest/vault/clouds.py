"""`gs:` and `az:`, vaults in Google Cloud Storage and Azure Blob Storage.

    gs://BUCKET[/PREFIX][?option=value&…]
    az://[ACCOUNT@]CONTAINER[/PREFIX][?option=value&…]

All goes through obstore, with the credential chain of each cloud as it knows it. Versions, soft
delete and retention policies of these clouds are theirs to set: `docs/vault.md` says what fits.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore

from sealtape.capture.access import password
from sealtape.capture.checkup import Check
from sealtape.ingest.vault.base import is_key
from sealtape.ingest.vault.bucket import Bucket, BucketVault
from sealtape.ingest.vault.probing import look, probe
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.urls import StoreUrl, parse_store_url

if TYPE_CHECKING:
    from obstore.store import AzureConfig, ClientConfig, GCSConfig

__all__ = ["check_cloud", "open_cloud"]

_COMMON = ("endpoint", "allow_http", "ca", "timeout")
OPTIONS = {
    "gs": (*_COMMON, "credentials_file"),
    "az": (*_COMMON, "password_file", "password_env"),
}
_NOT_SEEN = {
    "gs": "object versioning, soft delete and lifecycle rules",
    "az": "blob versioning, soft delete and lifecycle rules",
}


def open_cloud(scheme: str, url: str, base: Path) -> BucketVault:
    """Open; see `open_vault`. Raises `SettingsError`."""
    parsed = parse_store_url(url, options=OPTIONS[scheme])
    bucket, prefix = ",".join(parsed.hosts), parsed.path.strip("/")
    if len(parsed.hosts) != 1 or ":" in bucket:
        raise SettingsError(f"{parsed.text_form!r} must name one bucket: {scheme}://NAME/PREFIX.")
    if prefix and not is_key(prefix):
        raise SettingsError(f"{parsed.text_form!r}: its path cannot be a prefix of keys.")
    timeout_s = parsed.duration("timeout", 20.0)
    client: ClientConfig = {
        "connect_timeout": timedelta(seconds=5),
        "timeout": timedelta(hours=1),  # bounded elsewhere: by what a request has to carry
        "allow_http": parsed.flag("allow_http"),
        "user_agent": "sealtape",
        **_roots(parsed, base),
    }
    try:
        reading = _store(
            parsed, base, prefix, {**client, "read_timeout": timedelta(seconds=timeout_s)}
        )
        writing = _store(parsed, base, prefix, client)
    except (BaseError, ValueError, OSError) as error:
        # Its text may hold parts of a credential.
        raise SettingsError(
            f"{parsed.text_form!r}: the client refused these settings ({type(error).__name__}).",
            hint="Check the credentials' format; docs/vault.md lists the variables it reads.",
        ) from None
    name = f"{scheme}://{bucket}{f'/{prefix}' if prefix else ''}"
    return BucketVault(name=name, reading=reading, writing=writing, timeout_s=timeout_s)


async def check_cloud(scheme: str, url: str, base: Path, *, writes: bool) -> list[Check]:
    """Try the bucket; see `check_vault`."""
    vault = open_cloud(scheme, url, base)
    try:
        found = await (probe(vault) if writes else look(vault))
    finally:
        await vault.close()
    message = f"Sealtape cannot see {_NOT_SEEN[scheme]} of this store."
    hint = "Versioning and soft delete keep what is erased; lifecycle rules delete evidence."
    return [*found, Check("vault: bucket settings", "warning", message, hint)]


def _store(url: StoreUrl, base: Path, prefix: str, client: ClientConfig) -> Bucket:
    if url.scheme == "gs":
        google: GCSConfig = {"bucket": url.hosts[0]}
        if url.text("credentials_file"):
            google["application_credentials"] = str(base / url.text("credentials_file"))
        if url.text("endpoint"):
            google["base_url"] = url.text("endpoint")
        return GCSStore(
            config=google,
            prefix=prefix or None,
            client_options=client,
            retry_config={"max_retries": 0},
        )
    azure: AzureConfig = {"container_name": url.hosts[0]}
    secret = password(url, base)
    if secret is not None:
        azure["account_key"] = secret
    if url.user:
        azure["account_name"] = url.user
    if url.text("endpoint"):
        azure["endpoint"] = url.text("endpoint")
    return AzureStore(
        config=azure, prefix=prefix or None, client_options=client, retry_config={"max_retries": 0}
    )


def _roots(url: StoreUrl, base: Path) -> ClientConfig:
    if not url.text("ca"):
        return {}
    try:
        return {"root_certificate": (base / url.text("ca")).read_bytes()}
    except OSError as error:
        raise SettingsError(
            f"The CA file {base / url.text('ca')} cannot be read.",
            hint=f"ca= of {url.scheme}: names it.",
        ) from error
