"""RFC 6962 trees against the textbook recursion, known roots and vectors."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import tree
from sealtape.schemas.errors import FormatError

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "tree.json").read_text(encoding="utf-8")
)
# Published with Certificate Transparency; not computed by this project.
KNOWN_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [hashlib.sha256(bytes([0, index])).digest() for index in range(130)]
sizes = st.integers(0, len(LEAVES))


def naive_root(leaves):
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = largest_power_below(len(leaves))
    left, right = naive_root(leaves[:split]), naive_root(leaves[split:])
    return hashlib.sha256(b"\1" + left + right).digest()


def naive_inclusion(leaves, index):
    if len(leaves) == 1:
        return []
    split = largest_power_below(len(leaves))
    if index < split:
        return [*naive_inclusion(leaves[:split], index), naive_root(leaves[split:])]
    return [*naive_inclusion(leaves[split:], index - split), naive_root(leaves[:split])]


def naive_consistency(leaves, old, *, whole=True):
    if old == len(leaves):
        return [] if whole else [naive_root(leaves)]
    split = largest_power_below(len(leaves))
    if old <= split:
        rest = naive_consistency(leaves[:split], old, whole=whole)
        return [*rest, naive_root(leaves[split:])]
    rest = naive_consistency(leaves[split:], old - split, whole=False)
    return [*rest, naive_root(leaves[:split])]


def largest_power_below(count):
    power = 1
    while power * 2 < count:
        power *= 2
    return power


def compact_range(lo, hi, leaves=LEAVES):
    result = tree.CompactRange(lo)
    for leaf in leaves[lo:hi]:
        result.append(leaf)
    return result


def test_known_roots():
    leaves = [tree.leaf_hash(bytes.fromhex(item)) for item in VECTORS["leaves"]]
    assert [leaf.hex() for leaf in leaves] == VECTORS["leaf_hashes"]
    assert [tree.root(leaves[:size]).hex() for size in range(9)] == KNOWN_ROOTS
    assert VECTORS["roots"] == KNOWN_ROOTS


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=str)
def test_inclusion_vectors(case):
    leaves = [bytes.fromhex(item) for item in VECTORS["leaf_hashes"]]
    proof = [bytes.fromhex(item) for item in case["proof"]]
    index, size = case["index"], case["size"]
    assert tree.inclusion_proof(leaves[:size], index) == proof
    root = bytes.fromhex(KNOWN_ROOTS[size])
    tree.verify_inclusion(leaves[index], index, size, proof, root)


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=str)
def test_consistency_vectors(case):
    leaves = [bytes.fromhex(item) for item in VECTORS["leaf_hashes"]]
    proof = [bytes.fromhex(item) for item in case["proof"]]
    old, size = case["old"], case["size"]
    assert tree.consistency_proof(leaves[:size], old) == proof
    roots = [bytes.fromhex(item) for item in KNOWN_ROOTS]
    tree.verify_consistency(old, roots[old], size, proof, roots[size])


@pytest.mark.parametrize("case", VECTORS["compact_ranges"], ids=str)
def test_compact_range_vectors(case):
    leaves = [bytes.fromhex(item) for item in VECTORS["leaf_hashes"]]
    made = compact_range(case["lo"], case["hi"], leaves)
    assert [node.hex() for node in made.nodes] == case["nodes"]


@given(sizes)
def test_root_is_the_recursion_of_the_rfc(size):
    assert tree.root(LEAVES[:size]) == naive_root(LEAVES[:size])
    assert compact_range(0, size).root() == naive_root(LEAVES[:size])


@given(st.integers(1, 130), st.data())
def test_inclusion_proofs_are_those_of_the_rfc(size, data):
    index = data.draw(st.integers(0, size - 1))
    proof = tree.inclusion_proof(LEAVES[:size], index)
    assert proof == naive_inclusion(LEAVES[:size], index)
    tree.verify_inclusion(LEAVES[index], index, size, proof, naive_root(LEAVES[:size]))


@given(st.integers(1, 130), st.data())
def test_consistency_proofs_are_those_of_the_rfc(size, data):
    old = data.draw(st.integers(1, size))
    proof = tree.consistency_proof(LEAVES[:size], old)
    assert proof == naive_consistency(LEAVES[:size], old)
    tree.verify_consistency(old, naive_root(LEAVES[:old]), size, proof, naive_root(LEAVES[:size]))


def test_all_small_proofs_verify_and_no_other_position_does():
    for size in range(1, 20):
        root = naive_root(LEAVES[:size])
        for index in range(size):
            proof = tree.inclusion_proof(LEAVES[:size], index)
            for claimed in range(size):
                if claimed == index:
                    tree.verify_inclusion(LEAVES[index], claimed, size, proof, root)
                else:
                    with pytest.raises(FormatError):
                        tree.verify_inclusion(LEAVES[index], claimed, size, proof, root)
        for old in range(size + 1):
            proof = tree.consistency_proof(LEAVES[:size], old)
            tree.verify_consistency(old, naive_root(LEAVES[:old]), size, proof, root)


@given(st.integers(2, 130), st.data())
def test_changed_inclusion_proofs_are_refused(size, data):
    index = data.draw(st.integers(0, size - 1))
    root = naive_root(LEAVES[:size])
    proof = tree.inclusion_proof(LEAVES[:size], index)
    for changed in changed_proofs(proof, data):
        with pytest.raises(FormatError):
            tree.verify_inclusion(LEAVES[index], index, size, changed, root)
    with pytest.raises(FormatError):
        tree.verify_inclusion(LEAVES[index], index, size, proof, bytes(32))


@given(st.integers(2, 130), st.data())
def test_changed_consistency_proofs_are_refused(size, data):
    old = data.draw(st.integers(1, size - 1))
    roots = naive_root(LEAVES[:old]), naive_root(LEAVES[:size])
    proof = tree.consistency_proof(LEAVES[:size], old)
    for changed in changed_proofs(proof, data):
        with pytest.raises(FormatError):
            tree.verify_consistency(old, roots[0], size, changed, roots[1])
    with pytest.raises(FormatError):
        tree.verify_consistency(old, bytes(32), size, proof, roots[1])
    with pytest.raises(FormatError):
        tree.verify_consistency(old, roots[0], size, proof, bytes(32))


def changed_proofs(proof, data):
    at = data.draw(st.integers(0, len(proof) - 1))
    bit = data.draw(st.integers(0, 255))
    flipped = bytearray(proof[at])
    flipped[bit // 8] ^= 1 << bit % 8
    yield [*proof[:at], bytes(flipped), *proof[at + 1 :]]
    yield [*proof[:at], *proof[at + 1 :]]
    yield [*proof, bytes(32)]
    yield [*proof[:at], proof[at][:-1], *proof[at + 1 :]]


@given(sizes, st.lists(sizes, max_size=6), st.randoms())
def test_any_partition_merges_to_the_same_root(size, cuts, rng):
    bounds = sorted({0, size, *(cut for cut in cuts if cut < size)})
    parts = [compact_range(lo, hi) for lo, hi in pairwise(bounds)]
    parts = parts or [tree.CompactRange()]
    while len(parts) > 1:
        at = rng.randrange(len(parts) - 1)
        right = parts.pop(at + 1)
        parts[at].extend(right)
        whole = compact_range(parts[at].lo, parts[at].hi)
        assert parts[at] == whole
    assert parts[0].root() == naive_root(LEAVES[:size])


@given(sizes, sizes)
def test_a_range_survives_being_written_down(one, other):
    lo, hi = min(one, other), max(one, other)
    made = compact_range(lo, hi)
    assert len(made) == hi - lo
    assert tree.CompactRange(made.lo, made.hi, made.nodes) == made
    assert len(made.nodes) <= 2 * max(1, hi.bit_length())


@given(sizes, sizes)
def test_many_leaves_at_once_are_as_one_by_one(one, other):
    lo, hi = min(one, other), max(one, other)
    assert tree.CompactRange.over(lo, LEAVES[lo:hi]) == compact_range(lo, hi)


@pytest.mark.parametrize(
    ("lo", "leaves"),
    [
        (0, [bytes(31)]),
        (0, [bytes(31)] * 2),
        (-1, [bytes(32)]),
        (-5, [bytes(32)] * 9),
        (2**63, [b"1"]),
    ],
)
def test_leaves_that_cannot_be_are_refused(lo, leaves):
    with pytest.raises(FormatError):
        tree.CompactRange.over(lo, leaves)


def test_a_copy_goes_its_own_way():
    made = compact_range(0, 3)
    twin = made.copy()
    twin.append(LEAVES[3])
    assert made == compact_range(0, 3)
    assert twin == compact_range(0, 4)
    assert made != twin
    assert made != "range"
    with pytest.raises(TypeError):
        hash(made)


def test_extend_does_not_change_the_other_range():
    first, second = compact_range(0, 3), compact_range(3, 8)
    first.extend(second)
    assert second == compact_range(3, 8)


@pytest.mark.parametrize(
    ("lo", "hi", "nodes"),
    [
        (-1, 0, []),
        (2, 1, []),
        (0, 2**63 + 1, []),
        (0, 1, []),
        (0, 2, [bytes(32)] * 2),
        (0, 1, [bytes(31)]),
        (1, 3, [bytes(32)]),
    ],
)
def test_ranges_that_cannot_be_are_refused(lo, hi, nodes):
    with pytest.raises(FormatError):
        tree.CompactRange(lo, hi, nodes)


def test_misuse_is_refused():
    with pytest.raises(FormatError, match="does not follow"):
        compact_range(0, 3).extend(compact_range(4, 5))
    with pytest.raises(FormatError, match="begins inside"):
        compact_range(1, 3).root()
    with pytest.raises(FormatError, match="32 bytes"):
        tree.CompactRange().append(b"data, not its hash")
    with pytest.raises(FormatError, match="not in a tree"):
        tree.inclusion_proof(LEAVES[:3], 3)
    with pytest.raises(FormatError, match="not in a tree"):
        tree.inclusion_proof(LEAVES[:3], -1)
    with pytest.raises(FormatError, match="not in a tree"):
        tree.verify_inclusion(LEAVES[0], 1, 1, [], LEAVES[0])
    with pytest.raises(FormatError, match="no prefix"):
        tree.consistency_proof(LEAVES[:3], 4)
    with pytest.raises(FormatError, match="no prefix"):
        tree.verify_consistency(4, LEAVES[0], 3, [], LEAVES[0])


def test_consistency_of_equal_and_empty_trees_needs_an_empty_proof():
    root = naive_root(LEAVES[:5])
    with pytest.raises(FormatError):
        tree.verify_consistency(5, root, 5, [bytes(32)], root)
    with pytest.raises(FormatError):
        tree.verify_consistency(5, bytes(32), 5, [], root)
    with pytest.raises(FormatError):
        tree.verify_consistency(0, root, 5, [], root)
    tree.verify_consistency(0, tree.EMPTY_ROOT, 5, [], root)


@pytest.mark.parametrize("other", [b"", bytes(31), bytes(33)])
def test_what_is_no_hash_is_no_part_of_a_proof(other):
    """Though all of it hashes to the root that is expected."""
    root = tree.node_hash(LEAVES[0], other)
    with pytest.raises(FormatError, match="must be 32 bytes"):
        tree.verify_inclusion(LEAVES[0], 0, 2, [other], root)
    with pytest.raises(FormatError, match="must be 32 bytes"):
        tree.verify_inclusion(other, 0, 1, [], other)
    with pytest.raises(FormatError, match="must be 32 bytes"):
        tree.verify_consistency(1, LEAVES[0], 2, [other], root)
