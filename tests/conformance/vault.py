"""What every vault adapter must do. Use: `class TestX(VaultConformance)` with a `vault` fixture."""

import asyncio
import time

import pytest

from sealtape.ingest.vault import Vault
from sealtape.schemas.errors import Exists, Fenced, Missing, StoreBusy, StoreError

BAD_KEYS = [
    "",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "a/./b",
    "../a",
    ".hidden",
    "a/.hidden",
    "a b",
    "a\\b",
    "a\nb",
    "a\0b",
    "é",
    "-flag",
    "a" * 513,
]


NEWEST, PENDING = "log/v1/1/checkpoint", "log/v1/1/checkpoint.pending"
NOT_SWAPPED = [
    "checkpoint",
    "log/v1/checkpoint",
    "log/v1/0/checkpoint",
    "log/v1/01/checkpoint",
    "log/v1/x/checkpoint",
    "log/v1/1/checkpoints/00000000000000000001",
    "log/v1/1/checkpoint.pending/x",
    "log/v1/1/checkpoint.other",
    "log/v1/1/tile/0/000",
    "log/v2/1/checkpoint",
    "a/log/v1/1/checkpoint",
    "seg/v1/checkpoint",
    "probe/checkpoint",
]


class VaultConformance:
    async def test_what_is_put_is_got(self, vault: Vault):
        data = bytes(range(256)) * 300
        await vault.put_new("seg/a=b/one.parquet", data)
        assert await vault.get("seg/a=b/one.parquet") == data
        assert await vault.size("seg/a=b/one.parquet") == len(data)

    async def test_any_buffer_is_taken(self, vault: Vault):
        await vault.put_new("a", bytearray(b"12"))
        await vault.put_new("b", memoryview(b"1234")[1:3])
        await vault.put_new("empty", b"")
        assert [await vault.get(key) for key in ("a", "b", "empty")] == [b"12", b"23", b""]
        assert await vault.size("empty") == 0

    async def test_a_range_is_clipped(self, vault: Vault):
        await vault.put_new("a", b"0123456789")
        assert await vault.get("a", 2, 5) == b"234"
        assert await vault.get("a", 7) == b"789"
        assert await vault.get("a", 7, 100) == b"789"
        assert await vault.get("a", 50, 100) == b""
        assert await vault.get("a", 3, 3) == b""
        with pytest.raises(StoreError):
            await vault.get("a", 5, 4)
        with pytest.raises(StoreError):
            await vault.get("a", -1)

    async def test_memory_is_filled(self, vault: Vault):
        """With what fits; what was behind it stays."""
        data = bytes(range(256)) * 5000
        await vault.put_new("a", data)
        await vault.put_new("empty", b"")
        memory = bytearray(b"x" * (len(data) + 3))
        assert await vault.fill("a", memoryview(memory)) == len(data)
        assert memory == data + b"xxx"
        assert await vault.fill("a", memoryview(memory)[:5]) == 5
        assert await vault.fill("a", memoryview(memory)[:0]) == 0
        assert await vault.fill("empty", memoryview(memory)) == 0
        assert memory == data + b"xxx"
        for buffer in (memoryview(memory), memoryview(memory)[:0]):
            with pytest.raises(Missing):
                await vault.fill("b", buffer)

    async def test_nothing_is_overwritten(self, vault: Vault):
        await vault.put_new("a/b", b"first")
        for data in (b"second", b"first"):
            with pytest.raises(Exists):
                await vault.put_new("a/b", data)
        assert await vault.get("a/b") == b"first"

    async def test_one_of_many_creators_wins(self, vault: Vault):
        puts = [vault.put_new("a/b/c", bytes([index]) * 9000) for index in range(20)]
        results = await asyncio.gather(*puts, return_exceptions=True)
        winners = [index for index, result in enumerate(results) if result is None]
        assert len(winners) == 1
        assert all(isinstance(r, Exists) for i, r in enumerate(results) if i not in winners)
        assert await vault.get("a/b/c") == bytes(winners) * 9000

    async def test_a_checkpoint_is_swapped(self, vault: Vault):
        await vault.swap(NEWEST, b"1", None)
        await vault.swap(PENDING, bytearray(b"p"), None)
        assert await vault.get(NEWEST) == b"1"
        await vault.swap(NEWEST, memoryview(b"22"), b"1")
        assert await vault.get(NEWEST) == b"22"
        assert await vault.size(NEWEST) == 2
        assert await vault.get(PENDING) == b"p"
        await vault.put_new("log/v1/1/checkpoints/2", b"22")
        assert [key async for key in vault.keys("log/v1/1/checkpoint")] == [
            NEWEST,
            PENDING,
            "log/v1/1/checkpoints/2",
        ]

    async def test_only_what_is_as_it_was_is_swapped(self, vault: Vault):
        with pytest.raises(Fenced):
            await vault.swap(NEWEST, b"1", b"0")
        with pytest.raises(Missing):
            await vault.get(NEWEST)
        await vault.swap(NEWEST, b"1", None)
        for before in (None, b"", b"0", b"11"):
            with pytest.raises(Fenced):
                await vault.swap(NEWEST, b"2", before)
        assert await vault.get(NEWEST) == b"1"

    async def test_a_swap_may_be_repeated(self, vault: Vault):
        for _ in range(2):
            await vault.swap(NEWEST, b"1", None)
        for _ in range(2):
            await vault.swap(NEWEST, b"2", b"1")
        assert await vault.get(NEWEST) == b"2"
        with pytest.raises(Fenced):
            await vault.swap(NEWEST, b"1", None)

    async def test_of_two_racing_writers_one_swaps(self, vault: Vault):
        before = None
        for turn in range(8):
            each = [b"%d by %d" % (turn, number) for number in range(6)]
            results = await asyncio.gather(
                *(vault.swap(NEWEST, data, before) for data in each), return_exceptions=True
            )
            (winner,) = [data for data, result in zip(each, results, strict=True) if result is None]
            assert sum(isinstance(result, Fenced) for result in results) == 5
            assert await vault.get(NEWEST) == winner
            before = winner

    async def test_every_swap_counts(self, vault: Vault):
        """Writers that read and add: nothing that one of them added is lost."""
        await vault.swap(NEWEST, b"", None)

        async def add(word):
            for number in range(3):
                mine = b"%s%d " % (word, number)
                while True:
                    before = await vault.get(NEWEST)
                    try:
                        await vault.swap(NEWEST, before + mine, before)
                        break
                    except Fenced:
                        await asyncio.sleep(0)

        await asyncio.gather(*(add(word) for word in (b"a", b"b", b"c")))
        words = (await vault.get(NEWEST)).split()
        assert sorted(words) == [b"%c%d" % (w, n) for w in b"abc" for n in range(3)]

    async def test_what_is_swapped_may_be_erased(self, vault: Vault):
        await vault.swap(NEWEST, b"1", None)
        await vault.swap(NEWEST, b"2", b"1")
        await vault.erase(NEWEST)
        with pytest.raises(Missing):
            await vault.get(NEWEST)
        with pytest.raises(Fenced):
            await vault.swap(NEWEST, b"3", b"2")
        await vault.swap(NEWEST, b"3", None)

    async def test_nothing_else_is_swapped_and_nothing_swapped_is_created(self, vault: Vault):
        for key in NOT_SWAPPED:
            with pytest.raises(StoreError, match="never changes"):
                await vault.swap(key, b"x", None)
        for key in (NEWEST, PENDING, f"probe/{'0' * 32}/checkpoint"):
            with pytest.raises(StoreError, match="never created"):
                await vault.put_new(key, b"x")
        assert [key async for key in vault.keys("")] == []

    async def test_large_objects_are_not_overwritten_either(self, vault: Vault):
        await vault.put_new("a/b", b"first")
        with pytest.raises(Exists):
            await vault.put_new("a/b", bytes(8 << 20))
        await vault.put_new("large", bytes(8 << 20))
        with pytest.raises(Exists):
            await vault.put_new("large", bytes(8 << 20))
        assert await vault.get("a/b") == b"first"
        assert await vault.get("large", (8 << 20) - 3) == bytes(3)

    async def test_missing_is_said(self, vault: Vault):
        await vault.put_new("folder/object", b"x")
        for key in ("none", "folder/none", "folder"):
            with pytest.raises(Missing):
                await vault.get(key)
            with pytest.raises(Missing):
                await vault.size(key)

    async def test_keys_come_in_order(self, vault: Vault):
        keys = ["a-b/c", "a/b", "a/b-c", "a/bb/x", "a=1/x", "b/1", "b/10", "b/2", "z.bin"]
        for key in reversed(keys):
            await vault.put_new(key, b"")
        everything = [key async for key in vault.keys("")]
        assert everything == sorted(keys)
        assert [key async for key in vault.keys("a/b")] == ["a/b", "a/b-c", "a/bb/x"]
        assert [key async for key in vault.keys("b/", after="b/1")] == ["b/10", "b/2"]
        assert [key async for key in vault.keys("nothing")] == []
        for after in everything:
            expected = [key for key in everything if key > after]
            assert [key async for key in vault.keys(after=after)] == expected

    async def test_an_empty_vault_lists_nothing(self, vault: Vault):
        assert [key async for key in vault.keys("")] == []

    async def test_erased_is_gone_and_may_come_again(self, vault: Vault):
        await vault.put_new("a/b", b"1")
        await vault.erase("a/b")
        await vault.erase("a/b")
        await vault.erase("never/was")
        with pytest.raises(Missing):
            await vault.get("a/b")
        await vault.put_new("a/b", b"2")
        assert await vault.get("a/b") == b"2"

    @pytest.mark.parametrize("key", BAD_KEYS)
    async def test_no_key_leaves_the_vault(self, vault: Vault, key: str):
        for call in (
            vault.put_new(key, b"x"),
            vault.swap(key, b"x", None),
            vault.get(key),
            vault.fill(key, memoryview(bytearray(1))),
            vault.size(key),
            vault.erase(key),
            vault.retain(key, 1),
            vault.hold(key, on=True),
        ):
            with pytest.raises(StoreError, match="cannot name an object"):
                await call

    async def test_a_lock_is_enforced_or_not_claimed(self, vault: Vault):
        until_ns = time.time_ns() + 3_000_000_000
        await vault.put_new("a/b", b"x", retain_until_ns=until_ns)
        if await vault.retain("a/b", until_ns):
            assert await vault.retain("a/b", 1)  # shortens nothing
            with pytest.raises(StoreBusy) as caught:
                await vault.erase("a/b")
            assert caught.value.retry_after_s > 0
            assert await vault.get("a/b") == b"x"
            await asyncio.sleep((until_ns - time.time_ns()) / 1e9 + 1.1)
        await vault.erase("a/b")
        with pytest.raises(Missing):
            await vault.get("a/b")

    async def test_a_legal_hold_is_enforced_or_not_claimed(self, vault: Vault):
        await vault.put_new("a/b", b"x")
        if await vault.hold("a/b", on=True):
            with pytest.raises(StoreBusy, match="legal hold"):
                await vault.erase("a/b")
            assert await vault.get("a/b") == b"x"
            assert await vault.hold("a/b", on=False)
        await vault.erase("a/b")
        with pytest.raises(Missing):
            await vault.get("a/b")

    async def test_what_is_not_there_is_not_locked(self, vault: Vault):
        with pytest.raises(Missing):
            await vault.retain("none", time.time_ns() + 1_000_000_000)
        with pytest.raises(Missing):
            await vault.hold("none", on=True)

    async def test_tidying_takes_no_object(self, vault: Vault):
        await vault.put_new("a/b", b"x")
        assert await vault.tidy() == 0
        assert await vault.get("a/b") == b"x"

    async def test_closing_twice_is_fine(self, vault: Vault):
        await vault.close()
        await vault.close()
