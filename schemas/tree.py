"""Merkle trees as in RFC 6962: roots, inclusion and consistency proofs, compact ranges.

A compact range is what has to be remembered of the leaves [lo, hi): the roots of the largest
perfect subtrees that fill it, at most about 2 * log2(hi) hashes. Neighbouring ranges merge, so a
session's root can be computed from the ranges of its fragments alone.

Hashes are SHA-256, 32 bytes. Only `CompactRange` has state; one thread at a time may use it.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sealtape.schemas.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HASH_SIZE: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()
MAX_SIZE: Final = 2**63


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return sha256(b"\1" + left + right).digest()


class CompactRange:
    """The leaves [lo, hi) of a tree, as the roots of their largest perfect subtrees."""

    __slots__ = ("_nodes", "hi", "lo")

    def __init__(self, lo: int = 0, hi: int | None = None, nodes: Iterable[bytes] = ()) -> None:
        """An empty range at `lo`, or the range [lo, hi) with its `nodes` from left to right."""
        self.lo = lo
        self.hi = lo if hi is None else hi
        self._nodes = list(nodes)
        if not 0 <= self.lo <= self.hi <= MAX_SIZE:
            raise FormatError(f"[{self.lo}, {self.hi}) is not a range of leaves")
        if len(self._nodes) != len(levels(self.lo, self.hi)):
            raise FormatError(
                f"range [{self.lo}, {self.hi}) has {len(self._nodes)} hashes,"
                f" it needs {len(levels(self.lo, self.hi))}"
            )
        if any(len(node) != HASH_SIZE for node in self._nodes):
            raise FormatError("a tree hash must be 32 bytes")

    @classmethod
    def over(cls, lo: int, leaves: Sequence[bytes]) -> CompactRange:
        """The range from `lo` on over these leaf hashes; faster than appending one by one."""
        if set(map(len, leaves)) - {HASH_SIZE}:
            raise FormatError("a leaf hash must be 32 bytes")
        left: list[bytes] = []
        right: list[bytes] = []
        row, first, end = list(leaves), lo, lo + len(leaves)
        while first < end:
            # An odd node at an edge has its sibling outside: it is a largest subtree itself.
            if first & 1:
                left.append(row.pop(0))
                first += 1
            if end & 1:
                right.append(row.pop())
                end -= 1
            row = [sha256(b"\1" + a + b).digest() for a, b in zip(row[::2], row[1::2], strict=True)]
            first >>= 1
            end >>= 1
        return cls(lo, lo + len(leaves), [*left, *reversed(right)])

    @property
    def nodes(self) -> tuple[bytes, ...]:
        """The hashes, from left to right."""
        return tuple(self._nodes)

    def __eq__(self, other: object) -> bool:
        """Equal when they cover the same leaves with the same hashes."""
        if not isinstance(other, CompactRange):
            return NotImplemented
        return (self.lo, self.hi, self._nodes) == (other.lo, other.hi, other._nodes)

    __hash__ = None  # type: ignore[assignment]  # it changes: not for sets

    def __len__(self) -> int:
        """How many leaves it covers."""
        return self.hi - self.lo

    def append(self, leaf: bytes) -> None:
        """Add the hash of leaf `hi` (a leaf hash, 32 bytes, not the leaf's data)."""
        if len(leaf) != HASH_SIZE:
            raise FormatError(f"a leaf hash must be 32 bytes, not {len(leaf)}")
        nodes = self._nodes
        nodes.append(leaf)
        index = self.hi
        first = self.lo
        size = 1
        # Each trailing one bit of the index closes a perfect subtree, if that begins inside.
        while index & size and index + 1 - 2 * size >= first:
            right = nodes.pop()
            nodes[-1] = sha256(b"\1" + nodes[-1] + right).digest()
            size *= 2
        self.hi = index + 1

    def extend(self, other: CompactRange) -> None:
        """Add the range that begins where this one ends; FormatError when it begins elsewhere."""
        if other.lo != self.hi:
            raise FormatError(
                f"range [{other.lo}, {other.hi}) does not follow [{self.lo}, {self.hi})"
            )
        merged = [
            *zip(levels(self.lo, self.hi), self._nodes, strict=True),
        ]
        position = self.hi
        for level, node in zip(levels(other.lo, other.hi), other._nodes, strict=True):
            merged.append((level, node))
            position += 1 << level
            _close(merged, self.lo, position)
        self._nodes = [node for _, node in merged]
        self.hi = other.hi

    def copy(self) -> CompactRange:
        """A range with the same leaves that changes on its own."""
        return CompactRange(self.lo, self.hi, self._nodes)

    def root(self) -> bytes:
        """The RFC 6962 root of the tree of `hi` leaves; FormatError unless it begins at leaf 0."""
        if self.lo != 0:
            raise FormatError(f"range [{self.lo}, {self.hi}) has no root: it begins inside a tree")
        if not self._nodes:
            return EMPTY_ROOT
        result = self._nodes[-1]
        for node in self._nodes[-2::-1]:
            result = sha256(b"\1" + node + result).digest()
        return result


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes."""
    return _range(leaves, 0, len(leaves)).root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The path from leaf `index` to the root over `leaves` (RFC 6962, 2.1.1)."""
    return [_subroot(leaves, lo, hi) for lo, hi in inclusion_ranges(index, len(leaves))]


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """The ranges [lo, hi) of leaves whose roots are the inclusion proof, in its order."""
    if not 0 <= index < size <= MAX_SIZE:
        raise FormatError(f"leaf {index} is not in a tree of {size}")
    path: list[tuple[int, int]] = []
    lo, hi = 0, size
    while hi - lo > 1:
        split = lo + _split(hi - lo)
        if index < split:
            path.append((split, hi))
            hi = split
        else:
            path.append((lo, split))
            lo = split
    return path[::-1]


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected_root: bytes
) -> None:
    """Raise FormatError unless `proof` leads from `leaf` to the root of the `size` leaves."""
    if not 0 <= index < size <= MAX_SIZE:
        raise FormatError(f"leaf {index} is not in a tree of {size}")
    _check_hashes([leaf, expected_root, *proof])
    node, position, last = leaf, index, size - 1
    steps = iter(proof)
    while last:
        # A right child, or a left child with a sibling, takes a hash; the rightmost goes up alone.
        if position & 1:
            node = node_hash(_next(steps), node)
        elif position < last:
            node = node_hash(node, _next(steps))
        position >>= 1
        last >>= 1
    _finish(steps)
    if node != expected_root:
        raise FormatError(f"inclusion proof of leaf {index} does not lead to the root of {size}")


def consistency_proof(leaves: Sequence[bytes], old_size: int) -> list[bytes]:
    """Show that the tree of the first `old_size` leaves is a prefix (RFC 6962, 2.1.2).

    Empty when the sizes are equal, and from size 0 (as C2SP tlog-witness has it).
    """
    return [_subroot(leaves, lo, hi) for lo, hi in consistency_ranges(old_size, len(leaves))]


def consistency_ranges(old_size: int, size: int) -> list[tuple[int, int]]:
    """The ranges [lo, hi) of leaves whose roots are the consistency proof, in its order."""
    if not 0 <= old_size <= size <= MAX_SIZE:
        raise FormatError(f"a tree of {size} has no prefix of {old_size}")
    if old_size in (0, size):
        return []
    path: list[tuple[int, int]] = []
    lo, hi = 0, size
    while hi != old_size:
        split = lo + _split(hi - lo)
        if old_size <= split:
            path.append((split, hi))
            hi = split
        else:
            path.append((lo, split))
            lo = split
    if lo:
        path.append((lo, hi))
    return path[::-1]


def verify_consistency(
    old_size: int, old_root: bytes, size: int, proof: Sequence[bytes], expected_root: bytes
) -> None:
    """Raise FormatError unless `proof` shows that the old tree is a prefix of the new one."""
    if not 0 <= old_size <= size <= MAX_SIZE:
        raise FormatError(f"a tree of {size} has no prefix of {old_size}")
    _check_hashes([old_root, expected_root, *proof])
    if old_size in (0, size):
        known = EMPTY_ROOT if old_size == 0 else expected_root
        if proof or old_root != known:
            raise FormatError(f"consistency proof from {old_size} to {size} does not hold")
        return
    position, last = old_size - 1, size - 1
    while position & 1:  # the largest perfect subtree the old tree ends with
        position >>= 1
        last >>= 1
    steps = iter(proof)
    old = new = _next(steps) if position else old_root
    while last:
        if position & 1:
            sibling = _next(steps)
            old, new = node_hash(sibling, old), node_hash(sibling, new)
        elif position < last:
            new = node_hash(new, _next(steps))
        position >>= 1
        last >>= 1
    _finish(steps)
    if (old, new) != (old_root, expected_root):
        raise FormatError(f"consistency proof from {old_size} to {size} does not hold")


def levels(lo: int, hi: int) -> list[int]:
    """The levels of the largest perfect subtrees that fill [lo, hi), from left to right."""
    found: list[int] = []
    while lo < hi:
        level = (hi - lo).bit_length() - 1
        if lo:
            level = min(level, (lo & -lo).bit_length() - 1)
        found.append(level)
        lo += 1 << level
    return found


def _close(merged: list[tuple[int, bytes]], lo: int, position: int) -> None:
    """Join the last two subtrees while they are the halves of one that begins at or after lo."""
    while len(merged) > 1 and merged[-1][0] == merged[-2][0]:
        level = merged[-1][0] + 1
        if position & ((1 << level) - 1) or position - (1 << level) < lo:
            return
        _, right = merged.pop()
        _, left = merged.pop()
        merged.append((level, node_hash(left, right)))


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def _range(leaves: Sequence[bytes], lo: int, hi: int) -> CompactRange:
    result = CompactRange()
    for index in range(lo, hi):
        result.append(leaves[index])
    return result


def _subroot(leaves: Sequence[bytes], lo: int, hi: int) -> bytes:
    return _range(leaves, lo, hi).root()


def _check_hashes(hashes: Iterable[bytes]) -> None:
    if any(len(item) != HASH_SIZE for item in hashes):
        raise FormatError("a tree hash must be 32 bytes")


def _next(steps: Iterable[bytes]) -> bytes:
    for step in steps:
        return step
    raise FormatError("proof is too short")


def _finish(steps: Iterable[bytes]) -> None:
    for _ in steps:
        raise FormatError("proof is too long")
