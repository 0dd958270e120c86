import asyncio
import os

import pytest

from sealtape.ingest import parquet
from sealtape.ingest import segment_file as module
from sealtape.ingest.parquet import row_of, write_segment
from sealtape.ingest.segment_file import SegmentFile
from sealtape.ingest.vault.file import FileVault
from sealtape.schemas.errors import FormatError, Missing
from sealtape.schemas.frames import Frame

KEY = "seg/one.parquet"
ROWS = [
    row_of(Frame(bytes([seq // 7]) * 16, 0, seq, 10**18, seq % 5, 2, 0, os.urandom(1000)))
    for seq in range(100)
]


class Watched(FileVault):
    """A vault that notes which stretches are fetched."""

    def __init__(self, root):
        super().__init__(root)
        self.fetched = []

    async def get(self, key, start=0, end=None):
        data = await super().get(key, start, end)
        self.fetched.append((start, start + len(data)))
        return data

    def take(self):
        taken, self.fetched = self.fetched, []
        return taken


@pytest.fixture
def small_groups(monkeypatch):
    """Ten rows a group, and nothing is small enough to be fetched whole."""
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 10_000)
    monkeypatch.setattr(module, "WHOLE_BYTES", 0)


@pytest.fixture
def vault(tmp_path):
    return Watched(tmp_path)


async def put(vault, rows=ROWS):
    data = bytes(write_segment([rows], {"v": "1"}))
    await vault.put_new(KEY, data)
    return data


async def read(file, start, end):
    return [(at, row) async for at, row in file.rows(start, end)]


RANGES = [(0, 100), (0, 0), (5, 6), (9, 11), (15, 15), (95, 1000), (100, 101), (0, 1)]


@pytest.mark.parametrize(("start", "end"), RANGES)
async def test_rows_of_a_range(vault, small_groups, start, end):
    await put(vault)
    expected = list(enumerate(ROWS))[start:end]
    assert await read(SegmentFile(vault, KEY), start, end) == expected
    file = SegmentFile(vault, KEY)
    assert await file.column("kind", start, end) == [row.kind for _, row in expected]
    assert await file.column("leaf", start, end) == [row.leaf for _, row in expected]


async def test_only_what_is_needed_is_fetched(vault, small_groups, monkeypatch):
    data = await put(vault)
    monkeypatch.setattr(module, "TAIL_BYTES", 20_000)
    file = SegmentFile(vault, KEY)
    assert vault.take() == []
    await read(file, 35, 36)
    tail, group = vault.take()
    assert tail == (len(data) - 20_000, len(data))
    assert 10_000 < group[1] - group[0] < 12_500
    await read(file, 30, 40)
    assert vault.take() == []  # the same group, kept
    await read(file, 39, 41)
    assert len(vault.take()) == 1
    await file.column("kind", 0, 100)
    columns = vault.take()
    assert len(columns) == 10
    assert all(end - start < 300 for start, end in columns)


async def test_a_large_footer_is_fetched_in_two_steps(vault, small_groups, monkeypatch):
    data = await put(vault)
    monkeypatch.setattr(module, "TAIL_BYTES", 100)
    assert await read(SegmentFile(vault, KEY), 50, 52) == list(enumerate(ROWS))[50:52]
    first, second, _ = vault.take()
    assert first == (len(data) - 100, len(data))
    assert second[1] == len(data)


async def test_a_small_object_is_fetched_once(vault):
    data = await put(vault)
    file = SegmentFile(vault, KEY)
    assert await read(file, 0, 100) == list(enumerate(ROWS))
    assert await file.column("seq", 3, 5) == [3, 4]
    assert vault.take() == [(0, len(data))]


async def test_readers_of_one_file_at_the_same_time(vault, small_groups):
    await put(vault)
    file = SegmentFile(vault, KEY)
    found = await asyncio.gather(*(read(file, at, at + 12) for at in range(0, 90, 7)))
    assert found == [list(enumerate(ROWS))[at : at + 12] for at in range(0, 90, 7)]


async def test_one_group_is_fetched_ahead(vault, small_groups):
    await put(vault)
    file = SegmentFile(vault, KEY)
    rows = file.rows(0, 100)
    await anext(rows)
    await asyncio.sleep(0.1)
    assert len(vault.take()) == 1 + 2
    await rows.aclose()
    await asyncio.sleep(0.1)
    assert vault.take() == []
    assert await read(file, 5, 25) == list(enumerate(ROWS))[5:25]


async def test_what_fails_ahead_fails_when_it_is_needed(vault, small_groups, tmp_path):
    await put(vault)
    file = SegmentFile(vault, KEY)
    rows = file.rows(0, 100)
    await anext(rows)
    (tmp_path / KEY).unlink()
    await asyncio.sleep(0.1)
    with pytest.raises(Missing):
        _ = [row async for row in rows]
    await file.rows(0, 1).aclose()


async def test_what_is_not_there(vault):
    with pytest.raises(Missing):
        await read(SegmentFile(vault, KEY), 0, 1)


@pytest.mark.usefixtures("small_groups")
class TestDamage:
    async def damaged(self, vault, change):
        data = bytearray(write_segment([ROWS], {}))
        await vault.put_new(KEY, change(data))
        return SegmentFile(vault, KEY)

    async def test_in_one_group_is_not_seen_from_another(self, vault):
        def change(data):
            data[data.index(ROWS[15].payload)] ^= 1
            return data

        file = await self.damaged(vault, change)
        assert await read(file, 20, 100) == list(enumerate(ROWS))[20:]
        assert await read(file, 0, 10) == list(enumerate(ROWS))[:10]
        with pytest.raises(FormatError):
            await read(file, 12, 13)
        assert await file.column("kind", 10, 20) == [row.kind for row in ROWS[10:20]]

    @pytest.mark.parametrize(
        "change",
        [
            lambda data: b"",
            lambda data: b"PAR1",
            lambda data: data[:-1],
            lambda data: data[:-8] + b"\xff\xff\xff\xffPAR1",
            lambda data: data[:-8] + b"\x00\x00\x00\x00PAR1",
            lambda data: data[5000:],
            lambda data: bytes(200_000),
        ],
    )
    async def test_of_the_end(self, vault, change):
        file = await self.damaged(vault, change)
        with pytest.raises(FormatError):
            await read(file, 0, 100)

    async def test_flipped_bits_of_the_footer_never_become_another_error(self, vault):
        data = bytes(write_segment([ROWS], {}))
        size = int.from_bytes(data[-8:-4], "little")
        for position in range(len(data) - size - 8, len(data), 23):
            bad = bytearray(data)
            bad[position] ^= 0x10
            key = f"bad/{position}"
            await vault.put_new(key, bad)
            try:
                await read(SegmentFile(vault, key), 0, 100)
                await SegmentFile(vault, key).column("kind", 0, 100)
            except FormatError:
                pass

    async def test_an_object_that_shrinks_while_it_is_read(self, vault, tmp_path):
        data = await put(vault)
        file = SegmentFile(vault, KEY)
        await read(file, 0, 1)
        (tmp_path / KEY).chmod(0o600)
        (tmp_path / KEY).write_bytes(data[:40_000])
        with pytest.raises(FormatError):
            await read(file, 60, 61)
