"""The report on a bundle for people: lines of text, and one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Final

from sealtape.indexer.cli import output
from sealtape.schemas.verify.steps import STEPS, BundleFinding, BundleReport

_MEANING: Final = {
    "verified": "Everything is there, unchanged, and attested by whom the policy trusts.",
    "tampered": "Something is there, or missing, that cannot be unless somebody changed it.",
    "incomplete": "Nothing is wrong, but something is not there, or not yet.",
    "deleted": "The session was deleted by policy, as the log and its monitor attest.",
}
_SHOWN: Final = 100


def as_text(report: BundleReport) -> Iterator[str]:
    """Return the report line by line."""
    yield from _facts(report)
    yield ""
    for step, meaning in STEPS.items():
        detail = report.details.get(step, "")
        yield f"{report.state(step):13} {step:12} {meaning}{f' ({detail})' if detail else ''}"
    yield ""
    for finding in report.findings[:_SHOWN]:
        yield f"{finding.verdict.upper():10} {finding.step:12} {_where(finding)}"
        yield f"{'':23} {finding.reason}"
    more = len(report.findings) - _SHOWN + report.suppressed
    if more > 0:
        yield f"… and {more} more findings (--json has them)"
    for text in [*_spans(report), *_times(report), *report.notes]:
        yield f"note: {text}"
    yield f"{report.verdict.upper()}: {_MEANING[report.verdict]}"


def _facts(report: BundleReport) -> Iterator[str]:
    for name, value in _pairs(report):
        yield f"{name:11} {value}"


def _pairs(report: BundleReport) -> list[tuple[str, str]]:
    found = [("policy", f"SHA-256 {report.policy_sha256.hex()}")]
    if report.session:
        found.append(("session", report.session.hex()))
    top = report.checkpoint
    if top is not None:
        found.append(("log", f"{top.origin}, {top.size} entries, root {top.root.hex()}"))
    for name, seconds in sorted(report.witnesses.items()):
        found.append(("witness", f"{name} at {_iso(seconds * 1_000_000_000)}"))
    for name, time_ns in sorted(report.stamps.items()):
        off = output.accuracy(report.accuracies.get(name, 0))
        found.append(("time-stamp", f"{name} at {_iso(time_ns)}, {off}"))
    if report.epochs:
        size = output.size(report.payload_bytes)
        found.append(("recording", f"{report.epochs} epochs, {report.frames} frames, {size}"))
    return found


def _where(finding: BundleFinding) -> str:
    place = finding.object
    if finding.epoch is not None:
        place += f" epoch {finding.epoch}"
    if finding.frames is not None:
        lo, hi = finding.frames
        place += f" frame {lo}" if hi == lo + 1 else f" frames {lo} to {hi - 1}"
    return place


def _spans(report: BundleReport) -> list[str]:
    return [
        f"frames {span.lo} to {span.hi - 1} of epoch {span.epoch} are {span.what}"
        for span in report.spans[:_SHOWN]
        if span.what != "attested"  # which has a note of its own
    ]


def _times(report: BundleReport) -> list[str]:
    return [
        f"frames {bounds.lo} to {bounds.hi - 1} of epoch {bounds.epoch} were made"
        f" {_between(bounds.not_before_ns, bounds.not_after_ns)}"
        for bounds in report.bounds[:_SHOWN]
    ]


def _between(begin: int | None, end: int | None) -> str:
    parts = [
        f"not before {_iso(begin)}" if begin is not None else "",
        f"not after {_iso(end)}" if end is not None else "",
    ]
    return " and ".join(part for part in parts if part) or "at a time that nothing bounds"


def _iso(ns: int) -> str:
    try:
        return output.iso(ns) or ""
    except (OverflowError, ValueError, OSError):
        return f"{ns} ns"  # a time that no calendar has, which a bundle may state


# -- HTML ------------------------------------------------------------------------------------------

_STYLE: Final = """\
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid #8884; overflow-wrap: anywhere; }
th { white-space: nowrap; font-weight: 600; }
.verdict { padding: .8rem 1rem; border-left: .5rem solid; background: #8881; }
.verified, .PASS { border-color: #2a7d46; color: #2a7d46; }
.tampered, .FAIL { border-color: #c0392b; color: #c0392b; }
.incomplete, .deleted { border-color: #b7791f; color: #b7791f; }
.state { white-space: nowrap; font-weight: 600; }
@media (prefers-color-scheme: dark) {
  .verified, .PASS { border-color: #68d391; color: #68d391; }
  .tampered, .FAIL { border-color: #fc8181; color: #fc8181; }
  .incomplete, .deleted { border-color: #f6ad55; color: #f6ad55; }
}
"""


def as_html(report: BundleReport, name: str) -> str:
    """Return one page about a bundle called `name`; it loads nothing and runs nothing."""
    verdict = report.verdict
    steps = [
        (_state(report.state(step)), escape(step), _detail(meaning, report.details.get(step, "")))
        for step, meaning in STEPS.items()
    ]
    findings = [
        (escape(item.verdict), escape(item.step), f"{_text(_where(item))}<br>{_text(item.reason)}")
        for item in report.findings[:_SHOWN]
    ]
    times = [
        (f"epoch {bounds.epoch}", f"frames {bounds.lo} to {bounds.hi - 1}",
         escape(_between(bounds.not_before_ns, bounds.not_after_ns)))
        for bounds in report.bounds[:_SHOWN]
    ]  # fmt: skip
    notes = "".join(f"<li>{_text(note)}</li>" for note in [*_spans(report), *report.notes])
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>{escape(verdict)}: {_text(name)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>Evidence bundle {_text(name)}</h1>",
            f'<p class="verdict {verdict}"><strong>{verdict.upper()}</strong> ',
            f"{escape(_MEANING[verdict])}</p>",
            _table([(escape(key), _text(value)) for key, value in _pairs(report)]),
            "<h2>Steps</h2>",
            _table(steps),
            "<h2>Findings</h2>" + _table(findings) if findings else "",
            "<h2>When it was recorded</h2>" + _table(times) if times else "",
            f"<h2>Notes</h2><ul>{notes}</ul>" if notes else "",
            "</body></html>\n",
        ]
    )


def _detail(meaning: str, detail: str) -> str:
    return escape(meaning) + (f"<br><small>{_text(detail)}</small>" if detail else "")


def _state(state: str) -> str:
    return f'<span class="state {state.split(maxsplit=1)[0]}">{state}</span>'


def _text(text: str) -> str:
    return escape(output.printable(text))


def _table(rows: Iterable[Sequence[str]]) -> str:
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return f"<table>{''.join(lines)}</table>"
