"""The steps one by one; the whole transaction is in the conformance suite."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from sealtape.ingest.ledger import publish as steps
from sealtape.ingest.ledger.rows import HeadChange, Lease
from sealtape.schemas.errors import Fenced
from sealtape.schemas.segments import record_hash
from tests.conformance.ledger import SHARD, TOPIC, A, key_of, make_head, publication, sealed_segment

LAYOUT = sorted(Path(steps.__file__).with_name("sql").glob("*.sql"))
NOW_NS = 77
LEASE = Lease(TOPIC, 0, 3, "w", 10)


@pytest.fixture
def connection():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for script in LAYOUT:
        connection.executescript(script.read_text())
    connection.execute("INSERT INTO lease VALUES (?,0,3,'w',0,10)", (TOPIC,))
    connection.execute("INSERT INTO object VALUES (?,'staged',?,0,3,0)", (key_of(1), TOPIC))
    yield connection
    connection.close()


def position(connection):
    return connection.execute("SELECT next_offset FROM lease").fetchone()[0]


def test_the_position_moves_from_where_it_was(connection):
    steps.swap_position(connection, publication(LEASE, 10, 15))
    assert position(connection) == 15


@pytest.mark.parametrize(
    ("lease", "first"),
    [
        (LEASE, 11),
        (replace(LEASE, term=2), 10),
        (replace(LEASE, term=4), 10),
        (replace(LEASE, partition=1), 10),
    ],
)
def test_the_position_of_another_stays(connection, lease, first):
    with pytest.raises(Fenced):
        steps.swap_position(connection, publication(lease, first, 15))
    assert position(connection) == 10


def test_a_staged_object_is_taken_once(connection):
    steps.take_staged(connection, key_of(1))
    with pytest.raises(Fenced):
        steps.take_staged(connection, key_of(1))
    with pytest.raises(Fenced):
        steps.take_staged(connection, key_of(2))


def test_a_shard_grows_record_by_record(connection):
    one = sealed_segment(1, [(A, 0, 0, 1)])
    two = sealed_segment(2, [(A, 0, 1, 2)], prev=record_hash(one.record), n=1)
    steps.extend_shard(connection, SHARD, ())
    assert connection.execute("SELECT * FROM shard").fetchall() == []
    steps.extend_shard(connection, SHARD, (one, two))
    assert connection.execute("SELECT n, hash FROM shard").fetchone() == (
        2,
        record_hash(two.record),
    )
    for wrong in ((one,), (two,), (replace(two, record=replace(two.record, shard="x/1", n=2)),)):
        with pytest.raises(Fenced):
            steps.extend_shard(connection, SHARD, wrong)


def test_a_head_is_replaced_only_as_it_was_read(connection):
    first, second = make_head(hi=3), make_head(hi=5)
    with pytest.raises(Fenced):
        steps.swap_head(connection, HeadChange(first.digest(), second), NOW_NS)
    steps.swap_head(connection, HeadChange(None, first), NOW_NS)
    with pytest.raises(Fenced):
        steps.swap_head(connection, HeadChange(None, second), NOW_NS)
    steps.swap_head(connection, HeadChange(first.digest(), second), NOW_NS)
    assert connection.execute("SELECT hi, digest FROM head").fetchall() == [(5, second.digest())]
