import pytest

from sealtape.ingest.ledger import steps
from sealtape.ingest.ledger.rows import Lease, LogEntry, ShardHead
from sealtape.schemas.errors import Fenced, StoreError
from sealtape.schemas.segments import FIRST_PREV, record_hash
from tests.conformance.ledger import SHARD, A, make_head, sealed_segment, session_change

EMPTY = ShardHead(0, FIRST_PREV)


def test_rounds_keep_the_order_within_a_name():
    items = ["a1", "b1", "a2", "c1", "a3", "b2"]
    assert steps.rounds(items, lambda item: item[0]) == [["a1", "b1", "c1"], ["a2", "b2"], ["a3"]]
    assert steps.rounds([], str) == []


def test_a_chain_goes_on_record_by_record():
    one = sealed_segment(1, [(A, 0, 0, 1)])
    two = sealed_segment(2, [(A, 0, 1, 2)], prev=record_hash(one.record), n=1)
    assert steps.continued(SHARD, EMPTY, ()) == EMPTY
    assert steps.continued(SHARD, EMPTY, (one, two)) == ShardHead(2, record_hash(two.record))
    for shard, wrong in ((SHARD, (two,)), (SHARD, (one, one)), ("other/0", (one,))):
        with pytest.raises(Fenced):
            steps.continued(shard, EMPTY, wrong)


@pytest.mark.parametrize(
    ("closed", "complete", "state"),
    [("", False, "live"), ("client", True, "sealed"), ("client", False, "closed")],
)
def test_the_state_follows_the_end(closed, complete, state):
    assert steps.first_state(session_change(closed=closed, complete=complete)) == state


def test_a_head_is_read_from_its_columns():
    head = make_head(hi=5)
    row = (
        head.session,
        head.epoch,
        head.lo,
        head.hi,
        b"".join(head.nodes),
        head.last_ts_ns,
        head.offset,
        head.attested,
        head.lost,
        head.closed,
        head.opening,
    )
    assert steps.head_of(row) == head


def test_a_lost_race_says_what_was_lost():
    with pytest.raises(Fenced, match="Term 3 of frames/1"):
        steps.fenced(Lease("frames", 1, 3, "w", 0), "x")
    with pytest.raises(Fenced, match="some/key"):
        steps.abandoned("some/key")
    with pytest.raises(Fenced, match=A.hex()):
        steps.moved(make_head())


def log_entries(first, *names):
    return [LogEntry(index, name, b"{}") for index, name in enumerate(names, first)]


@pytest.mark.parametrize(
    ("at", "number", "first", "begins"),
    [((0, 0), 1, 0, True), ((1, 0), 1, 0, False), ((1, 7), 1, 7, False), ((1, 7), 2, 0, True)],
)
def test_a_log_goes_on_or_begins_its_next_shard(at, number, first, begins):
    for names in ((), ("a",), ("a", "", "b", "")):
        assert steps.check_appended(at, number, first, log_entries(first, *names)) is begins


@pytest.mark.parametrize(
    ("at", "number", "first"),
    [
        ((0, 0), 0, 0),
        ((0, 0), 2, 0),
        ((1, 7), 1, 6),
        ((1, 7), 1, 8),
        ((1, 7), 2, 7),
        ((2, 0), 1, 0),
    ],
)
def test_a_log_goes_on_nowhere_else(at, number, first):
    with pytest.raises(Fenced, match=f"the log is at {at[1]} of shard {at[0]}"):
        steps.check_appended(at, number, first, log_entries(first, "a"))


def test_entries_are_numbered_and_named_once():
    for wrong in (log_entries(1, "a"), [*log_entries(0, "a"), *log_entries(2, "b")]):
        with pytest.raises(Fenced, match="one after the other"):
            steps.check_appended((1, 0), 1, 0, wrong)
    with pytest.raises(Fenced, match="entry a already"):
        steps.check_appended((1, 0), 1, 0, log_entries(0, "a", "b", "a"))


def test_seals_are_found_by_their_names():
    two, one = "02" * 16, "01" * 16
    names = [f"seal/{two}/0", f"seal/{one}/4294967295", f"seal/{one}/0", f"open/{one}/1", ""]
    names += [
        "seal/",
        f"seal/{one}",
        f"seal/{one}/",
        f"seal/{one}/01",
        f"seal/{one}/0/",
        "seal/x/0",
    ]
    assert steps.sealed_epochs(log_entries(0, *names)) == [
        (bytes.fromhex(one), 0),
        (bytes.fromhex(one), 4294967295),
        (bytes.fromhex(two), 0),
    ]
    assert steps.seal_name(bytes.fromhex(one), 7) == f"seal/{one}/7"


def test_what_is_too_large_for_an_entry_is_refused():
    steps.check_submitted(bytes(65_535))
    with pytest.raises(StoreError, match="65535"):
        steps.check_submitted(bytes(65_536))
