"""Preparing a cluster for an index of ours, and looking whether it is."""

from __future__ import annotations

from pathlib import Path

from sealtape.indexer.index.opensearch import parse_url

__all__ = ["prepare"]


async def prepare(url: str, base: Path) -> list[str]:
    """Put the templates there; returns what was done."""
    cluster, layout = parse_url(url, base)
    try:
        for name, body in layout.component_templates().items():
            await cluster.request("PUT", f"/_component_template/{name}", body)
        for name, body in layout.index_templates().items():
            await cluster.request("PUT", f"/_index_template/{name}", body)
    finally:
        await cluster.close()
    return ["templates"]
