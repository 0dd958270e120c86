import time

from sealtape.capture.clock import STEP_NS, Clock


def test_time_is_anchor_plus_monotonic():
    clock = Clock()
    assert abs(clock.anchor_ns() + clock.mono_ns() - time.time_ns()) < 1_000_000_000


def test_a_step_is_told_once_and_drift_never():
    wall, mono = 10**18, 5
    clock = Clock(lambda: wall, lambda: mono)
    assert clock.step() == 0
    wall, mono = wall + 10**9, mono + 10**9
    assert clock.step() == 0
    wall += STEP_NS
    assert clock.step() == STEP_NS
    assert clock.step() == 0
    wall -= 3600 * 10**9
    assert clock.step() == -3600 * 10**9
    for _ in range(20):
        wall += STEP_NS - 1
        assert clock.step() == 0
    assert clock.anchor_ns() == wall - mono
