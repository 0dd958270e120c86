from dataclasses import replace

import pytest

from sealtape.ingest.tlog.silence import Live, MissingRule, Reach, SilenceRule
from sealtape.ingest.tlog.summary import Hole

WORKER = ("node-1", bytes(16), 0)
OTHER = ("node-2", bytes(16), 0)
JOURNAL = Live(b"j" * 16, 0, 5, 1, journal=True, worker=WORKER, partition=0)
SESSION = Live(b"s" * 16, 0, 9, 1, journal=False, worker=WORKER, partition=1)


def everywhere(moment):
    return lambda _: moment


# -- how far ingest is -----------------------------------------------------------------------------


def test_nothing_is_reached_before_anything_was_seen():
    reach = Reach(100.0)
    assert reach.of(0) == reach.everywhere() == float("-inf")


def test_a_moment_is_reached_when_its_end_is_passed():
    reach = Reach(100.0)
    reach.note(0, position=0, end=10, now=1.0)
    reach.note(0, position=9, end=20, now=2.0)
    assert reach.of(0) == float("-inf")
    reach.note(0, position=10, end=30, now=3.0)
    assert reach.of(0) == 1.0
    reach.note(0, position=29, end=30, now=4.0)
    assert reach.of(0) == 2.0
    reach.note(0, position=30, end=30, now=5.0)
    assert reach.of(0) == 5.0


def test_the_partition_that_is_behind_decides():
    reach = Reach(100.0)
    for now in (1.0, 2.0, 3.0):
        reach.note(0, position=10, end=10, now=now)
        reach.note(1, position=0 if now > 1 else 5, end=5, now=now)
    assert (reach.of(0), reach.of(1), reach.everywhere()) == (3.0, 1.0, 1.0)


def test_moments_are_not_kept_for_ever():
    reach = Reach(10.0)
    for now in range(100):
        reach.note(0, position=0, end=1, now=float(now))
    reach.note(0, position=1, end=2, now=100.0)
    assert reach.of(0) == 99.0
    assert reach.everywhere() == 99.0


# -- silence ---------------------------------------------------------------------------------------


def test_a_node_is_silent_when_its_journal_is():
    rule = SilenceRule(60.0)
    assert rule.look([JOURNAL, SESSION], everywhere(0.0), 0.0) == []
    assert rule.look([JOURNAL, SESSION], everywhere(59.0), 60.0) == []
    (silent,) = rule.look([JOURNAL, SESSION], everywhere(60.0), 61.0)
    assert (silent.worker, silent.sign) == (WORKER, JOURNAL)
    assert set(silent.sessions) == {JOURNAL.session, SESSION.session}


def test_an_outage_of_ingest_is_no_silence():
    """Hours pass, and what was on the bus is not dealt with: nobody can tell."""
    rule = SilenceRule(60.0)
    rule.look([JOURNAL], everywhere(0.0), 0.0)
    assert rule.look([JOURNAL], everywhere(10.0), 9_999.0) == []


def test_a_heartbeat_begins_it_anew():
    rule = SilenceRule(60.0)
    rule.look([JOURNAL], everywhere(0.0), 0.0)
    beaten = replace(JOURNAL, revision=2)
    assert rule.look([beaten], everywhere(50.0), 50.0) == []
    assert rule.look([beaten], everywhere(100.0), 100.0) == []
    assert len(rule.look([beaten], everywhere(110.0), 110.0)) == 1


def test_a_quiet_session_of_a_node_that_beats_is_fine():
    rule = SilenceRule(60.0)
    for now in range(0, 600, 10):
        rows = [replace(JOURNAL, revision=now), SESSION]
        assert rule.look(rows, everywhere(float(now)), float(now)) == []


def test_a_session_that_goes_on_without_a_journal_stays_live():
    """Somebody keeps the journal back: that is told, and what still comes is not incomplete."""
    rule = SilenceRule(60.0)
    for now in range(0, 60, 10):
        rule.look([JOURNAL, replace(SESSION, revision=now)], everywhere(float(now)), float(now))
    rows = [JOURNAL, replace(SESSION, revision=60)]
    (silent,) = rule.look(rows, everywhere(60.0), 60.0)
    assert silent.sessions == (JOURNAL.session,)


def test_without_a_live_journal_the_sessions_tell():
    rule = SilenceRule(60.0)
    rule.look([SESSION], everywhere(0.0), 0.0)
    (silent,) = rule.look([SESSION], everywhere(61.0), 61.0)
    assert (silent.sign, silent.sessions) == (SESSION, (SESSION.session,))


def test_workers_are_judged_apart():
    rule = SilenceRule(60.0)
    other = replace(JOURNAL, session=b"o" * 16, worker=OTHER)
    rule.look([JOURNAL, other], everywhere(0.0), 0.0)
    found = rule.look([JOURNAL, replace(other, revision=2)], everywhere(60.0), 60.0)
    assert [silent.worker for silent in found] == [WORKER]


def test_what_is_told_is_live_no_more_and_comes_back_fresh():
    rule = SilenceRule(60.0)
    rule.look([JOURNAL], everywhere(0.0), 0.0)
    assert rule.look([JOURNAL], everywhere(60.0), 60.0)
    assert rule.look([], everywhere(65.0), 65.0) == []
    assert rule.look([replace(JOURNAL, revision=3)], everywhere(70.0), 70.0) == []


# -- numbers that never came -----------------------------------------------------------------------

HOLE = Hole(3, 5, b"p" * 16, 0)


def test_a_hole_is_told_once_after_a_while():
    rule = MissingRule(300.0)
    assert rule.look([(WORKER, HOLE)], 0.0, 0.0) == []
    assert rule.look([(WORKER, HOLE)], 299.0, 299.0) == []
    (missing,) = rule.look([(WORKER, HOLE)], 300.0, 301.0)
    assert (missing.worker, missing.hole) == (WORKER, HOLE)
    rule.tell(missing.worker, missing.hole)
    assert rule.look([(WORKER, HOLE)], 900.0, 900.0) == []


def test_a_hole_is_not_told_while_ingest_is_behind():
    rule = MissingRule(300.0)
    rule.look([(WORKER, HOLE)], 0.0, 0.0)
    assert rule.look([(WORKER, HOLE)], 100.0, 9_999.0) == []


def test_what_is_left_of_a_hole_is_as_old_as_the_whole():
    rule = MissingRule(300.0)
    rule.look([(WORKER, HOLE)], 0.0, 0.0)
    rest = replace(HOLE, lo=4)
    (missing,) = rule.look([(WORKER, rest)], 300.0, 300.0)
    assert missing.hole == rest


def test_what_is_left_of_a_hole_that_was_told_is_told():
    rule = MissingRule(300.0)
    rule.tell(WORKER, HOLE)
    rule.look([(WORKER, replace(HOLE, lo=4))], 0.0, 0.0)
    assert rule.look([(WORKER, replace(HOLE, lo=4))], 300.0, 300.0) == []


@pytest.mark.parametrize("late", [True, False])
def test_a_late_session_closes_its_hole(late):
    rule = MissingRule(300.0)
    rule.look([(WORKER, HOLE)], 0.0, 0.0)
    holes = [] if late else [(WORKER, HOLE)]
    assert len(rule.look(holes, 400.0, 400.0)) == (not late)


def test_another_workers_hole_of_the_same_numbers_is_another():
    rule = MissingRule(300.0)
    rule.look([(WORKER, HOLE)], 0.0, 0.0)
    assert rule.look([(OTHER, HOLE)], 300.0, 300.0) == []
