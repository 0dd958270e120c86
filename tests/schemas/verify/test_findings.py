"""Findings add up to a verdict and an exit code; nothing verified is never a success."""

import pytest

from sealtape.schemas.verify import Report, Verdict
from sealtape.schemas.verify import findings as module

SESSION = bytes(range(16))


def test_nothing_is_incomplete():
    assert (Report().verdict, Report().exit_code) == (Verdict.INCOMPLETE, 2)


def test_something_without_findings_is_verified():
    report = Report(sessions=1)
    report.note("a statement")
    report.note("a statement")
    assert (report.verdict, report.exit_code) == (Verdict.VERIFIED, 0)
    assert report.notes == ["a statement"]


def test_the_gravest_finding_decides():
    report = Report(sessions=1)
    report.incomplete("session", "ledger", "live", session=SESSION)
    assert report.exit_code == 2
    report.tampered("frame", "seg/x", "changed", session=SESSION, epoch=1, seq=7)
    assert (report.verdict, report.exit_code) == (Verdict.TAMPERED, 1)
    assert report.to_json()["findings"][1] == {
        "layer": "frame",
        "object": "seg/x",
        "session": SESSION.hex(),
        "epoch": 1,
        "seq": 7,
        "reason": "changed",
        "verdict": "tampered",
    }


@pytest.mark.parametrize(("verdict", "code"), module.EXIT_CODES.items())
def test_each_verdict_has_its_exit_code(verdict, code):
    report = Report(sessions=1)
    if verdict != Verdict.VERIFIED:
        report.findings.append(module.Finding(verdict, "frame", "x", None, None, "y"))
    assert report.exit_code == code


def test_findings_are_bounded_and_counted(monkeypatch):
    monkeypatch.setattr(module, "MAX_FINDINGS", 2)
    report = Report()
    for seq in range(5):
        report.tampered("frame", "x", "y", seq=seq)
    assert (len(report.findings), report.suppressed) == (2, 3)
    assert report.to_json()["suppressed"] == 3


def test_parts_are_merged(monkeypatch):
    monkeypatch.setattr(module, "MAX_FINDINGS", 2)
    whole = Report(sessions=1, frames=2, payload_bytes=3)
    whole.note("said")
    part = Report(sessions=10, frames=20, payload_bytes=30, suppressed=5)
    part.note("said")
    part.note("more")
    for report in (whole, part, part):
        report.incomplete("session", "ledger", "live")
    whole.merge(part)
    assert (whole.sessions, whole.frames, whole.payload_bytes) == (11, 22, 33)
    assert (len(whole.findings), whole.suppressed) == (2, 6)
    assert whole.notes == ["said", "more"]
