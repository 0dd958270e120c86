"""`opensearch:`, an index in an OpenSearch cluster."""

from __future__ import annotations

from sealtape.indexer.index.opensearch.adapter import OpenSearchIndex
from sealtape.indexer.index.opensearch.checking import check_cluster
from sealtape.indexer.index.opensearch.setup import prepare_cluster

__all__ = ["OpenSearchIndex", "check_cluster", "prepare_cluster"]
