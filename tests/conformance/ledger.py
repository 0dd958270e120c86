"""What every ledger adapter must do.

Use: `class TestX(LedgerConformance)` with a `ledger` fixture and a `clock` fixture whose
`forward(seconds)` moves the store's own time. Times are long, since a store's own time may run on.
"""

import asyncio
from dataclasses import replace

import pytest

from sealtape.ingest.ledger import Ledger
from sealtape.ingest.ledger.rows import (
    Event,
    Head,
    HeadChange,
    Incident,
    LeaseRow,
    Publish,
    Quarantined,
    SealedSegment,
    SessionChange,
    ShardHead,
)
from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.errors import Exists, Fenced
from sealtape.schemas.layout import segment_key
from sealtape.schemas.segments import (
    FIRST_PREV,
    BusRange,
    FragmentRecord,
    Fragments,
    SegmentRecord,
    fragments_root,
    record_hash,
)
from sealtape.schemas.tree import CompactRange
from tests.conformance.ledger_log import LedgerLogConformance

A, B = bytes(16), bytes([1]) * 16
TOPIC, SHARD = "frames", "frames/0"
RETENTION = RetentionClass("standard", 100, 200)


def key_of(number, term=1):
    return segment_key(
        "main", "standard", "2026-11-22", f"0000000000007000800000000000{number:04x}", term
    )


def tree_range(lo, hi):
    tree = CompactRange(lo)
    for number in range(lo, hi):
        tree.append(bytes([number]) * 32)
    return tree


def make_head(session=A, epoch=0, hi=3, **changes):
    tree = tree_range(0, hi)
    head = Head(session, epoch, 0, hi, tree.nodes, 1000 + hi, 10 * hi, hi, 0, "", b"opening")
    return replace(head, **changes)


def sealed_segment(number, ranges, *, prev=FIRST_PREV, n=0, shard=SHARD):
    """A segment with one fragment for each (session, epoch, lo, hi)."""
    fragments, row = [], 0
    for session, epoch, lo, hi in ranges:
        fragments.append(
            FragmentRecord(
                "main",
                "standard",
                session,
                epoch,
                lo,
                hi,
                tree_range(lo, hi).nodes,
                (row, row + hi - lo),
                1,
                2,
                10,
            )
        )
        row += hi - lo
    record = SegmentRecord(
        shard,
        n,
        prev,
        "main",
        RETENTION,
        key_of(number),
        b"s" * 32,
        99,
        row,
        Fragments(len(fragments), fragments_root(fragments)),
        BusRange(TOPIC, 0, 0, 5),
        7,
        "w",
    )
    return SealedSegment(key_of(number), record, tuple(fragments))


def session_change(session=A, epoch=0, **changes):
    change = SessionChange(session, "main", "standard", epoch, 3, 30, 5, 9, 0, "", False)
    return replace(change, **changes)


def publication(lease, first, next_offset, **parts):
    return Publish(lease, first, next_offset, SHARD, 7, **parts)


async def claimed(ledger, owner="w1", partition=0):
    lease = await ledger.claim(TOPIC, partition, owner, 3000.0)
    assert lease is not None
    return lease


async def published(ledger, lease, first, next_offset, *segments, **parts):
    if segments:
        await ledger.stage(lease, [segment.key for segment in segments])
    await ledger.publish(publication(lease, first, next_offset, segments=segments, **parts))


async def contents(ledger):
    """All that a publication can change."""
    return (
        await ledger.position(TOPIC, 0),
        [row async for row in ledger.segments()],
        [row async for row in ledger.sessions()],
        await ledger.heads([(A, 0), (A, 1), (B, 0)]),
        await ledger.shards(),
        await ledger.fragments(A),
        await ledger.incidents(),
        await ledger.quarantined(TOPIC, 0),
        await ledger.outbox(),
    )


class LedgerConformance(LedgerLogConformance):
    # -- leases

    async def test_a_lease_is_for_one_owner_until_it_ends(self, ledger: Ledger, clock):
        first = await claimed(ledger)
        assert (first.term, first.next_offset, first.owner) == (1, 0, "w1")
        assert await ledger.claim(TOPIC, 0, "w2", 3000.0) is None
        clock.forward(2900)
        assert await ledger.claim(TOPIC, 0, "w2", 3000.0) is None
        clock.forward(200)
        second = await claimed(ledger, "w2")
        assert second.term == 2
        assert await ledger.claim(TOPIC, 0, "w1", 3000.0) is None
        assert (await claimed(ledger, "w1", partition=1)).term == 1

    async def test_the_owner_claims_again_at_once_and_is_a_new_term(self, ledger: Ledger, clock):
        first = await claimed(ledger)
        second = await claimed(ledger)
        assert second.term == first.term + 1
        with pytest.raises(Fenced):
            await ledger.renew(first, 3000.0)

    async def test_renewing_holds_on(self, ledger: Ledger, clock):
        lease = await claimed(ledger)
        clock.forward(2900)
        await ledger.renew(lease, 3000.0)
        clock.forward(2900)
        assert await ledger.claim(TOPIC, 0, "w2", 3000.0) is None

    async def test_releasing_lets_the_next_one_in(self, ledger: Ledger, clock):
        lease = await claimed(ledger)
        await ledger.release(lease)
        newer = await claimed(ledger, "w2")
        await ledger.release(lease)
        assert await ledger.claim(TOPIC, 0, "w3", 3000.0) is None
        assert newer.term == lease.term + 1

    async def test_one_of_many_claimants_wins(self, ledger: Ledger, clock):
        claims = [ledger.claim(TOPIC, 0, f"w{number}", 3000.0) for number in range(8)]
        assert len([lease for lease in await asyncio.gather(*claims) if lease]) == 1

    async def test_leases_and_positions_are_listed(self, ledger: Ledger, clock):
        assert await ledger.leases() == []
        assert await ledger.positions() == {}
        lease = await claimed(ledger)
        other = await ledger.claim("other", 3, "w2", 1000.0)
        await ledger.claim("other", 3, "w2", 2000.0)
        await ledger.release(await claimed(ledger, partition=1))
        await ledger.publish(publication(lease, 0, 9))
        clock.forward(1500)
        first, released, second = await ledger.leases()
        assert replace(first, expires_in_s=0) == LeaseRow(TOPIC, 0, "w1", 1, 9, 0)
        assert first.expires_in_s == pytest.approx(1500, abs=300)
        assert released == LeaseRow(TOPIC, 1, "", 1, 0, 0.0)
        assert replace(second, expires_in_s=0) == LeaseRow("other", 3, "w2", other.term + 1, 0, 0)
        assert 0 < second.expires_in_s <= 500
        clock.forward(3000)
        assert [row.expires_in_s for row in await ledger.leases()] == [0.0] * 3
        assert await ledger.positions() == {(TOPIC, 0): 9, (TOPIC, 1): 0, ("other", 3): 0}

    # -- workers

    async def test_workers_are_alive_while_they_beat(self, ledger: Ledger, clock):
        assert await ledger.beat("ingest", "b", 3000.0) == ["b"]
        assert await ledger.beat("ingest", "a", 1000.0) == ["a", "b"]
        assert await ledger.beat("indexer", "c", 3000.0) == ["c"]
        clock.forward(1500)
        assert await ledger.beat("ingest", "b", 3000.0) == ["b"]
        clock.forward(2900)
        assert await ledger.beat("ingest", "a", 3000.0) == ["a", "b"]
        assert await ledger.beat("ingest", "a", 3000.0) == ["a", "b"]
        clock.forward(200)
        assert await ledger.beat("indexer", "d", 3000.0) == ["d"]
        assert await ledger.beat("ingest", "c", 3000.0) == ["a", "c"]

    async def test_a_worker_that_leaves_is_gone_at_once(self, ledger: Ledger, clock):
        await ledger.beat("ingest", "a", 3000.0)
        await ledger.beat("indexer", "a", 3000.0)
        for _ in range(2):
            await ledger.leave("ingest", "a")
        assert await ledger.beat("ingest", "b", 3000.0) == ["b"]
        assert await ledger.beat("indexer", "b", 3000.0) == ["a", "b"]

    # -- publication

    async def test_everything_of_a_publication_is_there(self, ledger: Ledger, clock):
        lease = await claimed(ledger)
        one = sealed_segment(1, [(A, 0, 0, 3), (B, 0, 0, 2)])
        two = sealed_segment(2, [(A, 1, 0, 1)], prev=record_hash(one.record), n=1)
        heads = [make_head(), make_head(B, 0, 2), make_head(A, 1, 1)]
        incident = Incident(TOPIC, 0, 4, "gap", "why", A, 0, 3, 7)
        bad = Quarantined(TOPIC, 0, 3, "malformed", b"", b"q" * 32, 2, b"xx", "", 7)
        event = Event("session-open", "k", b"{}", 7)
        await published(
            ledger,
            lease,
            0,
            5,
            one,
            two,
            heads=tuple(HeadChange(None, head) for head in heads),
            sessions=(session_change(), session_change(B), session_change(A, 1)),
            incidents=(incident,),
            quarantined=(bad,),
            events=(event, event),
        )
        assert await ledger.position(TOPIC, 0) == 5
        rows = [row async for row in ledger.segments()]
        assert [(row.key, row.record) for row in rows] == [
            (one.key, one.record),
            (two.key, two.record),
        ]
        assert rows[0].id < rows[1].id
        assert [row async for row in ledger.segments(after=rows[0].id)] == rows[1:]
        assert [row async for row in ledger.chain(SHARD)] == rows
        assert [row async for row in ledger.chain(SHARD, 1)] == rows[1:]
        assert [row async for row in ledger.chain("frames/1")] == []
        assert await ledger.segment(two.key) == rows[1]
        assert await ledger.segment("none") is None
        assert await ledger.shard_head(SHARD) == ShardHead(2, record_hash(two.record))
        assert await ledger.shards() == {SHARD: ShardHead(2, record_hash(two.record))}
        assert await ledger.heads([(A, 0), (B, 0), (B, 9)]) == {
            (A, 0): heads[0],
            (B, 0): heads[1],
        }
        assert await ledger.epochs(A) == [heads[0], heads[2]]
        of_a = await ledger.fragments(A)
        assert [(f.segment_key, f.index, f.record) for f in of_a] == [
            (one.key, 0, one.fragments[0]),
            (two.key, 0, two.fragments[0]),
        ]
        of_one = await ledger.fragments_of(rows[0].id)
        assert [f.record for f in of_one] == list(one.fragments)
        assert [(await ledger.session(s)).frames for s in (A, B)] == [6, 3]
        assert [replace(i, id=0) for i in await ledger.incidents()] == [incident]
        assert await ledger.incidents(session=B) == []
        assert await ledger.incidents(reason=incident.reason) == await ledger.incidents()
        assert await ledger.incidents(session=incident.session, reason="bus_cut") == []
        assert await ledger.quarantined(TOPIC, 0) == [bad]
        assert await ledger.quarantined(TOPIC, 0, 4) == []
        first, second = await ledger.outbox()
        assert replace(first, id=0) == event
        assert await ledger.outbox(after=first.id) == [second]
        assert await ledger.outbox(limit=1) == [first]
        await ledger.sent([first.id])
        assert await ledger.outbox() == [second]

    async def test_an_empty_ledger_answers(self, ledger: Ledger, clock):
        assert await contents(ledger) == (0, [], [], {}, {}, [], [], [], [])
        assert await ledger.shard_head(SHARD) == ShardHead(0, FIRST_PREV)
        assert await ledger.session(A) is None
        assert await ledger.epochs(A) == []

    @pytest.mark.parametrize(
        "broken",
        [
            "term",
            "position",
            "unstaged",
            "abandoned",
            "object",
            "shard",
            "chain",
            "head",
            "stale head",
        ],
    )
    async def test_a_lost_compare_and_set_changes_nothing(self, ledger: Ledger, clock, broken):
        lease = await claimed(ledger)
        first = sealed_segment(1, [(A, 0, 0, 3)])
        await published(
            ledger,
            lease,
            0,
            5,
            first,
            heads=(HeadChange(None, make_head()),),
            sessions=(session_change(),),
        )
        segment = sealed_segment(2, [(A, 0, 3, 6)], prev=record_hash(first.record), n=1)
        change = HeadChange(make_head().digest(), make_head(hi=6))
        objects = ()
        position = 5
        if broken == "shard":
            segment = sealed_segment(2, [(A, 0, 3, 6)], prev=b"x" * 32, n=1)
        if broken == "chain":
            segment = sealed_segment(2, [(A, 0, 3, 6)], prev=record_hash(first.record), n=2)
        if broken != "unstaged":
            await ledger.stage(lease, [segment.key])
        if broken == "abandoned":
            assert await ledger.abandon(segment.key)
        if broken == "term":
            await claimed(ledger)
        if broken == "position":
            position = 4
        if broken == "object":
            objects = ("never/staged",)
        if broken == "head":
            change = HeadChange(None, make_head(hi=6))
        if broken == "stale head":
            change = HeadChange(make_head(hi=2).digest(), make_head(hi=6))
        before = await contents(ledger)
        with pytest.raises(Fenced):
            await ledger.publish(
                publication(
                    lease,
                    position,
                    9,
                    segments=(segment,),
                    objects=objects,
                    heads=(change,),
                    sessions=(session_change(),),
                    incidents=(Incident(TOPIC, 0, 4, "gap", "why", A, 0, 3, 7),),
                    quarantined=(Quarantined(TOPIC, 0, 3, "r", b"", b"q" * 32, 2, b"xx", "", 7),),
                    events=(Event("e", "k", b"{}", 7),),
                )
            )
        assert await contents(ledger) == before

    async def test_publishing_twice_is_fenced(self, ledger: Ledger, clock):
        lease = await claimed(ledger)
        segment = sealed_segment(1, [(A, 0, 0, 3)])
        await published(ledger, lease, 0, 0, segment, heads=(HeadChange(None, make_head()),))
        before = await contents(ledger)
        with pytest.raises(Fenced):
            await ledger.publish(
                publication(
                    lease, 0, 0, segments=(segment,), heads=(HeadChange(None, make_head()),)
                )
            )
        assert await contents(ledger) == before

    async def test_every_field_of_a_head_is_compared(self, ledger: Ledger, clock):
        lease = await claimed(ledger)
        head = make_head()
        await published(ledger, lease, 0, 0, heads=(HeadChange(None, head),))
        for change in (
            {"nodes": (b"x" * 32, b"y" * 32)},
            {"last_ts_ns": 1},
            {"offset": 1},
            {"attested": 1},
            {"lost": 1},
            {"closed": "client"},
            {"opening": b"other"},
        ):
            with pytest.raises(Fenced):
                await ledger.publish(
                    publication(
                        lease, 0, 0, heads=(HeadChange(replace(head, **change).digest(), head),)
                    )
                )

    async def test_known_incidents_and_quarantine_are_not_added_again(self, ledger: Ledger, clock):
        lease = await claimed(ledger)
        incident = Incident(TOPIC, 0, 4, "gap", "why", A, 0, 3, 7)
        bad = Quarantined(TOPIC, 0, 3, "malformed", b"", b"q" * 32, 2, b"xx", "", 7)
        for _ in range(2):
            await published(
                ledger,
                lease,
                0,
                0,
                sessions=(session_change(),),
                incidents=(incident,),
                quarantined=(replace(bad, at_ns=9), bad),
            )
        assert len(await ledger.incidents()) == 1
        assert len(await ledger.quarantined(TOPIC, 0)) == 1
        assert (await ledger.session(A)).incidents == 1
        assert len(await ledger.incidents(session=A)) == 1

    async def test_an_offset_may_come_again_with_another_message(self, ledger: Ledger, clock):
        """After the bus was cut off; what was there before stays as it is."""
        lease = await claimed(ledger)
        incident = Incident(TOPIC, 0, 3, "no_open", "why", A, 0, 3, 7)
        bad = Quarantined(TOPIC, 0, 3, "no_open", A, b"q" * 32, 2, b"xx", "", 7)
        await published(ledger, lease, 0, 4, incidents=(incident,), quarantined=(bad,))
        again = replace(bad, session=B, sha256=b"r" * 32, data=b"yy", at_ns=9)
        stated = replace(incident, session=B, at_ns=9)
        for at in (4, 5):
            await published(ledger, lease, at, 5, incidents=(stated,), quarantined=(again, bad))
        assert sorted(await ledger.quarantined(TOPIC, 0), key=lambda i: i.at_ns) == [bad, again]
        assert [replace(i, id=0) for i in await ledger.incidents()] == [incident, stated]
        assert len(await ledger.incidents(session=B)) == 1

    async def test_incidents_found_before_their_session_count_too(self, ledger: Ledger, clock):
        """A message in the wrong partition may be read before the session's own."""
        other = await claimed(ledger, partition=1)
        early = [Incident(TOPIC, 1, at, "key_mismatch", "why", A, 0, 3, 7) for at in (4, 5)]
        await published(ledger, other, 0, 0, incidents=tuple(early))
        lease = await claimed(ledger)
        own = Incident(TOPIC, 0, 4, "gap", "why", A, 0, 3, 7)
        changes = {"sessions": (session_change(), session_change(epoch=1))}
        await published(ledger, lease, 0, 0, incidents=(own,), **changes)
        row = await ledger.session(A)
        assert (row.incidents, row.revision) == (3, 5)
        await published(ledger, other, 0, 0, incidents=(*early, replace(early[0], offset=6)))
        row = await ledger.session(A)
        assert (row.incidents, row.revision) == (4, 6)

    async def test_a_silent_node_leaves_sessions_incomplete(self, ledger: Ledger, clock):
        """Those that are live; what still comes makes them live again, or closed."""
        lease = await claimed(ledger)
        closed = session_change(B, closed="client")
        await published(ledger, lease, 0, 0, sessions=(session_change(), closed))
        watch = await ledger.claim("watch", 0, "w1", 3000.0)
        for _ in range(2):
            await published(ledger, watch, 0, 0, silent=(A, B, b"c" * 16))
        rows = {row.session: row async for row in ledger.sessions()}
        assert [rows[name].state for name in (A, B)] == ["incomplete", "closed"]
        assert [rows[name].revision for name in (A, B)] == [2, 1]
        assert [row.session async for row in ledger.sessions(state="incomplete")] == [A]
        await published(ledger, lease, 0, 0, sessions=(session_change(),))
        assert (await ledger.session(A)).state == "live"
        await published(ledger, watch, 0, 0, silent=(A,))
        done = session_change(epoch=1, closed="aborted", complete=True)
        await published(ledger, lease, 0, 0, sessions=(done,))
        assert (await ledger.session(A)).state == "sealed"

    async def test_sessions_of_one_state(self, ledger: Ledger, clock):
        lease = await claimed(ledger)
        names = [bytes([n]) * 16 for n in range(1, 8)]
        changes = [
            session_change(name, closed="client" if number % 3 == 0 else "", complete=number == 3)
            for number, name in enumerate(names)
        ]
        await published(ledger, lease, 0, 0, sessions=tuple(changes))
        found = {
            state: [row.session async for row in ledger.sessions(state=state)]
            for state in ("live", "closed", "sealed", "incomplete")
        }
        assert found == {
            "live": [names[n] for n in (1, 2, 4, 5)],
            "closed": [names[0], names[6]],
            "sealed": [names[3]],
            "incomplete": [],
        }
        after = [row.session async for row in ledger.sessions(names[2], state="live")]
        assert after == [names[4], names[5]]

    async def test_totals(self, ledger: Ledger, clock):
        empty = await ledger.totals()
        assert (empty.sessions, empty.segments, empty.bytes) == ({}, 0, 0)
        assert (empty.incidents, empty.last_incident) == ({}, "")
        lease = await claimed(ledger)
        segments = [sealed_segment(1, [(A, 0, 0, 3)])]
        first = Incident(TOPIC, 0, 4, "gap", "why", A, 0, 3, 7)
        others = (replace(first, offset=5), replace(first, offset=6, reason="conflict"))
        await published(
            ledger,
            lease,
            0,
            0,
            *segments,
            heads=(HeadChange(None, make_head()),),
            sessions=(session_change(), session_change(B)),
            incidents=(first, *others),
        )
        totals = await ledger.totals()
        assert totals.sessions == {"live": 2}
        assert (totals.segments, totals.bytes) == (1, segments[0].record.bytes)
        assert totals.incidents == {"gap": 2, "conflict": 1}
        assert totals.last_incident == "conflict"

    # -- sessions

    async def test_a_session_follows_its_last_epoch(self, ledger: Ledger, clock):
        lease = await claimed(ledger)
        revisions = []

        async def add(**changes):
            await published(ledger, lease, 0, 0, sessions=(session_change(**changes),))
            row = await ledger.session(A)
            revisions.append(row.revision)
            return row

        row = await add(first_ts_ns=5, last_ts_ns=9)
        assert (row.state, row.frames, row.bytes, row.first_ts_ns, row.last_ts_ns) == (
            "live",
            3,
            30,
            5,
            9,
        )
        row = await add(epoch=1, first_ts_ns=10, last_ts_ns=12)
        assert (row.state, row.epoch, row.frames, row.first_ts_ns, row.last_ts_ns) == (
            "live",
            1,
            6,
            5,
            12,
        )
        assert (await add(epoch=0, closed="client", complete=True)).state == "live"
        row = await add(epoch=1, closed="aborted", complete=True)
        assert (row.state, row.close_reason) == ("sealed", "aborted")
        assert (await add(epoch=0)).state == "sealed"
        row = await add(epoch=0, lost=2)
        assert (row.state, row.lost) == ("closed", 2)
        assert revisions == sorted(set(revisions))

    async def test_a_closed_session_without_its_signature_is_not_sealed(self, ledger, clock):
        lease = await claimed(ledger)
        change = session_change(closed="client", complete=False)
        await published(ledger, lease, 0, 0, sessions=(change,))
        assert (await ledger.session(A)).state == "closed"

    async def test_sessions_are_listed_in_order(self, ledger: Ledger, clock):
        lease = await claimed(ledger)
        names = [bytes([number]) * 16 for number in (3, 1, 2)]
        await published(ledger, lease, 0, 0, sessions=tuple(map(session_change, names)))
        assert [row.session async for row in ledger.sessions()] == sorted(names)
        after = [row.session async for row in ledger.sessions(after=min(names))]
        assert after == sorted(names)[1:]

    # -- staged objects

    async def test_staging_needs_the_term_and_a_new_key(self, ledger: Ledger, clock):
        lease = await claimed(ledger)
        await ledger.stage(lease, [key_of(1), key_of(2)])
        with pytest.raises(Exists):
            await ledger.stage(lease, [key_of(3), key_of(1)])
        newer = await claimed(ledger)
        with pytest.raises(Fenced):
            await ledger.stage(lease, [key_of(4)])
        await ledger.stage(newer, [key_of(3)])
        assert {item.key for item in await ledger.staged(0.0)} == {key_of(1), key_of(2), key_of(3)}

    async def test_staged_objects_are_found_by_age(self, ledger: Ledger, clock):
        lease = await claimed(ledger)
        await ledger.stage(lease, [key_of(1)])
        clock.forward(100)
        await ledger.stage(lease, [key_of(2)])
        (old,) = await ledger.staged(60.0)
        assert (old.key, old.topic, old.partition, old.term) == (key_of(1), TOPIC, 0, 1)
        assert [item.key for item in await ledger.staged(0.0)] == [key_of(1), key_of(2)]

    async def test_only_what_is_not_published_can_be_abandoned(self, ledger: Ledger, clock):
        lease = await claimed(ledger)
        await published(ledger, lease, 0, 0, sealed_segment(1, [(A, 0, 0, 3)]))
        await ledger.stage(lease, [key_of(2)])
        assert await ledger.abandon(key_of(1)) is False
        assert await ledger.abandon("never/staged") is False
        assert await ledger.abandon(key_of(2)) is True
        assert await ledger.abandon(key_of(2)) is True
        assert await ledger.abandoned(0.0) == [key_of(2)]
        assert await ledger.abandoned(60.0) == []
        clock.forward(61)
        assert await ledger.abandoned(60.0) == [key_of(2)]
        assert await ledger.staged(0.0) == []
        for _ in range(2):
            await ledger.forget(key_of(2))
        await ledger.forget(key_of(1))
        assert await ledger.abandoned(0.0) == []
        assert await ledger.abandon(key_of(2)) is False
        with pytest.raises(Exists):
            await ledger.stage(lease, [key_of(2)])
        assert (await ledger.segment(key_of(1))) is not None

    async def test_closing_twice_is_fine(self, ledger: Ledger, clock):
        await ledger.close()
        await ledger.close()
