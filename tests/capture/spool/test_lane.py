import os

import pytest

from sealtape.capture.files import create_file
from sealtape.capture.spool.files import StoredFile
from sealtape.capture.spool.lane import Budget, LaneFiles
from sealtape.capture.spool.records import FRAMES, SESSION, SLICES
from sealtape.schemas.errors import StoreError, StoreFull

KEY = bytes(32)


@pytest.fixture
def lane(tmp_path):
    made = []

    def make(create=create_file, *, limit=1 << 20, file_bytes=1000, sync=False):
        made.append(
            LaneFiles(
                tmp_path,
                "spooled",
                spool_key=KEY,
                budget=Budget(limit),
                file_bytes=file_bytes,
                sync=sync,
                create=create,
                random=os.urandom,
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


def stored(folder):
    found = []
    for path in sorted(folder.glob("*.spool")):
        with StoredFile(path, KEY) as file:
            found += [record.body for record in file.records()]
    return found


def test_a_file_that_is_full_wants_a_fresh_one(lane, tmp_path):
    files = lane()
    assert files.wants_fresh
    files.write([(SESSION, [b"all"])], fresh=True)
    assert not files.wants_fresh
    files.write_slices(bytes(1000))
    assert files.wants_fresh
    files.write([(SESSION, [b"all again"])], fresh=True)
    assert not files.wants_fresh
    assert len(list(tmp_path.glob("*.spool"))) == 2


def test_old_files_go_when_the_bus_has_their_frames(lane, tmp_path):
    files = lane()
    (one,) = files.write([(FRAMES, [b"1"])], fresh=True)
    two, three = files.write([(FRAMES, [b"2"]), (SLICES, [b"s"]), (FRAMES, [b"3"])], fresh=True)
    assert files.deletable() == []
    files.acknowledge(one)
    files.acknowledge(two)
    doomed = files.deletable()
    assert [file.path for file in doomed] == [one.file.path]
    assert files.deletable() == []
    used = files._budget.used
    files.delete(doomed)
    assert not one.file.path.exists()
    assert files._budget.used < used
    assert files._budget.used == sum(p.stat().st_size for p in tmp_path.glob("*.spool"))
    assert three.file.path.exists()


@pytest.mark.parametrize("size", [1, 100, 900])
def test_the_limit_is_never_exceeded(lane, tmp_path, size):
    """Nor by what records and files take beside their bodies, nor by lanes that write together."""
    files = lane(limit=5000)
    with pytest.raises(StoreFull):
        while True:
            files.write(
                [(FRAMES, [bytes(size)]), (SESSION, [bytes(size)])], fresh=files.wants_fresh
            )
            files.write_slices(bytes(size))
    used = files._budget.used
    assert 5000 - 3 * (size + 100) <= used <= 5000
    assert used == sum(p.stat().st_size for p in tmp_path.glob("*.spool"))


def test_who_looks_at_the_limit_has_taken_its_bytes():
    budget = Budget(100)
    budget.take(60)
    with pytest.raises(StoreFull, match="60 of 100"):
        budget.take(41)
    budget.take(40)
    assert budget.used == 100


@pytest.mark.parametrize(
    ("fault", "sync"),
    [
        ("room", False),
        ("room", True),
        ("fail_write", False),
        ("fail_write", True),
        ("fail_sync", True),
    ],
)
def test_after_a_failure_the_next_batch_goes_to_a_new_file(
    lane, tmp_path, failing_files, fault, sync
):
    disk = failing_files()
    files = lane(disk.create, sync=sync)
    files.write([(SLICES, [b"good"])], fresh=True)
    setattr(disk, fault, 15 if fault == "room" else True)
    with pytest.raises(StoreError):
        files.write([(FRAMES, [b"fails"])], fresh=False)
    assert files.wants_fresh
    with pytest.raises(StoreError):
        files.write([(FRAMES, [b"fails"])], fresh=False)
    assert len(list(tmp_path.glob("*.spool"))) == 1
    setattr(disk, fault, 1 << 20 if fault == "room" else False)
    files.write([(FRAMES, [b"works"])], fresh=False)
    assert len(list(tmp_path.glob("*.spool"))) == 2
    assert not files.wants_fresh
    found = stored(tmp_path)
    assert (found[0], found[-1]) == (b"good", b"works")
    assert files._budget.used == sum(p.stat().st_size for p in tmp_path.glob("*.spool"))


def test_a_failing_short_way_wants_a_fresh_file_too(lane, failing_files):
    disk = failing_files()
    files = lane(disk.create)
    files.write([], fresh=True)
    disk.fail_write = True
    with pytest.raises(StoreError):
        files.write_slices(b"x")
    assert files.wants_fresh


def test_the_limit_is_a_full_disk(lane):
    files = lane(limit=200, file_bytes=100)
    files.write([(SLICES, [b"x"])], fresh=True)
    with pytest.raises(StoreFull, match=r"capture\.spool_limit"):
        files.write([(SLICES, [bytes(200)])], fresh=False)
    with pytest.raises(StoreFull):
        files.write_slices(bytes(200))
    assert files.wants_fresh
