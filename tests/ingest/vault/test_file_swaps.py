"""Swaps in a folder: order of the steps, failures, other processes."""

import asyncio
import errno
import os
import subprocess
import sys
import textwrap

import pytest

from sealtape.ingest.vault import file as module
from sealtape.ingest.vault.file import FileVault
from sealtape.schemas.errors import Fenced, StoreBusy, StoreError, StoreFull
from tests.conformance.vault import NEWEST

ADDS = """
    import asyncio, sys
    from pathlib import Path
    from sealtape.ingest.vault.file import FileVault
    from sealtape.schemas.errors import Fenced

    KEY = "log/v1/1/checkpoint"

    async def main(root, word, count):
        vault = FileVault(Path(root))
        for number in range(count):
            while True:
                before = await vault.get(KEY)
                try:
                    await vault.swap(KEY, before + f"{word}{number} ".encode(), before)
                    break
                except Fenced:
                    pass

    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""
HOLDS = """
    import fcntl, os, sys
    descriptor = os.open(sys.argv[1], os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def vault(tmp_path):
    return FileVault(tmp_path / "vault")


def script(text, *arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-P", "-c", textwrap.dedent(text), *map(str, arguments)], **options
    )


async def test_the_new_bytes_are_synced_before_and_after_the_name_is_theirs(vault, monkeypatch):
    await vault.swap(NEWEST, b"1", None)
    events = []

    def recording(name):
        real = getattr(os, name)

        def call(*arguments, **options):
            events.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("write", "fsync", "rename"):
        recording(name)
    await vault.swap(NEWEST, b"2", b"1")
    assert events == ["write", "fsync", "rename", "fsync"]
    events.clear()
    # The folder again: who renamed it may have died before that.
    await vault.swap(NEWEST, b"2", b"1")
    assert events == ["fsync"]


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_failed_swap_leaves_the_old_bytes(vault, tmp_path, monkeypatch, step, number):
    await vault.swap(NEWEST, b"1", None)

    def failing(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module.os, step, failing)
    with pytest.raises(StoreFull if number == errno.ENOSPC else StoreError):
        await vault.swap(NEWEST, b"2", b"1")
    monkeypatch.undo()
    assert await vault.get(NEWEST) == b"1"
    assert list((tmp_path / "vault" / ".incoming").iterdir()) == []
    await vault.swap(NEWEST, b"2", b"1")


async def test_processes_that_race_lose_nothing(vault, tmp_path):
    await vault.swap(NEWEST, b"", None)
    workers = [script(ADDS, tmp_path / "vault", word, 15) for word in "abc"]
    assert [await asyncio.to_thread(worker.wait, 60) for worker in workers] == [0, 0, 0]
    words = (await vault.get(NEWEST)).decode().split()
    assert sorted(words) == sorted(f"{word}{number}" for word in "abc" for number in range(15))


async def test_a_process_that_keeps_the_lock_makes_others_busy(vault, tmp_path, monkeypatch):
    await vault.swap(NEWEST, b"1", None)
    monkeypatch.setattr(module, "_LOCK_PATIENCE_S", 0.2)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    holder = script(HOLDS, tmp_path / "vault" / ".swapping", **pipes)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(StoreBusy) as caught:
        await vault.swap(NEWEST, b"2", b"1")
    assert caught.value.retry_after_s > 0
    await vault.put_new("a", b"x")
    holder.communicate()
    await vault.swap(NEWEST, b"2", b"1")


async def test_a_symlink_is_not_followed(vault, tmp_path):
    await vault.swap(NEWEST, b"1", None)
    target = tmp_path / "vault" / NEWEST
    target.unlink()
    (tmp_path / "secret").write_bytes(b"secret")
    target.symlink_to(tmp_path / "secret")
    for before in (None, b"secret"):
        with pytest.raises(StoreError):
            await vault.swap(NEWEST, b"2", before)
    assert (tmp_path / "secret").read_bytes() == b"secret"


async def test_tidying_and_listing_leave_the_lock_alone(vault, tmp_path):
    await vault.swap(NEWEST, b"1", None)
    os.utime(tmp_path / "vault" / ".swapping", (1, 1))
    assert await vault.tidy() == 0
    assert [key async for key in vault.keys("")] == [NEWEST]
    assert (tmp_path / "vault" / ".swapping").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Fenced):
        await vault.swap(NEWEST, b"2", None)
