import pytest

from sealtape.ingest.tlog.store import CHECKPOINT, LogStore, fork, noted_key
from sealtape.ingest.vault.file import FileVault
from sealtape.schemas import tree
from sealtape.schemas.errors import Fenced, StoreCorrupt
from sealtape.schemas.tlog.tiles import Growth

ENTRIES = [b"entry %d" % number for number in range(700)]
LEAVES = [tree.leaf_hash(entry) for entry in ENTRIES]


@pytest.fixture
async def store(tmp_path):
    vault = FileVault(tmp_path / "vault")
    yield LogStore(vault, 3)
    await vault.close()


async def grown(store, *sizes):
    """The tiles of a log that was signed at these sizes."""
    growth, before = Growth(0, {}), 0
    for size in sizes:
        await store.put(growth.append(ENTRIES[before:size]))
        before = size
    return growth


async def test_what_is_written_is_read_back(store, tmp_path):
    await grown(store, 5, 300, 700)
    assert await store.entries(0, 700) == ENTRIES
    assert await store.entries(290, 300) == ENTRIES[290:300]
    assert await store.entries(5, 5) == []
    assert await store.root(700) == tree.root(LEAVES)
    assert await store.root(0) == tree.EMPTY_ROOT
    assert (tmp_path / "vault/log/v1/3/tile/entries/002.p/188").exists()


@pytest.mark.parametrize(("old", "new"), [(0, 300), (5, 300), (299, 700), (700, 700), (256, 512)])
async def test_proofs_of_what_was_signed(store, old, new):
    await grown(store, 5, 256, 300, 512, 700)
    proof = await store.prove(old, new)
    roots = tree.root(LEAVES[:old]), tree.root(LEAVES[:new])
    tree.verify_consistency(old, roots[0], new, proof, roots[1])


async def test_a_partial_tile_that_was_removed_is_cut_out_of_the_full_one(store, tmp_path):
    await grown(store, 100, 700)
    for path in (tmp_path / "vault").rglob("*.p/100"):
        path.unlink()
    assert await store.root(100) == tree.root(LEAVES[:100])
    assert await store.entries(0, 100) == ENTRIES[:100]
    again = await store.growth(100)
    assert again.root() == tree.root(LEAVES[:100])


async def test_writing_again_writes_the_same(store):
    await grown(store, 300)
    await grown(store, 300)
    growth = await store.growth(300)
    growth.append(ENTRIES[300:310])
    assert growth.root() == tree.root(LEAVES[:310])


async def test_other_bytes_are_a_fork(store):
    await grown(store, 300)
    other = Growth(0, {}).append([*ENTRIES[:299], b"another"])
    with pytest.raises(StoreCorrupt, match="would fork"):
        await store.put(other)
    assert "sealtape ledger rebuild" in fork("x").hint


async def test_tiles_that_are_missing_or_damaged(store, tmp_path):
    await grown(store, 300)
    with pytest.raises(StoreCorrupt, match="missing"):
        await store.root(400)
    tile = tmp_path / "vault/log/v1/3/tile/0/001.p/44"
    tile.chmod(0o600)
    tile.write_bytes(b"x" * 31)
    for read in (store.root(300), store.growth(300), store.prove(100, 300)):
        with pytest.raises(StoreCorrupt, match="damaged"):
            await read
    bundle = tmp_path / "vault/log/v1/3/tile/entries/000"
    bundle.chmod(0o600)
    bundle.write_bytes(b"\0\1")
    with pytest.raises(StoreCorrupt, match="entries/000"):
        await store.entries(0, 300)
    with pytest.raises(StoreCorrupt, match="damaged"):
        await store.entries(0, 200)


async def test_objects(store):
    assert await store.get("nothing") == b""
    assert await store.create(noted_key(7), b"one") == b"one"
    assert await store.create(noted_key(7), b"two") == b"one"
    await store.drop(noted_key(7))
    assert await store.get(noted_key(7)) == b""
    assert noted_key(7) == "checkpoints/00000000000000000007"


async def test_the_checkpoint_is_swapped_by_who_knows_it(store):
    await store.swap(CHECKPOINT, b"one", b"")
    await store.swap(CHECKPOINT, b"two", b"one")
    with pytest.raises(Fenced):
        await store.swap(CHECKPOINT, b"three", b"one")
    assert await store.get(CHECKPOINT) == b"two"
