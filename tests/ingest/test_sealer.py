"""The sealer: what is sealed, held, quarantined and dropped. No stores, no clock."""

import random
from dataclasses import replace
from hashlib import sha256

import pytest

from sealtape.ingest.sealer import SECOND_NS, Limits, Sealer, decode_all
from sealtape.schemas import messages
from sealtape.schemas.frames import Frame, Kind, Suite
from sealtape.schemas.messages import CheckpointMessage, KeyMessage
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.tree import CompactRange
from tests.factories.sessions import LOG, build_session, node_signer

LIMITS = Limits(segment_bytes=1 << 20, segment_ns=20 * SECOND_NS, hold_ns=60 * SECOND_NS)
ELSEWHERE = b"elsewhere" + bytes(7)
T0 = 1_800_000_000 * SECOND_NS


class Bench:
    """A sealer, a ledger of heads, and a bus offset."""

    def __init__(self, *, verifiers=None, limits=LIMITS, heads=None, position=0, known=()):
        self.sealer = Sealer(
            topic="frames",
            partition=0,
            position=position,
            verifiers=verifiers,
            limits=limits,
            quarantined=known,
        )
        self.heads = {} if heads is None else heads
        self.offset = position
        self.now = T0
        self.keys = []
        self.cuts = []

    def send(self, *sent, key=None):
        records = []
        for message in sent:
            value = message if isinstance(message, bytes) else messages.encode(message)
            name = key or (messages.peek_session(value) if value[:2] == b"\xc3\x01" else b"")
            records.append((self.offset, name, value))
            self.offset += 1
        taken = decode_all(records, lambda session: session != ELSEWHERE)
        names = self.sealer.unknown(taken)
        self.sealer.load(names, {n: self.heads[n] for n in names if n in self.heads})
        self.keys += self.sealer.take(taken, self.offset, self.now)
        return self

    def later(self, seconds):
        self.now += int(seconds * SECOND_NS)
        return self

    def cut(self, **options):
        cut = self.sealer.cut(self.now, **options)
        if cut is not None:
            for change in cut.changes:
                self.heads[change.head.session, change.head.epoch] = change.head
            self.sealer.commit(cut)
            self.cuts.append(cut)
        return cut

    def again(self, **options):
        """A new sealer that starts where the last publication left off, as after a crash."""
        position = self.cuts[-1].next_offset if self.cuts else 0
        return Bench(heads=self.heads, position=position, **options)

    @property
    def stretches(self):
        return [s for cut in self.cuts for group in cut.groups for s in group.stretches]

    def sealed(self, session, epoch=0):
        return [
            (s.run.lo, s.run.hi)
            for s in self.stretches
            if (s.opening.session, s.opening.epoch) == (session, epoch)
        ]

    @property
    def reasons(self):
        return [item.reason for cut in self.cuts for item in cut.incidents]

    @property
    def quarantined(self):
        return [(item.reason, item.offset) for cut in self.cuts for item in cut.quarantined]


def frames_of(built, lo=0, hi=None):
    return [m for m in built.messages if isinstance(m, Frame)][lo:hi]


def forged(frame, **changes):
    return replace(frame, **{"payload": b"forged" + frame.payload[6:], **changes})


# -- the straight way


def test_a_whole_session_is_sealed_at_its_end():
    built = build_session(commands=4)
    bench = Bench(verifiers=[node_signer().verifier]).send(*built.messages)
    assert not bench.sealer.due(bench.now)
    assert bench.later(1).sealer.due(bench.now)
    cut = bench.cut()
    (group,) = cut.groups
    (stretch,) = group.stretches
    assert (group.tenant, group.retention.name) == ("main", "standard")
    assert (stretch.run.lo, stretch.run.nodes) == (0, built.tree.nodes)
    assert [row.frame() for row in stretch.rows] == list(built.frames)
    assert stretch.checkpoint == (len(built.frames), built.messages[-1].note.decode())
    assert cut.next_offset == bench.offset
    (change,) = cut.changes
    assert change.before is None
    assert change.head.complete
    assert (change.head.closed, change.head.attested) == ("client", len(built.frames))
    assert change.change.complete
    assert change.change.frames == len(built.frames)
    kinds = [event.kind for event in cut.events]
    assert kinds == ["session-open", "session-sealed", "policy-applied"]
    assert bench.reasons == []
    assert bench.cut() is None
    assert not bench.later(100).sealer.due(bench.now)


def test_keys_are_handed_out_and_move_the_position():
    built = build_session(commands=0)
    wraps = [m for m in built.messages if isinstance(m, KeyMessage)]
    bench = Bench().send(*wraps)
    assert [item.message for item in bench.keys] == wraps
    assert not bench.sealer.due(bench.now - 1)
    assert bench.later(20).sealer.due(bench.now)
    assert bench.cut().next_offset == 3


def test_what_is_not_signed_waits_and_holds_the_position():
    built = build_session(commands=6, checkpoint_every=5, close=None, final_checkpoint=False)
    bench = Bench().send(*built.messages)
    signed = [m.size for m in built.messages if isinstance(m, CheckpointMessage)][-1]
    assert signed < len(built.frames)
    cut = bench.later(20).cut()
    assert bench.sealed(built.session) == [(0, signed)]
    waiting = len(built.frames) - signed
    assert cut.next_offset == bench.offset - waiting
    assert not cut.changes[0].head.complete
    assert bench.cut() is None
    bench.send(built.checkpoint(len(built.frames)))
    bench.later(20).cut()
    assert bench.sealed(built.session) == [(0, signed), (signed, len(built.frames))]
    assert bench.cuts[-1].next_offset == bench.offset


def test_what_waited_too_long_is_sealed_without_a_signature():
    built = build_session(commands=3, close=None, final_checkpoint=False)
    bench = Bench().send(*built.messages)
    bench.later(59).cut()
    assert bench.sealed(built.session) == [(0, 2)]
    assert not bench.sealer.due(bench.now)
    assert bench.later(60).sealer.due(bench.now)
    bench.cut()
    assert bench.sealed(built.session) == [(0, 2), (2, len(built.frames))]
    assert bench.stretches[-1].checkpoint is None
    assert bench.heads[built.session, 0].attested == 2


def test_everything_can_be_asked_for():
    built = build_session(commands=3, close=None, final_checkpoint=False)
    bench = Bench().send(*built.messages)
    bench.cut(everything=True)
    assert bench.sealed(built.session) == [(0, len(built.frames))]


def test_a_segment_is_cut_by_its_size():
    built = build_session(commands=30, row_bytes=50_000, close=None, checkpoint_every=4)
    bench = Bench().send(*built.messages)
    assert bench.sealer.due(bench.now)
    bench.cut()
    assert not bench.sealer.due(bench.now)


def test_twice_the_size_is_cut_without_waiting_for_signatures():
    built = build_session(commands=50, row_bytes=50_000, close=None, final_checkpoint=False)
    bench = Bench().send(*built.messages)
    bench.cut()
    assert bench.sealed(built.session) == [(0, len(built.frames))]


def test_tenants_and_classes_do_not_share_a_segment():
    one = build_session(seed=1)
    other = build_session(seed=2, tenant="other")
    longer = build_session(seed=3, retention=replace(one.opening.retention, delete_after_s=2**31))
    same = build_session(seed=4)
    bench = Bench()
    for messages_of in zip(
        one.messages, other.messages, longer.messages, same.messages, strict=True
    ):
        bench.send(*messages_of)
    cut = bench.later(1).cut()
    assert [(g.tenant, len(g.stretches)) for g in cut.groups] == [
        ("main", 2),
        ("main", 1),
        ("other", 1),
    ]
    for group in cut.groups:
        names = [(s.opening.session, s.opening.epoch, s.run.lo) for s in group.stretches]
        assert names == sorted(names)


def test_unknown_kinds_suites_and_flags_are_sealed_like_any():
    built = build_session(commands=0, close=None, final_checkpoint=False)
    strange = [
        Frame(built.session, 0, 2, 2 * built.frames[1].ts_ns, 77, 9, 0x8001, b"from the future"),
        Frame(built.session, 0, 3, 2 * built.frames[1].ts_ns, 200, Suite.PUBLIC, 0, b""),
    ]
    bench = Bench().send(*built.messages, *strange)
    bench.cut(everything=True)
    assert bench.sealed(built.session) == [(0, 4)]
    assert [row.frame() for row in bench.stretches[0].rows[2:]] == strange
    assert bench.reasons == []


# -- copies and conflicts


def test_exact_copies_are_dropped():
    built = build_session(commands=5, checkpoint_every=3)
    bench = Bench()
    for index in range(0, len(built.messages), 3):
        bench.send(*built.messages[: index + 3][-8:])
    bench.later(1).cut()
    assert bench.sealed(built.session) == [(0, len(built.frames))]
    assert bench.reasons == []
    assert bench.sealer.duplicates > 10


def test_a_copy_of_a_sealed_frame_is_compared_with_the_sealed_leaf():
    built = build_session(commands=2)
    bench = Bench().send(*built.messages)
    bench.later(1).cut()
    bench.send(built.frames[3], forged(built.frames[4]))
    copy, conflict = bench.sealer.doubts
    bench.sealer.resolve(copy, built.frames[3].leaf(), bench.now)
    bench.sealer.resolve(conflict, built.frames[4].leaf(), bench.now)
    bench.cut()
    assert bench.quarantined == [("conflict", bench.offset - 1)]
    assert messages.decode(bench.cuts[-1].quarantined[0].data) == forged(built.frames[4])


def test_a_forged_frame_before_the_true_one_is_told_by_the_signature():
    built = build_session(commands=4)
    bench = Bench()
    for message in built.messages:
        if isinstance(message, Frame) and message.seq in {3, 5}:
            bench.send(forged(message))
        bench.send(message)
    bench.later(1).cut()
    (stretch,) = bench.stretches
    assert [row.frame() for row in stretch.rows] == list(built.frames)
    assert bench.heads[built.session, 0].complete
    assert [reason for reason, _ in bench.quarantined] == ["conflict", "conflict"]
    assert all(
        messages.decode(item.data).payload.startswith(b"forged")
        for item in bench.cuts[0].quarantined
    )


def test_a_forged_frame_after_the_true_one_is_quarantined():
    built = build_session(commands=4)
    bench = Bench()
    for message in built.messages:
        bench.send(message)
        if isinstance(message, Frame) and message.seq == 4:
            bench.send(forged(message), forged(message, kind=99))
    bench.later(1).cut()
    assert [row.frame() for row in bench.stretches[0].rows] == list(built.frames)
    assert bench.heads[built.session, 0].complete
    assert [reason for reason, _ in bench.quarantined] == ["conflict", "conflict"]


def test_a_forged_frame_without_the_true_one_leaves_the_root_wrong():
    built = build_session(commands=4)
    bench = Bench()
    for message in built.messages:
        wrong = isinstance(message, Frame) and message.seq == 4
        bench.send(forged(message) if wrong else message)
    bench.cut()
    assert ("checkpoint_root", bench.offset - 1) in bench.quarantined
    bench.later(61).cut()
    assert bench.sealed(built.session)[-1][1] == len(built.frames)
    assert not bench.heads[built.session, 0].complete


def test_a_frame_that_is_not_the_ident_of_open_is_refused():
    built = build_session(commands=1)
    wrong = forged(built.frames[1])
    bench = Bench().send(built.frames[0], wrong, *built.messages[4:])
    bench.later(1).cut()
    assert bench.quarantined == [("ident_mismatch", 1)]
    assert bench.heads[built.session, 0].complete


@pytest.mark.parametrize("seq", [0, 1])
def test_open_and_ident_have_no_rivals(seq):
    built = build_session(commands=1)
    bench = Bench().send(*frames_of(built, 0, 2), forged(built.frames[seq]))
    bench.cut()
    assert bench.quarantined == [("conflict", 2)]


# -- OPEN


def test_an_open_by_an_unknown_node_is_quarantined_with_all_that_follows():
    built = build_session(commands=1, node=node_signer("node-1", seed=66))
    bench = Bench(verifiers=[node_signer().verifier]).send(*built.messages)
    bench.cut()
    reasons = [reason for reason, _ in bench.quarantined]
    assert reasons[0] == "open_untrusted"
    assert set(reasons[1:]) == {"no_open"}
    assert len(reasons) == len(built.messages) - 3
    assert bench.stretches == []


@pytest.mark.parametrize("case", ["garbage", "other epoch", "empty"])
def test_an_open_that_cannot_be_is_quarantined(case):
    built = build_session(commands=0)
    opening = built.frames[0]
    frame = {
        "garbage": forged(opening),
        "empty": replace(opening, payload=b""),
        "other epoch": replace(opening, epoch=3),
    }[case]
    bench = Bench().send(frame)
    bench.cut()
    assert bench.quarantined == [("open_bad", 0)]


def test_open_may_come_after_a_forged_one():
    built = build_session(commands=1)
    bench = Bench(verifiers=[node_signer().verifier])
    bench.send(forged(built.frames[0]), *built.messages)
    bench.later(1).cut()
    assert bench.heads[built.session, 0].complete


# -- holes


def test_a_frame_past_a_hole_waits_for_what_is_missing():
    built = build_session(commands=4)
    shuffled = list(built.frames[2:])
    random.Random(5).shuffle(shuffled)
    bench = Bench().send(*built.frames[:2], built.messages[-1], *shuffled)
    bench.later(1).cut()
    assert bench.sealed(built.session) == [(0, len(built.frames))]
    assert bench.heads[built.session, 0].complete
    assert bench.reasons == []


def test_a_hole_under_a_signature_becomes_a_gap():
    built = build_session(commands=4)
    kept = [f for f in built.frames if f.seq not in {4, 5, 8}]
    bench = Bench().send(*kept, built.messages[-1])
    assert bench.later(59).cut() is None or bench.reasons == []
    bench.later(2)
    while bench.cut() is not None:
        bench.later(61)
    assert bench.sealed(built.session) == [(0, 4), (6, 8), (9, len(built.frames))]
    gaps = [(s.gap.lo, s.gap.hi, s.gap.reason) for s in bench.stretches if s.gap]
    assert gaps == [(4, 6, "lost"), (8, 9, "lost")]
    assert bench.reasons == ["gap", "gap"]
    head = bench.heads[built.session, 0]
    assert (head.lost, head.lo, head.closed, head.complete) == (3, 9, "client", False)
    assert [event.kind for cut in bench.cuts for event in cut.events].count("gap") == 2
    merged = CompactRange(9)
    for frame in built.frames[9:]:
        merged.append(frame.leaf())
    assert head.nodes == merged.nodes


def test_the_lost_frame_that_comes_late_is_quarantined():
    built = build_session(commands=4)
    bench = Bench().send(*[f for f in built.frames if f.seq != 4], built.messages[-1])
    bench.later(61).cut()
    bench.send(built.frames[4])
    (doubt,) = bench.sealer.doubts
    bench.sealer.resolve(doubt, None, bench.now)
    bench.cut()
    assert bench.quarantined == [("late_frame", bench.offset - 1)]


def test_a_frame_past_a_hole_that_nothing_vouches_for_makes_no_gap():
    built = build_session(commands=4)
    invented = forged(built.frames[5], seq=1 << 40)
    bench = Bench().send(*built.frames[:5], invented)
    bench.later(61).cut()
    assert bench.quarantined == [("early_frame", 5)]
    bench.send(*built.frames[5:], built.messages[-1])
    bench.later(1).cut()
    assert bench.heads[built.session, 0].complete


def test_two_frames_past_a_hole_with_one_seq_are_a_conflict():
    built = build_session(commands=4)
    bench = Bench().send(
        *built.frames[:3], built.frames[5], built.frames[5], forged(built.frames[5])
    )
    bench.cut()
    assert bench.quarantined == [("conflict", 5)]


def test_no_more_than_a_limit_is_held_past_a_hole():
    built = build_session(commands=6)
    bench = Bench(limits=replace(LIMITS, early_frames=3)).send(
        *built.frames[:2], *built.frames[4:8]
    )
    bench.cut()
    assert bench.quarantined == [("early_frame", 5)]


# -- checkpoints


@pytest.mark.parametrize("case", ["garbage", "other key", "other size", "other session", "bad utf"])
def test_a_checkpoint_that_is_not_the_epochs_is_quarantined(case):
    built, other = build_session(seed=1), build_session(seed=2)
    good = built.messages[-1]
    bad = {
        "garbage": replace(good, note=b"garbage"),
        "bad utf": replace(good, note=b"\xff" + good.note),
        "other key": replace(
            good, note=other.ephemeral.sign(Checkpoint(LOG, good.size, bytes(32)).text())
        ),
        "other size": replace(good, size=good.size - 1),
        "other session": replace(other.messages[-1], session=built.session),
    }[case]
    bench = Bench().send(*built.frames, bad)
    bench.cut()
    assert bench.quarantined == [("checkpoint_bad", bench.offset - 1)]


def test_a_checkpoint_without_open_is_quarantined():
    built = build_session()
    bench = Bench().send(built.messages[-1])
    bench.cut()
    assert bench.quarantined == [("no_open", 0)]


def test_a_checkpoint_that_comes_before_its_frames_waits():
    built = build_session(commands=3)
    bench = Bench().send(*built.frames[:2], built.messages[-1], *built.frames[2:])
    bench.later(1).cut()
    assert bench.heads[built.session, 0].complete


def test_a_checkpoint_of_frames_that_never_come_is_quarantined():
    built = build_session(commands=3)
    bench = Bench().send(*built.frames[:4], built.messages[-1])
    bench.later(61).cut()
    assert bench.quarantined == [("checkpoint_ahead", 4)]
    assert messages.decode(bench.cuts[-1].quarantined[0].data) == built.messages[-1]


def test_an_older_checkpoint_ends_a_fragment_too():
    built = build_session(commands=4, close=None, final_checkpoint=False)
    bench = Bench().send(*built.frames, built.checkpoint(5))
    bench.later(20).cut()
    assert bench.sealed(built.session) == [(0, 5)]
    assert bench.stretches[0].checkpoint[0] == 5


def test_a_checkpoint_after_its_frames_were_sealed_without_it_is_kept():
    built = build_session(commands=2, final_checkpoint=False)
    bench = Bench().send(*built.messages)
    bench.later(61).cut()
    assert bench.cuts[-1].changes[0].head.closed == "client"
    assert not bench.cuts[-1].changes[0].head.complete
    assert "session-closed" in [event.kind for event in bench.cuts[-1].events]
    bench.send(built.checkpoint(len(built.frames)))
    bench.cut()
    assert bench.quarantined == [("checkpoint_late", bench.offset - 1)]


def test_another_root_for_sealed_frames_is_found():
    built = build_session(commands=2, close=None)
    bench = Bench().send(*built.messages)
    bench.later(20).cut()
    text = Checkpoint(built.ephemeral.verifier.name, len(built.frames), b"r" * 32).text()
    bench.send(CheckpointMessage(built.session, 0, len(built.frames), built.ephemeral.sign(text)))
    bench.cut()
    assert bench.quarantined == [("checkpoint_root", bench.offset - 1)]


# -- what is sealed all the same


def test_a_frame_after_close_is_sealed_and_said():
    built = build_session(commands=1)
    after = Frame(built.session, 0, len(built.frames), built.frames[-1].ts_ns, 3, 2, 0, b"x" * 50)
    bench = Bench().send(*built.messages, after)
    bench.cut(everything=True)
    assert bench.sealed(built.session) == [(0, len(built.frames) + 1)]
    assert bench.reasons == ["after_close"]
    assert not bench.heads[built.session, 0].complete


def test_time_that_runs_backwards_is_sealed_and_said():
    built = build_session(commands=1, close=None)
    early = Frame(built.session, 0, len(built.frames), 5, 3, 2, 0, b"x" * 50)
    bench = Bench().send(*built.messages, early)
    bench.cut(everything=True)
    assert bench.reasons == ["time_backwards"]
    assert bench.cuts[0].changes[0].change.first_ts_ns == 5
    assert bench.heads[built.session, 0].last_ts_ns == built.frames[-1].ts_ns


def test_a_close_that_cannot_be_read_closes_all_the_same():
    built = build_session(commands=0, close=None, final_checkpoint=False)
    close = Frame(built.session, 0, 2, built.frames[1].ts_ns, Kind.CLOSE, 0, 0, b"{}")
    bench = Bench().send(*built.messages, close)
    bench.cut(everything=True)
    assert bench.heads[built.session, 0].closed == "unreadable"


# -- reading again


@pytest.mark.parametrize("seed", range(20))
def test_reading_again_from_any_publication_changes_nothing(seed):
    """Crash after each publication; a new sealer reads the same messages at the same offsets."""
    chance = random.Random(seed)
    sessions = [
        build_session(seed=f"{seed}/{n}", commands=chance.randrange(1, 6), checkpoint_every=3)
        for n in range(3)
    ]
    queues = [list(s.messages) for s in sessions]
    stream = []
    while any(queues):
        queue = chance.choice([q for q in queues if q])
        stream.append(queue.pop(0))
        if chance.random() < 0.1:
            stream.append(chance.choice(stream))
    patient = replace(LIMITS, hold_ns=10**9 * SECOND_NS)
    bench, stretches, incidents, position = Bench(limits=patient), [], [], 0
    for _ in range(200):
        if position >= len(stream):
            break
        part = stream[bench.offset : bench.offset + chance.randrange(1, 9)]
        bench.send(*part)
        for doubt in list(bench.sealer.doubts):
            bench.sealer.resolve(doubt, doubt.row.leaf, bench.now)
        if chance.random() < 0.5:
            bench.later(21).cut()
        if chance.random() < 0.3 or bench.offset >= len(stream):
            bench.later(21).cut()
            stretches += bench.stretches
            incidents += bench.reasons
            position = bench.cuts[-1].next_offset if bench.cuts else position
            fresh = Bench(heads=bench.heads, position=position, limits=patient)
            fresh.now = bench.now
            bench = fresh
    assert position == len(stream)
    assert incidents == []
    rows = sorted((row for s in stretches for row in s.rows), key=lambda r: (r.session, r.seq))
    expected = sorted((f for s in sessions for f in s.frames), key=lambda f: (f.session, f.seq))
    assert [row.frame() for row in rows] == expected


def test_known_quarantined_messages_are_not_quarantined_again():
    bench = Bench(known=[(1, sha256(b"garbage").digest())]).send(
        b"garbage", b"garbage", key=bytes(16)
    )
    bench.cut()
    assert bench.quarantined == [("malformed", 0)]


# -- the rest


def test_malformed_messages_are_kept_with_their_bytes():
    built = build_session()
    value = messages.encode(built.frames[0])
    bench = Bench().send(b"", b"x", value + b"!", value[:-1], key=built.session)
    bench.cut()
    assert [reason for reason, _ in bench.quarantined] == ["malformed"] * 4
    assert [item.data for item in bench.cuts[0].quarantined][2] == value + b"!"
    assert [item.session for item in bench.cuts[0].quarantined] == [
        b"",
        b"",
        built.session,
        built.session,
    ]
    assert bench.cuts[0].next_offset == 4


def test_a_message_under_another_key_is_refused():
    built = build_session()
    bench = Bench().send(built.frames[0], key=bytes(16))
    bench.cut()
    assert bench.quarantined == [("key_mismatch", 0)]


def test_a_message_in_the_partition_of_another_session_is_refused():
    built = build_session(session=ELSEWHERE)
    bench = Bench().send(*built.messages)
    bench.cut()
    assert {reason for reason, _ in bench.quarantined} == {"key_mismatch"}
    assert bench.keys == bench.stretches == []


def test_messages_deleted_from_the_bus_are_said():
    bench = Bench()
    bench.sealer.lost(10, bench.now)
    cut = bench.cut()
    assert cut.next_offset == 10
    assert bench.reasons == ["bus_lost"]


def test_a_second_wrap_is_said():
    built = build_session(commands=0)
    bench = Bench().send(built.messages[0])
    bench.sealer.key_conflict(bench.keys[0], bench.now)
    bench.cut()
    assert bench.reasons == ["key_conflict"]
    assert bench.quarantined == []


def test_epochs_of_which_nothing_waits_are_let_go():
    bench = Bench(limits=replace(LIMITS, tracks=2))
    built = [build_session(seed=n, commands=1) for n in range(4)]
    for session in built:
        bench.send(*session.messages)
    bench.later(1).cut()
    live = build_session(seed=9, close=None, final_checkpoint=False)
    bench.send(*live.messages, built[0].frames[2])
    assert len(bench.sealer.doubts) == 1
