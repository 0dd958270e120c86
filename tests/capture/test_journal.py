from types import SimpleNamespace

from sealtape.capture.journal import MAX_REFUSALS, Journal
from sealtape.schemas.facts import (
    HEARTBEAT,
    MAX_LIVE,
    NODE,
    REFUSAL,
    decode_facts,
    encode_fact,
    encode_facts,
    encode_head,
)


class Kept:
    """A recorder that keeps its facts."""

    def __init__(self):
        self.facts = []

    def fact(self, kind, *, tail, error=False):
        self.facts.append(encode_fact(encode_head(len(self.facts), kind, 0), tail=tail))

    @property
    def told(self):
        return decode_facts(encode_facts([0, 0, 0, 0], self.facts), 0).facts


def live(number, *, closed=False):
    return SimpleNamespace(
        session=number.to_bytes(16, "big"),
        epoch=0,
        number=number,
        size=2,
        root=lambda: bytes(32),
        closed=closed,
    )


def test_refusals_name_what_is_known():
    kept = Kept()
    Journal(kept).refusal("expired", protocol="postgres", source="::1", code="28000", message="old")
    (fact,) = kept.told
    assert (fact.kind, fact.status, fact.code, fact.message) == (REFUSAL, "expired", "28000", "old")
    assert fact.attributes == {"protocol": "postgres", "source": "::1"}


def test_heartbeats_list_every_live_session_in_parts():
    kept = Kept()
    sessions = [live(n) for n in range(MAX_LIVE + 1)] + [live(9999, closed=True)]
    Journal(kept).heartbeat(sessions, worker=3, following=258)
    first, second = kept.told
    assert (first.kind, first.status, second.status) == (HEARTBEAT, "1/2", "2/2")
    assert first.attributes == second.attributes == {"worker": "3", "next": "258"}
    assert first.rows == second.rows == MAX_LIVE + 1
    assert [entry.number for entry in first.live + second.live] == list(range(MAX_LIVE + 1))


def test_an_empty_heartbeat_is_one_too():
    kept = Kept()
    Journal(kept).heartbeat([], worker=0, following=1)
    (fact,) = kept.told
    assert (fact.status, fact.rows, fact.live) == ("1/1", 0, ())


def test_what_is_counted_comes_with_the_next_heartbeat_once():
    kept = Kept()
    journal = Journal(kept)
    journal.count("scan")
    journal.count("scan")
    journal.count("garbage")
    journal.heartbeat([], worker=0, following=1)
    journal.heartbeat([], worker=0, following=1)
    _, counted, last = kept.told
    assert (counted.kind, counted.status) == (NODE, "counted")
    assert counted.attributes == {"scan": "2", "garbage": "1"}
    assert last.kind == HEARTBEAT


def test_a_flood_of_refusals_is_counted():
    kept = Kept()
    journal = Journal(kept)
    for _ in range(MAX_REFUSALS + 5):
        journal.refusal("bad-token", protocol="postgres")
    assert len(kept.facts) == MAX_REFUSALS
    journal.heartbeat([], worker=0, following=1)
    assert kept.told[-1].attributes == {"refusal-bad-token": "5"}
    journal.refusal("bad-token", protocol="postgres")
    assert kept.told[-1].kind == REFUSAL
