"""`s3:`, a vault in a bucket of Amazon S3 or a store that speaks its protocol.

    s3://[ACCESS_KEY_ID@]BUCKET[/PREFIX][?option=value&…]

Objects go in and out through obstore; what only S3 has (versions, locks, uploads in parts) through
botocore, whose credential chain serves both. `docs/vault.md` has the options and the policies.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from obstore.exceptions import BaseError
from obstore.store import S3Store

from sealtape.capture.access import password
from sealtape.capture.checkup import Check
from sealtape.ingest.vault.base import Vault, is_key
from sealtape.ingest.vault.bucket import BucketVault
from sealtape.ingest.vault.s3_checks import check_bucket
from sealtape.ingest.vault.s3_native import S3Native
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.urls import StoreUrl, parse_store_url, shown_url

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Credential

__all__ = ["S3Vault", "check_s3", "open_s3", "prepare_s3"]

OPTIONS = (
    "endpoint",
    "region",
    "allow_http",
    "path_style",
    "ca",
    "password_file",
    "password_env",
    "profile",
    "sse",
    "sse_kms_key",
    "lock",
    "timeout",
    "multipart",
)
CONNECT_TIMEOUT = timedelta(seconds=5)
RENEW = timedelta(minutes=5)
"""How long credentials that expire are used before the chain is asked again."""


@dataclass(frozen=True, slots=True)
class _Place:
    """What the URL says."""

    url: StoreUrl
    bucket: str
    prefix: str
    endpoint: str
    region: str
    path_style: bool
    ca: str
    timeout_s: float

    @property
    def name(self) -> str:
        """The URL without its options."""
        return f"s3://{self.bucket}{f'/{self.prefix}' if self.prefix else ''}"


class S3Vault(BucketVault):
    """A vault in a bucket of S3. See `Vault` for the contract."""

    def __init__(
        self,
        *,
        name: str,
        reading: S3Store,
        writing: S3Store,
        timeout_s: float,
        native: S3Native,
    ) -> None:
        """As `BucketVault`, with what only S3 has in `native`."""
        super().__init__(
            name=name, reading=reading, writing=writing, timeout_s=timeout_s, native=native
        )
        self.native = native


async def open_s3(url: str, base: Path) -> Vault:
    """Open; see `open_vault`. Raises `SettingsError`, also where there are no credentials."""
    return await asyncio.to_thread(_opened, url, base)


async def prepare_s3(url: str, base: Path) -> list[str]:
    """Create the bucket where there is none; see `prepare_vault`."""
    vault = await asyncio.to_thread(_opened, url, base)
    try:
        return await vault.native.prepare()
    finally:
        await vault.close()


async def check_s3(url: str, base: Path, *, writes: bool) -> list[Check]:
    """Look at the bucket and try it; see `check_vault`."""
    vault = await asyncio.to_thread(_opened, url, base)
    try:
        return await check_bucket(vault, vault.native, writes=writes)
    finally:
        await vault.close()


def _opened(url: str, base: Path) -> S3Vault:
    """Blocks: botocore reads files, runs programs and asks metadata services for credentials."""
    try:
        session, place = _session(url, base)
        return _vault(session, place)
    except (BotoCoreError, BaseError, ValueError, OSError) as error:
        # obstore's and botocore's words about settings; neither repeats a secret.
        raise SettingsError(
            f"{shown_url(url)!r}: {str(error).partition(chr(10))[0]}",
            hint="docs/vault.md has the options of s3: URLs.",
        ) from error


def _session(url: str, base: Path) -> tuple[botocore.session.Session, _Place]:
    parsed = parse_store_url(url, options=OPTIONS)
    if parsed.text("profile") and parsed.user:
        raise SettingsError(f"{parsed.text_form!r} names both an access key and a profile.")
    session = botocore.session.Session(profile=parsed.text("profile") or None)
    secret = password(parsed, base)
    if bool(secret) != bool(parsed.user):
        raise SettingsError(
            f"{parsed.text_form!r}: an access key id and its secret go together.",
            hint="Write s3://ACCESS_KEY_ID@BUCKET/…?password_file=FILE, or neither.",
        )
    if secret:
        session.set_credentials(parsed.user, secret)
    place = _place(parsed, base, session)
    if session.get_credentials() is None:
        raise SettingsError(
            f"There are no credentials for {parsed.text_form!r}.",
            hint="See docs/vault.md: environment, profile, role, or password_file.",
        )
    return session, place


def _place(url: StoreUrl, base: Path, session: botocore.session.Session) -> _Place:
    bucket, prefix = ",".join(url.hosts), url.path.strip("/")
    if len(url.hosts) != 1 or ":" in bucket:
        raise SettingsError(f"{url.text_form!r} must name one bucket: s3://BUCKET/PREFIX.")
    if prefix and not is_key(prefix):
        raise SettingsError(f"{url.text_form!r}: its path cannot be a prefix of keys.")
    endpoint = (url.text("endpoint") or _configured_endpoint(session)).rstrip("/")
    if endpoint.startswith("http:") and not url.flag("allow_http"):
        raise SettingsError(
            f"{url.text_form!r}: the endpoint is not https.",
            hint="Say allow_http=1 where plaintext is meant.",
        )
    ca = url.text("ca")
    return _Place(
        url=url,
        bucket=bucket,
        prefix=prefix,
        endpoint=endpoint,
        region=url.text("region") or str(session.get_config_variable("region") or "us-east-1"),
        path_style=url.flag("path_style", default=bool(endpoint)),
        ca=str(base / ca) if ca else "",
        timeout_s=url.duration("timeout", 20.0),
    )


def _configured_endpoint(session: botocore.session.Session) -> str:
    """What environment and profile name, in botocore's order. Each client would read its own."""
    profile = session.get_scoped_config()
    services = session.full_config.get("services", {}).get(profile.get("services", ""), {})
    named = (
        os.environ.get("AWS_ENDPOINT_URL_S3"),
        os.environ.get("AWS_ENDPOINT_URL"),
        services.get("s3", {}).get("endpoint_url"),
        profile.get("endpoint_url"),
    )
    return str(next(filter(None, named), ""))


def _endpoint(place: _Place) -> S3Config:
    """The endpoint as obstore takes it: with the bucket before it where that is not in the path."""
    if not place.endpoint:
        return {}
    scheme, slashes, rest = place.endpoint.partition("://")
    bucket = "" if place.path_style else f"{place.bucket}."
    # Not `endpoint`: obstore would let the variable AWS_ENDPOINT_URL_S3 go before it.
    return {"aws_endpoint_url_s3": f"{scheme}{slashes}{bucket}{rest}"}


def _vault(session: botocore.session.Session, place: _Place) -> S3Vault:
    config: S3Config = {
        "bucket": place.bucket,
        "region": place.region,
        "virtual_hosted_style_request": not place.path_style,
        "checksum_algorithm": "SHA256",
        # Said, since obstore takes what is not from variables AWS_… that only it knows.
        "conditional_put": "etag",
        "skip_signature": False,
        "s3_express": False,
        **_endpoint(place),
        **_encryption(place.url),
    }
    client: ClientConfig = {
        "connect_timeout": CONNECT_TIMEOUT,
        "timeout": timedelta(hours=1),  # bounded elsewhere: by what a request has to carry
        "allow_http": place.url.flag("allow_http"),
        "user_agent": "sealtape",
    }
    if place.ca:
        client["root_certificate"] = _pem(place)
    credentials = _Credentials(session.get_credentials())

    def store(more: ClientConfig) -> S3Store:
        return S3Store(
            config=config,
            prefix=place.prefix or None,
            client_options={**client, **more},
            retry_config={"max_retries": 0},
            credential_provider=credentials,
        )

    return S3Vault(
        name=place.name,
        reading=store({"read_timeout": timedelta(seconds=place.timeout_s)}),
        writing=store({}),
        timeout_s=place.timeout_s,
        native=_native(session, place),
    )


def _native(session: botocore.session.Session, place: _Place) -> S3Native:
    config = Config(
        connect_timeout=CONNECT_TIMEOUT.total_seconds(),
        read_timeout=place.timeout_s,
        retries={"mode": "standard", "total_max_attempts": 3},
        s3={"addressing_style": _style(place)},
        ignore_configured_endpoint_urls=True,
        # Not every store that speaks S3 knows the newer checksums; parts carry a SHA-256 anyway.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        user_agent="sealtape",
    )
    client: Any = session.create_client(
        "s3",
        region_name=place.region,
        endpoint_url=place.endpoint or None,
        verify=place.ca or None,
        config=config,
    )
    return S3Native(
        client,
        name=place.name,
        bucket=place.bucket,
        prefix=place.prefix,
        region=place.region,
        lock=place.url.choice("lock", ("off", "governance", "compliance"), "off"),
        encryption=_encryption_headers(place.url),
        multipart_over=place.url.whole("multipart", 96 << 20, 5 << 20, 5 << 30),
    )


def _style(place: _Place) -> str:
    return "path" if place.path_style else "virtual" if place.endpoint else "auto"


def _encryption(url: StoreUrl) -> S3Config:
    kind, key = _sse(url)
    config: S3Config = {}
    if kind:
        config["server_side_encryption"] = kind
    if key:
        config["sse_kms_key_id"] = key
    return config


def _encryption_headers(url: StoreUrl) -> dict[str, str]:
    kind, key = _sse(url)
    return {
        **({"ServerSideEncryption": kind} if kind else {}),
        **({"SSEKMSKeyId": key} if key else {}),
    }


def _sse(url: StoreUrl) -> tuple[str, str]:
    kind = url.choice("sse", ("", "AES256", "aws:kms", "aws:kms:dsse"), "")
    key = url.text("sse_kms_key")
    if key and not kind.startswith("aws:kms"):
        raise SettingsError(f"{url.text_form!r}: sse_kms_key goes with sse=aws:kms.")
    return kind, key


def _pem(place: _Place) -> bytes:
    try:
        return Path(place.ca).read_bytes()
    except OSError as error:
        raise SettingsError(
            f"The CA file {place.ca} cannot be read.", hint="ca= of s3: names it."
        ) from error


class _Credentials:
    """botocore's chain as obstore asks for it. Botocore renews what expires by itself."""

    def __init__(self, chain: Any) -> None:
        self._chain = chain

    async def __call__(self) -> S3Credential:
        frozen = await asyncio.to_thread(self._chain.get_frozen_credentials)
        expires = hasattr(self._chain, "refresh_needed")
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + RENEW if expires else None,
        }
