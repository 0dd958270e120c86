"""The index: one port, and one adapter per search engine behind it."""

from __future__ import annotations

from sealtape.indexer.index.base import (
    Hits,
    Index,
    Page,
    Update,
    check_index,
    open_index,
    prepare_index,
)

__all__ = ["Hits", "Index", "Page", "Update", "check_index", "open_index", "prepare_index"]
