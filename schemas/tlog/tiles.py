"""The log's tiles, as C2SP tlog-tiles has them: their names, their bytes, proofs out of them.

A hash tile holds up to 256 neighbouring hashes of one level; those of level L + 1 are the roots of
the full tiles of level L. An entry bundle holds the entries of a tile of level 0. Whatever is full
never changes; what is not full is written anew, under another name, when the tree has grown.

    tile/0/x001/234            hash tile 1234 of level 0, full
    tile/1/004.p/210           hash tile 4 of level 1 while it has 210 hashes
    tile/entries/x001/234      the 256 entries of the first

Everything here is pure. Which tiles a proof needs is asked first (`places`), and they are given
then, so that a reader may get them from wherever it likes, all at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sealtape.schemas.errors import FormatError
from sealtape.schemas.tree import HASH_SIZE, MAX_SIZE, CompactRange, leaf_hash, levels, node_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

ENTRIES: Final = -1
"""The level of entry bundles."""
WIDTH: Final = 256
HEIGHT: Final = 8
MAX_LEVEL: Final = 7  # a tree below 2**63 leaves has no hash above it
MAX_ENTRY: Final = 65_535

_PATH: Final = re.compile(
    r"tile/(entries|[0-7])/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII
)


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """Hashes, or entries, `index * 256` and following of a level; `width` of them."""

    level: int
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        """Refuse what no tree has."""
        if not ENTRIES <= self.level <= MAX_LEVEL:
            raise FormatError(f"a tile has level 0 to {MAX_LEVEL}, not {self.level}")
        if not 1 <= self.width <= WIDTH:
            raise FormatError(f"a tile is 1 to {WIDTH} wide, not {self.width}")
        if self.index < 0 or (self.index * WIDTH + self.width) << self.shift > MAX_SIZE:
            raise FormatError(f"no tree has a tile {self.index} of level {self.level}")

    @property
    def shift(self) -> int:
        """How many times a leaf is halved to one of the tile's hashes: 8 for each level."""
        return max(self.level, 0) * HEIGHT

    @property
    def first(self) -> int:
        """The place of its first hash within the level."""
        return self.index * WIDTH

    @property
    def full(self) -> bool:
        """Whether it will never change."""
        return self.width == WIDTH

    @property
    def path(self) -> str:
        """Where it lies below the log's prefix."""
        level = "entries" if self.level == ENTRIES else str(self.level)
        digits = f"{self.index:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        place = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
        return f"tile/{level}/{place}" + ("" if self.full else f".p/{self.width}")

    @classmethod
    def from_path(cls, path: str) -> Tile:
        """The tile that lies there; FormatError for a path that is not the only one of its tile."""
        match = _PATH.fullmatch(path)
        if match is not None:
            level = ENTRIES if match[1] == "entries" else int(match[1])
            index = int(match[2].replace("/", "").replace("x", ""))
            tile = cls(level, index, int(match[3] or WIDTH))
            if tile.path == path:
                return tile
        raise FormatError(f"{path!r} is not a tile's path")


def tile_at(level: int, place: int, size: int) -> Tile:
    """The tile with hash `place` of a level, as wide as a tree of `size` leaves has it."""
    count = size >> max(level, 0) * HEIGHT
    if not 0 <= place < count:
        raise FormatError(f"a tree of {size} leaves has no hash {place} in tile level {level}")
    index = place // WIDTH
    return Tile(level, index, min(WIDTH, count - index * WIDTH))


def grown(old_size: int, size: int) -> Iterator[Tile]:
    """The tiles and entry bundles of a tree of `size` leaves that one of `old_size` has not.

    In the order in which they are to be written: entries before the hashes over them, and lower
    levels before higher ones.
    """
    if not 0 <= old_size <= size <= MAX_SIZE:
        raise FormatError(f"a tree of {old_size} leaves does not grow to {size}")
    for level in range(ENTRIES, MAX_LEVEL + 1):
        shift = max(level, 0) * HEIGHT
        old, new = old_size >> shift, size >> shift
        if old == new:
            continue
        for index in range(old // WIDTH, -(-new // WIDTH)):
            yield Tile(level, index, min(WIDTH, new - index * WIDTH))


def edge(size: int) -> list[Tile]:
    """The tiles and the bundle at the right end that are not full: what growing begins with."""
    found = []
    for level in range(ENTRIES, MAX_LEVEL + 1):
        count = size >> max(level, 0) * HEIGHT
        if count % WIDTH:
            found.append(Tile(level, count // WIDTH, count % WIDTH))
    return found


# -- bytes -----------------------------------------------------------------------------------------


def encode_hashes(hashes: Sequence[bytes]) -> bytes:
    """A hash tile's bytes."""
    if not 1 <= len(hashes) <= WIDTH or any(len(item) != HASH_SIZE for item in hashes):
        raise FormatError(f"a hash tile has 1 to {WIDTH} hashes of {HASH_SIZE} bytes")
    return b"".join(hashes)


def parse_hashes(tile: Tile, data: bytes) -> list[bytes]:
    """A hash tile's hashes; FormatError when it is not as wide as its name says."""
    if len(data) != tile.width * HASH_SIZE:
        raise FormatError(
            f"{tile.path} has {len(data)} bytes, not the {tile.width * HASH_SIZE} of its width"
        )
    return [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)]


def encode_entries(entries: Sequence[bytes]) -> bytes:
    """An entry bundle's bytes: each entry behind its length, a big-endian u16."""
    if not 1 <= len(entries) <= WIDTH:
        raise FormatError(f"an entry bundle has 1 to {WIDTH} entries, not {len(entries)}")
    if any(len(entry) > MAX_ENTRY for entry in entries):
        raise FormatError(f"an entry has at most {MAX_ENTRY} bytes")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def parse_entries(tile: Tile, data: bytes) -> list[bytes]:
    """An entry bundle's entries; FormatError when it has more, fewer, or half an entry."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if at + 2 > len(data) or end > len(data):
            raise FormatError(f"{tile.path} ends inside entry {len(entries)}")
        if len(entries) == tile.width:
            raise FormatError(f"{tile.path} has more than the {tile.width} entries of its width")
        entries.append(data[at + 2 : end])
        at = end
    if len(entries) != tile.width:
        raise FormatError(f"{tile.path} has {len(entries)} entries, not {tile.width}")
    return entries


# -- growing ---------------------------------------------------------------------------------------


class Growth:
    """A tree's right end, to which entries are added.

    Not safe in several threads at once.
    """

    def __init__(self, size: int, tiles: Mapping[Tile, bytes]) -> None:
        """Go on from `size` leaves; `tiles` are those of `edge(size)`. FormatError: they lie."""
        wanted = edge(size)
        if set(tiles) != set(wanted):
            raise FormatError(f"a tree of {size} leaves goes on from {len(wanted)} other tiles")
        self.size = size
        self._written = size
        self._entries: list[bytes] = []
        self._hashes: list[list[bytes]] = [[] for _ in range(MAX_LEVEL + 1)]
        for tile, data in tiles.items():
            if tile.level == ENTRIES:
                self._entries = parse_entries(tile, data)
            else:
                self._hashes[tile.level] = parse_hashes(tile, data)
        if [leaf_hash(entry) for entry in self._entries] != self._hashes[0]:
            raise FormatError(f"the last entries of a tree of {size} leaves are not its leaves")

    def append(self, entries: Iterable[bytes]) -> dict[Tile, bytes]:
        """Add entries, and return every tile and bundle that is new, in `grown`'s order."""
        new: dict[Tile, bytes] = {}
        old = self.size
        for entry in entries:
            if len(entry) > MAX_ENTRY:
                raise FormatError(f"an entry has at most {MAX_ENTRY} bytes, not {len(entry)}")
            self._entries.append(entry)
            self._push(0, leaf_hash(entry), new)
            self.size += 1
            if len(self._entries) == WIDTH:
                new[Tile(ENTRIES, (self.size - 1) // WIDTH)] = encode_entries(self._entries)
                self._entries = []
        for tile in edge(self.size):
            if tile.level == ENTRIES:
                new[tile] = encode_entries(self._entries)
            else:
                new[tile] = encode_hashes(self._hashes[tile.level])
        return {tile: new[tile] for tile in grown(old, self.size)}

    def root(self) -> bytes:
        """The root over all that was added."""
        nodes: list[bytes] = []
        for level in range(MAX_LEVEL, -1, -1):
            hashes = self._hashes[level]
            inner = CompactRange()
            for item in hashes:
                inner.append(item)
            nodes += inner.nodes
        return CompactRange(0, self.size, nodes).root()

    def _push(self, level: int, item: bytes, new: dict[Tile, bytes]) -> None:
        hashes = self._hashes[level]
        hashes.append(item)
        if len(hashes) < WIDTH:
            return
        index = self.size >> (level + 1) * HEIGHT
        new[Tile(level, index)] = encode_hashes(hashes)
        self._hashes[level] = []
        self._push(level + 1, _root(hashes), new)


def _root(hashes: Iterable[bytes]) -> bytes:
    whole = CompactRange()
    for item in hashes:
        whole.append(item)
    return whole.root()


# -- reading ---------------------------------------------------------------------------------------


def places(ranges: Iterable[tuple[int, int]], size: int) -> set[Tile]:
    """The hash tiles out of which a tree of `size` leaves gives the roots of these ranges."""
    return {
        tile_at(level // HEIGHT, index << level % HEIGHT, size)
        for lo, hi in ranges
        for level, index in _nodes(lo, hi, size)
    }


def roots(ranges: Iterable[tuple[int, int]], size: int, tiles: Mapping[Tile, bytes]) -> list[bytes]:
    """The root of each range of leaves [lo, hi), out of the tiles that `places` names.

    With `tree.inclusion_ranges` or `tree.consistency_ranges` these are proofs, with (0, size) the
    tree's root. Nothing is checked but the tiles' sizes: who needs to know that the tiles are the
    log's compares the root with a signed one.
    """
    found = []
    for lo, hi in ranges:
        parts = [_hash_in(tiles, level, index, size) for level, index in _nodes(lo, hi, size)]
        result = parts.pop()
        while parts:
            result = node_hash(parts.pop(), result)
        found.append(result)
    return found


def _nodes(lo: int, hi: int, size: int) -> list[tuple[int, int]]:
    """The perfect subtrees that fill a range: each one's level and place within it."""
    if not 0 <= lo < hi <= size:
        raise FormatError(f"[{lo}, {hi}) are not leaves of a tree of {size}")
    if lo & ((1 << (hi - lo - 1).bit_length()) - 1):
        raise FormatError(f"[{lo}, {hi}) is not a subtree, it has no root of its own")
    nodes = []
    for level in levels(lo, hi):
        nodes.append((level, lo >> level))
        lo += 1 << level
    return nodes


def _hash_in(tiles: Mapping[Tile, bytes], level: int, index: int, size: int) -> bytes:
    inside = level % HEIGHT
    first = index << inside
    tile = tile_at(level // HEIGHT, first, size)
    if tile not in tiles:
        raise FormatError(f"{tile.path} is missing")
    hashes = parse_hashes(tile, tiles[tile])
    at = first - tile.first
    return _root(hashes[at : at + (1 << inside)])
