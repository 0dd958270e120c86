"""`sealtape events`: what the topic holds, and what comes."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from sealtape.capture.bus import open_bus
from sealtape.ingest.relay import append_events
from sealtape.schemas.ocsf import lifecycle_event, refusal, session_started, statement
from tests.factories.deployments import make_site
from tests.factories.kafka_topics import kafka_url, new_topic
from tests.vectors import generate_events as vectors

CODES = ["session-start", "statement", "session-refused", "gap", "statement"]


def made(text="select * from orders where id = $1", **changes):
    gap = next(row for row in vectors.lifecycle() if row["kind"] == "gap")
    return [
        session_started(vectors.session()),
        statement(vectors.command(text=text, **vectors.DONE), vectors.session()),
        refusal(vectors.command(**vectors.REFUSED), vectors.journal()),
        lifecycle_event("gap", gap["key"], gap["payload"].encode(), vectors.TS_NS),
        statement(
            vectors.command(**vectors.FAILED | {"n": 9, "agent": ""} | changes), vectors.session()
        ),
    ]


def made_with(tmp_path, url):
    site = make_site(tmp_path / "site")
    site.config.write_text(
        site.config.read_text().replace("[stores]", f'[stores]\nevents = "{url}"')
    )
    assert site.settings.stores.events == url
    return site


@pytest.fixture
def site(tmp_path):
    return made_with(tmp_path, "dir:events?partitions=3&retention=7d")


@pytest.fixture
def kafka_site(tmp_path, kafka_server):
    return made_with(tmp_path, asyncio.run(new_topic(kafka_server.bootstrap, partitions=3)))


def append(site, *events, raw=()):
    async def work():
        bus = open_bus(site.settings.stores.events, site.folder)
        await bus.start()
        await append_events(bus, events)
        for value in raw:
            await bus.append(0, [(b"", value)])
        await bus.close()

    asyncio.run(work())


@pytest.fixture
def filled(site):
    for event in made():
        append(site, event)  # one by one, so that each has a time of its own
        time.sleep(0.002)
    return site


def test_all_events_oldest_first_as_they_are(run, filled):
    answer = run("-c", filled.config, "events", "--json")
    assert answer.code == 0
    assert [line["metadata"]["event_code"] for line in answer.lines] == CODES
    assert answer.out.splitlines() == [event.to_json().decode() for event in made()]
    assert run("-c", filled.config, "events", "--from-start", "--json").out == answer.out


def test_for_people(run, filled):
    lines = run("-c", filled.config, "events").out.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("2026-11-23T") for line in lines), lines
    start, one, refused, gap, failed = lines
    assert "session-start    Success   ann@example.org opened a session on shop." in start
    assert one.endswith(
        "ann@example.org (report-bot) on shop: select * from orders where id = $1"
        "  [1 rows, 850.0 ms]"
    )
    assert "Medium    A connection to shop was refused: the token has expired" in refused
    assert "Medium    Frames 5 to 6 never came." in gap
    assert failed.endswith('[850.0 ms, 42P01 relation "orders" does not exist]')


def test_a_statement_cannot_steer_the_terminal_nor_fill_it(run, site):
    append(site, *made(text="select '\x1b[2J'\n" + "x" * 5000))
    line = run("-c", site.config, "events", "--class", "statement").out.splitlines()[0]
    assert "\\x1b[2J" in line
    assert "⏎" in line
    assert len(line) < 600
    assert "…" in line


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (["statement"], [1, 4]),
        (["6005"], [1, 4]),
        (["datastore_activity"], [1, 4]),
        (["Detection Finding", "session-start"], [0, 3]),
        (["3002"], [0, 2]),
        (["gap", "session-refused"], [2, 3]),
        (["Base Event", "segment-sealed"], []),
    ],
)
def test_classes(run, filled, classes, expected):
    words = [word for name in classes for word in ("--class", name)]
    answer = run("-c", filled.config, "events", "--json", *words)
    assert [line["metadata"]["event_code"] for line in answer.lines] == [
        CODES[at] for at in expected
    ]


@pytest.mark.parametrize("name", ["nosuch", "statements", "3001", "Databse Activity", ""])
def test_a_class_that_is_not_known_is_refused(run, filled, name):
    """Also among known ones, and before anything is read."""
    answer = run("-c", filled.config, "events", "--class", "gap", "--class", name, "--json")
    assert (answer.code, answer.out) == (64, "")
    message = answer.error["message"]
    assert repr(name) in message
    assert "session-refused" in message
    assert "datastore_activity (6005)" in message
    assert run("-c", filled.config, "events", "--follow", "--class", name).code == 64


def test_what_is_no_event_is_named_and_passed_over(run, site):
    foreign = [b"\xff", b"[]", b"{}", b'{"metadata":{},"class_name":5}', b"null"]
    append(site, *made(), raw=foreign)
    answer = run("-c", site.config, "events", "--json")
    assert len(answer.lines) == 5
    assert answer.err.count("is no event") == len(foreign)


def test_without_a_topic(run, site):
    answer = run("-c", site.config, "events", "--json")
    assert answer.code == 66
    assert answer.error["code"] == "not-found"
    assert not (site.folder / "events").exists()


def test_an_empty_topic(run, site):
    append(site)
    assert run("-c", site.config, "events").out == ""


class Following:
    """`sealtape events --follow` as a process, with its lines as they come."""

    def __init__(self, site, *words):
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sealtape", "-c", site.config, "events", "--follow",
             "--json", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.lines = []
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), json.loads(line)))

    def until(self, count):
        deadline = time.monotonic() + 30
        while len(self.lines) < count:
            assert time.monotonic() < deadline
            assert self.process.poll() is None, self.process.stderr.read()
            time.sleep(0.01)
        return self.codes

    @property
    def codes(self):
        return [line["metadata"]["event_code"] for _, line in self.lines]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        self.thread.join()
        self.errors = self.process.stderr.read()
        self.process.stdout.close()
        self.process.stderr.close()


def test_follow_shows_what_comes_at_once(filled):
    with Following(filled, "--from-start") as found:
        assert found.until(5) == CODES
        began = time.monotonic()
        append(filled, *made())
        found.until(10)
        assert found.lines[5][0] - began < 3.0
    assert found.process.returncode == 130
    assert found.errors == ""


def test_follow_begins_with_the_next_one(filled):
    with Following(filled) as found:
        deadline = time.monotonic() + 30
        while not found.lines:  # until it stands at the end, nobody knows when that is
            assert time.monotonic() < deadline
            append(filled, made()[0])
            time.sleep(0.1)
        append(filled, made()[2])
        while "session-refused" not in found.codes:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert found.codes[-1] == "session-refused"
    assert set(found.codes[:-1]) == {"session-start"}


def test_kafka_too(run, kafka_site):
    append(kafka_site, *made()[:3])
    with Following(kafka_site, "--from-start") as found:
        found.until(3)
        append(kafka_site, *made()[3:])
        assert sorted(found.until(5)) == sorted(CODES)
    answer = run("-c", kafka_site.config, "events", "--class", "gap", "--json")
    assert [line["metadata"]["event_code"] for line in answer.lines] == ["gap"]


def test_a_topic_that_is_not_there(run, tmp_path, kafka_server):
    site = made_with(tmp_path, kafka_url(kafka_server.bootstrap))
    answer = run("-c", site.config, "events", "--json")
    assert answer.code == 74
    assert "sealtape setup" in answer.error["message"]


def test_follow_says_that_events_were_deleted_before_it_read_them(site, capsys):
    from sealtape.indexer.cli import events

    async def work():
        now = time.time_ns()
        bus = open_bus("dir:events?partitions=1&retention=60s", site.folder)
        bus._lanes[0].writer._clock_ns = lambda: now
        await append_events(bus, made())
        now += 3600 * 10**9
        await bus.trim(0, [])
        await append_events(bus, made()[:1])
        _, end = await bus.bounds(0)
        found = [record async for record in events._stream(bus, 0, 0, end)]
        await bus.close()
        return found

    (record,) = asyncio.run(work())
    assert b"session-start" in record.value
    assert "deleted before they were read" in capsys.readouterr().err


def test_follow_goes_on_after_an_outage(tmp_path, kafka_alone):
    url = asyncio.run(new_topic(kafka_alone.bootstrap, partitions=1, timeout="5s"))
    site = made_with(tmp_path, url)
    append(site, *made()[:1])
    with Following(site, "--from-start") as found:
        found.until(1)
        kafka_alone.stop()
        time.sleep(8)  # longer than a call waits
        kafka_alone.start()
        append(site, *made()[2:4])
        assert sorted(found.until(3)) == ["gap", "session-refused", "session-start"]
    assert found.process.returncode == 130
    assert len(found.errors.splitlines()) == 1
    assert "partition 0 waits" in found.errors
