"""An epoch between its opening and its seal."""

from dataclasses import replace
from hashlib import sha256

import pytest

from sealtape.schemas import canonical, tree
from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.segments import FragmentCheckpoint, FragmentGap, FragmentRecord
from sealtape.schemas.tlog.records import Listed, SessionSeal
from sealtape.schemas.verify.log_epochs import Continued, Epoch, Opened
from tests.factories.breaches import case_id, cases
from tests.factories.judging import check_breach

CLASS = RetentionClass("standard", 10, 20)
SESSION = b"\x10" * 16
OPENING = b"\x06" * 32
OPENED = Opened((1, 3), 77, "session", "main", CLASS, OPENING)
LEAVES = [tree.leaf_hash(bytes([n])) for n in range(9)]
NOTE = "checkpoint\n"


def fragment(lo, hi, *, gap=None, signed=False):
    part = tree.CompactRange(lo)
    for leaf in LEAVES[lo:hi]:
        part.append(leaf)
    return FragmentRecord(
        "main", "standard", SESSION, 0, lo, hi, part.nodes, (0, hi - lo), 1, 2, 3,
        FragmentCheckpoint(hi, NOTE) if signed else None,
        (FragmentGap(*gap, "lost"),) if gap else (),
    )  # fmt: skip


def seal(**changes):
    entry = SessionSeal(
        at_ns=1,
        tenant="main",
        session=SESSION,
        epoch=0,
        retention=CLASS,
        frames=6,
        root=tree.root(LEAVES[:6]),
        lost=0,
        attested=6,
        closed="client",
        first_ts_ns=1,
        last_ts_ns=2,
        opening_sha256=OPENING,
        checkpoint_sha256=sha256(NOTE.encode()).digest(),
        fragments=Listed.of([b"first", b"second"]),
    )
    return replace(entry, **changes)


class Book:
    """An epoch, and what is reported of it."""

    def __init__(self, *items):
        self.wrong = []
        self.epoch = Epoch(OPENED)
        for number, item in enumerate(items):
            self.add(item, [b"first", b"second", b"third"][number])

    def report(self, rule, place, reason):
        self.wrong.append((rule, reason))

    def add(self, item, line=b"line", digest=b"\x01" * 32):
        self.epoch.add(self.report, (1, 5), item, tree.leaf_hash(line), digest)

    def rules(self, entry):
        self.epoch.check(self.report, (1, 9), entry)
        return [rule for rule, _ in self.wrong]


def whole():
    return Book(fragment(0, 2, signed=True), fragment(2, 6, signed=True))


RULES = ("cover", "seal-open", "fragments", "frames", "attested")


@pytest.mark.parametrize(("rule", "breach"), cases(*RULES), ids=case_id)
def test_breaches(rule, breach):
    check_breach(rule, breach)


def test_a_whole_epoch():
    assert whole().rules(seal()) == []


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({"tenant": "other"}, ["seal-open"]),
        ({"retention": replace(CLASS, retain_for_s=9)}, ["seal-open"]),
        ({"opening_sha256": bytes(32)}, ["seal-open"]),
        ({"fragments": Listed.of([b"first"])}, ["fragments"]),
        ({"fragments": Listed.of([b"second", b"first"])}, ["fragments"]),
        ({"frames": 5}, ["frames"]),
        ({"frames": 7}, ["frames"]),
        ({"lost": 1, "root": b""}, ["frames"]),
        ({"root": bytes(32)}, ["frames"]),
        ({"attested": 5}, ["attested"]),
        ({"checkpoint_sha256": bytes(32)}, ["attested"]),
    ],
)
def test_what_a_seal_must_say(changes, rules):
    assert whole().rules(seal(**changes)) == rules


def test_frames_lost_behind_the_last_fragment():
    assert whole().rules(seal(frames=8, lost=2, root=b"", attested=6)) == []


def test_a_stated_gap():
    book = Book(fragment(0, 2), fragment(4, 6, gap=(2, 4), signed=True))
    book.add(fragment(6, 7))
    listed = Listed.of([b"first", b"second", b"line"])
    entry = seal(frames=7, lost=2, root=b"", fragments=listed, attested=6)
    assert book.rules(entry) == []
    assert book.rules(replace(entry, lost=1)) == ["frames"]


def test_nothing_attested():
    book = Book(fragment(0, 2), fragment(2, 6))
    assert book.rules(seal(attested=0, checkpoint_sha256=bytes(32))) == []


@pytest.mark.parametrize(
    ("items", "word"),
    [
        ([fragment(0, 2), fragment(3, 6)], "3 on, 0 lost, follow 2"),
        ([fragment(0, 3), fragment(2, 6)], "2 on, 0 lost, follow 3"),
        ([fragment(0, 2), fragment(4, 6, gap=(3, 4))], "4 on, 1 lost, follow 2"),
        ([fragment(0, 4), fragment(4, 6, gap=(2, 4))], "4 on, 0 lost, follow 4"),
        ([fragment(1, 2)], "1 on, 0 lost, follow 0"),
    ],
)
def test_fragments_that_do_not_follow(items, word):
    book = Book(*items)
    ((rule, reason),) = book.wrong
    assert rule == "cover"
    assert word in reason


def test_what_was_never_opened_is_not_sealed():
    book = Book()
    book.epoch.opened = None
    assert book.rules(seal()) == ["seal-open"]


def test_what_cannot_be_known_is_not_judged():
    book = Book(fragment(0, 2))
    book.epoch.blind = True
    book.add(fragment(5, 6))
    assert book.rules(seal()) == []
    assert book.rules(seal(tenant="other")) == ["seal-open"]


def test_other_fragments_of_the_same_frames():
    book = whole()
    book.add(fragment(6, 8), b"third", b"\x02" * 32)
    book.epoch.exchange({b"\x01" * 32}, [(0, tree.leaf_hash(b"merged"))], b"\x03" * 32)
    entry = seal(frames=8, root=tree.root(LEAVES[:8]), fragments=Listed.of([b"merged", b"third"]))
    assert book.rules(entry) == []


@pytest.mark.parametrize(
    "epoch",
    [
        Epoch(),
        whole().epoch,
        Book(fragment(0, 2), fragment(4, 6, gap=(2, 4))).epoch,
        replace(whole().epoch, continued=Continued((2, 9), 6, b"\x07" * 32), blind=True),
    ],
)
def test_it_can_be_kept(epoch):
    fields = canonical.fields(canonical.encode(epoch.members()), "state")
    assert Epoch.read(fields) == epoch
    fields.end()


def test_a_seal_of_other_fragments_says_whether_they_are_as_many():
    said = []
    for listed in (Listed.of([b"first"]), Listed.of([b"second", b"first"])):
        book = whole()
        book.rules(seal(fragments=listed))
        said += [reason for _, reason in book.wrong]
    assert "counts 1 fragments, 2 lie in segments" in said[0]
    assert "counts other fragments than lie" in said[1]
