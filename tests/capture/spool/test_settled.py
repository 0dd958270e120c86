"""The list of settled sessions: whole or refused, and on the disk before a file goes."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.capture.files import create_file
from sealtape.capture.spool.settled import (
    encode_settled,
    parse_settled,
    read_settled,
    settled_name,
    write_settled,
)
from sealtape.schemas.errors import StoreCorrupt, StoreError

VECTORS = Path(__file__).parents[2] / "vectors/spool.json"


@given(st.sets(st.integers(0, 2**64 - 1)))
def test_round_trip(numbers):
    assert parse_settled(encode_settled(sorted(numbers))) == numbers


def test_the_vector():
    vector = json.loads(VECTORS.read_text(encoding="utf-8"))["settled"]
    assert encode_settled(vector["numbers"]).hex() == vector["file"]
    assert parse_settled(bytes.fromhex(vector["file"])) == set(vector["numbers"])


def test_any_other_bytes_are_damaged():
    whole = encode_settled([1, 2])
    others = [whole[:at] for at in range(len(whole))] + [whole + b"\0"]
    others += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    for data in others:
        with pytest.raises(StoreCorrupt, match="receipts"):
            parse_settled(data)


def test_a_folder_has_one_for_each_lane(tmp_path):
    assert read_settled(tmp_path) == frozenset()
    write_settled(tmp_path, "spooled-receipt", [1, 2], create_file)
    write_settled(tmp_path, "durable-receipt", [3], create_file)
    write_settled(tmp_path, "spooled-receipt", [2, 5], create_file)
    assert read_settled(tmp_path) == {2, 3, 5}
    assert sorted(os.listdir(tmp_path)) == ["durable-receipt.settled", "spooled-receipt.settled"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path, failing_files):
    write_settled(tmp_path, "spooled-receipt", [1], create_file)
    disk = failing_files()
    disk.fail_write = True
    for _ in range(2):  # a draft that stayed behind is no hindrance
        with pytest.raises(StoreError):
            write_settled(tmp_path, "spooled-receipt", [1, 2], disk.create)
    assert read_settled(tmp_path) == {1}
    disk.fail_write = False
    write_settled(tmp_path, "spooled-receipt", [1, 2], disk.create)
    assert read_settled(tmp_path) == {1, 2}


def test_a_damaged_one_is_refused(tmp_path):
    (tmp_path / settled_name("spooled-receipt")).write_bytes(b"SEALSET1")
    with pytest.raises(StoreCorrupt, match=r"^spooled-receipt.settled: "):
        read_settled(tmp_path)
