"""What a `kafka:` URL says: where the brokers are, how to log in, and how the topic must be set."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sealtape.schemas.errors import SettingsError
from sealtape.schemas.urls import SECRET_OPTIONS, TLS_OPTIONS, StoreUrl, parse_store_url

__all__ = ["KafkaUrl", "parse_kafka_url"]

DEFAULT_PORT = 9092
MAX_PARTITIONS = 1024
SASL = ("scram-sha-512", "scram-sha-256", "plain", "oauthbearer")
COMPRESSIONS = ("none", "zstd")

_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,200}")
_OAUTH = ("token_file", "token_url", "token_ca", "client_id", "scope")
_CLIENT_SECRET = ("client_secret_file", "client_secret_env")
_TOPIC_OPTIONS = ("partitions", "replicas", "min_isr", "retention", "compression", "timeout")
_OPTIONS = (*_TOPIC_OPTIONS, "sasl", *SECRET_OPTIONS, *TLS_OPTIONS, *_OAUTH, *_CLIENT_SECRET)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaUrl:
    """The parts of a `kafka:` URL, checked.

    Attributes:
        store: the URL itself, for what `sealtape.capture.access` reads.
        base: the folder that relative paths in it start from.
        hosts: (host, port) of the brokers to ask first.
        partitions, replicas, min_isr: how the topic must be made.
        retention_s: how long the topic must keep messages; None for ever.
        compression: of what is appended, `none` or `zstd`.
        timeout_s: how long a call waits for the brokers before it says `StoreBusy`.
        sasl: one of `SASL`, or empty.
    """

    store: StoreUrl
    base: Path
    hosts: tuple[tuple[str, int], ...]
    topic: str
    partitions: int
    replicas: int
    min_isr: int
    retention_s: float | None
    compression: str
    timeout_s: float
    sasl: str

    @property
    def attempt_s(self) -> float:
        """How long one request may take; a call has time for some."""
        return self.timeout_s / 3


def parse_kafka_url(url: str, base: Path) -> KafkaUrl:
    """Return what `kafka://USER@HOST:PORT,HOST:PORT/TOPIC?OPTIONS` says. Raises `SettingsError`."""
    store = parse_store_url(url, options=_OPTIONS)
    if not store.hosts:
        raise _wrong(store, "no broker is named", "Write kafka://host:9092/topic.")
    if not _TOPIC.fullmatch(store.path) or store.path in {".", ".."}:
        raise _wrong(
            store, f"{store.path!r} is no topic", "Use letters, digits, `.`, `_`, `-`; at most 200."
        )
    retention_s = store.duration("retention", 7 * 86400.0)
    parsed = KafkaUrl(
        store=store,
        base=base,
        hosts=tuple(_address(host) for host in store.hosts),
        topic=store.path,
        partitions=store.whole("partitions", 12, 1, MAX_PARTITIONS),
        replicas=store.whole("replicas", 3, 1, 100),
        min_isr=store.whole("min_isr", min(2, store.whole("replicas", 3, 1, 100)), 1, 100),
        retention_s=retention_s or None,
        compression=store.choice("compression", COMPRESSIONS, "none"),
        timeout_s=store.duration("timeout", 30.0),
        sasl=store.choice("sasl", (*SASL, ""), ""),
    )
    if parsed.min_isr > parsed.replicas:
        raise _wrong(store, "`min_isr` is more than `replicas`", "Nothing could be written.")
    if parsed.timeout_s <= 0:
        raise _wrong(store, "`timeout` must be more than 0", "Leave it out for 30s.")
    _check_login(parsed)
    return parsed


def _check_login(url: KafkaUrl) -> None:
    """Refuse a login that lacks a part, or would send a secret that anybody on the way can read."""
    store, given = url.store, url.store.options
    secret = any(name in given for name in SECRET_OPTIONS)
    if url.sasl in {"plain", "scram-sha-256", "scram-sha-512"}:
        if not store.user or not secret:
            raise _wrong(
                store, f"`sasl={url.sasl}` needs a user and a password", "user@…, password_file="
            )
    elif secret or store.user:
        raise _wrong(store, "there is a user or password but no `sasl`", "sasl=scram-sha-512")
    if url.sasl == "oauthbearer":
        _check_oauth(store)
    elif any(name in given for name in (*_OAUTH, *_CLIENT_SECRET)):
        raise _wrong(store, "options for tokens stand without `sasl=oauthbearer`", "Add it.")
    local = all(_is_loopback(host) for host, _ in url.hosts)
    if url.sasl in {"plain", "oauthbearer"} and store.text("tls") == "disable" and not local:
        raise _wrong(
            store,
            f"`sasl={url.sasl}` without TLS shows the secret to the network",
            "Use TLS, or sasl=scram-sha-512.",
        )


def _check_oauth(store: StoreUrl) -> None:
    given = store.options
    if "token_file" in given:
        if any(name in given for name in (*_OAUTH[1:], *_CLIENT_SECRET)):
            raise _wrong(store, "`token_file` stands beside other ways to a token", "Keep one.")
        return
    secrets = [name for name in _CLIENT_SECRET if name in given]
    if "token_url" not in given or "client_id" not in given or len(secrets) != 1:
        raise _wrong(
            store,
            "`sasl=oauthbearer` needs a token",
            "token_file=, or token_url=, client_id= and client_secret_file=.",
        )
    address = urlsplit(given["token_url"])
    local = address.scheme == "http" and _is_loopback(address.hostname or "")
    if address.scheme != "https" and not local:
        raise _wrong(store, "`token_url` is not https", "The client secret is sent to it.")


def _address(host: str) -> tuple[str, int]:
    """Return (host, port); an IPv6 address loses its brackets."""
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(\d+))?", host)
    assert match is not None  # parse_store_url has looked at it
    return match[1].strip("[]"), int(match[2] or DEFAULT_PORT)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _wrong(store: StoreUrl, what: str, hint: str) -> SettingsError:
    return SettingsError(f"{store.text_form!r}: {what}.", hint=hint)
