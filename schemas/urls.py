"""Store URLs that name a server: `scheme://user@host:port,host:port/path?option=value&…`.

The grammar is RFC 3986's, with a list of hosts as PostgreSQL's and Kafka's clients take it. A
password never stands in a URL, because URLs end in logs, shell histories and process lists: it is
read from `password_file` or `password_env` (`sealtape.capture.access`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from sealtape.schemas.errors import SettingsError
from sealtape.schemas.settings.values import can_be_host, parse_duration

__all__ = ["SECRET_OPTIONS", "TLS_OPTIONS", "StoreUrl", "parse_store_url", "shown_url"]

TLS_OPTIONS = ("tls", "ca", "cert", "key")
"""Options `sealtape.capture.access.tls_context` reads."""
SECRET_OPTIONS = ("password_file", "password_env")
"""Options `sealtape.capture.access.password` reads."""

_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+]*)://(?:(?P<user>[^/?#@]*)@)?(?P<hosts>[^/?#@]*)"
    r"(?:/(?P<path>[^?#]*))?(?:\?(?P<query>[^#]*))?"
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.\-]+)(?::(\d{1,5}))?")
_SECRET = re.compile(
    r"([?&][^=&]*(?:pass|pwd|secret|token|signature|(?:access|account|api)_?key)[^=&]*"
    r"(?<!_file)(?<!_env)=)[^&]*",
    re.IGNORECASE,
)
_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """The parts of a store URL, percent-decoded.

    Attributes:
        text_form: the URL for messages, as `shown_url` shows it.
        hosts: `host` or `host:port` each; an IPv6 address stands in brackets.
        path: what follows the hosts, without the leading slash.
    """

    text_form: str
    scheme: str
    user: str
    hosts: tuple[str, ...]
    path: str
    options: Mapping[str, str]

    def text(self, name: str, default: str = "") -> str:
        """Return an option's text."""
        return self.options.get(name, default)

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        """Return an option that is a whole number from `low` to `high`."""
        given = self.options.get(name)
        if given is None:
            return default
        if not re.fullmatch(r"\d{1,18}", given) or not low <= int(given) <= high:
            raise self._wrong(name, f"a whole number from {low} to {high}")
        return int(given)

    def duration(self, name: str, default: float) -> float:
        """Return an option that is a duration (`200ms`, `7d`), in seconds."""
        given = self.options.get(name)
        if given is None:
            return default
        try:
            return parse_duration(given)
        except ValueError as error:
            raise self._wrong(name, str(error)) from error

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return an option that is `1`, `true`, `yes`, `0`, `false` or `no`."""
        given = self.options.get(name)
        if given is None:
            return default
        if given not in _FLAGS:
            raise self._wrong(name, "1 or 0")
        return _FLAGS[given]

    def choice(self, name: str, allowed: Collection[str], default: str) -> str:
        """Return an option that is one of some words."""
        given = self.options.get(name, default)
        if given not in allowed:
            raise self._wrong(name, "one of " + ", ".join(sorted(allowed)))
        return given

    def _wrong(self, name: str, expected: str) -> SettingsError:
        return SettingsError(
            f"{self.text_form!r}: `{name}` must be {expected}.", hint="Correct the store's URL."
        )


def parse_store_url(url: str, *, options: Collection[str] | None = None) -> StoreUrl:
    """Return the parts of `url`; None for `options` takes any.

    Raises:
        SettingsError: not of this form, a password in it, or an option unknown or given twice.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise SettingsError(
            f"{shown_url(url)!r} is not a store URL.",
            hint="Write scheme://user@host:port,host:port/path?option=value.",
        )
    user = match["user"] or ""
    # A password with a slash in it ends the hosts early, and what is behind it looks like a path.
    if ":" in user or (not user and "@" in (match["path"] or "")):
        raise SettingsError(
            f"{shown_url(url)!r} holds a password.",
            hint="Write it to a file and name that with ?password_file=PATH; in a path @ is %40.",
        )
    hosts = tuple(match["hosts"].split(",")) if match["hosts"] else ()
    for host in hosts:
        good = _HOST.fullmatch(host)
        known = good is not None and can_be_host(good[1].strip("[]"))
        if good is None or not known or int(good[2] or 1) not in range(1, 65536):
            # Which one is not said: it may be a piece of a password that has a slash in it.
            raise SettingsError(f"{shown_url(url)!r} names what is not a host or host:port.")
    given = _options(url, match["query"] or "", options)
    path = unquote(match["path"] or "")
    return StoreUrl(shown_url(url), match["scheme"], unquote(user), hosts, path, given)


def shown_url(url: str) -> str:
    """The URL for messages, without what is a secret in it, or may be one.

    Whoever writes a password into a URL does it wrong anyhow: any form of one is looked for, also
    of other programs, and rather too much is left out than too little.
    """
    begin, slashes, rest = url.partition("//")
    user, at, host = rest.partition("@")
    if at and (re.search("[:/?#]", user) or "@" in host):
        rest = f"…@{host.rpartition('@')[2]}"
    return _SECRET.sub(r"\1…", begin + slashes + rest)


def _options(url: str, query: str, known: Collection[str] | None) -> dict[str, str]:
    options: dict[str, str] = {}
    shown = shown_url(url).partition("?")[0]  # an option that nobody knows may hold a secret
    for pair in filter(None, query.split("&")):
        name, separator, value = pair.partition("=")
        if not separator:
            raise SettingsError(f"{shown!r}: the option {name!r} has no value.")
        if name in options:
            raise SettingsError(f"{shown!r}: the option {name!r} is given twice.")
        if known is not None and name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else "Known: " + ", ".join(sorted(known))
            raise SettingsError(f"{shown!r}: {name!r} is not an option of this store.", hint=hint)
        options[name] = unquote(value)
    return options
