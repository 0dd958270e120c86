"""Findings put together: a table for people, an object for programs, an exit code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sealtape.capture.checkup import Check

__all__ = ["Report"]

_MARKS: Final = {"ok": "ok  ", "warning": "WARN", "error": "FAIL"}
_UNSHOWN: Final = {n: f"\\x{n:02x}" for n in (*range(32), *range(127, 160))}


class Report:
    """All findings of one look."""

    def __init__(self, checks: Sequence[Check]) -> None:
        """Take what was found, in the order it is told."""
        self.checks = tuple(checks)
        self.errors = sum(check.level == "error" for check in checks)
        self.warnings = sum(check.level == "warning" for check in checks)

    def exit_code(self, *, strict: bool) -> int:
        """1 when something is wrong, 0 otherwise; `strict` takes warnings for wrong."""
        return 1 if self.errors or (strict and self.warnings) else 0

    def lines(self) -> Iterator[str]:
        """Yield the table's lines, what to do below each finding that asks for something."""
        width = max((len(check.name) for check in self.checks), default=0)
        for check in self.checks:
            name = check.name.translate(_UNSHOWN).ljust(width)
            yield f"{_MARKS[check.level]}  {name}  {check.message.translate(_UNSHOWN)}"
            if check.level != "ok" and check.hint:
                yield f"{'':6}{'':{width}}  -> {check.hint.translate(_UNSHOWN)}"
        yield f"{len(self.checks)} checks, {self.errors} errors, {self.warnings} warnings"

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "ok": not self.errors,
            "errors": self.errors,
            "warnings": self.warnings,
            "checks": [
                {"name": c.name, "level": c.level, "message": c.message, "hint": c.hint}
                for c in self.checks
            ],
        }
