"""`sealtape index setup`: what an index needs in its store, and boards for those who look at it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sealtape.indexer.cli import output
from sealtape.indexer.index import prepare_index
from sealtape.schemas.errors import UsageError
from sealtape.schemas.settings import Settings


def run(settings: Settings, *, dashboards: str, as_json: bool) -> int:
    """Load everything and say what was done, and what could not be."""
    for line in asyncio.run(_load(settings, dashboards)) or ["nothing to do"]:
        if as_json:
            output.json_line({"done": line})
        else:
            print(line)
    return 0


async def _load(settings: Settings, dashboards: str) -> list[str]:
    url, base = settings.stores.index, Path(settings.base)
    if not url.startswith("opensearch:"):
        if dashboards:
            raise UsageError(
                "The index of this deployment is not in OpenSearch.", hint="stores.index names it."
            )
        return await prepare_index(url, base)
    from sealtape.indexer.index.opensearch import prepare_cluster

    terms = {name: terms.delete_after for name, terms in settings.retention.items()}
    return await prepare_cluster(url, base, delete_after=terms, dashboards=dashboards)
