import os

import pytest

from sealtape.capture.bus.partition import PartitionReader, PartitionWriter, file_of
from sealtape.capture.bus.records import FILE_HEADER
from sealtape.schemas.errors import Missing, StoreCorrupt, StoreError, StoreFull


@pytest.fixture
def writer(tmp_path):
    made = []

    def make(**options):
        options.setdefault("file_bytes", 1 << 20)
        made.append(PartitionWriter(tmp_path, 0, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def everything(folder, offset=0):
    reader = PartitionReader(folder)
    found = []
    try:
        while True:
            batch = reader.read(offset, 1 << 20)
            if not batch.records:
                return found
            found += [record.value for record in batch.records]
            offset = batch.next_offset
    finally:
        reader.close()


def log(folder, base=0):
    return file_of(folder, base)


def test_a_record_cut_anywhere_is_the_end_and_the_next_append_replaces_it(tmp_path, writer):
    first = writer()
    ends = first.append([(b"k", b"one"), (b"k", b"two")])
    first.close()
    whole = log(tmp_path).read_bytes()
    second_record = FILE_HEADER + ends[1]
    for cut in range(second_record, len(whole)):
        log(tmp_path).write_bytes(whole[:cut])
        assert everything(tmp_path) == [b"one"]
        again = writer()
        assert again.append([(b"k", b"three")])[0] == ends[1]
        again.close()
        assert everything(tmp_path) == [b"one", b"three"]
        assert not list(tmp_path.glob("*.damaged"))


def test_a_file_cut_within_its_header_holds_nothing(tmp_path, writer):
    for cut in range(FILE_HEADER):
        log(tmp_path).write_bytes(bytes(cut))
        assert everything(tmp_path) == []
        once = writer()
        once.append([(b"", b"x")])
        once.close()
        assert everything(tmp_path) == [b"x"]


def test_a_damaged_header_with_records_stops_everything(tmp_path, writer):
    once = writer()
    once.append([(b"", b"x")])
    once.close()
    data = bytearray(log(tmp_path).read_bytes())
    data[3] ^= 1
    log(tmp_path).write_bytes(data)
    with pytest.raises(StoreCorrupt):
        writer().append([(b"", b"y")])


def test_damage_in_what_was_acknowledged_is_reported_and_never_cut_off(tmp_path, writer):
    once = writer()
    ends = once.append([(b"", b"one")])
    once.append([(b"", b"two")])
    once.close()
    data = bytearray(log(tmp_path).read_bytes())
    data[FILE_HEADER + ends[1] - 1] ^= 1
    log(tmp_path).write_bytes(data)
    with pytest.raises(StoreCorrupt, match="offset 0"):
        everything(tmp_path)
    again = writer()
    end = again.append([(b"", b"three")])[0]
    assert log(tmp_path).read_bytes() == bytes(data)
    assert everything(tmp_path, offset=end) == [b"three"]
    with pytest.raises(StoreCorrupt):
        everything(tmp_path)


def test_damage_nobody_was_told_about_is_set_aside(tmp_path, writer):
    once = writer()
    ends = once.append([(b"", b"one")])
    once.append([(b"", b"two"), (b"", b"three")])
    once.close()
    data = bytearray(log(tmp_path).read_bytes())
    data[FILE_HEADER + ends[1] + 40] ^= 1
    log(tmp_path).write_bytes(data)
    assert everything(tmp_path) == [b"one"]
    again = writer()
    assert again.append([(b"", b"four")])[0] == ends[1]
    assert everything(tmp_path) == [b"one", b"four"]
    (aside,) = tmp_path.glob("*.damaged")
    assert aside.read_bytes() == bytes(data[FILE_HEADER + ends[1] :])


def test_zeros_at_the_end_are_a_crash_of_the_host(tmp_path, writer):
    once = writer()
    once.append([(b"", b"one")])
    once.close()
    with log(tmp_path).open("ab") as file:
        file.write(bytes(5000))
    assert everything(tmp_path) == [b"one"]
    again = writer()
    again.append([(b"", b"two")])
    assert everything(tmp_path) == [b"one", b"two"]


def test_a_file_that_lost_its_end_is_corrupt(tmp_path, writer):
    once = writer(file_bytes=10)
    once.append([(b"", b"one")])
    base = once.append([(b"", b"two")])[0]
    once.close()
    assert log(tmp_path, base).exists()
    log(tmp_path).write_bytes(log(tmp_path).read_bytes()[:-1])
    with pytest.raises(StoreCorrupt):
        everything(tmp_path)
    assert everything(tmp_path, base) == [b"two"]


def test_two_writers_find_what_the_other_wrote_and_where_it_rotated(tmp_path, writer):
    one, two = writer(file_bytes=300), writer(file_bytes=300)
    for n in range(12):
        (one if n % 3 else two).append([(b"", b"%02d" % n + bytes(60))])
    assert [value[:2] for value in everything(tmp_path)] == [b"%02d" % n for n in range(12)]
    assert len(list(tmp_path.glob("*.log"))) > 3


def test_a_write_that_fails_half_way_keeps_the_whole_messages(tmp_path, writer, failing_files):
    disk = failing_files(room=FILE_HEADER + 200)
    once = writer(create=disk.create, reopen=disk.reopen)
    with pytest.raises(StoreFull):
        once.append([(b"", b"%d" % n + bytes(49)) for n in range(9)])
    assert [value[:1] for value in everything(tmp_path)] == [b"0", b"1"]
    disk.room = 1 << 20
    once.append([(b"", b"on")])
    assert [value[:1] for value in everything(tmp_path)] == [b"0", b"1", b"o"]


def test_a_full_disk_at_the_first_file_leaves_nothing_in_the_way(tmp_path, writer, failing_files):
    disk = failing_files(room=5)
    once = writer(create=disk.create, reopen=disk.reopen)
    with pytest.raises(StoreFull):
        once.append([(b"", b"x")])
    assert not list(tmp_path.glob("*.log"))
    disk.room = 1 << 20
    once.append([(b"", b"x")])
    assert everything(tmp_path) == [b"x"]


def test_after_a_failed_sync_no_offset_is_used_twice(tmp_path, writer, failing_files):
    disk = failing_files()
    once = writer(create=disk.create, reopen=disk.reopen)
    end = once.append([(b"", b"one")])[-1]
    disk.fail_sync = True
    with pytest.raises(StoreError):
        once.append([(b"", b"lost, maybe")])
    beyond = end + os.path.getsize(log(tmp_path)) - FILE_HEADER - end
    disk.fail_sync = False
    start = once.append([(b"", b"two")])[0]
    assert start >= beyond
    assert everything(tmp_path)[0] == b"one"
    assert everything(tmp_path)[-1] == b"two"


def test_a_reader_does_not_sync_what_is_known_to_be_durable(tmp_path, writer):
    once = writer()
    for n in range(3):
        once.append([(b"", b"%d" % n)])
    reader = PartitionReader(tmp_path)
    assert reader.bounds()[1] == reader.read(0, 1 << 20).next_offset
    assert reader.read(0, 1).records[0].value == b"0"
    reader.close()


def test_offsets_beyond_the_end_or_before_the_start_are_errors(tmp_path, writer):
    with pytest.raises(Missing):
        everything(tmp_path, 5)
    once = writer(file_bytes=10)
    once.append([(b"", b"one")])
    second = once.append([(b"", b"two")])[0]
    end = once.append([(b"", b"three")])[-1]
    with pytest.raises(Missing):
        everything(tmp_path, end + 1)
    once.trim(second)
    with pytest.raises(Missing):
        everything(tmp_path, 0)
    assert everything(tmp_path, second) == [b"two", b"three"]


class Days:
    """A wall clock in days."""

    def __init__(self):
        self.day = 1000.0

    def __call__(self):
        return int(self.day * 86400e9)


WEEK = 7 * 86400.0


def test_what_is_older_than_its_time_is_deleted(tmp_path, writer):
    clock = Days()
    made = writer(clock_ns=clock)
    made.expire(WEEK)  # nothing there yet
    for half in range(60):
        made.append([(b"k", b"%d" % half)])
        made.expire(WEEK)
        kept = [int(value) for value in everything(tmp_path, first_kept(tmp_path))]
        assert kept == list(range(kept[0], half + 1))
        assert 12 <= half - kept[0] <= 14 or (kept[0] == 0 and half <= 14)
        clock.day += 0.5
    assert len(list(tmp_path.glob("*.log"))) < 10


def first_kept(folder):
    reader = PartitionReader(folder)
    try:
        return reader.bounds()[0]
    finally:
        reader.close()


def test_what_nothing_follows_is_deleted_too(tmp_path, writer):
    clock = Days()
    made = writer(clock_ns=clock)
    end = made.append([(b"k", b"last")])[-1]
    clock.day += 8
    made.expire(WEEK)
    reader = PartitionReader(tmp_path)
    assert reader.bounds() == (end, end)
    with pytest.raises(Missing):
        reader.read(0, 1 << 20)
    reader.close()
    made.expire(WEEK)  # an empty file stays
    assert made.append([(b"k", b"new")])[0] == end
    assert everything(tmp_path, end) == [b"new"]


def test_a_writer_that_did_not_begin_the_file_ends_it_where_the_other_stopped(tmp_path, writer):
    clock = Days()
    first, second = writer(clock_ns=clock), writer(clock_ns=clock)
    first.append([(b"k", b"one")])
    end = first.append([(b"k", b"two")])[-1]
    clock.day += 2
    second.expire(WEEK)
    assert log(tmp_path, end).exists()
    first.append([(b"k", b"three")])
    assert everything(tmp_path) == [b"one", b"two", b"three"]
