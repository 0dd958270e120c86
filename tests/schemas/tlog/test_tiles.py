"""Tiles against RFC 6962 by recursion, their names, and what lies about its width."""

import hashlib
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import notes, tree
from sealtape.schemas.errors import FormatError
from sealtape.schemas.tlog import tiles
from sealtape.schemas.tlog.proof import parse_proof
from sealtape.schemas.tlog.tiles import ENTRIES, Growth, Tile

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "log.json").read_text(encoding="utf-8")
)
MANY = [b"entry %d" % number for number in range(66_000)]
LEAVES = [tree.leaf_hash(entry) for entry in MANY]


def log_of(size, *, batch=None):
    """All tiles that a log of this many entries has ever written, grown in batches."""
    growth, written = Growth(0, {}), {}
    at = 0
    while at < size:
        end = size if batch is None else min(size, at + batch())
        written |= growth.append(MANY[at:end])
        at = end
    return growth, written


GROWTH, TILES = log_of(66_000)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 1_234_067), "tile/0/x001/x234/067"),
        (Tile(1, 5, 17), "tile/1/005.p/17"),
        (Tile(ENTRIES, 999, 255), "tile/entries/999.p/255"),
        (Tile(ENTRIES, 1000), "tile/entries/x001/000"),
        (Tile(7, 0, 128), "tile/7/000.p/128"),
    ],
)
def test_paths(tile, path):
    assert tile.path == path
    assert Tile.from_path(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/00",
        "tile/0/0000",
        "tile/0/000/",
        "/tile/0/000",
        "tile/00/000",
        "tile/8/000",
        "tile/0/x000/001",
        "tile/0/001/x002",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/999",
        "tile/0/000.p/",
        "tile/entries/000.p/1\n",
        "tile/-1/000",
        "tile/7/000",
        "tile/7/000.p/129",
        "tile/0/\uff10\uff10\uff10",
    ],
)
def test_other_paths_are_refused(path):
    with pytest.raises(FormatError):
        Tile.from_path(path)


@given(st.integers(ENTRIES, 7), st.integers(0, 2**55 - 1), st.integers(1, 256))
def test_every_tile_has_one_path(level, index, width):
    try:
        tile = Tile(level, index, width)
    except FormatError:
        assert (index * 256 + width) << max(level, 0) * 8 > 2**63
        return
    assert Tile.from_path(tile.path) == tile


@pytest.mark.parametrize("wrong", [(-2, 0, 1), (8, 0, 1), (0, 0, 0), (0, 0, 257), (0, -1, 1)])
def test_tiles_that_no_tree_has(wrong):
    with pytest.raises(FormatError):
        Tile(*wrong)


def test_vectors():
    entries = [b'{"n":%d}' % number for number in range(VECTORS["entries"]["count"])]
    growth = Growth(0, {})
    written = growth.append(entries)
    found = {tile.path: hashlib.sha256(data).hexdigest() for tile, data in written.items()}
    assert found == VECTORS["tiles"]
    assert tiles.encode_entries(entries[:3]).hex() == VECTORS["first_bytes_of_bundle"]
    proof = parse_proof(VECTORS["proof"].encode())
    ranges = tree.inclusion_ranges(proof.index, growth.size)
    assert tuple(tiles.roots(ranges, growth.size, written)) == proof.path
    assert notes.parse_checkpoint(notes.parse_note(proof.note).text).root == growth.root()


def test_a_tree_of_seventy_thousand_as_the_specification_counts_it():
    found = [tile for tile in tiles.grown(0, 70_000) if tile.level != ENTRIES]
    assert sum(tile.full and tile.level == 0 for tile in found) == 273
    assert [tile for tile in found if not tile.full] == [
        Tile(0, 273, 112),
        Tile(1, 1, 17),
        Tile(2, 0, 1),
    ]
    assert tiles.edge(70_000) == [
        Tile(ENTRIES, 273, 112),
        Tile(0, 273, 112),
        Tile(1, 1, 17),
        Tile(2, 0, 1),
    ]
    assert tiles.edge(256) == [Tile(1, 0, 1)]
    assert tiles.edge(0) == list(tiles.grown(5, 5)) == []


def test_every_hash_is_the_one_of_its_leaves():
    for tile, data in TILES.items():
        if tile.level == ENTRIES:
            first = tile.first
            assert tiles.parse_entries(tile, data) == MANY[first : first + tile.width]
            continue
        span = 1 << tile.shift
        found = tiles.parse_hashes(tile, data)
        for at in {0, len(found) - 1}:
            lo = (tile.first + at) * span
            assert found[at] == tree.root(LEAVES[lo : lo + span])


@given(st.integers(0, 2**32))
def test_how_it_grew_does_not_matter(seed):
    luck = random.Random(seed)
    size = luck.randrange(1, 1500)
    growth, written = log_of(size, batch=lambda: luck.randrange(1, 400))
    assert growth.size == size
    assert growth.root() == tree.root(LEAVES[:size])
    at_once = log_of(size)[1]
    assert {tile: written[tile] for tile in at_once} == at_once
    assert set(at_once) == set(tiles.grown(0, size))
    again = Growth(size, {tile: written[tile] for tile in tiles.edge(size)})
    more = again.append(MANY[size : size + 300])
    assert again.root() == tree.root(LEAVES[: size + 300])
    assert list(more) == list(tiles.grown(size, size + 300))


def test_nothing_added_writes_nothing():
    growth = Growth(0, {})
    assert growth.append([]) == {}
    assert growth.root() == tree.EMPTY_ROOT


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 65_535, 65_536, 65_537, 66_000])
def test_proofs_out_of_tiles(size):
    _, own = log_of(size) if size < 1000 else (None, None)
    stored = own or Growth(0, {}).append(MANY[:size])
    top = tree.root(LEAVES[:size])
    luck = random.Random(size)
    for index in {0, size - 1, luck.randrange(size)}:
        ranges = tree.inclusion_ranges(index, size)
        given_tiles = {tile: stored[tile] for tile in tiles.places(ranges, size)}
        proof = tiles.roots(ranges, size, given_tiles)
        tree.verify_inclusion(LEAVES[index], index, size, proof, top)
    for old in {0, 1, size, luck.randrange(size) + 1}:
        ranges = tree.consistency_ranges(old, size)
        proof = tiles.roots(ranges, size, stored)
        tree.verify_consistency(old, tree.root(LEAVES[:old]), size, proof, top)
    assert tiles.roots([(0, size)], size, stored) == [top]


def test_growth_needs_its_own_right_end():
    written = log_of(300)[1]
    right = {tile: written[tile] for tile in tiles.edge(300)}
    with pytest.raises(FormatError, match="goes on from"):
        Growth(299, right)
    with pytest.raises(FormatError, match="goes on from"):
        Growth(300, {})
    other = Growth(0, {}).append([b"x", *MANY[1:300]])
    bundle = Tile(ENTRIES, 1, 44)
    Growth(300, right | {bundle: other[bundle]})  # the same entries there
    changed = tiles.encode_entries([b"y", *tiles.parse_entries(bundle, right[bundle])[1:]])
    with pytest.raises(FormatError, match="not its leaves"):
        Growth(300, right | {bundle: changed})


def test_entries_have_a_largest_size():
    Growth(0, {}).append([bytes(65_535)])
    with pytest.raises(FormatError, match="65535"):
        Growth(0, {}).append([bytes(65_536)])
    with pytest.raises(FormatError, match="65535"):
        tiles.encode_entries([bytes(65_536)])


@pytest.mark.parametrize("count", [0, 257])
def test_bundles_and_tiles_have_a_largest_width(count):
    with pytest.raises(FormatError, match="1 to 256"):
        tiles.encode_entries([b""] * count)
    with pytest.raises(FormatError, match="1 to 256"):
        tiles.encode_hashes([bytes(32)] * count)


def test_a_hash_has_its_size():
    with pytest.raises(FormatError, match="32 bytes"):
        tiles.encode_hashes([bytes(31)])


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "has 0 entries"),
        (b"\0\1a", "has 1 entries"),
        (b"\0\1a\0\1b\0\1c", "more than"),
        (b"\0\1a\0", "inside entry 1"),
        (b"\0\1a\0\2b", "inside entry 1"),
    ],
)
def test_bundles_that_are_not_as_wide_as_their_name(data, word):
    with pytest.raises(FormatError, match=word):
        tiles.parse_entries(Tile(ENTRIES, 0, 2), data)


def test_tiles_that_are_not_as_wide_as_their_name():
    for size in (0, 31, 32, 63, 65, 96):
        with pytest.raises(FormatError, match="not the 64"):
            tiles.parse_hashes(Tile(0, 0, 2), bytes(size))


def test_what_a_tree_does_not_have():
    with pytest.raises(FormatError, match="does not grow"):
        list(tiles.grown(5, 4))
    with pytest.raises(FormatError, match="has no hash"):
        tiles.tile_at(0, 5, 5)
    with pytest.raises(FormatError, match="are not leaves"):
        tiles.places([(3, 6)], 5)
    with pytest.raises(FormatError, match="not a subtree"):
        tiles.places([(1, 3)], 5)
    with pytest.raises(FormatError, match="is missing"):
        tiles.roots([(0, 5)], 5, {})


def test_an_entry_that_is_refused_leaves_the_tree_as_it_was():
    growth = Growth(0, {})
    with pytest.raises(FormatError, match="not 65536"):
        growth.append([bytes(65_536)])
    assert (growth.size, growth.root()) == (0, tree.EMPTY_ROOT)
    assert growth.append([b"one"]) == Growth(0, {}).append([b"one"])
