"""Facts against the bytes: true ones pass, each kind of falsehood has its finding."""

from dataclasses import replace

import pytest

from sealtape.capture.postgres.codec import derive
from sealtape.indexer.deep import DeepComparison, deep_checks
from sealtape.schemas import facts, messages
from sealtape.schemas.bodies import Close, Gap, Ident
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.slices import (
    CLIENT_IN,
    TARGET_IN,
    TARGET_OUT,
    encode_data,
    encode_slice,
)
from tests.capture.postgres.codec import pg_script as pg
from tests.factories.deployments import audit, make_site, seal
from tests.factories.tracked import encoded, tracked_session

SCRIPT = [
    ("s", pg.GREETING),
    ("c", pg.query("select a from orders where id = 5")),
    ("s", pg.columns(("a", 23, 0)) + pg.row(b"1") + pg.row(b"2") + pg.tag("SELECT 2") + pg.ready()),
    ("c", pg.parse("s1", "update orders set a = $1") + pg.bind(name="s1", parameters=[b"9"])),
    ("c", pg.execute() + pg.SYNC),
    ("s", pg.PARSED + pg.BOUND + pg.tag("UPDATE 3") + pg.ready()),
    ("c", pg.query("select nothing")),
    ("s", pg.error("42703", 'column "nothing" does not exist') + pg.ready()),
    ("c", pg.TERMINATE),
]
EMPTY = [("s", pg.GREETING), ("c", pg.query("")), ("s", pg.EMPTY + pg.ready())]


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "site")


async def deep(site, script, **options):
    """Verify one session deeply; return the report and the session."""
    found = tracked_session(site, script, **options)
    await seal(site, pairs=encoded(found))
    session = found[-1].session
    return await audit(site, session, key=site.auditor, deep=DeepComparison), session


def decoded(told):
    return list(facts.decode_facts(facts.encode_facts((0, 0, 0, 0), told), 0).facts)


def coded(fact):
    """The bytes of a changed fact."""
    head = facts.encode_head(
        fact.n, fact.kind, fact.ts_ns, fact.leg, fact.offset, fact.length, fact.ref
    )
    text = facts.encode_text(fact.text, fact.text_length, fact.text_sha256)
    statement = facts.encode_statement(fact.normalized, fact.fingerprint, fact.effect, fact.objects)
    tail = facts.encode_tail(
        status=fact.status,
        rows=fact.rows,
        bytes_out=fact.bytes_out,
        duration_ns=fact.duration_ns,
        code=fact.code,
        message=fact.message,
        attributes=dict(fact.attributes),
        parameters=fact.parameters,
    )
    return facts.encode_fact(head, text, statement, tail)


def change(n, **fields):
    """Falsify fact `n`."""

    def falsify(told):
        return [
            coded(replace(fact, **fields)) if fact.n == n else raw
            for raw, fact in zip(told, decoded(told), strict=True)
        ]

    return falsify


@pytest.mark.parametrize("every", [1, 3, 99])
@pytest.mark.parametrize("encrypt", [True, False])
@pytest.mark.parametrize("full_text", [True, False])
@pytest.mark.parametrize("parameters", [True, False])
async def test_true_facts(site, every, encrypt, full_text, parameters):
    report, _ = await deep(
        site, SCRIPT, every=every, encrypt=encrypt, full_text=full_text, parameters=parameters
    )
    assert report.verdict == "verified", [f.to_json() for f in report.findings]


@pytest.mark.parametrize("full_text", [True, False])
async def test_true_facts_of_recorded_clients(site, full_text):
    captures = pg.captures()
    assert len(captures) > 5
    for name, script in captures:
        report, _ = await deep(site, script, full_text=full_text, every=4)
        assert report.verdict == "verified", (name, [f.to_json() for f in report.findings])


@pytest.mark.parametrize("full_text", [True, False])
async def test_the_first_statement_may_be_empty(site, full_text):
    for script in (EMPTY, [*EMPTY, *SCRIPT[1:]]):
        report, _ = await deep(site, script, full_text=full_text)
        assert report.verdict == "verified", [f.to_json() for f in report.findings]


FALSE = [
    (0, {"normalized": "select b from orders where id = ?"}, "normalized"),
    (0, {"fingerprint": "0"}, "fingerprint"),
    (0, {"effect": "write"}, "effect"),
    (0, {"objects": ("customers",)}, "objects"),
    (0, {"text_sha256": bytes(32)}, "text_sha256"),
    (0, {"text_length": 9}, "text_length"),
    (0, {"offset": 1}, "offset"),
    (0, {"kind": facts.ACCESS}, "kind"),
    (1, {"rows": 1}, "rows"),
    (1, {"bytes_out": 1}, "bytes_out"),
    (1, {"duration_ns": 10**9}, "duration_ns"),
    (1, {"status": "error"}, "status"),
    (3, {"ref": 0}, "ref"),
    (5, {"code": "00000"}, "code"),
    (5, {"message": "all is well"}, "message"),
]


@pytest.mark.parametrize(("n", "fields", "word"), FALSE)
async def test_a_false_fact(site, n, fields, word):
    report, session = await deep(site, SCRIPT, falsify=change(n, **fields))
    assert report.verdict == "tampered"
    found = report.findings
    assert {(f.layer, f.session) for f in found} == {("facts", session.hex())}
    if word != "kind":
        (finding,) = found
        assert finding.reason.startswith(f"fact {n} says {word} ")
        assert finding.seq is not None


async def test_a_fact_withheld(site):
    report, session = await deep(site, SCRIPT, falsify=lambda told: told[:-1], every=99)
    (finding,) = report.findings
    assert (finding.layer, finding.session) == ("facts", session.hex())
    assert "a fact is missing" in finding.reason


async def test_a_fact_invented(site):
    def invent(told):
        last = decoded(told)[-1]
        return [*told, coded(replace(last, n=last.n + 1))]

    report, _ = await deep(site, SCRIPT, falsify=invent, every=99)
    assert report.verdict == "tampered"
    assert any("is not in the bytes" in f.reason for f in report.findings)


async def test_an_empty_session_with_an_invented_error(site):
    report, _ = await deep(site, EMPTY, falsify=change(1, status="error", code="42601"))
    assert report.verdict == "tampered"


async def test_what_a_crash_cut_off_is_no_falsehood(site):
    report, _ = await deep(site, SCRIPT, falsify=lambda told: told[:-1], every=99, close="aborted")
    assert report.verdict == "verified"
    report, _ = await deep(site, SCRIPT, close=None)
    assert {f.layer for f in report.findings} == {"session"}


@pytest.mark.parametrize("reason", ["shutdown", "expired", "max_session", "client"])
async def test_what_a_client_said_after_the_end_and_nobody_was_told_has_no_facts(site, reason):
    script = [
        *SCRIPT[:-1],
        ("d", pg.query("select 1 as one_too_late")),
        ("d", pg.query("select 2 as another") + pg.TERMINATE),
    ]
    report, _ = await deep(site, script, close=reason)
    assert report.verdict == "verified", [f.to_json() for f in report.findings]
    report, _ = await deep(site, script, close=reason, falsify=lambda told: told[:-1], every=99)
    assert ["a fact is missing" in f.reason for f in report.findings] == [True]


def bodies(*found):
    """DATA bodies of slices: (leg, time, offset, data, replaces)."""
    for leg, at_ns, offset, data, replaces in found:
        yield encode_data([encode_slice(leg, at_ns, offset, data, replaces)], 1)


SAID = pg.query("select 1")
HALF = len(SAID) // 2
NOTHING = (TARGET_OUT, 5, 0, b"", len(SAID))
UNHEARD = {
    "whole": [(CLIENT_IN, 5, 0, SAID, 0), NOTHING],
    "in pieces": [(CLIENT_IN, 5, 0, SAID[:HALF], 0), (CLIENT_IN, 5, HALF, SAID[HALF:], 0), NOTHING],
}
HEARD = {
    "passed on": [(CLIENT_IN, 5, 0, SAID, 0)],
    "and then something": [(CLIENT_IN, 5, 0, SAID, 0), (TARGET_IN, 5, 0, pg.GREETING, 0)],
    "taken back later": [(CLIENT_IN, 4, 0, SAID, 0), NOTHING],
    "taken back in part": [(CLIENT_IN, 5, 0, SAID, 0), (*NOTHING[:4], len(SAID) - 1)],
    "changed": [(CLIENT_IN, 5, 0, SAID, 0), (TARGET_OUT, 5, 0, SAID, len(SAID))],
    "others taken back": [(CLIENT_IN, 4, 0, SAID, 0), (CLIENT_IN, 5, len(SAID), SAID, 0),
                          (TARGET_OUT, 5, 0, b"", 2 * len(SAID))],
}  # fmt: skip


@pytest.mark.parametrize("name", [*UNHEARD, *HEARD])
def test_only_what_went_nowhere_in_the_same_tick_has_no_facts(name):
    found = UNHEARD.get(name) or HEARD[name]
    check = DeepComparison(bytes(16), None)
    check.body(frame(1, Kind.IDENT), IDENT)
    for seq, body in enumerate(bodies(*found), 2):
        check.body(frame(seq, Kind.DATA), body)
    check.body(frame(9, Kind.CLOSE), ENDED)
    assert bool(check.finish()) == (name in HEARD)


def test_bytes_at_the_very_end_are_decoded_too():
    check = DeepComparison(bytes(16), None)
    check.body(frame(1, Kind.IDENT), IDENT)
    (body,) = bodies((CLIENT_IN, 0, 7, SAID, 0))
    check.body(frame(2, Kind.DATA), body)
    check.body(frame(3, Kind.FACTS), tracked_bodies(SCRIPT))
    ((epoch, seq, reason),) = check.finish()
    assert (epoch, seq) == (0, 2)
    assert "does not follow" in reason


async def test_after_a_gap_nothing_is_compared(site):
    report, session = await deep(site, SCRIPT, gap_after=2, falsify=change(3, rows=99))
    assert report.verdict == "incomplete"
    assert {f.layer for f in report.findings} == {"session"}
    report, session = await deep(site, SCRIPT, gap_after=4, falsify=change(1, rows=99))
    assert report.verdict == "tampered"
    assert session.hex() in {f.session for f in report.findings if f.layer == "facts"}


async def test_a_protocol_that_is_not_decoded_is_left_alone(site):
    report, _ = await deep(site, SCRIPT, protocol="journal", falsify=change(1, rows=99))
    assert report.verdict == "verified"


async def test_bytes_that_are_no_postgresql(site):
    script = [("s", pg.GREETING), ("c", b"\0\1\2 no message"), ("s", b"\xff" * 30)]
    report, _ = await deep(site, script, every=99)
    assert report.verdict == "verified", [f.to_json() for f in report.findings]


def frame(seq, kind):
    return Frame(bytes(16), 0, seq, pg.T0, kind, 1, 0, b"")


def test_bodies_that_cannot_be_read_are_findings():
    check = DeepComparison(bytes(16), None)
    ident = Ident(user="ada", target="shop", protocol="postgres", node="dev-1").to_json()
    check.body(frame(1, Kind.IDENT), ident)
    check.body(frame(2, Kind.DATA), b"nonsense")
    check.body(frame(3, Kind.CLOSE), Close(reason="client", totals=(0, 0, 0, 0)).to_json())
    ((epoch, seq, reason),) = check.finish()
    assert (epoch, seq) == (0, 2)
    assert reason


def test_a_slice_in_the_wrong_place_is_a_finding():
    ident = Ident(user="ada", target="shop", protocol="postgres", node="dev-1").to_json()
    body = encode_data([encode_slice(CLIENT_IN, 0, 7, pg.query("select 1"))], 1)
    late = DeepComparison(bytes(16), None)
    late.body(frame(1, Kind.IDENT), ident)
    late.body(frame(2, Kind.DATA), body)
    assert [(epoch, seq) for epoch, seq, _ in late.finish()] == [(0, None)]

    told = tracked_bodies(SCRIPT)
    early = DeepComparison(bytes(16), None)
    early.body(frame(1, Kind.IDENT), ident)
    early.body(frame(2, Kind.FACTS), told)
    early.body(frame(3, Kind.DATA), body)
    assert (0, 3) in [(epoch, seq) for epoch, seq, _ in early.finish()]


def test_a_gap_alone_is_fine():
    check = DeepComparison(bytes(16), None)
    ident = Ident(user="ada", target="shop", protocol="postgres", node="dev-1").to_json()
    check.body(frame(1, Kind.IDENT), ident)
    check.body(frame(2, Kind.GAP), Gap(reason="spool").to_json())
    assert list(check.finish()) == []


def tracked_bodies(script):
    """A FACTS body with the first fact of a script."""
    (first, *_) = pg.facts(script)
    return facts.encode_facts((0, 0, 0, 0), [coded(replace(first, ts_ns=0))])


def test_every_message_of_a_tracked_session_can_go_on_a_bus(site):
    for message in tracked_session(site, SCRIPT):
        assert messages.decode(messages.encode(message)) == message


IDENT = Ident(user="ada", target="shop", protocol="postgres", node="dev-1").to_json()
ENDED = Close(reason="client", totals=(0, 0, 0, 0)).to_json()


def test_sessions_of_one_run_share_what_they_parsed():
    make = deep_checks()
    first, second = make(bytes(16), None), make(b"\1" * 16, None)
    assert first._classifier is second._classifier
    assert first._salt != second._salt


def test_nothing_is_kept_of_a_session_that_ended_well():
    check = DeepComparison(bytes(16), None)
    check.body(frame(1, Kind.IDENT), IDENT)
    assert len(check._readings) == 2
    check.body(frame(2, Kind.CLOSE), ENDED)
    assert check._readings == []
    check.body(frame(3, Kind.CLOSE), ENDED)
    assert list(check.finish()) == []


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.FACTS])
def test_after_the_end_of_a_session_there_is_nothing(kind):
    check = DeepComparison(bytes(16), None)
    check.body(frame(1, Kind.IDENT), IDENT)
    check.body(frame(2, Kind.CLOSE), ENDED)
    more = encode_data([encode_slice(CLIENT_IN, 0, 0, pg.query("select 1"))], 1)
    check.body(frame(3, kind), more if kind == Kind.DATA else tracked_bodies(SCRIPT))
    ((epoch, seq, reason),) = check.finish()
    assert (epoch, seq) == (0, 3)
    assert "after the end" in reason


def test_a_wrong_slice_before_the_first_statement_is_one_finding():
    check = DeepComparison(bytes(16), None)
    check.body(frame(1, Kind.IDENT), IDENT)
    for seq, body in enumerate(bodies((CLIENT_IN, 0, 7, SAID, 0), (CLIENT_IN, 1, 7, SAID, 0)), 2):
        check.body(frame(seq, Kind.DATA), body)
    check.body(frame(4, Kind.FACTS), tracked_bodies(SCRIPT))
    ((epoch, seq, reason),) = check.finish()
    assert (epoch, seq) == (0, 4)
    assert "does not follow" in reason


def test_a_second_identity_decides_anew():
    check = DeepComparison(bytes(16), None)
    check.body(frame(1, Kind.IDENT), IDENT)
    check.body(frame(2, Kind.IDENT), IDENT)
    other = Ident(user="ada", target="shop", protocol="journal", node="dev-1").to_json()
    check.body(frame(3, Kind.IDENT), other)
    check.body(frame(4, Kind.FACTS), tracked_bodies(SCRIPT))
    assert list(check.finish()) == []


def test_facts_without_end_and_without_bytes(monkeypatch):
    monkeypatch.setattr(derive, "MAX_UNMATCHED", 5)
    monkeypatch.setattr(derive, "MAX_DIFFERENCES", 2)
    check = DeepComparison(bytes(16), None)
    check.body(frame(1, Kind.IDENT), IDENT)
    (first, *_) = pg.facts(SCRIPT)
    told = [coded(replace(first, n=n, ts_ns=0)) for n in range(20)]
    check.body(frame(2, Kind.FACTS), facts.encode_facts((0, 0, 0, 0), told))
    ((epoch, seq, reason),) = check.finish()
    assert (epoch, seq) == (0, 2)
    assert reason.endswith("are not in the bytes")

    check = DeepComparison(bytes(16), None)
    check.body(frame(1, Kind.IDENT), IDENT)
    check.body(frame(2, Kind.FACTS), facts.encode_facts((0, 0, 0, 0), told[:4]))
    problems = check.finish()
    assert [place for *place, _ in problems] == [[0, 2], [0, 2], [0, None]]
    assert problems[-1][2] == "the facts differ in 2 more places"


def test_bytes_without_end_and_without_facts(monkeypatch):
    monkeypatch.setattr(derive, "MAX_UNMATCHED", 3)
    check = DeepComparison(bytes(16), None)
    check.body(frame(1, Kind.IDENT), IDENT)
    sent = b"".join(pg.query(f"select {n}") for n in range(9))
    body = encode_data([encode_slice(CLIENT_IN, 0, 0, sent)], 1)
    check.body(frame(2, Kind.DATA), body)
    ((_, _, reason),) = check.finish()
    assert reason.endswith("are not in the recorded facts")
