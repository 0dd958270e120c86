"""Reports on bundles: every verdict in words, nothing of the bundle runs or is loaded."""

import html.parser

from sealtape.indexer.cli.bundle_report import as_html, as_text
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.verify.steps import STEPS, Bounds, BundleReport, Span
from tests.factories.bundles import judged, stamped, story, with_authority
from tests.vectors.generate_bundle import recovered, redacted, without_frames


def text(report):
    return "\n".join(as_text(report))


def test_facts_steps_and_times():
    report = judged(stamped(story()), with_authority())
    out = text(report)
    assert f"policy      SHA-256 {report.policy_sha256.hex()}" in out
    assert "session     101112131415161718191a1b1c1d1e1f" in out
    assert "witness     office at 2026-11-23T00:00:40" in out
    assert "time-stamp  9/one at 2026-11-23T00:00:00.000000Z, accurate to 1 s" in out
    assert "recording   1 epochs, 5 frames" in out
    for step in STEPS:
        assert f" {step} " in out
    assert "not after 2026-11-23T00:00:01" in out
    assert out.endswith("VERIFIED: Everything is there, unchanged, and attested by whom"
                        " the policy trusts.")  # fmt: skip


def test_findings_say_where():
    out = text(judged(without_frames()))
    assert "TAMPERED   frames       frames/0.bin epoch 0 frames 0 to 4" in out
    assert "no deletion removed them" in out
    report = BundleReport()
    report.tampered("frames", "frames/0.bin", "why", epoch=0, frames=(3, 4))
    assert "frames/0.bin epoch 0 frame 3" in text(report)
    assert "NOT CHECKED" in text(report)


def test_what_is_withheld_or_attested():
    assert "frames 2 to 2 of epoch 0 are withheld" in text(judged(redacted()))
    out = text(judged(recovered()))
    assert out.count("attested by the node's key") == 1


def test_more_findings_than_are_shown():
    report = BundleReport()
    for number in range(120):
        report.tampered("frames", "frames/0.bin", f"reason {number}")
    out = text(report)
    assert "reason 99" in out
    assert "reason 100" not in out
    assert "and 20 more findings" in out


def test_times_that_no_calendar_has():
    report = BundleReport()
    report.bounds += [Bounds(0, 0, 1, None, None), Bounds(0, 1, 2, 2**63, None)]
    out = text(report)
    assert "at a time that nothing bounds" in out
    report.witnesses = {"w": 2**62}
    assert " ns" in text(report)


class Page(html.parser.HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.attributes = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


def test_a_page_loads_and_runs_nothing():
    page = Page(as_html(judged(stamped(story()), with_authority()), "case.zip"))
    assert not {"script", "link", "img", "iframe", "object", "form", "a"} & set(page.tags)
    assert not {"src", "href", "action", "onload"} & {name for name, _ in page.attributes}
    words = " ".join(page.texts)
    for step in STEPS:
        assert step in words
    assert "VERIFIED" in words


def test_what_a_bundle_says_cannot_steer_a_page_or_a_terminal():
    evil = "<script>alert(1)</script>\x1b[2J"
    report = BundleReport()
    report.checkpoint = Checkpoint(evil, 1, bytes(32))
    report.tampered("form", evil, evil)
    report.note(evil)
    report.spans.append(Span("withheld", 0, 1, 2))
    report.passed("form", evil)
    page = as_html(report, evil)
    assert "<script>" not in page
    assert "\x1b" not in page
    assert "script" not in Page(page).tags
    assert "frames 1 to 1 of epoch 0 are withheld" in page
    assert "TAMPERED" in page


def test_an_empty_report():
    page = as_html(BundleReport(), "x")
    assert "Findings" not in page
    assert "INCOMPLETE" in page
