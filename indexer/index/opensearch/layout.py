"""What the adapter keeps in OpenSearch, and under which names. Pure.

::

    PREFIX-sessions-TENANT.CLASS.2026.11       one document per session, by the month of its start
    PREFIX-commands-TENANT.CLASS.2026.11.22    one per command, by the day of its session's start
    PREFIX-state                               positions, progress, what was dropped
    PREFIX-quarantine                          documents OpenSearch would not take, with the reason
    PREFIX-sessions, PREFIX-commands           aliases over all of a family, to read by

Neither prefix, tenant nor class can hold a dot, and a prefix no hyphen, so no two of them make the
same name. The names are no function of now: whatever is written again lands where it was.
Mappings are strict; what people look at has the names of the Elastic Common Schema, what only
searches use stands under `find`. docs/spec/index.md has the page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sealtape.indexer import tokens
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.layout import check_name, day_of

__all__ = ["LAYOUT", "Layout", "Place", "is_newer"]

LAYOUT = 2
"""Changes when templates do: an index made by another version has to be rebuilt."""

Json = dict[str, Any]

_PREFIX = re.compile(r"[a-z0-9][a-z0-9_]{0,39}", re.ASCII)
_PLACE = re.compile(r"-([a-z0-9_-]+)\.([a-z0-9_-]+)\.[0-9.]+", re.ASCII)

_KEYWORD: Json = {"type": "keyword", "ignore_above": 8191}
"""Of a longer value only the search by people is lost; ours goes by `find`."""
_EXACT: Json = {"type": "keyword", "doc_values": False}
"""For comparing alone. Nothing is cut: a value that does not fit is an error, not a miss."""
_STORED: Json = {"type": "keyword", "index": False, "doc_values": False}
_LONG: Json = {"type": "long"}
_NUMBER: Json = {"type": "long", "index": False}
_DATE: Json = {"type": "date", "format": "epoch_millis||strict_date_optional_time"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the documents of one session are kept: decided when it is first seen."""

    tenant: str
    retention: str
    start_ns: int

    def __post_init__(self) -> None:
        """Raise FormatError for what cannot be part of a name."""
        check_name(self.tenant, "tenant")
        check_name(self.retention, "retention class")

    @property
    def day(self) -> str:
        """The day of the start, as names have it."""
        return day_of(self.start_ns).replace("-", ".")


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of one index of ours, and the templates that go with them.

    Attributes:
        prefix: what all names begin with.
        shards: primary shards of each index of sessions or commands.
        replicas: copies of each shard beside the primary.
    """

    prefix: str
    shards: int = 1
    replicas: int = 1

    def __post_init__(self) -> None:
        """Raise SettingsError for a prefix that could clash with another one's names."""
        if not _PREFIX.fullmatch(self.prefix):
            raise SettingsError(
                f"{self.prefix!r} cannot be the prefix of an index.",
                hint="Write opensearch://HOST:9200/PREFIX with 1 to 40 of a-z, 0-9 and _.",
            )

    # -- names -------------------------------------------------------------------------------------

    @property
    def sessions(self) -> str:
        """The alias of all sessions."""
        return f"{self.prefix}-sessions"

    @property
    def commands(self) -> str:
        """The alias of all commands."""
        return f"{self.prefix}-commands"

    @property
    def state(self) -> str:
        """The index of positions, progress and what was dropped."""
        return f"{self.prefix}-state"

    @property
    def quarantine(self) -> str:
        """The index of what OpenSearch would not take."""
        return f"{self.prefix}-quarantine"

    @property
    def policy(self) -> str:
        """What the names of our ISM policies begin with."""
        return f"{self.prefix}-backstop"

    def sessions_index(self, place: Place) -> str:
        """The index a session is kept in."""
        return f"{self.sessions}-{place.tenant}.{place.retention}.{place.day[:7]}"

    def commands_index(self, place: Place) -> str:
        """The index its commands are kept in."""
        return f"{self.commands}-{place.tenant}.{place.retention}.{place.day}"

    def place_of(self, sessions_index: str, start_ns: int) -> Place | None:
        """The place of a session found in an index; None for an index of another's making."""
        if not sessions_index.startswith(self.sessions):
            return None
        found = _PLACE.fullmatch(sessions_index.removeprefix(self.sessions))
        return Place(found[1], found[2], start_ns) if found else None

    # -- templates ---------------------------------------------------------------------------------

    def component_templates(self) -> dict[str, Json]:
        """Component templates by name."""
        return {
            f"{self.prefix}-settings": {
                "template": {"settings": {"index": _settings(self.shards, self.replicas)}},
                "_meta": _META,
            },
            self.sessions: _mapped(_SESSION_FIELDS),
            self.commands: _mapped(_COMMAND_FIELDS),
            self.state: _mapped(_STATE_FIELDS),
            self.quarantine: _mapped(_QUARANTINE_FIELDS),
        }

    def index_templates(self) -> dict[str, Json]:
        """Index templates by name; each is composed of component templates."""
        families = {
            self.sessions: {"pattern": f"{self.sessions}-*", "alias": True},
            self.commands: {"pattern": f"{self.commands}-*", "alias": True},
            self.state: {"pattern": self.state, "alias": False},
            self.quarantine: {"pattern": self.quarantine, "alias": False},
        }
        found: dict[str, Json] = {}
        for name, family in families.items():
            body: Json = {
                "index_patterns": [family["pattern"]],
                "composed_of": [f"{self.prefix}-settings", name],
                "priority": 500,
                "_meta": _META,
            }
            if family["alias"]:
                body["template"] = {"aliases": {name: {}}}
            else:
                body["template"] = {"settings": {"index": {"number_of_shards": "1"}}}
            found[name] = body
        return found


def is_newer(meta: object) -> bool:
    """Whether a template's `_meta` was written by a version that is newer than this one."""
    return isinstance(meta, dict) and any(
        isinstance(meta.get(name), int) and meta[name] > _META[name] for name in ("layout", "words")
    )


_META: Json = {"product": "sealtape", "layout": LAYOUT, "words": tokens.VERSION}


def _settings(shards: int, replicas: int) -> Json:
    # Strings, as OpenSearch gives them back: so what is there can be compared with what should be.
    return {
        "number_of_shards": str(shards),
        "number_of_replicas": str(replicas),
        "codec": "best_compression",
        # Each write refreshes what it touched; this is for a writer that died before it did.
        "refresh_interval": "30s",
        # A forced expunge rewrites every segment with a deleted document, not only those with 10 %.
        "merge": {"policy": {"expunge_deletes_allowed": "0"}},
    }


def _mapped(fields: Json) -> Json:
    mappings = {"dynamic": "strict", "_meta": _META, "properties": fields}
    return {"template": {"mappings": mappings}, "_meta": _META}


def _object(**fields: Json) -> Json:
    return {"properties": fields}


_FIND_NAMES: Json = {
    "user": _EXACT,
    "groups": _EXACT,
    "target": _EXACT,
    "agent": _EXACT,
    "run": _EXACT,
    "protocol": _EXACT,
    "start_ns": _LONG,
}
_SHARED: Json = {
    "@timestamp": _DATE,
    "session": _object(id={"type": "keyword"}),
    "user": _object(name=_KEYWORD, roles=_KEYWORD),
    "source": _object(address=_KEYWORD, ip={"type": "ip"}),
    "network": _object(protocol=_KEYWORD),
}
_OURS: Json = {
    "tenant": _KEYWORD,
    "retention": _KEYWORD,
    "target": _KEYWORD,
    "agent": _KEYWORD,
    "run": _KEYWORD,
    "time_ns": _LONG,
}
_SESSION_FIELDS: Json = {
    **_SHARED,
    "event": _object(dataset=_KEYWORD, start=_DATE, end=_DATE, duration=_NUMBER, reason=_KEYWORD),
    "client": _object(bytes=_LONG),
    "server": _object(bytes=_LONG),
    "user_agent": _object(original=_KEYWORD),
    "observer": _object(name=_KEYWORD),
    "sealtape": _object(
        **_OURS,
        on_behalf_of=_KEYWORD,
        database=_KEYWORD,
        state=_KEYWORD,
        ended_ns=_NUMBER,
        frames=_LONG,
        commands=_LONG,
        errors=_LONG,
        effects=_KEYWORD,
        revision=_NUMBER,
        progress={"type": "binary"},
    ),
    "find": _object(**_FIND_NAMES, ended_ns=_LONG, effects=_EXACT),
}
_COMMAND_FIELDS: Json = {
    **_SHARED,
    "event": _object(
        dataset=_KEYWORD, id=_STORED, action=_KEYWORD, outcome=_KEYWORD, duration=_LONG
    ),
    "process": _object(command_line={"type": "wildcard", "ignore_above": 8191}),
    "error": _object(code=_KEYWORD, message=_KEYWORD),
    "server": _object(bytes=_LONG),
    "sealtape": _object(
        **_OURS,
        epoch=_LONG,
        n=_LONG,
        seq=_NUMBER,
        leg=_NUMBER,
        offset=_NUMBER,
        length=_NUMBER,
        fingerprint=_KEYWORD,
        tables=_KEYWORD,
        rows=_LONG,
        status=_KEYWORD,
        version=_NUMBER,
    ),
    "find": _object(
        **_FIND_NAMES,
        effect=_EXACT,
        error=_EXACT,
        tables=_EXACT,
        failed={"type": "boolean", "doc_values": False},
        # Words come cut already; the gap between the texts keeps phrases from reaching across.
        words={
            "type": "text",
            "analyzer": "whitespace",
            "norms": False,
            "position_increment_gap": 100,
        },
    ),
}
_STATE_FIELDS: Json = {
    "kind": {"type": "keyword"},
    "name": {"type": "keyword", "index": False},
    "value": _NUMBER,
    "progress": {"type": "binary"},
}
_QUARANTINE_FIELDS: Json = {
    "@timestamp": _DATE,
    "session": _object(id={"type": "keyword"}),
    "sealtape": _object(tenant=_KEYWORD, retention=_KEYWORD),
    "error": _object(type=_KEYWORD, message=_STORED),
    "quarantine": _object(index=_KEYWORD, id=_KEYWORD, version=_NUMBER, document=_STORED),
}
