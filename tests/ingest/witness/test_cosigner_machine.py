"""Whatever is asked in whatever order, all that a witness cosigned fits together."""

import asyncio
import tempfile
from itertools import pairwise
from pathlib import Path
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sealtape.ingest.witness.cosigner import MAX_BACK_S, Witness
from sealtape.ingest.witness.memory import Memory
from sealtape.schemas.errors import StoreError
from sealtape.schemas.tlog.witnessing import (
    NotAdmitted,
    Refusal,
    encode_request,
    parse_cosignatures,
)
from tests.factories.growing import ORIGIN, GrowingLog, witness_keys

KEYS = witness_keys()
MAX = 24


class Cosigning(RuleBasedStateMachine):
    """A log with several histories, a disk that fails, a clock that jumps, restarts."""

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.histories = [GrowingLog().grow(MAX)]
        self.released = []  # (time, leaves)
        self.now = 1_795_392_000
        self.fails = ""
        self.admits = True
        self.open()

    def open(self):
        memory = Memory(Path(self.folder.name))
        logs = [self.histories[0].verifier]
        self.witness = Witness(memory, KEYS, logs, admit=self.admit, clock_s=lambda: self.now)

    async def admit(self, checkpoint):
        if not self.admits:
            raise NotAdmitted("no")

    def keep(self, memory, origin, note):
        """The disk: it may fail before it has kept something, or after."""
        if self.fails == "before":
            raise StoreError("the disk is full")
        self.really(memory, origin, note)
        if self.fails == "after":
            raise StoreError("the disk went away")

    @rule(data=st.data(), size=st.integers(0, MAX - 1))
    def fork(self, data, size):
        if len(self.histories) < 4:
            origin = data.draw(st.sampled_from(self.histories))
            forked = origin.fork(size)
            forked.leaves[size:] = [
                bytes([len(self.histories)]) + leaf[1:] for leaf in forked.leaves[size:]
            ]
            self.histories.append(forked)

    @rule(
        data=st.data(),
        honest=st.booleans(),
        fails=st.sampled_from(["", "", "", "before", "after"]),
        admits=st.sampled_from([True, True, False]),
    )
    def ask(self, data, honest, fails, admits):
        log = data.draw(st.sampled_from(self.histories))
        seen = self.witness.seen(ORIGIN)
        known = seen.size if seen else 0
        old = known if honest else data.draw(st.integers(0, MAX))
        size = data.draw(st.integers(min(old, MAX), MAX) if honest else st.integers(0, MAX))
        proof = log.proof(min(old, size), size)
        self.fails, self.admits = fails, admits
        self.send([encode_request(old, proof, log.note(size))], [(log, size)])

    @rule(data=st.data())
    def race(self, data):
        """Several at once from what was seen, of any history and size."""
        known = self.witness.seen(ORIGIN)
        old = known.size if known else 0
        asked = data.draw(
            st.lists(
                st.tuples(st.sampled_from(self.histories), st.integers(old, MAX)),
                min_size=2,
                max_size=4,
            )
        )
        self.fails, self.admits = "", True
        self.send([log.request(old, size) for log, size in asked], asked)

    def send(self, bodies, asked):
        async def all_of_them():
            return await asyncio.gather(*map(self.witness.cosign, bodies), return_exceptions=True)

        self.really = Memory.keep

        def keep(memory, origin, note):
            self.keep(memory, origin, note)

        with mock.patch.object(Memory, "keep", keep):
            answers = self.runner.run(all_of_them())
        verifiers = [key.verifier for key in KEYS]
        for answer, (log, size) in zip(answers, asked, strict=True):
            if isinstance(answer, bytes):
                found = parse_cosignatures(answer, log.checkpoint(size).text(), verifiers)
                assert len(found) == len(KEYS)
                self.released.append((found[0].at, tuple(log.leaves[:size])))
            else:
                assert isinstance(answer, (Refusal, StoreError)), answer

    @rule()
    def restart(self):
        self.runner.run(self.witness.close())
        self.open()

    @rule(seconds=st.integers(-MAX_BACK_S - 5, MAX_BACK_S))
    def tick(self, seconds):
        self.now += seconds

    @precondition(lambda self: hasattr(self, "released"))
    @invariant()
    def all_fit_together(self):
        for (before, smaller), (after, larger) in pairwise(self.released):
            assert before <= after
            assert larger[: len(smaller)] == smaller

    @precondition(lambda self: hasattr(self, "released"))
    @invariant()
    def what_was_released_is_remembered(self):
        if self.released:
            assert self.witness.seen(ORIGIN).size >= len(self.released[-1][1])

    def teardown(self):
        self.runner.run(self.witness.close())
        self.runner.close()
        self.folder.cleanup()


TestCosigning = Cosigning.TestCase
TestCosigning.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
