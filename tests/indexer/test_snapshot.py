from sealtape.indexer.snapshot import LaneSnapshot


def lane(**changes):
    fields = {
        "topic": "frames",
        "partition": 0,
        "term": 2,
        "position": 10,
        "end": 15,
        "segments": 3,
        "published": 7,
        "oldest_ms": None,
    }
    return LaneSnapshot(**fields | changes)


def test_how_far_it_is_behind():
    assert (lane().lag, lane().behind) == (5, 4)


def test_it_is_never_ahead():
    ahead = lane(end=3, published=1)
    assert (ahead.lag, ahead.behind) == (0, 0)
