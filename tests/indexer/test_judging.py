"""A segment's bytes are judged the same in this process and in others."""

import asyncio
import os
import signal
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.indexer import judging
from sealtape.indexer.judging import JudgePool, LocalJudge, Whole, judge
from sealtape.ingest.parquet import ColumnReader
from sealtape.ingest.vault import open_vault
from sealtape.schemas.errors import Missing, StoreError
from sealtape.schemas.segments import parse_manifest
from sealtape.schemas.verify import Run, Single, fragment
from tests.factories.deployments import audit
from tests.indexer.harm import overwrite, sealed, site

__all__ = ["sealed", "site"]


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Two processes over a vault whose folder each test chooses."""
    place = tmp_path_factory.mktemp("pool")
    pool = JudgePool("file:vault", place, 2)
    yield place, pool
    pool.close()


def segment(site, number=0):
    path = site.objects()[number]
    manifest = path.with_name(path.stem + ".manifest.jsonl")
    record, fragments = parse_manifest(manifest.read_bytes())
    return path, record, fragments


async def local(site):
    return LocalJudge(await open_vault(site.settings.stores.vault, site.folder))


def moved(pool, site):
    place, there = pool
    (place / "vault").unlink(missing_ok=True)
    (place / "vault").symlink_to(site.folder / "vault")
    return there


async def test_a_segment(site):
    _, record, fragments = segment(site)
    found = await (await local(site)).segment(record.object, fragments)
    assert (found.size, found.sha256) == (record.bytes, record.sha256)
    assert [item.record for item in found.fragments] == list(fragments)
    for item in found.fragments:
        assert (item.unreadable, item.report.findings) == ("", [])
        assert item.report.frames == item.record.hi - item.record.lo
        assert item.events


async def test_one_memory_serves_all(site, monkeypatch):
    """Larger and smaller objects, one after the other, and none sees what was there before."""
    judges = await local(site)
    for number in (0, 1, 0):
        _, record, fragments = segment(site, number)
        found = await judges.segment(record.object, fragments)
        assert found.sha256 == record.sha256
        assert not any(item.report.findings for item in found.fragments)


async def test_what_is_no_segment_is_said_of_every_fragment(site):
    path, record, fragments = segment(site)
    overwrite(path, b"nothing")
    found = await (await local(site)).segment(record.object, fragments)
    assert found.size == 7
    assert all("not a readable segment" in item.unreadable for item in found.fragments)
    assert not any(item.events or item.report.findings for item in found.fragments)


async def test_an_absent_object(site, pool):
    path, record, fragments = segment(site)
    path.unlink()
    for judges in (await local(site), moved(pool, site)):
        with pytest.raises(Missing):
            await judges.segment(record.object, fragments)


async def test_others_find_the_same(site, pool):
    path, record, fragments = segment(site)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    overwrite(path, data)
    here = await (await local(site)).segment(record.object, fragments)
    there = await moved(pool, site).segment(record.object, fragments)
    assert (here.size, here.sha256) == (there.size, there.sha256)
    for one, other in zip(here.fragments, there.fragments, strict=True):
        assert (one.record, one.unreadable, one.report) == (
            other.record,
            other.unreadable,
            other.report,
        )
        assert list(map(seen, one.events)) == list(map(seen, other.events))


def seen(event):
    if isinstance(event, Single):
        return event.row, event.leaf
    assert isinstance(event, Run)
    return event.epoch, event.covered, event.first_ts_ns, event.last_ts_ns


@pytest.mark.parametrize("flipped", [None, 0.2, 0.5, 0.8])
async def test_an_audit_by_others_is_the_same(site, pool, flipped):
    if flipped is not None:
        path, _, _ = segment(site)
        data = bytearray(path.read_bytes())
        data[int(len(data) * flipped)] ^= 1
        overwrite(path, data)
    here, there = await audit(site), await audit(site, judge=moved(pool, site))
    assert there.to_json() == here.to_json()
    assert there.verdict == ("verified" if flipped is None else "tampered")


async def test_an_audit_takes_segments_in_order_however_they_come_back(site):
    class Backwards:
        ahead = 5

        def __init__(self, judges):
            self.judges, self.waiting = judges, []

        async def segment(self, key, fragments):
            found = await self.judges.segment(key, fragments)
            self.waiting.append(asyncio.Event())
            mine = self.waiting[-1]
            if len(self.waiting) == len(site.objects()):
                self.waiting[-1].set()
            await mine.wait()
            self.waiting[self.waiting.index(mine) - 1].set()
            return found

    slow = Backwards(OneAtATime(await local(site)))
    assert (await audit(site, judge=slow)).verdict == "verified"
    assert len(slow.waiting) == 2


class OneAtATime:
    def __init__(self, judges):
        self.judges, self.lock = judges, asyncio.Lock()

    async def segment(self, key, fragments):
        async with self.lock:
            return await self.judges.segment(key, fragments)


async def test_when_one_fails_the_others_are_given_up(site):
    class Failing:
        ahead = 5
        ended = []
        begun = asyncio.Event()

        async def segment(self, key, fragments):
            if key == site_key(site, 0):
                await self.begun.wait()
                raise StoreError("out of order")
            self.begun.set()
            try:
                await asyncio.sleep(3600)
            finally:
                self.ended.append(key)

    with pytest.raises(StoreError):
        await audit(site, judge=Failing())
    await asyncio.sleep(0)
    assert Failing.ended == [site_key(site, 1)]


def site_key(site, number):
    return segment(site, number)[1].object


async def test_a_process_that_dies_is_said(site, tmp_path, monkeypatch):
    there = JudgePool(site.settings.stores.vault, site.folder, 1)
    try:
        _, record, fragments = segment(site)
        await there.segment(record.object, fragments)
        (victim,) = there._pool._processes
        os.kill(victim, signal.SIGKILL)
        with pytest.raises(StoreError, match="ended before its time"):
            for _ in range(50):
                await there.segment(record.object, fragments)
                await asyncio.sleep(0.1)
    finally:
        there.close()


@given(
    data=st.binary(max_size=2000),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 2500)), max_size=20),
)
def test_a_whole_is_hashed_whole_however_it_is_brought_on(data, steps):
    whole = Whole(memoryview(data))
    for further, number in steps:
        (whole.on if further else whole.upto)(number)
    assert whole.digest() == sha256(data).digest()
    assert whole.digest() == sha256(data).digest()


async def test_the_whole_is_brought_on_behind_its_payloads(site, monkeypatch):
    """Each step while what it hashes was just hashed: it does not run ahead, nor stay behind."""
    path, record, fragments = segment(site)
    data, steps = path.read_bytes(), []
    monkeypatch.setattr(fragment, "_STEP", 100)

    class Told(Whole):
        def on(self, size):
            steps.append((self._at, size))
            super().on(size)

    whole = Told(memoryview(data))
    judge(memoryview(data), fragments, record.object, None, whole)
    assert sum(size for _, size in steps) == sum(item.bytes for item in fragments)
    assert len(steps) > len(fragments)
    assert steps == sorted(steps)
    first = ColumnReader(data)
    list(first.read(0, 1))
    assert steps[0][0] == first.at > 0
    assert whole.digest() == record.sha256


def test_rows_that_are_shown_on_the_way(site):
    """Whoever opens payloads sees the rows of each fragment as they are verified."""
    path, record, fragments = segment(site)
    shown = []

    def look(columns, record, key, report):
        shown.extend((record.session, row.seq) for row in columns.rows())

    judge(memoryview(path.read_bytes()), fragments, record.object, look)
    assert shown == [(item.session, seq) for item in fragments for seq in range(item.lo, item.hi)]
    assert judging.LocalJudge.ahead == 0
