"""The roles of an index in OpenSearch's security plugin. Pure.

| role | may |
|---|---|
| `PREFIX_indexer` | read and write all that has the prefix, remove sessions, make the index anew |
| `PREFIX_reader` | search sessions and commands, and see how far the indexer has come |

Neither may make templates, roles or policies: whoever runs `sealtape index setup` does.
"""

from __future__ import annotations

from typing import Any

from sealtape.indexer.index.opensearch.layout import Layout

__all__ = ["roles"]

Json = dict[str, Any]

_ANSWERS = ["cluster:monitor/main", "cluster:monitor/health"]
_TEMPLATES = ["indices:admin/index_template/get"]
_READ = ["read", "indices:admin/aliases/get"]
_MANY_READS = ["indices:data/read/mget", "indices:data/read/msearch"]
_SCROLL = ["indices:data/read/scroll", "indices:data/read/scroll/clear"]
_WRITE = [
    "write",
    "create_index",
    "indices:admin/auto_create",
    "indices:admin/mapping/auto_put",
    # to remove sessions without a trace
    "indices:data/write/delete/byquery",
    "indices:admin/refresh*",
    "indices:admin/flush*",
    "indices:admin/forcemerge*",
    "indices:monitor/stats",
    "indices:monitor/segments",
    # to make the index anew
    "indices:admin/delete",
    # for `sealtape doctor`
    "indices:monitor/settings/get",
    "cluster:monitor/health",
]


def roles(layout: Layout) -> dict[str, Json]:
    """Return the bodies of the roles by name."""
    everything = f"{layout.prefix}-*"
    shown = [layout.sessions, f"{layout.sessions}-*", layout.commands, f"{layout.commands}-*"]
    return {
        f"{layout.prefix}_indexer": {
            "description": "Sealtape's indexer",
            "cluster_permissions": [
                *_ANSWERS,
                *_TEMPLATES,
                *_MANY_READS,
                *_SCROLL,
                "indices:data/write/bulk",
            ],
            "index_permissions": [
                {"index_patterns": [everything], "allowed_actions": [*_READ, *_WRITE]}
            ],
        },
        f"{layout.prefix}_reader": {
            "description": "Searches Sealtape's sessions and commands",
            "cluster_permissions": [*_ANSWERS, *_TEMPLATES, *_MANY_READS],
            "index_permissions": [
                {"index_patterns": [*shown, layout.state], "allowed_actions": list(_READ)}
            ],
        },
    }
