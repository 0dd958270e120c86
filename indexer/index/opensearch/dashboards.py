"""Saved objects for OpenSearch Dashboards. Pure.

Five boards over the aliases of an index: sessions, commands, errors, who touched what, gaps and
incidents. The fields are those of `layout`; the ids begin with the index's prefix, so that two
indices can share one Dashboards. What a board shows is an answer of the search, not of the
evidence: `sealtape verify` says what holds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sealtape.indexer.index.opensearch.layout import Layout

__all__ = ["saved_objects"]

Json = dict[str, Any]

_META = "kibanaSavedObjectMeta"
_INDEX_REF = f"{_META}.searchSourceJSON.index"
_WIDTH = 48
_HEIGHT = 15

# Where a panel looks: names of index patterns.
SESSIONS, COMMANDS, QUARANTINE = "sessions", "commands", "quarantine"

_NOT_JOURNAL = "not network.protocol : journal"
_NO_RESULT = '"The session ended before a result."'
"""What the indexer writes for a command that got none; a phrase in DQL."""


@dataclass(frozen=True, slots=True)
class _Panel:
    """One piece of a board.

    Attributes:
        name: the end of its id.
        family: where it looks.
        kind: `list` of documents, or a chart: `count`, `time`, `top`.
        fields: columns of a list; what a chart is split by.
        query: in DQL.
        size: how many of each split are shown.
        width: of 48.
    """

    name: str
    title: str
    family: str
    kind: str
    fields: tuple[str, ...] = ()
    query: str = ""
    size: int = 10
    width: int = _WIDTH // 2


@dataclass(frozen=True, slots=True)
class _Board:
    name: str
    title: str
    description: str
    panels: tuple[_Panel, ...] = field(default=())


_SESSION_COLUMNS = (
    *("user.name", "sealtape.agent", "sealtape.target", "sealtape.state", "sealtape.commands"),
    *("sealtape.errors", "source.ip", "session.id"),
)
_COMMAND_COLUMNS = (
    *("user.name", "sealtape.agent", "sealtape.target", "event.action", "process.command_line"),
    *("sealtape.rows", "event.outcome", "session.id"),
)
_BOARDS = (
    _Board(
        "sessions",
        "Sealtape: sessions",
        "Who was connected where, and when.",
        (
            _Panel("sessions-count", "Sessions", SESSIONS, "count", (), _NOT_JOURNAL, width=12),
            _Panel(
                *("sessions-time", "Sessions begun, by target", SESSIONS, "time"),
                *(("sealtape.target",), _NOT_JOURNAL),
                width=36,
            ),
            _Panel(
                *("sessions-users", "By user", SESSIONS, "top"),
                *(("user.name",), _NOT_JOURNAL, 20),
                width=16,
            ),
            _Panel(
                *("sessions-agents", "By agent and run", SESSIONS, "top"),
                *(("sealtape.agent", "sealtape.run"), "sealtape.agent : *", 20),
                width=16,
            ),
            _Panel(
                *("sessions-clients", "By client software", SESSIONS, "top"),
                *(("user_agent.original",), _NOT_JOURNAL, 20),
                width=16,
            ),
            _Panel(
                *("sessions-list", "All sessions", SESSIONS, "list"),
                *(_SESSION_COLUMNS, _NOT_JOURNAL),
                width=48,
            ),
        ),
    ),
    _Board(
        "commands",
        "Sealtape: commands",
        "What was done.",
        (
            _Panel("commands-count", "Commands", COMMANDS, "count", width=12),
            _Panel(
                *("commands-time", "Commands, by effect", COMMANDS, "time", ("event.action",)),
                width=36,
            ),
            _Panel(
                "commands-targets",
                "By target and effect",
                COMMANDS,
                "top",
                ("sealtape.target", "event.action"),
            ),
            _Panel(
                *("commands-statements", "Most frequent statements", COMMANDS, "top"),
                ("sealtape.fingerprint",),
            ),
            _Panel("commands-list", "All commands", COMMANDS, "list", _COMMAND_COLUMNS, width=48),
        ),
    ),
    _Board(
        "errors",
        "Sealtape: errors",
        "What failed, and who was refused.",
        (
            _Panel(
                *("errors-time", "Failed commands, by code", COMMANDS, "time"),
                *(("error.code",), "event.outcome : failure"),
                width=48,
            ),
            _Panel(
                *("errors-codes", "Codes and messages", COMMANDS, "top"),
                *(("error.code", "error.message"), "event.outcome : failure", 20),
            ),
            _Panel(
                *("errors-users", "Users and targets", COMMANDS, "top"),
                *(("user.name", "sealtape.target"), "event.outcome : failure", 20),
            ),
            _Panel(
                *("errors-list", "Failed commands", COMMANDS, "list"),
                ("error.code", "error.message", *_COMMAND_COLUMNS),
                "event.outcome : failure",
                width=48,
            ),
        ),
    ),
    _Board(
        "touched",
        "Sealtape: who touched what",
        "Objects by who read, wrote and changed them.",
        (
            _Panel(
                *("touched-writes", "Written and changed", COMMANDS, "top"),
                *(("sealtape.tables", "user.name", "event.action"),),
                "event.action : (write or ddl or privilege)",
                size=20,
            ),
            _Panel(
                *("touched-reads", "Read", COMMANDS, "top", ("sealtape.tables", "user.name")),
                "event.action : read",
                size=20,
            ),
            _Panel(
                *("touched-agents", "By agents", COMMANDS, "top"),
                *(("sealtape.agent", "sealtape.tables", "event.action"), "sealtape.agent : *", 20),
            ),
            _Panel(
                *("touched-time", "Writes, by object", COMMANDS, "time", ("sealtape.tables",)),
                "event.action : (write or ddl or privilege)",
            ),
        ),
    ),
    _Board(
        "gaps",
        "Sealtape: gaps and incidents",
        "Sessions that are not whole, commands without an answer, clients turned away, documents "
        "that were refused. Incidents themselves are in the ledger and on the events topic.",
        (
            _Panel(
                *("gaps-unsealed", "Ended and not sealed", SESSIONS, "list"),
                *(("observer.name", *_SESSION_COLUMNS), "sealtape.state : closed"),
                width=48,
            ),
            _Panel(
                *("gaps-reasons", "How sessions ended", SESSIONS, "top"),
                *(("event.reason", "observer.name"), "event.reason : *", 20),
            ),
            _Panel(
                *("gaps-unanswered", "Commands without a result", COMMANDS, "list"),
                _COMMAND_COLUMNS,
                f"error.message : {_NO_RESULT}",
            ),
            _Panel(
                *("gaps-refused", "Clients turned away", COMMANDS, "list"),
                ("error.code", "error.message", *_COMMAND_COLUMNS),
                "event.action : refused",
                width=48,
            ),
            _Panel(
                *("gaps-quarantine", "Documents in quarantine", QUARANTINE, "list"),
                ("error.type", "quarantine.index", "quarantine.id", "session.id"),
                width=48,
            ),
        ),
    ),
)


def saved_objects(layout: Layout) -> list[Json]:
    """Return all saved objects, what is referred to first."""
    patterns = {
        SESSIONS: layout.sessions,
        COMMANDS: layout.commands,
        QUARANTINE: layout.quarantine,
    }
    objects = [_pattern(layout, family, title) for family, title in patterns.items()]
    for board in _BOARDS:
        objects += [_panel(layout, panel) for panel in board.panels]
        objects.append(_board(layout, board))
    return objects


def _object(layout: Layout, kind: str, name: str, attributes: Json, references: list[Json]) -> Json:
    identity = f"{layout.prefix}-{name}"
    return {"type": kind, "id": identity, "attributes": attributes, "references": references}


def _reference(layout: Layout, name: str, kind: str, target: str) -> Json:
    return {"name": name, "type": kind, "id": f"{layout.prefix}-{target}"}


def _pattern(layout: Layout, family: str, title: str) -> Json:
    attributes = {"title": title, "timeFieldName": "@timestamp"}
    return _object(layout, "index-pattern", family, attributes, [])


def _source(query: str, *, refers: bool) -> Json:
    source: Json = {"query": {"query": query, "language": "kuery"}, "filter": []}
    if refers:
        source["indexRefName"] = _INDEX_REF
    return {"searchSourceJSON": json.dumps(source)}


def _panel(layout: Layout, panel: _Panel) -> Json:
    attributes: Json = {
        "title": panel.title,
        "description": "",
        "version": 1,
        _META: _source(panel.query, refers=True),
    }
    if panel.kind == "list":
        attributes |= {"columns": list(panel.fields), "sort": [["@timestamp", "desc"]], "hits": 0}
    else:
        attributes |= {"visState": json.dumps(_chart(panel)), "uiStateJSON": "{}"}
    references = [_reference(layout, _INDEX_REF, "index-pattern", panel.family)]
    return _object(layout, _kind(panel), panel.name, attributes, references)


def _kind(panel: _Panel) -> str:
    return "search" if panel.kind == "list" else "visualization"


def _chart(panel: _Panel) -> Json:
    count: Json = {"id": "1", "enabled": True, "type": "count", "schema": "metric", "params": {}}
    if panel.kind == "count":
        metric = {"metricColorMode": "None", "labels": {"show": True}, "style": {"fontSize": 48}}
        return _visualization(panel, "metric", {"type": "metric", "metric": metric}, [count])
    if panel.kind == "top":
        parameters = {"perPage": 10, "showTotal": False, "showPartialRows": False}
        splits = [_split(panel, name, at, "bucket") for at, name in enumerate(panel.fields, 2)]
        return _visualization(panel, "table", parameters, [count, *splits])
    times: Json = {
        "id": "2",
        "enabled": True,
        "type": "date_histogram",
        "schema": "segment",
        "params": {"field": "@timestamp", "interval": "auto", "min_doc_count": 1},
    }
    splits = [_split(panel, name, at, "group") for at, name in enumerate(panel.fields, 3)]
    return _visualization(panel, "histogram", _axes(), [count, times, *splits])


def _visualization(panel: _Panel, kind: str, parameters: Json, aggs: Sequence[Json]) -> Json:
    return {"title": panel.title, "type": kind, "params": parameters, "aggs": list(aggs)}


def _split(panel: _Panel, name: str, number: int, schema: str) -> Json:
    return {
        "id": str(number),
        "enabled": True,
        "type": "terms",
        "schema": schema,
        "params": {"field": name, "orderBy": "1", "order": "desc", "size": panel.size},
    }


def _axes() -> Json:
    series = {
        "show": True,
        "type": "histogram",
        "mode": "stacked",
        "data": {"label": "Count", "id": "1"},
        "valueAxis": "ValueAxis-1",
    }
    across = {
        "id": "CategoryAxis-1",
        "type": "category",
        "position": "bottom",
        "show": True,
        "scale": {"type": "linear"},
        "labels": {"show": True, "truncate": 100},
        "title": {},
    }
    up = {
        "id": "ValueAxis-1",
        "name": "LeftAxis-1",
        "type": "value",
        "position": "left",
        "show": True,
        "scale": {"type": "linear", "mode": "normal"},
        "labels": {"show": True, "truncate": 100},
        "title": {"text": "Count"},
    }
    return {
        "type": "histogram",
        "grid": {"categoryLines": False},
        "categoryAxes": [across],
        "valueAxes": [up],
        "seriesParams": [series],
        "addTooltip": True,
        "addLegend": True,
        "legendPosition": "right",
    }


_NOT_VERIFIED = " (not verified)"
_WORTH = (
    "This is the search index, which whoever administers it can edit:"
    " `sealtape verify SESSION` checks the record."
)


def _board(layout: Layout, board: _Board) -> Json:
    panels: list[Json] = []
    references: list[Json] = []
    x = y = 0
    for number, panel in enumerate(board.panels):
        if x + panel.width > _WIDTH:
            x, y = 0, y + _HEIGHT
        index, name = str(number), f"panel_{number}"
        panels.append(
            {
                "version": "2.0.0",
                "panelIndex": index,
                "gridData": {"x": x, "y": y, "w": panel.width, "h": _HEIGHT, "i": index},
                "embeddableConfig": {},
                "panelRefName": name,
            }
        )
        references.append(_reference(layout, name, _kind(panel), panel.name))
        x += panel.width
    attributes = {
        "title": board.title + _NOT_VERIFIED,
        "description": f"{board.description} {_WORTH}",
        "hits": 0,
        "version": 1,
        "panelsJSON": json.dumps(panels),
        "optionsJSON": json.dumps({"useMargins": True, "hidePanelTitles": False}),
        "timeRestore": True,
        "timeFrom": "now-24h",
        "timeTo": "now",
        "refreshInterval": {"pause": True, "value": 0},
        _META: _source("", refers=False),
    }
    return _object(layout, "dashboard", f"board-{board.name}", attributes, references)
