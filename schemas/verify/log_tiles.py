"""All levels of a log's tree, from its leaves alone: what every tile must hold.

Leaves are appended in order; the roots at sizes that somebody signed are compared on the way.
"""

from __future__ import annotations

from sealtape.schemas.tlog.tiles import HEIGHT, MAX_LEVEL, WIDTH, Tile
from sealtape.schemas.tree import CompactRange


class Levels:
    """The hashes of every level of tiles; 33 bytes or so for each leaf."""

    def __init__(self) -> None:
        """Of an empty log."""
        self._levels: list[list[bytes]] = [[] for _ in range(MAX_LEVEL + 1)]
        self._tree = CompactRange()
        self._expected: dict[int, bytes] = {}
        self._roots: dict[int, bytes] = {}

    @property
    def size(self) -> int:
        """How many leaves were appended."""
        return self._tree.hi

    def expect(self, size: int, root: bytes) -> None:
        """Say, before the leaves come, which root the first `size` of them must have."""
        self._expected[size] = root

    def append(self, leaf: bytes) -> None:
        """The hash of the next leaf."""
        self._tree.append(leaf)
        self._push(0, leaf)
        if self.size in self._expected:
            self._roots[self.size] = self._tree.root()

    def unmet(self) -> list[int]:
        """The expected sizes that have another root, or were not reached."""
        return sorted(
            size for size, root in self._expected.items() if self._roots.get(size) != root
        )

    def leaf(self, index: int) -> bytes | None:
        """A leaf's hash, None behind the last one."""
        leaves = self._levels[0]
        return leaves[index] if index < len(leaves) else None

    def root(self, size: int) -> bytes | None:
        """The root over the first leaves; None when there are not so many."""
        if size > self.size:
            return None
        if size == self.size:
            return self._tree.root()
        tree = CompactRange()
        for leaf in self._levels[0][:size]:
            tree.append(leaf)
        return tree.root()

    def has(self, tile: Tile) -> bool:
        """Whether the leaves reach to the end of a tile; an entry bundle's are those of level 0."""
        return tile.first + tile.width <= len(self._levels[max(tile.level, 0)])

    def hashes(self, tile: Tile) -> list[bytes]:
        """What a hash tile must hold."""
        return self._levels[tile.level][tile.first : tile.first + tile.width]

    def _push(self, level: int, item: bytes) -> None:
        hashes = self._levels[level]
        hashes.append(item)
        if len(hashes) % WIDTH == 0 and level < MAX_LEVEL:
            whole = CompactRange()
            for each in hashes[-WIDTH:]:
                whole.append(each)
            self._push(level + 1, whole.root())


assert 1 << HEIGHT == WIDTH
