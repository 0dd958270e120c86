from sealtape.capture.metrics.counts import Counts


def test_what_a_client_makes_up_is_no_label():
    counts = Counts(["shop"])
    for target in ("shop", "made-up-1", "made-up-2", ""):
        counts.refusal("postgres", target, "no-target")
    assert counts.refused == {
        ("postgres", "shop", "no-target"): 1,
        ("postgres", "", "no-target"): 3,
    }


def test_sessions_are_added_up():
    counts = Counts(["shop"])
    counts.open("postgres", "shop")
    for _ in range(2):
        counts.end("postgres", "shop", "client", legs=[1, 0, 20, 3], frames=5, commands=2, errors=1)
    assert counts.opened == {("postgres", "shop"): 1}
    assert counts.ended == {("postgres", "shop", "client"): 2}
    assert counts.legs == [2, 0, 40, 6]
    assert (counts.frames, counts.commands, counts.errors) == (10, 4, 2)
