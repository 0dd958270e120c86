"""Index State Management: the backstop behind our own deletions. Pure.

Sessions are removed one by one, by `drop`, when their time is over and nothing holds them. Should
that fail for long, OpenSearch's ISM plugin deletes the whole index. It counts from when an index
was made, so the last session of a period, and one that ran for long, must not go early: hence the
margin beyond `delete_after`. The index is a cache: what is on hold and went with it comes back by
`sealtape index rebuild`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sealtape.indexer.index.opensearch.layout import Layout

__all__ = ["MARGIN_DAYS", "policies"]

Json = dict[str, Any]

PERIOD_DAYS = 31
"""An index of sessions is made on the first day of a month at the earliest."""
MARGIN_DAYS = 30
_DAY_S = 86_400


def policies(layout: Layout, delete_after: Mapping[str, float]) -> dict[str, Json]:
    """Return policies by name, one for each retention class; `delete_after` is in seconds."""
    return {
        f"{layout.policy}-{name}": _policy(layout, name, seconds)
        for name, seconds in sorted(delete_after.items())
    }


def _policy(layout: Layout, name: str, seconds: float) -> Json:
    days = math.ceil(seconds / _DAY_S) + PERIOD_DAYS + MARGIN_DAYS
    patterns = [f"{family}-*.{name}.*" for family in (layout.sessions, layout.commands)]
    return {
        "policy": {
            "description": f"Sealtape, class {name}: what its own deletions left behind",
            "default_state": "kept",
            "states": [
                {
                    "name": "kept",
                    "actions": [],
                    "transitions": [
                        {"state_name": "over", "conditions": {"min_index_age": f"{days}d"}}
                    ],
                },
                {"name": "over", "actions": [{"delete": {}}], "transitions": []},
            ],
            "ism_template": [{"index_patterns": patterns, "priority": 500}],
        }
    }
