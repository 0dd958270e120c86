import pytest

from sealtape.ingest.ledger import steps
from sealtape.ingest.ledger.rows import Lease, ShardHead
from sealtape.schemas.errors import Fenced
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
