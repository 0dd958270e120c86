"""The desk: when it asks, what lets a spool go, what is an alarm, when things are sent again."""

import asyncio
import logging
from dataclasses import replace

import pytest

from sealtape.capture.receipts.desk import Desk
from sealtape.schemas.errors import StoreBusy
from sealtape.schemas.tlog.receipts import Ended
from tests.capture.stage import until
from tests.factories.log_host import log_host
from tests.factories.witnessed import WitnessedLog

ENDED = Ended(b"\x5e" * 16, 0, 12, b"\x11" * 32)
OTHER = replace(ENDED, session=b"\x5f" * 16)
PATH = f"/receipt/{ENDED.session.hex()}/0"


class Spool:
    """A source that writes down what it is told."""

    def __init__(self, error=None):
        self.settled_ones, self.sent, self.error = [], [], error

    async def settled(self, ended):
        self.settled_ones.append(ended)

    async def send_again(self, sessions):
        self.sent.append(set(sessions))
        if self.error:
            raise self.error


class Place:
    """A desk whose time stands still until a test moves it."""

    def __init__(self, host, late_s=600.0):
        self.now = 100.0
        self.events = []
        self.spool = Spool()
        self.desk = Desk(
            host.view(),
            late_s=late_s,
            event=lambda name, told: self.events.append((name, dict(told))),
            look_s=(0.01, 0.01),
            monotonic=lambda: self.now,
        )

    def expect(self, *ended):
        for each in ended:
            self.desk.expect(each, self.spool)


@pytest.fixture
async def host():
    async with log_host() as host:
        yield host


@pytest.fixture
def place(host):
    return Place(host)


async def test_a_receipt_that_agrees_lets_go(host, place):
    place.expect(ENDED, OTHER)
    await place.desk.round()
    assert place.spool.settled_ones == []
    host.log.seal(ENDED)
    await place.desk.round()
    assert place.spool.settled_ones == [ENDED]
    assert [item.ended for item in place.desk.owed] == [OTHER]
    assert (place.desk.received, place.desk.overdue, place.events) == (1, 0, [])


async def test_it_asks_only_when_something_can_have_come(host, place):
    place.expect(ENDED)
    for _ in range(3):
        await place.desk.round()
    assert host.asked.count(PATH) == 1
    host.log.seal(OTHER)
    await place.desk.round()
    assert host.asked.count(PATH) == 2


async def test_it_asks_again_when_the_server_was_away(host, place, caplog):
    place.expect(ENDED)
    host.log.seal(ENDED)
    host.away = True
    await place.desk.round()
    assert PATH not in host.asked
    host.away = False
    host.answers[PATH] = b""  # an empty body is as good as none
    await place.desk.round()
    host.log.seal(OTHER)
    del host.answers[PATH]
    await place.desk.round()
    assert place.spool.settled_ones == [ENDED]


async def test_a_receipt_that_is_overdue_is_an_alarm_and_sent_again(host, place, caplog):
    place.expect(ENDED)
    place.now += 599
    await place.desk.round()
    assert place.spool.sent == []
    place.now += 1
    await place.desk.round()
    await until(lambda: place.spool.sent)
    assert place.spool.sent == [{ENDED.session}]
    assert place.desk.overdue == 1
    ((name, told),) = place.events
    assert name == "receipts-overdue"
    assert told == {"count": "1", "seconds": "600", "session": ENDED.session.hex(), "epoch": "0"}
    assert [r.levelno for r in caplog.records] == [logging.ERROR]
    place.now += 599  # the next time after twice as long
    await place.desk.round()
    assert len(place.events) == 1
    place.now += 1
    await place.desk.round()
    await until(lambda: len(place.spool.sent) == 2)
    assert len(place.events) == 2
    host.log.seal(ENDED)
    await place.desk.round()
    assert (place.desk.overdue, place.desk.owed) == (0, [])


async def test_a_log_that_is_away_is_overdue_too(host, place):
    host.away = True
    place.expect(ENDED, OTHER)
    place.now += 600
    await place.desk.round()
    await until(lambda: place.spool.sent)
    assert place.spool.sent == [{ENDED.session, OTHER.session}]
    assert place.events[0][1]["count"] == "2"
    assert place.desk.view.error == "HTTP 503"


async def test_a_spool_that_cannot_be_sent_again_is_told(host, place, caplog):
    place.spool.error = StoreBusy("the file is gone", retry_after_s=1)
    place.expect(ENDED)
    place.now += 600
    await place.desk.round()
    await until(lambda: "not sent again" in caplog.text)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"root": b"\x12" * 32}, "not those that were sent"),
        ({"frames": 11, "attested": 11}, "11 frames"),
        ({"lost": 1, "root": b""}, "lost"),
        ({"attested": 3}, "signed"),
    ],
)
async def test_a_contradiction_is_an_alarm_at_once_and_for_good(host, place, caplog, changes, says):
    place.expect(ENDED)
    host.log.seal(ENDED, **changes)
    await place.desk.round()
    ((name, told),) = place.events
    assert name == "receipt-contradicts"
    assert says in told["reason"]
    assert place.desk.contradicting == 1
    assert caplog.records[-1].levelno == logging.CRITICAL
    host.log.seal(OTHER)
    place.now += 10_000
    await place.desk.round()
    assert host.asked.count(PATH) == 1
    assert (place.spool.settled_ones, place.spool.sent) == ([], [])
    assert len(place.events) == 1


async def test_what_proves_nothing_is_refused_and_asked_for_again(host, place, caplog):
    strange = WitnessedLog(host.name, seed=9)
    strange.seal(ENDED)
    host.answers[PATH] = strange.receipt(ENDED)
    place.expect(ENDED)
    await place.desk.round()
    host.log.seal(OTHER)
    await place.desk.round()
    assert place.spool.settled_ones == []
    assert [name for name, _ in place.events] == ["receipt-refused"]
    assert caplog.text.count("proves nothing") == 1
    del host.answers[PATH]
    host.log.seal(ENDED)
    await place.desk.round()
    assert place.spool.settled_ones == [ENDED]


async def test_it_runs_beside_the_sessions(host):
    place = Place(host, late_s=0.0)
    task = asyncio.create_task(place.desk.run())
    place.expect(ENDED)
    await until(lambda: place.spool.sent)
    host.log.seal(ENDED)
    await until(lambda: place.spool.settled_ones == [ENDED])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
