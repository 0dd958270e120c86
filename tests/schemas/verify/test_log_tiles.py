import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas.tlog.tiles import ENTRIES, Growth, Tile, parse_hashes
from sealtape.schemas.tree import EMPTY_ROOT, leaf_hash, root
from sealtape.schemas.verify.log_tiles import Levels

ENTRY = [b"%d" % n for n in range(70_000)]


def levels_of(count):
    levels = Levels()
    for entry in ENTRY[:count]:
        levels.append(leaf_hash(entry))
    return levels


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 600])
def test_every_tile_is_the_one_that_the_writer_makes(count):
    levels = levels_of(count)
    for tile, data in Growth(0, {}).append(ENTRY[:count]).items():
        assert levels.has(tile)
        if tile.level != ENTRIES:
            assert levels.hashes(tile) == parse_hashes(tile, data)


def test_a_third_level():
    levels = levels_of(65_536 + 300)
    assert levels.has(Tile(2, 0, 1))
    assert levels.hashes(Tile(2, 0, 1)) == [root([leaf_hash(entry) for entry in ENTRY[:65_536]])]
    assert not levels.has(Tile(2, 0, 2))
    assert levels.has(Tile(1, 1, 1))


@given(st.integers(0, 700), st.integers(0, 700))
def test_roots(count, size):
    levels = levels_of(count)
    expected = root([leaf_hash(entry) for entry in ENTRY[:size]]) if size <= count else None
    assert levels.root(size) == expected
    assert levels.size == count


def test_leaves():
    levels = levels_of(2)
    assert levels.root(0) == EMPTY_ROOT
    assert levels.leaf(1) == leaf_hash(ENTRY[1])
    assert levels.leaf(2) is None
    assert not levels.has(Tile(0, 0, 3))
    assert levels.has(Tile(ENTRIES, 0, 2))


def test_signed_roots_are_compared_on_the_way():
    levels = Levels()
    wrong = hashlib.sha256(b"another history").digest()
    levels.expect(2, root([leaf_hash(entry) for entry in ENTRY[:2]]))
    levels.expect(3, wrong)
    levels.expect(9, wrong)
    for entry in ENTRY[:5]:
        levels.append(leaf_hash(entry))
    assert levels.unmet() == [3, 9]
