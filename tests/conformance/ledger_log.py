"""What every ledger adapter must do with the log: its entries, its state, the inbox, the unsealed.

Mixed into `LedgerConformance`; the fixtures are the same.
"""

import asyncio
from dataclasses import replace

import pytest

from sealtape.ingest.ledger import Ledger
from sealtape.ingest.ledger.rows import (
    Head,
    HeadChange,
    LogEntry,
    LogState,
    Publish,
    SessionChange,
    Submitted,
    Unsealed,
)
from sealtape.schemas.errors import Fenced, StoreError

SESSIONS = [bytes([number]) * 16 for number in range(1, 9)]
OPEN = Head(SESSIONS[0], 0, 0, 3, (bytes(32),), 1003, 30, 3, 0, "", b"opening")
CLOSED = replace(OPEN, hi=5, attested=5, closed="client")
CHANGE = SessionChange(SESSIONS[0], "main", "standard", 0, 3, 30, 5, 9, 0, "", False)
NOTHING = LogState(0, 0, b"", b"", b"")


def entries(first, *names):
    return [LogEntry(n, name, b'{"n":%d}' % n) for n, name in enumerate(names, first)]


def seal(session, epoch=0):
    return f"seal/{session.hex()}/{epoch}"


async def writer(ledger, owner="w1"):
    lease = await ledger.claim("log", 0, owner, 3000.0)
    assert lease is not None
    return lease


async def publish(ledger, lease, *heads, before=None, **parts):
    """Publish heads, and a change of each one's session."""
    changes = tuple(
        replace(
            CHANGE,
            session=head.session,
            epoch=head.epoch,
            closed=head.closed,
            complete=head.complete,
        )
        for head in heads
    )
    swaps = tuple(HeadChange(before.digest() if before else None, head) for head in heads)
    await ledger.publish(
        Publish(lease, 0, 0, "frames/0", 7, heads=swaps, sessions=changes, **parts)
    )


async def frames_lease(ledger):
    return await ledger.claim("frames", 0, "w1", 3000.0)


def named(found):
    return [(item.head.session, item.head.epoch) for item in found]


class LedgerLogConformance:
    # -- entries

    async def test_a_log_begins_and_grows(self, ledger: Ledger, clock):
        assert await ledger.log_state() == NOTHING
        assert await ledger.log_entries(1) == []
        lease = await writer(ledger)
        first, more = entries(0, "log/1", "open/a/0", ""), entries(3, "", "statement/b")
        await ledger.log_append(lease, 1, 0, first, b"c1")
        assert await ledger.log_state() == LogState(1, 3, b"c1", b"", b"")
        await ledger.log_append(lease, 1, 3, more, b"c2")
        assert await ledger.log_state() == LogState(1, 5, b"c2", b"", b"")
        assert await ledger.log_entries(1) == first + more
        assert await ledger.log_entries(1, 2, 2) == [first[2], more[0]]
        assert await ledger.log_entries(1, 5) == await ledger.log_entries(2) == []

    async def test_without_entries_only_the_cursor_is_set(self, ledger: Ledger, clock):
        lease = await writer(ledger)
        await ledger.log_append(lease, 1, 0, entries(0, "log/1"), b"c1")
        await ledger.log_append(lease, 1, 1, [], b"c2")
        assert await ledger.log_state() == LogState(1, 1, b"c2", b"", b"")

    async def test_entries_go_on_from_where_the_log_is(self, ledger: Ledger, clock):
        lease = await writer(ledger)
        for number, first in ((0, 0), (1, 1), (2, 0)):
            with pytest.raises(Fenced):
                await ledger.log_append(lease, number, first, entries(first, "x"), b"c")
        await ledger.log_append(lease, 1, 0, entries(0, "log/1", "x"), b"c")
        before = await ledger.log_state()
        for number, first in ((1, 0), (1, 1), (1, 3), (2, 2), (2, 1), (3, 0), (0, 2), (0, 0)):
            with pytest.raises(Fenced):
                await ledger.log_append(lease, number, first, entries(first, "y"), b"d")
        for wrong in (entries(3, "y"), [*entries(2, "y"), *entries(4, "z")], entries(2, "y") * 2):
            with pytest.raises(Fenced):
                await ledger.log_append(lease, 1, 2, wrong, b"d")
        assert await ledger.log_state() == before
        assert len(await ledger.log_entries(1)) == 2

    async def test_a_name_is_taken_once(self, ledger: Ledger, clock):
        lease = await writer(ledger)
        await ledger.log_append(lease, 1, 0, entries(0, "log/1", "a", ""), b"c")
        before = (await ledger.log_state(), await ledger.log_entries(1))
        for wrong in (entries(3, "b", "a"), entries(3, "b", "b"), entries(3, "a")):
            with pytest.raises(Fenced):
                await ledger.log_append(lease, 1, 3, wrong, b"d")
        with pytest.raises(Fenced):
            await ledger.log_append(lease, 2, 0, entries(0, "log/2", "a"), b"d")
        assert (await ledger.log_state(), await ledger.log_entries(1)) == before
        await ledger.log_append(lease, 1, 3, entries(3, "b", "", ""), b"d")

    async def test_only_the_current_term_appends(self, ledger: Ledger, clock):
        lease = await writer(ledger)
        newer = await writer(ledger)
        for call in (
            ledger.log_append(lease, 1, 0, entries(0, "log/1"), b"c"),
            ledger.log_append(lease, 1, 0, [], b"c"),
            ledger.log_append(replace(newer, topic="frames"), 1, 0, [], b"c"),
        ):
            with pytest.raises(Fenced):
                await call
        assert await ledger.log_state() == NOTHING
        await ledger.log_append(newer, 1, 0, entries(0, "log/1"), b"c")
        await ledger.log_noted(newer, 1, b"note", b"")
        with pytest.raises(Fenced):
            await ledger.log_noted(lease, 1, b"other", b"other")
        assert (await ledger.log_state()).note == b"note"

    async def test_of_two_at_once_one_appends(self, ledger: Ledger, clock):
        lease = await writer(ledger)
        calls = [ledger.log_append(lease, 1, 0, entries(0, f"n{n}"), b"c") for n in range(6)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(result is None for result in results) == 1
        assert sum(isinstance(result, Fenced) for result in results) == 5
        assert len(await ledger.log_entries(1)) == (await ledger.log_state()).size == 1

    async def test_notes(self, ledger: Ledger, clock):
        lease = await writer(ledger)
        with pytest.raises(Fenced):
            await ledger.log_noted(lease, 1, b"n", b"")
        await ledger.log_append(lease, 1, 0, entries(0, "log/1"), b"c")
        await ledger.log_noted(lease, 1, b"n1", b"")
        assert await ledger.log_state() == LogState(1, 1, b"c", b"n1", b"")
        await ledger.log_noted(lease, 1, b"", b"w1")
        assert await ledger.log_state() == LogState(1, 1, b"c", b"n1", b"w1")
        await ledger.log_noted(lease, 1, b"n2", b"")
        await ledger.log_append(lease, 1, 1, entries(1, ""), b"d")
        assert await ledger.log_state() == LogState(1, 2, b"d", b"n2", b"w1")
        for number in (0, 2):
            with pytest.raises(Fenced):
                await ledger.log_noted(lease, number, b"n3", b"w3")

    async def test_a_new_shard_begins_and_the_old_one_stays(self, ledger: Ledger, clock):
        lease = await writer(ledger)
        old = entries(0, "log/1", "a")
        await ledger.log_append(lease, 1, 0, old, b"c")
        await ledger.log_noted(lease, 1, b"n", b"w")
        await ledger.log_append(lease, 2, 0, entries(0, "log/2"), b"d")
        assert await ledger.log_state() == LogState(2, 1, b"d", b"", b"")
        assert await ledger.log_entries(1) == old
        assert await ledger.log_entries(2) == entries(0, "log/2")
        with pytest.raises(Fenced):
            await ledger.log_append(lease, 1, 2, entries(2, "b"), b"e")
        found = await ledger.log_find(["log/2", "a", "none", "", "log/1"])
        assert found == {"log/1": (1, 0), "a": (1, 1), "log/2": (2, 0)}

    async def test_finding_nothing(self, ledger: Ledger, clock):
        lease = await writer(ledger)
        await ledger.log_append(lease, 1, 0, entries(0, "", ""), b"c")
        assert await ledger.log_find([]) == await ledger.log_find([""]) == {}

    async def test_statements_are_found_without_the_rest(self, ledger: Ledger, clock):
        lease = await writer(ledger)
        names = ["log/1", "statement/b", "", "statement/a", "statement", "statement0", "statemeny/"]
        first = entries(0, *names)
        await ledger.log_append(lease, 1, 0, first, b"c")
        await ledger.log_append(lease, 2, 0, entries(0, "log/2", "statement/c"), b"d")
        assert await ledger.log_statements(1) == [first[1], first[3]]
        assert await ledger.log_statements(1, 2) == [first[3]]
        assert await ledger.log_statements(1, 0, 1) == [first[1]]
        assert await ledger.log_statements(1, 4) == await ledger.log_statements(3) == []
        assert [item.index for item in await ledger.log_statements(2)] == [1]

    async def test_seals_are_counted_and_only_the_first_is_handed_out(self, ledger: Ledger):
        lease = await writer(ledger)
        names = [
            "log/1",
            "seal/b",
            "",
            "seal/a",
            "seal",
            "seal0",
            "seam/",
            "statement/seal/",
            "seal/c",
        ]
        first = entries(0, *names)
        await ledger.log_append(lease, 1, 0, first, b"c")
        await ledger.log_append(lease, 2, 0, entries(0, "log/2", "seal/d"), b"d")
        assert await ledger.log_seals(1, 0, 100) == (3, first[1])
        assert await ledger.log_seals(1, 2, 9) == (2, first[3])
        assert await ledger.log_seals(1, 1, 8) == (2, first[1])
        assert await ledger.log_seals(1, 4, 8) == await ledger.log_seals(3, 0, 9) == (0, None)
        assert await ledger.log_seals(1, 8, 8) == await ledger.log_seals(1, 9, 0) == (0, None)
        assert (await ledger.log_seals(2, 0, 2))[0] == 1

    # -- what has no seal

    async def test_epochs_that_may_be_final_are_unsealed(self, ledger: Ledger, clock):
        frames = await frames_lease(ledger)
        live, closed, followed, silent, *_ = SESSIONS
        heads = [
            replace(OPEN, session=live),
            replace(CLOSED, session=closed),
            replace(OPEN, session=followed),
            replace(OPEN, session=followed, epoch=1),
            replace(OPEN, session=silent),
        ]
        await publish(ledger, frames, *heads)
        found = await ledger.unsealed()
        assert named(found) == [(closed, 0), (followed, 0)]
        assert [item.head for item in found] == [heads[1], heads[2]]
        assert [(item.state, item.followed) for item in found] == [
            ("sealed", False),
            ("live", True),
        ]
        await publish(ledger, frames, silent=(silent,))
        found = await ledger.unsealed()
        assert named(found) == [(closed, 0), (followed, 0), (silent, 0)]
        assert (found[2].state, found[2].followed) == ("incomplete", False)

    async def test_a_seal_in_the_log_takes_an_epoch_off(self, ledger: Ledger, clock):
        frames, lease = await frames_lease(ledger), await writer(ledger)
        heads = [replace(CLOSED, session=name) for name in SESSIONS[:3]]
        again = replace(CLOSED, session=SESSIONS[0], epoch=1)
        await publish(ledger, frames, *heads, again)
        seals = [seal(SESSIONS[0]), seal(SESSIONS[2]), f"open/{SESSIONS[1].hex()}/0"]
        await ledger.log_append(lease, 1, 0, entries(0, *seals), b"c")
        assert named(await ledger.unsealed()) == [(SESSIONS[0], 1), (SESSIONS[1], 0)]
        # What comes for it later does not bring it back.
        later = replace(heads[2], hi=9, lost=1)
        await publish(ledger, frames, later, before=heads[2])
        assert named(await ledger.unsealed()) == [(SESSIONS[0], 1), (SESSIONS[1], 0)]
        assert await ledger.epochs(SESSIONS[2]) == [later]
        await ledger.log_append(lease, 1, 3, entries(3, seal(SESSIONS[0], 1)), b"c")
        await ledger.log_append(lease, 1, 4, entries(4, seal(SESSIONS[1])), b"c")
        assert await ledger.unsealed() == []

    async def test_a_seal_that_was_there_before_its_head_counts(self, ledger: Ledger, clock):
        frames, lease = await frames_lease(ledger), await writer(ledger)
        await ledger.log_append(lease, 1, 0, entries(0, seal(SESSIONS[0])), b"c")
        heads = [replace(CLOSED, session=name) for name in SESSIONS[:2]]
        await publish(ledger, frames, *heads)
        assert named(await ledger.unsealed()) == [(SESSIONS[1], 0)]

    async def test_a_refused_append_seals_nothing(self, ledger: Ledger, clock):
        frames, lease = await frames_lease(ledger), await writer(ledger)
        await publish(ledger, frames, CLOSED)
        await ledger.log_append(lease, 1, 0, entries(0, "a"), b"c")
        with pytest.raises(Fenced):
            await ledger.log_append(lease, 1, 1, entries(1, seal(SESSIONS[0]), "a"), b"c")
        assert named(await ledger.unsealed()) == [(SESSIONS[0], 0)]

    async def test_the_unsealed_come_in_pages(self, ledger: Ledger, clock):
        frames = await frames_lease(ledger)
        heads = [
            replace(CLOSED, session=name, epoch=epoch) for name in SESSIONS for epoch in (0, 1)
        ]
        await publish(ledger, frames, *reversed(heads))
        names, after, pages = [], None, 0
        while found := await ledger.unsealed(after, 5):
            assert len(found) <= 5
            after = (found[-1].head.session, found[-1].head.epoch)
            names += named(found)
            pages += 1
        assert (names, pages) == ([(head.session, head.epoch) for head in heads], 4)

    async def test_an_epoch_changes_when_it_is_published(self, ledger: Ledger, clock):
        """And when its session falls silent; by the store's time."""

        async def age():
            (item,) = await ledger.unsealed()
            return item.changed_ns

        frames = await frames_lease(ledger)
        await publish(ledger, frames, replace(CLOSED, closed=""))
        clock.forward(100)
        await publish(ledger, frames, silent=(SESSIONS[0],))
        silent_ns = await age()
        clock.forward(100)
        await publish(ledger, frames, silent=(SESSIONS[0],))  # it is already
        assert silent_ns - 101_000_000_000 < await age() <= silent_ns
        now = await ledger.unsealed()
        await publish(ledger, frames, CLOSED, before=now[0].head)
        (item,) = await ledger.unsealed()
        assert item == Unsealed(CLOSED, "sealed", False, item.changed_ns)
        assert item.changed_ns - now[0].changed_ns > 99_000_000_000

    # -- inbox

    async def test_the_inbox_keeps_the_order(self, ledger: Ledger, clock):
        assert await ledger.inbox() == []
        ids = [await ledger.submit("statement", b"%d" % n) for n in range(5)]
        assert ids == sorted(set(ids))
        found = await ledger.inbox()
        assert [(item.id, item.kind, item.payload) for item in found] == [
            (ident, "statement", b"%d" % n) for n, ident in enumerate(ids)
        ]
        assert all(isinstance(item, Submitted) and item.at_ns > 0 for item in found)
        assert await ledger.inbox(limit=2) == found[:2]
        assert await ledger.inbox(ids[1], 2) == found[2:4]

    async def test_what_is_taken_leaves_the_inbox(self, ledger: Ledger, clock):
        ids = [await ledger.submit(kind, b"x") for kind in ("statement", "incident", "incident")]
        await ledger.taken([ids[0], ids[2]])
        await ledger.taken([ids[0], 12345])
        await ledger.taken([])
        assert [item.id for item in await ledger.inbox()] == [ids[1]]
        await ledger.taken([ids[1]])
        assert await ledger.submit("incident", b"y") > ids[2]

    async def test_many_submit_at_once(self, ledger: Ledger, clock):
        ids = await asyncio.gather(*(ledger.submit("incident", b"%d" % n) for n in range(20)))
        found = await ledger.inbox()
        assert {item.id: item.payload for item in found} == {
            ident: b"%d" % n for n, ident in enumerate(ids)
        }

    async def test_what_no_entry_can_hold_is_refused(self, ledger: Ledger, clock):
        await ledger.submit("statement", bytes(65_535))
        with pytest.raises(StoreError, match="65536"):
            await ledger.submit("statement", bytes(65_536))
        assert len(await ledger.inbox()) == 1
