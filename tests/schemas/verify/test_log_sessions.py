"""Sessions: opened, recovered, sealed, each epoch once."""

from dataclasses import replace

import pytest

from sealtape.schemas import canonical
from sealtape.schemas.bodies import Continues, RetentionClass
from sealtape.schemas.segments import BusRange, Fragments, SegmentRecord
from sealtape.schemas.tlog.records import SessionOpen
from sealtape.schemas.tree import root
from sealtape.schemas.verify.log_numbers import SessionNumbers
from sealtape.schemas.verify.log_sessions import Kept, Session, SessionBook
from sealtape.schemas.verify.violations import NS, Limits
from tests.factories.breaches import case_id, cases
from tests.factories.happenings import generate
from tests.factories.judging import check_breach, judge
from tests.schemas.verify import test_log_epochs as parts

CLASS = parts.CLASS
SESSION = parts.SESSION
END = Continues(0, 6, root(parts.LEAVES[:6]))
OPEN = SessionOpen(
    at_ns=1_000 * NS,
    of="session",
    tenant="main",
    session=SESSION,
    epoch=0,
    node="node-1",
    boot=b"\x20" * 16,
    worker=0,
    number=1,
    retention=CLASS,
    anchor_ns=0,
    continues=None,
    opening_sha256=parts.OPENING,
)
NEXT = replace(OPEN, epoch=1, continues=END)
RECORD = SegmentRecord(
    "frames/0", 0, bytes(32), "main", CLASS, "object", bytes(32), 1, 1, Fragments(1, bytes(32)),
    BusRange("frames", 0, 0, 0), 2_000 * NS, "ingest-1",
)  # fmt: skip
DIGEST = b"\x01" * 32


class Book(SessionBook):
    """With what was reported, and short words for what comes in."""

    def __init__(self):
        self.wrong = []
        self.at = 0
        report = self.wrong_at
        super().__init__(report, SessionNumbers(report))

    def wrong_at(self, rule, place, reason):
        self.wrong.append((rule, place[1]))

    def place(self):
        self.at += 1
        return (1, self.at)

    def opened(self, entry=OPEN, **changes):
        self.open_epoch(self.place(), replace(entry, **changes))

    def frames(self, *items, record=RECORD):
        found = [(item, parts.tree.leaf_hash(line)) for item, line in items]
        self.take_fragments(self.place(), record, DIGEST, found)

    def all_frames(self):
        self.frames((parts.fragment(0, 2, signed=True), b"first"))
        self.frames((parts.fragment(2, 6, signed=True), b"second"))

    def sealed(self, **changes):
        self.seal(self.place(), parts.seal(**changes))

    def whole(self, **changes):
        self.opened()
        self.all_frames()
        self.sealed(**changes)

    def unsaid(self, now_s=10_000):
        return [(rule, place[1]) for rule, place, _ in self.unstated(now_s * NS, Limits())]


RULES = (
    "class", "unopened", "after-seal", "open-once", "epochs", "identity", "continues", "seal-once",
    "unsealed",
)  # fmt: skip


@pytest.mark.parametrize(("rule", "breach"), cases(*RULES), ids=case_id)
def test_breaches(rule, breach):
    check_breach(rule, breach)


def test_a_session():
    book = Book()
    book.whole()
    assert book.wrong == []
    assert (len(book), book.live, book.open) == (1, 0, 0)
    assert book.kept(SESSION) == Kept("main", "standard", 10, sealed=True, witnessed_ns=0)
    book.witnessed(5)
    book.witnessed(6)
    assert book.kept(SESSION).witnessed_ns == 5
    assert book.kept(bytes(16)) is None


def test_a_recovered_session_is_kept_from_its_last_seal_on():
    book = Book()
    book.whole(closed="")
    book.witnessed(5)
    longer = RetentionClass("other", 99, 100)
    book.opened(NEXT, retention=longer)
    book.witnessed(6)
    assert book.kept(SESSION) == Kept("main", "other", 99, sealed=False, witnessed_ns=0, epochs=2)
    record = replace(RECORD, retention=longer)
    book.frames((replace(parts.fragment(0, 2), epoch=1), b"third"), record=record)
    book.sealed(
        epoch=1, frames=2, root=root(parts.LEAVES[:2]), attested=0, retention=longer,
        checkpoint_sha256=bytes(32), fragments=parts.Listed.of([b"third"]),
    )  # fmt: skip
    book.witnessed(7)
    assert book.kept(SESSION) == Kept("main", "other", 99, sealed=True, witnessed_ns=7, epochs=2)
    assert book.wrong == []
    assert book.unsaid() == []


def test_epochs_may_be_sealed_in_any_order():
    book = Book()
    book.opened()
    book.all_frames()
    book.opened(NEXT)
    book.frames((replace(parts.fragment(0, 2), epoch=1), b"third"))
    book.sealed(
        epoch=1, frames=2, root=root(parts.LEAVES[:2]), attested=0,
        checkpoint_sha256=bytes(32), fragments=parts.Listed.of([b"third"]),
    )  # fmt: skip
    book.witnessed(4)
    assert not book.kept(SESSION).sealed
    book.sealed(closed="")
    book.witnessed(5)
    assert book.kept(SESSION).witnessed_ns == 5
    assert book.wrong == []
    assert book.unsaid() == []


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"epoch": 2, "continues": Continues(0, 6, END.root)}, "epochs"),
        ({"continues": None}, "epochs"),
        ({"continues": Continues(1, 6, END.root)}, "epochs"),
        ({"epoch": 0, "continues": None}, "open-once"),
        ({"number": 2}, "identity"),
        ({"tenant": "other"}, "identity"),
        ({"of": "journal"}, "identity"),
        ({"node": "node-2"}, "identity"),
        ({"boot": bytes(16)}, "identity"),
        ({"worker": 1}, "identity"),
    ],
)
def test_openings_that_do_not_go_on(changes, rule):
    book = Book()
    book.whole(closed="")
    book.opened(NEXT, **changes)
    assert book.wrong == [(rule, 5)]
    assert book.unsaid() == ([("continues", 5)] if changes.get("epoch") else [])


@pytest.mark.parametrize(
    ("seal", "end"),
    [
        ({"closed": "client"}, END),
        ({"closed": ""}, replace(END, size=7)),
        ({"closed": ""}, replace(END, root=bytes(32))),
    ],
)
@pytest.mark.parametrize("reason", [None, "continuation", "after_seal", "gap"])
@pytest.mark.parametrize("first", ["seal", "open"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_ends_that_the_next_epoch_does_not_go_on_from(seal, end, reason, first, when):
    book = Book()
    book.opened()
    book.all_frames()
    if reason and when == "before":
        book.state(SESSION, reason)
    if first == "seal":
        book.sealed(**seal)
    book.opened(NEXT, continues=end)
    if first == "open":
        book.sealed(**seal)
    if reason and when == "after":
        book.state(SESSION, reason)
    assert book.unsaid(1_001) == []
    expected = [] if reason in ("continuation", "after_seal") else [("continues", 5)]
    assert book.unsaid() == expected
    assert book.unsaid() == []
    assert book.wrong == []


def test_an_end_with_losses_has_no_root_to_compare():
    for first in ("seal", "open"):
        book = Book()
        book.opened()
        book.frames((parts.fragment(0, 2), b"first"))
        book.frames((parts.fragment(4, 6, gap=(2, 4)), b"second"))
        lossy = {"lost": 2, "root": b"", "attested": 0, "checkpoint_sha256": bytes(32)}
        if first == "seal":
            book.sealed(closed="", **lossy)
        book.opened(NEXT)
        if first == "open":
            book.sealed(closed="", **lossy)
        assert book.unsaid() == []
        assert book.wrong == []


def test_frames_before_the_opening():
    book = Book()
    book.all_frames()
    assert book.wrong == [("unopened", 1)]
    assert book.kept(SESSION) is None
    book.opened()
    book.sealed()
    assert book.wrong == [("unopened", 1)]


def test_frames_whose_opening_never_came():
    book = Book()
    book.frames((parts.fragment(2, 3, gap=(0, 2)), b"line"))
    assert book.wrong == []
    book.sealed()
    assert book.wrong == [("seal-open", 2)]
    book.sealed()
    assert book.wrong == [("seal-open", 2), ("seal-open", 3)]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("when", ["before", "after", "never"])
def test_an_epoch_that_never_came(known, when):
    """Who can delete from the bus must not be able to stop every monitor."""
    book = Book()
    entry = replace(NEXT, continues=END)
    if known:
        book.whole(closed="")
        entry = replace(NEXT, epoch=2, continues=replace(END, epoch=1))
    if when == "before":
        book.state(SESSION, "continuation")
        kept = canonical.encode(book.members())
        at, book = book.at, Book()
        book._numbers.rank((OPEN.node, OPEN.boot, OPEN.worker))
        book.read(canonical.fields(kept, "state"))
        book.at = at
    book.opened(entry)
    if when == "after":
        book.state(SESSION, "continuation")
    assert book.wrong == []
    assert book.unsaid(4_000) == []
    assert book.unsaid() == ([("continues", book.at)] if when == "never" else [])


def test_an_epoch_that_was_passed_over_may_have_frames():
    book = Book()
    book.all_frames()
    book.opened(NEXT)
    book.sealed()
    assert book.wrong == [("unopened", 1), ("seal-open", 4)]
    assert not book.kept(SESSION).sealed


def test_a_segment_of_another_class():
    book = Book()
    book.opened()
    item = (parts.fragment(0, 2), b"first")
    book.frames(item, record=replace(RECORD, retention=replace(CLASS, delete_after_s=21)))
    book.frames((parts.fragment(2, 3), b""), record=replace(RECORD, tenant="other"))
    assert book.wrong == [("class", 2), ("class", 3)]


@pytest.mark.parametrize("when", ["before", "after", "never"])
def test_frames_after_the_seal(when):
    book = Book()
    book.whole()
    if when == "before":
        book.state(SESSION, "after_seal")
    book.frames((parts.fragment(6, 8), b"late"))
    if when == "after":
        book.state(SESSION, "after_seal")
    book.state(b"", "after_seal")
    assert book.unsaid(5_000) == []
    assert book.unsaid() == ([("after-seal", 5)] if when == "never" else [])
    assert book.wrong == []


def test_sealed_twice_or_before_its_opening():
    book = Book()
    book.whole()
    book.sealed()
    assert book.wrong == [("seal-once", 5)]
    assert book.open == -1


def test_a_manifest_that_cannot_be_read():
    book = Book()
    book.opened()
    book.take_fragments(book.place(), RECORD, DIGEST, None)
    book.frames((parts.fragment(2, 6), b"second"))
    book.sealed()
    assert book.wrong == []


def test_what_is_not_sealed_in_time():
    book = Book()
    book.opened()
    book.opened(of="journal", number=0, session=b"\x11" * 16)
    book.frames((replace(parts.fragment(1, 2, gap=(0, 1)), session=b"\x12" * 16), b""))
    limits = Limits(session_s=10, journal_s=20)
    for now_s, places in ((1_010, []), (1_011, [1]), (1_021, [1, 2])):
        assert [place[1] for place, _ in book.overdue(now_s * NS, limits)] == places


@pytest.mark.parametrize("kept", [True, False])
def test_what_still_brings_frames_is_not_late(kept):
    book = Book()
    book.opened()
    book.frames((parts.fragment(0, 2), b"first"), record=replace(RECORD, sealed_at_ns=5_000 * NS))
    if kept:
        members, book = canonical.encode(book.members()), Book()
        book._numbers.rank((OPEN.node, OPEN.boot, OPEN.worker))
        book.read(canonical.fields(members, "state"))
    for now_s, late in ((5_010, 0), (5_011, 1)):
        assert len(list(book.overdue(now_s * NS, Limits(session_s=10)))) == late


def test_replaced_segments():
    book = Book()
    book.opened()
    book.all_frames()
    merged = [(parts.fragment(0, 6), parts.tree.leaf_hash(b"merged"))]
    other = (replace(parts.fragment(0, 6), epoch=7), b"")
    book.replace((DIGEST,), [*merged, other], b"\x02" * 32)
    book.sealed(fragments=parts.Listed.of([b"merged"]))
    assert book.wrong == []


@pytest.mark.parametrize("end", [(0, bytes(32)), (5, b"\x07" * 32), (5, bytes(32))])
def test_what_is_kept_of_a_session(end):
    session = Session(1, 2**63 - 1, 2**62, 2**32 - 1, 5, 2**32, 15, end)
    assert Session.unpack(session.pack()) == session


def test_it_can_be_kept():
    book = Book()
    book.whole(closed="")
    book.opened(replace(OPEN, session=b"\x12" * 16, number=2, retention=RetentionClass("a", 1, 2)))
    book.frames((replace(parts.fragment(1, 2, gap=(0, 1)), session=b"\x13" * 16), b"x"))
    book.opened(NEXT, continues=replace(END, size=7))
    other = Book()
    fields = canonical.fields(canonical.encode(book.members()), "state")
    other._numbers.rank(("node-1", b"\x20" * 16, 0))
    other.read(fields)
    assert other.members() == book.members()
    old = book.members()
    del old["stated"]
    Book().read(canonical.fields(canonical.encode(old), "state"))
    assert other.kept(SESSION) == book.kept(SESSION)
    assert other._unsealed == book._unsealed
    assert (len(other), other.open) == (2, 2)
    other.witnessed(9)
    assert other.unsaid() == [("continues", 7)]


def test_whole_histories():
    for seed in range(5):
        assert judge(generate(seed, 60)).violations == []
