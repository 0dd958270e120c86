"""Every setting with its default and its documentation, for `docs/config.md` and its test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any

from sealtape.schemas.settings.loader import NAMED_TABLES, TABLES
from sealtape.schemas.settings.model import Settings


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the file; its default is written as in TOML, or is `required`."""

    table: str
    key: str
    default: str
    doc: str


def reference() -> list[Setting]:
    """Return every setting in the order of the file's tables."""
    found: list[Setting] = []
    for (owner, name), kind in TABLES.items():
        if owner is Settings:
            found.extend(_of_table(name, kind))
    for name, kind in NAMED_TABLES.items():
        found.extend(_of_table(f"{name}.NAME", kind))
    return found


def _of_table(path: str, kind: type) -> Iterator[Setting]:
    nested = []
    for item in fields(kind):
        inner = TABLES.get((kind, item.name))
        if inner is not None:
            nested.append((f"{path}.{item.name}", inner))
            continue
        yield Setting(path, item.name, _shown(item.default), item.metadata["doc"])
    for inner_path, inner in nested:
        yield from _of_table(inner_path, inner)


def _shown(default: Any) -> str:
    if default is MISSING:
        return "required"
    if default is None:
        return "none"
    if isinstance(default, bool):
        return "true" if default else "false"
    if isinstance(default, str):
        return f'"{default}"'
    if isinstance(default, tuple):
        return "[" + ", ".join(f'"{item}"' for item in default) + "]"
    return f"{default:g}" if isinstance(default, float) else str(default)
