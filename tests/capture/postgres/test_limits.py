from hypothesis import given
from hypothesis import strategies as st

from sealtape.capture.postgres.limits import Limits


def test_a_seat_is_given_back_once():
    limits = Limits(connections=1, unauthenticated=1, per_address=1)
    seat = limits.enter("a")
    assert limits.enter("a") is None
    assert limits.enter("b") is None
    assert not limits.full
    seat.leave()
    seat.leave()
    assert limits.total == 0
    assert limits.enter("b") is not None


def test_who_has_authenticated_counts_among_all_only():
    limits = Limits(connections=1, unauthenticated=1, per_address=1)
    limits.enter("a").authenticated()
    second = limits.enter("a")
    assert second is not None
    assert limits.full
    second.leave()
    assert not limits.full


@given(st.lists(st.tuples(st.sampled_from(["enter", "known", "leave"]), st.integers(0, 9))))
def test_the_counts_never_drift(steps):
    limits = Limits(connections=5, unauthenticated=4, per_address=2)
    seats, known = [], set()
    for step, number in steps:
        if step == "enter":
            address = "abc"[number % 3]
            strangers = [seat for seat in seats if seat not in known]
            same = [seat for seat in strangers if seat._address == address]
            seat = limits.enter(address)
            assert (seat is None) == (len(strangers) >= 4 or len(same) >= 2)
            if seat is not None:
                seats.append(seat)
        elif seats:
            seat = seats[number % len(seats)]
            if step == "known":
                seat.authenticated()
                known.add(seat)
            else:
                seat.leave()
                seats.remove(seat)
        assert limits.total == len(seats)
        assert limits.full == (len(seats) > 5)
    for seat in seats:
        seat.leave()
    assert (limits.total, limits._stranger_total, dict(limits._strangers)) == (0, 0, {})
