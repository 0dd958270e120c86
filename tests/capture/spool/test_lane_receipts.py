"""A lane that keeps its files until receipts are there."""

import os

import pytest

from sealtape.capture.files import create_file
from sealtape.capture.spool.lane import Budget, LaneFiles
from sealtape.capture.spool.records import FRAMES
from sealtape.capture.spool.settled import read_settled
from sealtape.schemas.errors import StoreError

LANE = "spooled-receipt"


@pytest.fixture
def lane(tmp_path):
    made = []

    def make(create=create_file, *, keeps=True):
        made.append(
            LaneFiles(
                tmp_path,
                LANE,
                spool_key=bytes(32),
                budget=Budget(1 << 20),
                file_bytes=1000,
                sync=False,
                keeps=keeps,
                create=create,
                random=os.urandom,
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


def put(files, *numbers):
    """A file with messages of these sessions, which the bus has."""
    (place,) = files.write([(FRAMES, [b"1"])], fresh=True)
    files.hold(place, numbers)
    files.acknowledge(place)
    return place.file.path


def clean(files):
    doomed = files.deletable()
    files.delete(doomed)
    return [file.path for file in doomed]


def test_a_file_waits_for_all_its_sessions(lane):
    files = lane()
    path = put(files, 1, 2)
    put(files)
    assert clean(files) == []
    files.settle(1)
    assert clean(files) == []
    files.settle(2)
    assert clean(files) == [path]
    assert not path.exists()


def test_a_file_waits_for_the_bus_too(lane):
    files = lane()
    (place,) = files.write([(FRAMES, [b"1"])], fresh=True)
    files.hold(place, [1])
    put(files)
    files.settle(1)
    assert clean(files) == []
    files.acknowledge(place)
    assert clean(files) == [place.file.path]


def test_a_lane_that_does_not_keep_waits_for_nobody(lane, tmp_path):
    files = lane(keeps=False)
    path = put(files, 1)
    put(files)
    assert not files.holding_any
    assert clean(files) == [path]
    assert read_settled(tmp_path) == frozenset()


def test_what_is_owed_is_where_its_messages_are(lane):
    files = lane()
    one, two = put(files, 1, 2), put(files, 2)
    three = put(files, 3)
    assert files.holding([1]) == [one]
    assert files.holding([2, 3]) == [one, two, three]
    assert files.holding_any
    files.settle(2)
    assert files.holding([2]) == []
    for number in (1, 3):
        files.settle(number)
    assert not files.holding_any


def test_a_later_file_may_go_first_when_it_is_written_down(lane, tmp_path):
    files = lane()
    one = put(files, 1, 2)
    two = put(files, 2)
    put(files)
    files.settle(2)
    assert clean(files) == [two]
    assert one.exists()
    assert read_settled(tmp_path) == {2}
    files.settle(1)
    assert clean(files) == [one]
    for _ in range(2):
        put(files)
        clean(files)
    assert read_settled(tmp_path) == frozenset()  # nothing speaks of them any more


def test_no_file_goes_before_that_is_written_down(lane, tmp_path, failing_files):
    disk = failing_files()
    files = lane(disk.create)
    put(files, 1)
    two = put(files, 2)
    put(files)
    files.settle(2)
    disk.fail_sync = True
    with pytest.raises(StoreError):
        files.delete(files.deletable())
    assert two.exists()
    disk.fail_sync = False
    assert clean(files) == [two]
    assert read_settled(tmp_path) == {2}


def test_a_file_that_cannot_be_deleted_is_tried_again(lane, tmp_path):
    files = lane()
    path = put(files, 1)
    put(files)
    files.settle(1)
    doomed = files.deletable()
    tmp_path.chmod(0o500)
    blocked = not os.access(tmp_path, os.W_OK)
    try:
        if blocked:
            with pytest.raises(StoreError):
                files.delete(doomed)
    finally:
        tmp_path.chmod(0o700)
    if blocked:
        assert clean(files) == [path]
