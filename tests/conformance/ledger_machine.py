"""Any ledger against a model: leases, staged objects, publications, in any order and by anybody.

Use: `check(opened)`, where `opened` is a coroutine function that opens an empty ledger.
"""

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from sealtape.schemas.errors import Exists, Fenced
from sealtape.schemas.segments import FIRST_PREV, record_hash
from tests.conformance.ledger import SHARD, TOPIC, A, key_of, publication, sealed_segment

OWNERS = st.sampled_from(["w1", "w2"])


class LedgerMachine(RuleBasedStateMachine):
    """What the model knows: the term, the position, the chain, and what was staged."""

    def __init__(self, opened):
        super().__init__()
        self.runner = asyncio.Runner()
        self.ledger = self.run(opened())
        self.leases = {}
        self.holder, self.term, self.position = None, 0, 0
        self.chain = []
        self.staged, self.abandoned, self.published = set(), set(), set()
        self.next_key = 0

    def run(self, work):
        return self.runner.run(work)

    def fenced(self, work, expected):
        try:
            self.run(work)
        except Fenced:
            assert expected, "refused, and the model would have taken it"
            return True
        assert not expected, "taken, and the model would have refused it"
        return False

    @rule(owner=OWNERS)
    def claim(self, owner):
        lease = self.run(self.ledger.claim(TOPIC, 0, owner, 3000.0))
        if self.holder not in (None, owner):
            assert lease is None
            return
        self.term += 1
        assert (lease.term, lease.next_offset) == (self.term, self.position)
        self.leases[owner], self.holder = lease, owner

    @rule(owner=OWNERS)
    def release(self, owner):
        lease = self.leases.pop(owner, None)  # who lets go writes no more under it
        if lease is None:
            return
        self.run(self.ledger.release(lease))
        if lease.term == self.term:
            self.holder = None

    @rule(owner=OWNERS)
    def renew(self, owner):
        if (lease := self.leases.get(owner)) is not None:
            self.fenced(self.ledger.renew(lease, 3000.0), lease.term != self.term)

    @rule(owner=OWNERS, again=st.booleans())
    def stage(self, owner, again):
        lease = self.leases.get(owner)
        if lease is None:
            return
        known = sorted(self.staged | self.abandoned | self.published)
        number = known[0] if again and known else self.next_key
        try:
            if self.fenced(
                self.ledger.stage(lease, [key_of(number)]),
                lease.term != self.term,
            ):
                return
        except Exists:
            assert number in known
            return
        assert number not in known
        self.staged.add(number)
        self.next_key += 1

    @rule(which=st.integers(0, 3))
    def abandon(self, which):
        known = sorted(self.staged | self.abandoned | self.published)
        if which >= len(known):
            return
        number = known[which]
        assert self.run(self.ledger.abandon(key_of(number))) == (number not in self.published)
        if number in self.staged:
            self.staged.remove(number)
            self.abandoned.add(number)

    @rule(owner=OWNERS, which=st.integers(0, 3), behind=st.booleans(), broken=st.booleans())
    def publish(self, owner, which, behind, broken):
        lease = self.leases.get(owner)
        known = sorted(self.staged | self.abandoned)
        if lease is None or which >= len(known):
            return
        number, n = known[which], len(self.chain)
        prev = record_hash(self.chain[-1]) if self.chain else FIRST_PREV
        if broken and n:
            n -= 1
            prev = record_hash(self.chain[-2]) if n else FIRST_PREV
        first = self.position - 1 if behind and self.position else self.position
        segment = sealed_segment(number, [(A, 0, n, n + 1)], prev=prev, n=n)
        wrong = (lease.term, first, n) != (self.term, self.position, len(self.chain))
        wrong = wrong or number in self.abandoned
        given = publication(lease, first, self.position + 2, segments=(segment,))
        if not self.fenced(self.ledger.publish(given), wrong):
            self.staged.remove(number)
            self.published.add(number)
            self.chain.append(segment.record)
            self.position += 2

    @invariant()
    def the_ledger_is_the_model(self):
        assert self.run(self.ledger.position(TOPIC, 0)) == self.position
        assert self.run(self._segments()) == self.chain
        shard = self.run(self.ledger.shard_head(SHARD))
        assert shard.n == len(self.chain)
        assert shard.hash == (record_hash(self.chain[-1]) if self.chain else FIRST_PREV)
        staged = {item.key for item in self.run(self.ledger.staged(0))}
        assert staged == {key_of(number) for number in self.staged}

    async def _segments(self):
        return [row.record async for row in self.ledger.segments()]

    def teardown(self):
        self.run(self.ledger.close())
        self.runner.close()


def check(opened, examples=20):
    """Drive ledgers that `opened` opens, each of them empty."""
    run_state_machine_as_test(
        lambda: LedgerMachine(opened),
        settings=settings(max_examples=examples, stateful_step_count=20, deadline=None),
    )
