from hashlib import sha256

import pytest

from sealtape.ingest.findings import QUARANTINE_REASONS, REASONS, Findings
from sealtape.ingest.parquet import row_of
from sealtape.schemas import messages
from tests.factories.sessions import build_session


def test_quarantine_keeps_the_bytes_and_is_an_incident():
    findings = Findings("frames", 3)
    assert not findings
    findings.quarantine("malformed", "why", offset=7, data=b"abc", now_ns=9, session=b"s" * 16)
    (kept,), (said,) = findings.quarantined, findings.incidents
    assert (kept.topic, kept.partition, kept.offset, kept.reason) == ("frames", 3, 7, "malformed")
    assert (kept.data, kept.size, kept.sha256, kept.key) == (b"abc", 3, sha256(b"abc").digest(), "")
    assert (said.offset, said.reason, said.detail, said.session) == (
        7,
        "malformed",
        "why",
        b"s" * 16,
    )
    assert findings
    findings.clear()
    assert not findings


def test_a_row_is_kept_as_its_message():
    frame = build_session().frames[2]
    findings = Findings("frames", 0)
    findings.quarantine_row("conflict", row_of(frame), offset=1, now_ns=2)
    assert messages.decode(findings.quarantined[0].data) == frame
    assert findings.incidents[0].detail == REASONS["conflict"]
    assert (findings.incidents[0].epoch, findings.incidents[0].seq) == (0, 2)


def test_what_is_known_is_not_kept_again():
    findings = Findings("frames", 0, known=[(5, sha256(b"abc").digest())])
    findings.quarantine("malformed", "", offset=5, data=b"abc", now_ns=0)
    assert not findings
    findings.quarantine("malformed", "", offset=5, data=b"of a bus made anew", now_ns=0)
    findings.quarantine("malformed", "", offset=6, data=b"abc", now_ns=0)
    assert [item.offset for item in findings.quarantined] == [5, 6]


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_reasons_are_words_with_a_sentence(reason):
    assert reason == reason.lower()
    assert reason.replace("_", "").isalpha()
    assert REASONS[reason].endswith(".")
    assert set(QUARANTINE_REASONS) < set(REASONS)
