"""A folder that breaks its promises one at a time: a subclass of the real adapter."""

import asyncio

from sealtape.ingest.vault.file import FileVault
from sealtape.ingest.vault.probing import PROBE_PREFIX, look, probe
from sealtape.schemas.errors import Fenced, Missing, StoreBusy, StoreError


async def test_a_good_vault_is_ok_and_left_clean(tmp_path):
    vault = FileVault(tmp_path)
    await vault.put_new("seg/a", b"1")
    assert [check.level for check in await probe(vault)] == ["ok", "ok"]
    assert [key async for key in vault.keys("")] == ["seg/a"]


class Overwriting(FileVault):
    async def put_new(self, key, data, *, retain_until_ns=0):
        await self.erase(key)
        await super().put_new(key, data)


async def test_a_store_that_overwrites_is_an_error(tmp_path):
    (check,) = await probe(Overwriting(tmp_path))
    assert check.level == "error"
    assert "If-None-Match" in check.message


class Forgetting(FileVault):
    async def get(self, key, start=0, end=None):
        return (await super().get(key, start, end))[:-1]


class Hiding(FileVault):
    async def keys(self, prefix="", after=""):
        return
        yield


class Keeping(FileVault):
    async def erase(self, key):
        return


async def test_a_store_that_lies_is_an_error(tmp_path):
    for kind, word in ((Forgetting, "read back"), (Hiding, "list"), (Keeping, "remove")):
        (check,) = await probe(kind(tmp_path))
        assert check.level == "error"
        assert f"did not {word}" in check.message


class Locking(FileVault):
    async def erase(self, key):
        raise StoreBusy(f"{key} is locked until tomorrow.", retry_after_s=1.0)


async def test_a_lock_that_keeps_the_probe_is_told(tmp_path):
    vault = Locking(tmp_path)
    check, swaps = await probe(vault)
    assert (check.level, swaps.level) == ("ok", "ok")
    assert "locked until tomorrow" in check.message
    assert [key.startswith(PROBE_PREFIX) async for key in vault.keys("")] == [True, True]


class Undeletable(FileVault):
    async def erase(self, key):
        raise StoreError(f"answered 403 to a delete of {key}.", status=403)


async def test_whoever_may_not_remove_is_told_and_the_rest_is_tried(tmp_path):
    check, swaps = await probe(Undeletable(tmp_path))
    assert (check.level, swaps.level) == ("warning", "ok")
    assert "what crashes leave behind stays" in check.message
    assert f"{PROBE_PREFIX}*" in check.hint


class Failing(FileVault):
    async def erase(self, key):
        raise StoreError("The store failed.", status=400)


async def test_a_removal_that_fails_otherwise_is_an_error(tmp_path):
    (check,) = await probe(Failing(tmp_path))
    assert (check.level, check.message) == ("error", "Could not remove it. The store failed.")


class Vanishing(FileVault):
    async def get(self, key, start=0, end=None):
        raise Missing(key)


class Closed(FileVault):
    async def get(self, key, start=0, end=None):
        raise StoreError("Not permitted.", hint="Ask.")


async def test_a_look_changes_nothing(tmp_path):
    vault = FileVault(tmp_path)
    (empty,) = await look(vault)
    assert (empty.level, "no segment" in empty.message) == ("ok", True)
    await vault.put_new("seg/a", b"1")
    (found,) = await look(vault)
    assert (found.level, found.message) == ("ok", "Listing and reading work.")
    (gone,) = await look(Vanishing(tmp_path))
    assert (gone.level, "no segment" in gone.message) == ("ok", True)
    (closed,) = await look(Closed(tmp_path))
    assert (closed.level, closed.message) == ("error", "Could not read an object. Not permitted.")
    assert closed.hint == "Ask."
    assert [key async for key in vault.keys("")] == ["seg/a"]


class Unconditional(FileVault):
    """Compares what it has read, and then puts without a condition."""

    async def swap(self, key, data, before):
        try:
            found = await self.get(key)
        except Missing:
            found = None
        if found != before:
            raise Fenced(key)
        await asyncio.sleep(0.05)
        await self.erase(key)
        (self._root / key).parent.mkdir(parents=True, exist_ok=True)
        (self._root / key).write_bytes(data)


class Unswapping(FileVault):
    async def swap(self, key, data, before):
        raise StoreError("The vault answered 501.")


async def test_a_store_that_swaps_without_a_condition_is_an_error(tmp_path):
    access, swaps = await probe(Unconditional(tmp_path))
    assert (access.level, swaps.level) == ("ok", "error")
    assert "If-Match" in swaps.message


async def test_a_store_that_cannot_swap_is_an_error(tmp_path):
    access, swaps = await probe(Unswapping(tmp_path))
    assert (access.level, swaps.level) == ("ok", "error")
    assert swaps.message == "Could not swap an object. The vault answered 501."


async def test_a_failure_says_at_what(tmp_path):
    (tmp_path / "vault").write_bytes(b"not a folder")
    (check,) = await probe(FileVault(tmp_path / "vault"))
    assert check.level == "error"
    assert check.message.startswith("Could not create an object.")
