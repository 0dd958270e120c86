"""Whether a cluster is as the index needs it: what `sealtape doctor` asks."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sealtape.capture.checkup import Check
from sealtape.indexer.index.opensearch.adapter import check_layout, parse_url
from sealtape.indexer.index.opensearch.client import Cluster
from sealtape.indexer.index.opensearch.layout import Layout
from sealtape.indexer.index.opensearch.removal import UNCLEAN
from sealtape.indexer.index.opensearch.search import READ
from sealtape.indexer.index.opensearch.writing import Writer, delete_action, index_action
from sealtape.schemas.errors import StoreError

__all__ = ["OLDEST", "check_cluster"]

OLDEST = (2, 15)
"""The first version with the field type `wildcard`."""

_SETUP = "Run `sealtape index setup`."
_LENIENT = {"ignore_unavailable": "true", "allow_no_indices": "true"}

Look = Callable[[Cluster, Layout], Awaitable[Check]]


async def check_cluster(url: str, base: Path, *, writes: bool) -> list[Check]:
    """Findings about the cluster; see `check_index`. Raises SettingsError alone."""
    cluster, layout = parse_url(url, base)
    looks = _LOOKS | (_WRITER if writes else _READER)
    found: list[Check] = []
    try:
        for name, look in looks.items():
            try:
                found.append(await look(cluster, layout))
            except StoreError as exc:
                found.append(Check(name, "error", exc.message, exc.hint))
                if look in (_version, _templates):
                    # Nobody answers or lets us in, or a write would make an index of wrong form.
                    break
    finally:
        await cluster.close()
    return found


async def _version(cluster: Cluster, layout: Layout) -> Check:
    name = "index: cluster"
    answer = await cluster.request("GET", "/")
    about = answer.get("version", {}) if isinstance(answer, dict) else {}
    number = str(about.get("number", ""))
    parts = re.match(r"(\d+)\.(\d+)", number)
    if about.get("distribution") != "opensearch" or parts is None:
        return Check(name, "error", "What answers is not OpenSearch.", "Correct stores.index.")
    if (int(parts[1]), int(parts[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        return Check(name, "error", f"OpenSearch {number} is too old.", f"Use {oldest} or newer.")
    return Check(name, "ok", f"OpenSearch {number} answers.")


async def _templates(cluster: Cluster, layout: Layout) -> Check:
    await check_layout(cluster, layout)
    return Check("index: templates", "ok", f"Its templates are those of layout {_layout(layout)}.")


def _layout(layout: Layout) -> int:
    return int(layout.index_templates()[layout.state]["_meta"]["layout"])


async def _indices(cluster: Cluster, layout: Layout) -> Check:
    """Whether all indices were made by our templates, which put each under its family's alias."""
    name, strangers, count = "index: indices", list[str](), 0
    for family in (layout.sessions, layout.commands):
        found = await cluster.request("GET", f"/{family}-*/_alias", missing_ok=True) or {}
        count += len(found)
        strangers += [index for index, about in found.items() if family not in about["aliases"]]
    if strangers:
        message = (
            f"{len(strangers)} indices were made without our templates, {min(strangers)} among"
            " them: nothing in them is found."
        )
        hint = "Run `sealtape index rebuild`: it makes them anew."
        return Check(name, "error", message, hint)
    return Check(name, "ok", f"All {count} were made by our templates.")


async def _writing(cluster: Cluster, layout: Layout) -> Check:
    """Write a document that says nothing, and delete it."""
    writer, name = Writer(cluster), f"probe:{secrets.token_hex(8)}"
    started = time.monotonic()
    probe = index_action(layout.state, name, {"kind": "probe", "name": name})
    refused = await writer.write([probe])
    await writer.write([delete_action(layout.state, name)])
    if refused:
        return Check("index: writing", "error", "A document of ours is refused.", _SETUP)
    took = (time.monotonic() - started) * 1000
    return Check("index: writing", "ok", f"Write and delete work ({took:.0f} ms).")


async def _health(cluster: Cluster, layout: Layout) -> Check:
    name = "index: health"
    answer = await cluster.request("GET", f"/_cluster/health/{layout.prefix}-*")
    status, missing = answer["status"], answer["unassigned_shards"]
    if status == "red":
        message = f"{missing} shards are missing, primary ones among them: searches fail."
        return Check(name, "error", message, "Bring the nodes that hold them back.")
    if status == "yellow":
        message = f"{missing} copies of shards have no node: the loss of a disk loses documents."
        hint = "Add nodes, or say replicas=0 in stores.index and take what can be rebuilt for lost."
        return Check(name, "warning", message, hint)
    return Check(name, "ok", f"All {answer['active_shards']} shards are there.")


async def _blocks(cluster: Cluster, layout: Layout) -> Check:
    path = f"/{layout.prefix}-*/_settings/index.blocks.*"
    answer: dict[str, Any] = await cluster.request("GET", path, params=_LENIENT)
    blocked = sorted(name for name, about in answer.items() if _is_blocked(about))
    if blocked:
        return Check(
            "index: blocks",
            "error",
            f"{len(blocked)} indices may not be written, {blocked[0]} among them.",
            "OpenSearch does so when a disk is nearly full: make room, then lift the block.",
        )
    return Check("index: blocks", "ok", "No index is closed to writing.")


def _is_blocked(about: dict[str, Any]) -> bool:
    blocks = about.get("settings", {}).get("index", {}).get("blocks", {})
    return any(str(value) == "true" for value in blocks.values())


async def _quarantine(cluster: Cluster, layout: Layout) -> Check:
    count = await _count(cluster, layout.quarantine, {"match_all": {}})
    if count:
        message = f"{count} documents were refused by OpenSearch and are in {layout.quarantine}."
        hint = "Each has its reason. Correct what is the matter, then `sealtape index rebuild`."
        return Check("index: quarantine", "warning", message, hint)
    return Check("index: quarantine", "ok", "No document was refused.")


async def _removals(cluster: Cluster, layout: Layout) -> Check:
    count = await _count(cluster, layout.state, {"term": {"kind": UNCLEAN}})
    if count:
        message = f"A removal has begun in {count} indices and not ended."
        return Check("index: removals", "warning", message, "Should this stay, remove again.")
    return Check("index: removals", "ok", "No removal is under way.")


async def _reading(cluster: Cluster, layout: Layout) -> Check:
    counts = [
        f"{await _count(cluster, alias, {'match_all': {}})} {word}"
        for alias, word in ((layout.sessions, "sessions"), (layout.commands, "commands"))
    ]
    return Check("index: reading", "ok", f"It has {' and '.join(counts)}.")


_LOOKS: dict[str, Look] = {"index: cluster": _version, "index: templates": _templates}
_WRITER: dict[str, Look] = {
    "index: indices": _indices,
    "index: writing": _writing,
    "index: health": _health,
    "index: blocks": _blocks,
    "index: quarantine": _quarantine,
    "index: removals": _removals,
}
_READER: dict[str, Look] = {"index: reading": _reading}


async def _count(cluster: Cluster, index: str, condition: dict[str, Any]) -> int:
    body = {"size": 0, "query": condition, "track_total_hits": True}
    answer = await cluster.request("POST", f"/{index}/_search", body, params=READ)
    return int(answer["hits"]["total"]["value"])
