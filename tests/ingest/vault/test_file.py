import errno
import os
import shutil
import time

import pytest

from sealtape.ingest.vault import check_vault, prepare_vault
from sealtape.ingest.vault import file as module
from sealtape.ingest.vault.file import FileVault
from sealtape.schemas.errors import Exists, StoreError, StoreFull
from tests.conformance.vault import VaultConformance


@pytest.fixture
def vault(tmp_path):
    return FileVault(tmp_path / "vault")


class TestFileVault(VaultConformance):
    pass


async def test_everything_is_synced_before_and_after_the_name_appears(vault, monkeypatch):
    events = []

    def recording(name):
        real = getattr(os, name)

        def call(*arguments, **options):
            events.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    await vault.put_new("a/b", b"x")
    for name in ("write", "fsync", "link", "unlink"):
        recording(name)
    await vault.put_new("a/c", b"x")
    assert events[:3] == ["write", "fsync", "link"]
    assert events[-1] == "fsync"


async def test_what_another_left_unsynced_is_synced_by_who_relies_on_it(vault, monkeypatch):
    """Who made a folder, or put an object, may have been killed before its name was durable."""
    await vault.put_new("a/b/c", b"x")
    synced = []
    monkeypatch.setattr(module, "_sync_folder", lambda folder: synced.append(folder.name))
    with pytest.raises(Exists):
        await vault.put_new("a/b/c", b"x")
    assert synced == ["b"]
    synced.clear()
    later = module.FileVault(vault._root)
    await later.put_new("a/b/d", b"x")
    assert synced == ["vault", "a", "vault", "b"]
    synced.clear()
    await later.put_new("a/b/e", b"x")
    assert synced == ["b"]


@pytest.mark.parametrize("step", ["write", "fsync", "link"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_failed_put_leaves_nothing(vault, tmp_path, monkeypatch, step, number):
    await vault.put_new("a/b", b"x")

    def failing(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module.os, step, failing)
    with pytest.raises(StoreFull if number == errno.ENOSPC else StoreError):
        await vault.put_new("a/c", b"y" * 100)
    monkeypatch.undo()
    assert [key async for key in vault.keys("")] == ["a/b"]
    assert list((tmp_path / "vault" / ".incoming").iterdir()) == []
    await vault.put_new("a/c", b"z")


async def test_a_short_write_is_carried_on(vault, monkeypatch):
    real = os.write
    monkeypatch.setattr(module.os, "write", lambda fd, data: real(fd, data[:7]))
    await vault.put_new("a", bytes(100))
    assert await vault.size("a") == 100


async def test_a_symlink_is_not_followed(vault, tmp_path):
    await vault.put_new("a/b", b"x")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "vault" / "a" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(StoreError):
        await vault.get("a/link")
    with pytest.raises(Exists):
        await vault.put_new("a/link", b"y")
    assert (tmp_path / "secret").read_bytes() == b"secret"


async def test_a_parent_that_is_an_object_is_an_error(vault):
    await vault.put_new("a", b"x")
    with pytest.raises(StoreError):
        await vault.put_new("a/b", b"y")
    with pytest.raises(StoreError):
        await vault.get("a/b")
    await vault.erase("a/b")
    assert await vault.get("a") == b"x"


async def test_objects_are_for_their_owner_only(vault, tmp_path):
    await vault.put_new("a/b", b"x")
    assert (tmp_path / "vault/a/b").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "vault/a").stat().st_mode & 0o777 == 0o700


async def test_tidy_takes_only_what_was_left_behind_long_ago(vault, tmp_path):
    assert await vault.tidy() == 0
    await vault.put_new("a", b"x")
    staging = tmp_path / "vault" / ".incoming"
    for name, age in (("old", 90_000), ("young", 1000)):
        (staging / name).write_bytes(b"part")
        os.utime(staging / name, (time.time() - age,) * 2)
    assert await vault.tidy() == 1
    assert [file.name for file in staging.iterdir()] == ["young"]
    assert [key async for key in vault.keys("")] == ["a"]


async def test_a_long_listing_comes_in_batches(vault, monkeypatch):
    monkeypatch.setattr(module, "_LISTING_BATCH", 3)
    for number in range(10):
        await vault.put_new(f"n/{number}", b"")
    assert [key async for key in vault.keys("")] == [f"n/{number}" for number in range(10)]


async def test_listing_a_broken_folder_is_an_error(vault, tmp_path):
    (tmp_path / "vault").write_bytes(b"not a folder")
    with pytest.raises(StoreError):
        _ = [key async for key in vault.keys("")]


async def test_preparing_makes_the_folder_once(tmp_path):
    (done,) = await prepare_vault("file:some/vault", tmp_path)
    assert str(tmp_path / "some/vault") in done
    assert (tmp_path / "some/vault").stat().st_mode & 0o777 == 0o700
    assert await prepare_vault("file:some/vault", tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        await prepare_vault("file:file/vault", tmp_path)


async def test_checking_says_what_is_found(tmp_path, monkeypatch):
    (check,) = await check_vault("file:vault", tmp_path)
    assert check.level == "warning"
    assert "setup" in check.hint
    await prepare_vault("file:vault", tmp_path)
    levels = {check.name: check.level for check in await check_vault("file:vault", tmp_path)}
    assert levels["vault: access"] == "ok"
    assert "vault: folder" not in levels
    (tmp_path / "vault").chmod(0o755)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 95, 5))
    found = {check.name: check for check in await check_vault("file:vault", tmp_path)}
    assert "chmod 700" in found["vault: folder"].hint
    assert found["vault: disk"].level == "warning"
    assert [key async for key in FileVault(tmp_path / "vault").keys("")] == []


async def test_a_folder_that_cannot_be_used_is_an_error(tmp_path):
    (tmp_path / "vault" / "probe").mkdir(parents=True)
    (tmp_path / "vault" / "probe").rmdir()
    (tmp_path / "vault" / "probe").touch()
    found = {check.name: check for check in await check_vault("file:vault", tmp_path)}
    assert found["vault: access"].level == "error"
