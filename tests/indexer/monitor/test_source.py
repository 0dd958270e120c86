"""A log as its vault has it."""

import pytest

from sealtape.indexer.monitor import source as module
from sealtape.indexer.monitor.source import LogSource, Noted
from sealtape.schemas.errors import FormatError, SignatureError, StoreCorrupt
from sealtape.schemas.segments import SegmentRecord
from tests.factories.happenings import generate
from tests.factories.histories import LOG, NS, Begin, Cut
from tests.factories.log_vaults import LogVault


@pytest.fixture(scope="module")
def history():
    for seed in range(100):
        found = generate(seed, 40)
        if len(found.of(Begin)) == 2:
            return found
    raise AssertionError


@pytest.fixture
async def written(tmp_path, history):
    return await LogVault(tmp_path, history).write()


def source_of(written):
    return LogSource(written.vault, LOG, written.policy().tlog)


def entries_of(history, number):
    return [e.entry for e in history.write() if e.entry and e.number == number]


def test_origins(tmp_path, history):
    source = source_of(LogVault(tmp_path, history))
    assert source.origin(12) == f"{LOG}/12"
    assert source.number(f"{LOG}/12") == 12
    for wrong in (f"{LOG}/012", f"{LOG}/", f"{LOG}/x", "other.example/log/1", f"{LOG}/1/1", "12"):
        with pytest.raises(FormatError, match="no shard of the log"):
            source.number(wrong)


async def test_entries(written, history, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 256)
    source = source_of(written)
    for number in (1, 2):
        expected = entries_of(history, number)
        size = len(expected)
        for first in {0, 1, size // 2, 256, size - 1, size}:
            pages = [page async for page in source.pages(number, first, size)]
            assert [entry for page in pages for entry in page] == expected[first:]
            assert all(len(page) <= 256 for page in pages)
        for index in {0, size // 2, size - 1}:
            assert await source.entry(number, index, size) == expected[index]
    with pytest.raises(StoreCorrupt, match="missing"):
        await source.entry(3, 0, 1)


async def test_where_a_shard_goes_on(written, history):
    source = source_of(written)
    size = len(entries_of(history, 1))
    found = await source.before(2, written.size)
    assert found.checkpoint.size == size
    assert found.checkpoint.origin == f"{LOG}/1"
    assert found.at_ns == 0  # an honest log has its witnesses' lines here; this one does not
    assert await source.before(1, size) is None
    assert await source.before(2, 0) is None


async def test_a_shard_that_begins_with_something_else(tmp_path, history):
    written = LogVault(tmp_path, history)
    for event in written.events:
        if event.number == 2 and not event.index:
            event.entry = b"poem"
    await written.write()
    assert await source_of(written).before(2, written.size) is None


async def test_manifests(written, history):
    source = source_of(written)
    event = next(event for event in history.write() if isinstance(event.step, Cut))
    record = SegmentRecord.from_json(event.entry)
    assert await source.manifest(record) == event.manifest
    await written.vault.erase(module.manifest_key(record.object))
    assert await source.manifest(record) is None


async def test_the_largest_checkpoint(tmp_path, history):
    written = await LogVault(tmp_path, history).write(1)
    source = source_of(written)
    assert await source.largest(2) is None
    first = written.checkpoint()
    assert await source.largest(1) == first
    await written.write(1, noted=False)
    assert await source.largest(1) == written.checkpoint() != first
    await written.vault.swap("log/v1/2/checkpoint", written.notes[1, first.size], None)
    assert await source.largest(2) is None
    await written.vault.swap("log/v1/3/checkpoint", b"poem", None)
    with pytest.raises(FormatError):
        await source.largest(3)
    unsigned = written.notes[1, first.size].replace(b"log/1 ", b"log/9 ")
    await written.vault.swap("log/v1/4/checkpoint", unsigned, None)
    with pytest.raises((FormatError, SignatureError)):
        await source.largest(4)


async def test_noted_checkpoints(tmp_path, history):
    written = await LogVault(tmp_path, history).write()
    source = source_of(written)
    sizes = sorted(size for number, size in written.notes if number == 1)
    times = {}
    for event in history.write():
        if not event.entry and event.number == 1:
            times.setdefault(event.index, event.step.at_ns // NS * NS)
    found = await source.noted(1, 0, sizes[-1])
    assert [(item.checkpoint.size, item.at_ns) for item in found] == [
        (size, times[size]) for size in sizes
    ]
    assert all(isinstance(item, Noted) for item in found)
    part = await source.noted(1, sizes[0], sizes[-2])
    assert [item.checkpoint.size for item in part] == sizes[1:-1]


async def test_a_quorum_is_complete_when_the_last_that_was_needed_came(tmp_path, history):
    from dataclasses import replace

    from sealtape.schemas.cosignatures import cosign
    from sealtape.schemas.tlog.policy import Group
    from tests.factories.log_vaults import MONITOR, monitor_key

    written = await LogVault(tmp_path, history).write(1)
    policy = written.policy().tlog
    text = written.checkpoint().text()
    note = written.notes[1, written.size] + cosign(MONITOR, monitor_key().private, text, 1).encode()
    office = written.at_ns // NS * NS
    for threshold, members, quorum, at_ns in (
        (2, ("office", "monitor"), "both", office),
        (1, ("office", "monitor"), "both", NS),
        (1, ("office",), "both", office),
        (1, ("office",), None, NS),
    ):
        group = Group("both", threshold, members)
        asked = LogSource(
            written.vault, LOG, replace(policy, groups=(group,), quorum=quorum)
        )._noted(1, note)
        assert asked.at_ns == at_ns
    alone = replace(policy, quorum="monitor")
    assert LogSource(written.vault, LOG, alone)._noted(1, written.notes[1, written.size]) is None
    assert LogSource(written.vault, LOG, policy)._noted(2, note) is None
