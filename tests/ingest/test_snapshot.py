from sealtape.ingest.snapshot import (
    Arrivals,
    Counts,
    IngestSnapshot,
    PartitionSnapshot,
    RetentionWatch,
)


def partition(**changes):
    fields = {
        "topic": "frames",
        "partition": 3,
        "term": 1,
        "position": 10,
        "read_to": 12,
        "end": 15,
        "oldest_ms": 7,
        "retention_half": False,
        "retention_s": 100.0,
    }
    return PartitionSnapshot(**fields | changes)


def test_lag_is_never_negative():
    assert partition().lag == 5
    assert partition(end=4).lag == 0


def test_gaps_are_incidents():
    counts = Counts()
    counts.incidents["gap"] += 2
    snapshot = IngestSnapshot(
        worker="w",
        workers=("w",),
        beaten_s=0.5,
        partitions=(partition(),),
        claiming=(),
        segments=0,
        frames=0,
        bytes=0,
        duplicates=0,
        quarantined=0,
        incidents=dict(counts.incidents),
        fenced=0,
        failures=0,
        sealed_s=counts.sealed_s,
    )
    assert snapshot.gaps == 2


def test_arrivals_are_forgotten_as_the_position_passes_them():
    arrivals = Arrivals()
    assert arrivals.oldest_ms is None
    for offset, ts_ms in ((0, 100), (10, 200), (20, 300)):
        arrivals.add(offset, ts_ms)
    assert arrivals.pass_to(9, 30) == []
    assert arrivals.oldest_ms == 100
    assert arrivals.pass_to(10, 30) == [100]
    assert arrivals.pass_to(29, 30) == [200]
    assert arrivals.oldest_ms == 300
    assert arrivals.pass_to(30, 30) == [300]
    assert arrivals.oldest_ms is None


def test_half_of_the_retention_is_told_once():
    watch = RetentionWatch()
    assert not watch.look(None, 1_000_000, 100.0)
    assert not watch.look(1000, 50_999, 100.0)
    assert watch.look(1000, 50_999, 90.0)  # somebody made it shorter
    assert watch.look(1000, 51_000, 100.0)
    assert watch.look(1000, 51_000, 100.0)  # nobody has said it yet
    watch.told = True
    assert not watch.look(1000, 90_000, 100.0)
    assert watch.half
    assert not watch.look(80_000, 90_000, 100.0)
    assert not watch.half
    assert watch.look(80_000, 190_000, 100.0)


def test_a_bus_without_retention_has_no_half():
    watch = RetentionWatch()
    assert not watch.look(0, 10**15, None)
    assert not watch.half
