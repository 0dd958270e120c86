"""The sealer, driven in any order: repeats, pauses, cuts, crashes. Every frame comes out once."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sealtape.schemas import messages
from sealtape.schemas.frames import Frame
from sealtape.schemas.tree import CompactRange
from tests.factories.sessions import build_session
from tests.ingest.test_sealer import Bench

SESSIONS = [build_session(seed=seed, commands=seed, checkpoint_every=3) for seed in (1, 2, 4)]
LEAVES = {(built.session, frame.seq): frame.leaf() for built in SESSIONS for frame in built.frames}
WHICH = st.integers(0, len(SESSIONS) - 1)


class SealerMachine(RuleBasedStateMachine):
    """A bus, a sealer on it, and the heads that a ledger keeps of what it published."""

    @initialize()
    def begin(self):
        self.bus = []
        self.sent = [0] * len(SESSIONS)
        self.sealed = {}
        self.bench = Bench()

    def put(self, *values):
        self.bus += values
        self.read(values)

    def read(self, values):
        self.bench.send(*values)
        sealer = self.bench.sealer
        for doubt in list(sealer.doubts):
            leaf = LEAVES[doubt.row.session, doubt.row.seq]
            sealer.resolve(doubt, leaf, self.bench.now)

    @rule(which=WHICH, count=st.integers(1, 5))
    def more(self, which, count):
        built, at = SESSIONS[which], self.sent[which]
        self.sent[which] = min(len(built.messages), at + count)
        self.put(*map(messages.encode, built.messages[at : self.sent[which]]))

    @rule(which=WHICH, at=st.integers(0, 20))
    def repeated(self, which, at):
        if at < self.sent[which]:
            self.put(messages.encode(SESSIONS[which].messages[at]))

    @rule(seconds=st.sampled_from([0.5, 3, 25]))
    def later(self, seconds):
        self.bench.later(seconds)

    @rule()
    def cut(self):
        self.taken(self.bench.cut())

    @rule()
    def crash(self):
        """All in hand is gone; another one begins at the last position, and reads again."""
        now, position = self.bench.now, self.bench.sealer.first
        self.bench = Bench(heads=self.bench.heads, position=position)
        self.bench.now = now
        self.read(self.bus[position:])

    def taken(self, cut):
        for group in [] if cut is None else cut.groups:
            for stretch in group.stretches:
                self.stretch(stretch)

    def stretch(self, stretch):
        session, run = stretch.opening.session, stretch.run
        assert run.lo == self.sealed.get(session, 0), "a frame twice, or a hole"
        self.sealed[session] = run.hi

    @invariant()
    def heads_are_the_roots_of_what_was_sealed(self):
        for (session, epoch), head in self.bench.heads.items():
            tree = CompactRange()
            for seq in range(head.hi):
                tree.append(LEAVES[session, seq])
            assert (head.nodes, epoch, head.lost) == (tree.nodes, 0, 0)
            assert head.hi == self.sealed[session]

    @invariant()
    def nothing_is_found_wrong(self):
        findings = self.bench.sealer.findings
        assert not findings.quarantined
        assert not findings.incidents

    def teardown(self):
        """In the end all that was begun and ended is sealed whole."""
        if not hasattr(self, "bus"):
            return
        for which, built in enumerate(SESSIONS):
            self.put(*map(messages.encode, built.messages[self.sent[which] :]))
        self.taken(self.bench.later(2).cut())
        for built in SESSIONS:
            head = self.bench.heads[built.session, 0]
            assert head.complete
            assert head.hi == len(built.frames) == self.sealed[built.session]
            assert head.closed == "client"


TestSealer = SealerMachine.TestCase
TestSealer.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def test_the_machine_would_see_a_frame_that_is_sealed_twice():
    machine = SealerMachine()
    machine.begin()
    machine.more(0, 20)
    machine.later(25)
    cut = machine.bench.cut()
    machine.taken(cut)
    with pytest.raises(AssertionError, match="a frame twice"):
        machine.taken(cut)
    assert all(isinstance(frame, Frame) for frame in SESSIONS[0].frames)
