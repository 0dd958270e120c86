"""The report: states, verdicts, what programs read."""

import json

from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.verify import steps
from sealtape.schemas.verify.steps import STEPS, Bounds, BundleReport, Span, State

LAST = list(STEPS)[-1]


def whole():
    report = BundleReport()
    for step in STEPS:
        report.passed(step)
    return report


def test_nothing_looked_at_is_not_verified():
    report = BundleReport()
    assert (report.verdict, report.exit_code) == ("incomplete", 2)
    assert report.state("form") == State.NOT_CHECKED
    report.passed("form")
    assert report.verdict == "incomplete"


def test_all_gone_through_is_verified():
    report = whole()
    assert (report.verdict, report.exit_code) == ("verified", 0)


def test_a_deletion():
    report = whole()
    report.deleted = True
    assert (report.verdict, report.exit_code) == ("deleted", 3)


def test_the_gravest_verdict_wins():
    report = whole()
    report.deleted = True
    report.incomplete("seals", "entries", "a")
    assert (report.verdict, report.exit_code) == ("incomplete", 2)
    report.tampered("frames", "frames/0.bin", "b", epoch=0, frames=(1, 2))
    report.incomplete("seals", "entries", "c")
    assert (report.verdict, report.exit_code) == ("tampered", 1)


def test_a_failure_stays_one():
    report = BundleReport()
    report.incomplete("keys", "entries", "a")
    report.passed("keys", "three")
    report.not_provided("keys", "none")
    report.not_checked("keys", "later")
    assert report.state("keys") == State.FAIL
    assert report.details["keys"] == "three"


def test_states_that_are_no_failure():
    report = BundleReport()
    report.passed("monitor", "one")
    report.passed("monitor")
    assert (report.state("monitor"), report.details["monitor"]) == (State.PASS, "one")
    report.not_provided("monitor", "none")
    assert (report.state("monitor"), report.details["monitor"]) == (State.NOT_PROVIDED, "none")
    report.not_checked("monitor", "no")
    assert report.state("monitor") == State.NOT_CHECKED


def test_findings_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(steps, "MAX_FINDINGS", 2)
    report = whole()
    for number in range(5):
        report.tampered("frames", "frames/0.bin", str(number))
    assert (len(report.findings), report.suppressed) == (2, 3)


def test_notes_are_there_once():
    report = BundleReport()
    report.note("a")
    report.note("a")
    assert report.notes == ["a"]


def test_what_programs_read():
    report = whole()
    assert report.to_json()["checkpoint"] is None
    report.checkpoint = Checkpoint("log/1", 2**60, bytes(32))
    report.session = bytes(16)
    report.witnesses = {"office": 7}
    report.stamps, report.accuracies = {"3/one": 8}, {"3/one": 0}
    report.spans.append(Span("withheld", 1, 2, 4))
    report.bounds += [Bounds(0, 0, 3, None, 2**62), Bounds(0, 3, 4, 5, None)]
    report.incomplete("frames", "frames/0.bin", "why", epoch=0, frames=(2, 3))
    report.incomplete("seals", "entries", "why")
    found = json.loads(json.dumps(report.to_json()))
    assert found["verdict"] == "incomplete"
    assert found["session"] == "00" * 16
    assert found["checkpoint"] == {"origin": "log/1", "size": str(2**60), "root": "00" * 32}
    assert (found["witnesses"], found["timestamps"]) == ({"office": "7"}, {"3/one": "8"})
    assert found["accuracies"] == {"3/one": "0"}
    assert found["spans"] == [{"what": "withheld", "epoch": 1, "frames": [2, 4]}]
    assert found["bounds"][0] == {
        "epoch": 0, "frames": [0, 3], "not_before_ns": None, "not_after_ns": str(2**62),
    }  # fmt: skip
    assert found["bounds"][1]["not_before_ns"] == "5"
    assert found["findings"][0] == {
        "verdict": "incomplete", "step": "frames", "object": "frames/0.bin", "reason": "why",
        "epoch": 0, "frames": [2, 3],
    }  # fmt: skip
    assert found["findings"][1]["frames"] is None
    assert [step["step"] for step in found["steps"]] == list(STEPS)
    assert {step["state"] for step in found["steps"]} == {"PASS", "FAIL"}
