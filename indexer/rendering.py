"""How replayed statements look: a table for people, plain text, and JSON for programs. Pure.

Whatever a recording holds, no control character of it reaches the reader's terminal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from sealtape.capture.postgres.codec.rows import Result, Step
from sealtape.indexer.replay import Note, Statement

__all__ = ["FORMATS", "as_json", "as_table", "as_text"]

MAX_CELL = 80
"""Characters of a value that a table shows."""

_ERROR_FIELDS = {"S": "severity", "M": "message", "D": "detail", "H": "hint", "P": "position"}


def as_json(shown: Statement | Note) -> dict[str, Any]:
    """One object: the statement with what it returned; `rows` are lists of text or null.

    `columns`, `rows` and `row_count` are of the last result that has columns; where there are
    several results all of them are in `results`. `truncated` says that the server sent more rows
    than are given. Times are ISO 8601 in UTC.
    """
    if isinstance(shown, Note):
        return {"epoch": shown.epoch, "seq": shown.seq, "note": shown.text}
    step = shown.step
    results = [_result(result) for result in step.results]
    main = next((one for one in reversed(results) if one["columns"] or one["rows"]), None)
    found: dict[str, Any] = {
        "epoch": shown.epoch,
        "seq": shown.seq,
        "time": _iso(step.ts_ns),
        "kind": step.kind,
        "statement": step.text,
        "effect": step.effect,
        "tables": list(step.objects),
        "parameters": step.parameters,
        "columns": main["columns"] if main else [],
        "types": main["types"] if main else [],
        "rows": main["rows"] if main else [],
        "row_count": main["row_count"] if main else 0,
        "truncated": any(result["truncated"] for result in results),
        "tag": "; ".join(result["tag"] for result in results if result["tag"]),
        "affected": step.rows if step.rows >= 0 else None,
        "status": step.status,
        "duration_ms": _ms(step),
        "bytes_out": step.bytes_out,
        "error": _error(step),
        "notices": step.notices,
    }
    if len(results) > 1:
        found["results"] = results
    if step.cut:
        found["statement_cut"] = True
    copied = {"copy_in_bytes": step.copy_in_bytes, "copy_out_bytes": step.copy_out_bytes}
    found.update((name, count) for name, count in copied.items() if count)
    return found


def as_table(shown: Statement | Note) -> str:
    """The statement, its rows as a table, what came of it."""
    return _render(shown, _table)


def as_text(shown: Statement | Note) -> str:
    """The statement, its rows with tabs between the values and nothing cut, what came of it."""
    return _render(shown, _lines)


FORMATS: dict[str, Callable[[Statement | Note], str]] = {"table": as_table, "text": as_text}
"""The formats made of text; `as_json` is the third one."""


def _render(shown: Statement | Note, rows: Callable[[Result], list[str]]) -> str:
    place = f"#{shown.seq}" if not shown.epoch else f"#{shown.epoch}:{shown.seq}"
    if isinstance(shown, Note):
        return f"{place}  ({_plain(shown.text)})\n"
    step = shown.step
    duration = _ms(step)
    head = [place, (_iso(step.ts_ns) or "")[11:23]]
    head.append("still running" if duration is None else f"{duration:.1f} ms")
    text = step.text or (f"({step.kind})" if step.kind != "session" else "(no statement)")
    lines = ["  ".join(head), *("  " + line for line in _plain(text).split("\n"))]
    if step.cut:
        lines.append("  (the statement goes on)")
    if step.parameters:
        values = (
            f"${n} = {'NULL' if value is None else _plain(repr(value))}"
            for n, value in enumerate(step.parameters, 1)
        )
        lines.append("  " + ", ".join(values))
    for result in step.results:
        lines += rows(result)
        if result.count > len(result.rows):
            lines.append(f"(the first {len(result.rows)} of {result.count} rows)")
        if result.tag:
            lines.append(_plain(result.tag))
    lines += _copied(step) + [_plain(notice) for notice in step.notices]
    return "\n".join([lines[0], *map(_inner, [*lines[1:], *_failure(step)]), ""])


def _inner(lines: str) -> str:
    """Lines of a statement: none begins as the first one of a statement does, whatever it holds."""
    return "\n".join("\\" + line if line.startswith("#") else line for line in lines.split("\n"))


def _copied(step: Step) -> list[str]:
    pairs = (("sent", step.copy_in_bytes), ("received", step.copy_out_bytes))
    return [f"({count} bytes of COPY data {way})" for way, count in pairs if count]


def _failure(step: Step) -> list[str]:
    if not step.code and step.status not in ("error", "cancelled"):
        return ["(skipped)"] if step.status == "skipped" else []
    fields = step.error
    lines = [f"{fields.get('S', 'ERROR')} {step.code}: {fields.get('M', '')}"]
    lines += [
        f"{name}: {fields[key]}" for key, name in (("D", "DETAIL"), ("H", "HINT")) if key in fields
    ]
    return [_plain(line) for line in lines]


def _table(result: Result) -> list[str]:
    if not result.columns and not result.rows:
        return []
    width = max([len(result.columns), *map(len, result.rows)])
    header = [name for name, _ in result.columns] + [""] * (width - len(result.columns))
    cells = [[_cell(value) for value in (*row, *[""] * (width - len(row)))] for row in result.rows]
    names = [_cell(name) for name in header]
    widths = [max(map(_width, column)) for column in zip(names, *cells, strict=True)]
    lines = [_row(names, widths), "-+-".join("-" * size for size in widths)]
    return [*lines, *(_row(row, widths) for row in cells)]


def _lines(result: Result) -> list[str]:
    rows = [["\\N" if value is None else _field(value) for value in row] for row in result.rows]
    header = [[_field(name) for name, _ in result.columns]] if result.columns else []
    return ["\t".join(row) for row in (*header, *rows)]


def _field(value: str) -> str:
    return _plain(value).replace("\t", "\\t").replace("\n", "\\n")


def _cell(value: str | None) -> str:
    if value is None:
        return "NULL"
    # A cell is cut before it is cleaned: a value may have a gigabyte.
    text = _field(value[: MAX_CELL + 1])
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell + " " * (size - _width(cell)) for cell, size in zip(cells, widths, strict=True))
    return " | ".join(padded).rstrip()


def _width(text: str) -> int:
    """Columns of a terminal: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def _plain(text: str) -> str:
    """Text with every control character but newline and tab written out."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def _result(result: Result) -> dict[str, Any]:
    return {
        "columns": [name for name, _ in result.columns],
        "types": [kind for _, kind in result.columns],
        "rows": result.rows,
        "row_count": result.count,
        "truncated": result.count > len(result.rows),
        "tag": result.tag,
    }


def _error(step: Step) -> dict[str, str] | None:
    if not step.code and step.status not in ("error", "cancelled"):
        return None
    named = {name: step.error[key] for key, name in _ERROR_FIELDS.items() if key in step.error}
    return {"code": step.code, **named}


def _ms(step: Step) -> float | None:
    return None if step.duration_ns < 0 else round(step.duration_ns / 1e6, 3)


def _iso(ns: int) -> str | None:
    if ns < 0:
        return None
    moment = datetime.fromtimestamp(ns // 1_000_000_000, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ns % 1_000_000_000 // 1000:06d}Z"
