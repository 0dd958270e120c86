import os

import pytest

from sealtape.capture.files import create_file
from sealtape.capture.spool.files import SpoolFile, StoredFile, file_name, lane_of
from sealtape.capture.spool.records import (
    FRAMES,
    SLICES,
    FileKey,
    encode_record,
    read_records,
)
from sealtape.schemas.errors import FormatError, KeyUnavailable, StoreError, StoreFull

KEY = bytes(32)


def spool_file(path, create=create_file, *, sync=False):
    return SpoolFile(path, FileKey(KEY, os.urandom(32)), create, sync=sync)


def test_what_is_written_is_read_and_personal_things_are_encrypted(tmp_path):
    path = tmp_path / "f"
    file = spool_file(path, sync=True)
    places = file.write([(SLICES, [b"who ", b"did it"]), (FRAMES, [b"finished"])])
    file.write_one(SLICES, b"again")
    file.sync()
    assert file.size == path.stat().st_size
    file.close()
    assert b"who" not in path.read_bytes()
    assert b"finished" in path.read_bytes()
    with StoredFile(path, KEY) as stored:
        found = [(record.kind, record.body) for record in stored.records()]
        assert found == [(SLICES, b"who did it"), (FRAMES, b"finished"), (SLICES, b"again")]
        (start, end) = places[1]
        frames = next(read_records(stored.read, start))
        assert (frames.body, frames.length) == (b"finished", end - start)
        assert stored.size == path.stat().st_size


def test_no_counter_is_used_twice(tmp_path):
    file = spool_file(tmp_path / "f")
    file.write([(SLICES, [b"same"]), (SLICES, [b"same"])])
    file.write_one(SLICES, b"same")
    file.close()
    with StoredFile(tmp_path / "f", KEY) as stored:
        raw = list(read_records(stored.read))
    assert [record.counter for record in raw] == [1, 2, 3]
    assert len({record.body for record in raw}) == 3


def test_a_file_without_a_whole_header_holds_nothing(tmp_path):
    path = tmp_path / "f"
    for data in (b"", b"SEALSPL1", bytes(500)):
        path.write_bytes(data)
        with StoredFile(path, KEY) as stored:
            assert list(stored.records()) == []


def test_damage_and_foreign_keys_are_told_apart(tmp_path):
    path = tmp_path / "f"
    spool_file(path).close()
    with StoredFile(path, bytes(31) + b"x") as stored, pytest.raises(KeyUnavailable):
        list(stored.records())
    path.write_bytes(b"X" + path.read_bytes()[1:])
    with StoredFile(path, KEY) as stored, pytest.raises(FormatError):
        list(stored.records())
    with pytest.raises(StoreError):
        StoredFile(tmp_path / "none", KEY)


def test_a_disk_without_room_for_the_header_makes_no_file(tmp_path, failing_files):
    with pytest.raises(StoreFull):
        spool_file(tmp_path / "f", failing_files(room=10).create)


def test_names_sort_in_the_order_of_writing(tmp_path):
    names = [file_name("durable", n) for n in (2, 10, 99_999)]
    assert names == sorted(names)
    assert lane_of(tmp_path / names[0]) == "durable"


def test_a_record_cut_short_is_no_damage_but_one_before_others_is(tmp_path):
    path = tmp_path / "f"
    file = spool_file(path)
    places = file.write([(FRAMES, [b"one"]), (FRAMES, [b"two"]), (FRAMES, [b"SSR1 three"])])
    file.close()
    whole = path.read_bytes()
    for cut in range(places[1][1] + 1, len(whole)):
        path.write_bytes(whole[:cut])
        with StoredFile(path, KEY) as stored:
            assert [record.body for record in stored.records()] == [b"one", b"two"]
    middle = places[1][1] - 1
    path.write_bytes(whole[:middle] + b"!" + whole[middle + 1 :])
    with StoredFile(path, KEY) as stored:
        records = stored.records()
        assert next(records).body == b"one"
        with pytest.raises(FormatError, match="Damaged at byte"):
            next(records)


def damage(path, data):
    path.write_bytes(data)
    with StoredFile(path, KEY) as stored, pytest.raises(FormatError, match="Damaged at") as raised:
        list(stored.records())
    return raised.value.message


def test_records_that_are_missing_or_in_another_order_are_damage(tmp_path):
    path = tmp_path / "f"
    file = spool_file(path)
    (_, one), (_, two), (_, three) = file.write([(FRAMES, [b"same"])] * 3)
    file.close()
    data = path.read_bytes()
    assert damage(path, data[:one] + data[two:]) == f"Damaged at byte {one}: record 3 for 2."
    assert damage(path, data[:two] + data[one:]) == f"Damaged at byte {two}: record 2 for 3."
    assert damage(path, data[:one] + data[two:three] + data[one:two]).startswith(
        f"Damaged at byte {one}"
    )


def test_a_bit_of_the_last_record_is_damage_too(tmp_path):
    path = tmp_path / "f"
    file = spool_file(path)
    (_, start), _ = file.write([(FRAMES, [b"one"]), (FRAMES, [b"two"])])
    file.close()
    data = path.read_bytes()
    for bit in range(start * 8, len(data) * 8):
        other = bytearray(data)
        other[bit // 8] ^= 1 << bit % 8
        assert damage(path, bytes(other)) == f"Damaged at byte {start}."


def test_a_damaged_header_is_named_and_so_is_a_file_under_another_key(tmp_path):
    path = tmp_path / "f"
    spool_file(path).close()
    data = path.read_bytes()
    assert damage(path, b"X" + data[1:]).startswith("Damaged at byte 0: ")
    assert damage(path, b"X") == "Damaged at byte 0."
    assert damage(path, bytes(52) + b"x") == "Damaged at byte 0."
    path.write_bytes(FileKey(bytes(31) + b"x", bytes(32)).header())
    with StoredFile(path, KEY) as stored, pytest.raises(KeyUnavailable, match=r"^f: "):
        list(stored.records())


def test_what_does_not_decrypt_says_where(tmp_path):
    path = tmp_path / "f"
    header = FileKey(KEY, bytes(32)).header()
    record = b"".join(encode_record(1, SLICES, [bytes(40)]))
    assert damage(path, header + record).startswith("Damaged at byte 52: ")
