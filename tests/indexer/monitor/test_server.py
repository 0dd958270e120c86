"""A monitor over HTTP: it cosigns what keeps the rules, and nothing else."""

import asyncio
import time

import pytest

from sealtape.capture.outbound import destination, post
from sealtape.indexer.monitor import open_monitor
from sealtape.indexer.monitor.folder import MonitorFolder
from sealtape.schemas.errors import SettingsError, StoreBusy, StoreCorrupt
from sealtape.schemas.tlog.witnessing import parse_cosignatures
from tests.factories.breaches_of_segments import unknown_type
from tests.factories.breaches_of_sessions import sealed_twice
from tests.factories.happenings import generate
from tests.factories.histories import Begin, Done
from tests.factories.log_vaults import LogVault, monitor_key


class Office:
    """A monitor in a folder, of a log in another."""

    def __init__(self, folder, history):
        self.folder = folder
        self.written = LogVault(folder / "vault", history)
        self.monitor = None
        self.seen = {}

    async def open(self, **options):
        parts = {
            "vault": self.written.vault,
            "policy": self.written.policy(),
            "keys": [monitor_key()],
            "state": self.folder / "state",
            "listen": "127.0.0.1:0",
            "clock_ns": lambda: self.written.at_ns or time.time_ns(),
            "wait_s": 8.0,
        }
        self.monitor = await open_monitor(**(parts | options))
        return self.monitor

    async def ask(self, size=None):
        """Have the log's last checkpoint cosigned; returns status and body."""
        old = self.seen.get(self.written.number, 0)
        body = self.written.request(old, size)
        place = destination(self.monitor.server.url, what="url")
        answer = await post(
            place, body, kind="text/plain", timeout_s=20, max_answer=70_000, path="/add-checkpoint"
        )
        if answer.status == 200:
            checkpoint = self.written.checkpoint(size)
            parse_cosignatures(answer.body, checkpoint.text(), [monitor_key().verifier])
            self.seen[self.written.number] = checkpoint.size
        return answer.status, answer.body.decode()


@pytest.fixture
async def offices(tmp_path):
    opened = []

    def make(history):
        opened.append(Office(tmp_path, history))
        return opened[-1]

    yield make
    for office in opened:
        if office.monitor is not None:
            await office.monitor.close()


async def test_it_cosigns_a_log_as_it_grows(offices):
    for seed in range(100):
        history = generate(seed, 30)
        if history.of(Done) and len(history.of(Begin)) == 2:
            break
    office = offices(history)
    await office.open()
    count = 0
    while office.written.events:
        await office.written.write(1)
        status, body = await office.ask()
        assert (status, body) == (200, body)
        count += 1
        if count % 4 == 0:
            await office.monitor.close()
            await office.open()
    now = await office.monitor.snapshot()
    assert (now.number, now.size) == (2, office.written.size)
    assert now.sessions == office.monitor.follower.rules.sessions > 0
    assert (now.found, now.unacknowledged, now.late, now.forks, now.objections) == ({}, 0, 0, 0, 0)


async def test_after_a_breach_it_cosigns_no_more_until_it_is_acknowledged(offices):
    history = generate(2, 20, turns=False)
    sealed_twice(history)
    office = offices(history)
    await office.open()
    statuses = []
    while office.written.events:
        await office.written.write(1)
        status, body = await office.ask()
        statuses.append(status)
    assert statuses == sorted(statuses)
    assert set(statuses) == {200, 403}
    (violation,) = office.monitor.follower.objections()
    assert body == f"not-admitted: {violation}\n"
    await office.monitor.close()
    await office.open()
    assert (await office.ask())[0] == 403
    now = await office.monitor.snapshot()
    assert (now.found, now.unacknowledged, now.objections) == ({"seal-once": 1}, 1, 1)
    MonitorFolder(office.folder / "state").acknowledge("ann", "the writer was killed", 1)
    assert (await office.ask())[0] == 200
    now = await office.monitor.snapshot()
    assert (now.found, now.unacknowledged, now.objections) == ({"seal-once": 1}, 0, 0)


async def test_several_breaches_are_counted(offices):
    history = generate(2, 10, turns=False)
    unknown_type(history)
    unknown_type(history)
    office = offices(history)
    await office.open()
    await office.written.write()
    status, body = await office.ask()
    assert status == 403
    assert body.endswith(", and 1 more\n")


async def test_what_was_signed_is_not_what_is_there(offices, caplog):
    office = offices(generate(2, 20, turns=False))
    await office.open()
    await office.written.write()
    good = office.written.leaves[0]
    office.written.leaves[0] = b"\x01" * 32
    status, body = await office.ask()
    assert status == 403
    assert "do not have the root" in body
    assert "contradicts itself" in caplog.text
    assert (await office.monitor.snapshot()).forks == 1
    office.written.leaves[0] = good
    assert (await office.ask())[0] == 200


async def test_entries_that_do_not_come(offices, caplog):
    office = offices(generate(2, 20, turns=False))
    await office.open()
    await office.written.write()
    office.monitor.follower._source._vault = None
    away = office.written.store.prefix
    path = office.folder / "vault" / away
    path.rename(office.folder / "away")
    office.monitor.follower._source._vault = office.written.vault
    assert (await office.ask())[0] == 503
    assert "reading the log" in caplog.text
    (office.folder / "away").rename(path)
    assert (await office.ask())[0] == 200


async def test_a_long_log_is_read_behind_the_answer(offices, monkeypatch):
    office = offices(generate(2, 20, turns=False))
    monitor = await office.open(wait_s=0.05)
    await office.written.write()
    go_on = asyncio.Event()
    pages = monitor.follower._source.pages

    async def slow(*arguments):
        await go_on.wait()
        async for page in pages(*arguments):
            yield page

    monkeypatch.setattr(monitor.follower._source, "pages", slow)
    assert (await office.ask())[0] == 503
    first = monitor._reading
    assert (await office.ask())[0] == 503
    assert monitor._reading is first
    go_on.set()
    await asyncio.wait({first})
    monitor._wait_s = 8.0
    assert (await office.ask())[0] == 200


async def test_closing_keeps_how_far_it_came(offices, monkeypatch):
    office = offices(generate(2, 20, turns=False))
    monitor = await office.open()
    await office.written.write()
    assert (await office.ask())[0] == 200
    await monitor.close()
    office.monitor = None
    assert MonitorFolder(office.folder / "state").rules()
    again = await office.open()
    assert again.follower.rules.size == office.written.size


async def test_one_folder_has_one_monitor(offices, tmp_path):
    office = offices(generate(2, 5))
    await office.open()
    other = Office(tmp_path, generate(2, 5))
    with pytest.raises(StoreBusy):
        await other.open()


async def test_a_start_that_fails_leaves_nothing_behind(offices):
    office = offices(generate(2, 5))
    with pytest.raises(SettingsError):
        await office.open(keys=[])
    (office.folder / "state" / "found.jsonl").write_bytes(b"poem\n")
    with pytest.raises(StoreCorrupt):
        await office.open()
    (office.folder / "state" / "found.jsonl").unlink()
    await office.open()
