"""The verifier's own file: records, findings that stand, alarms that wait."""

import sqlite3
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from sealtape.indexer.schedule.state import KEPT, State
from sealtape.schemas.errors import StoreCorrupt, StoreError
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.verification import PASS, Alarm, Verification
from sealtape.schemas.verify.findings import Finding
from sealtape.schemas.verify.log_state import SeenLog

SEEN = SeenLog.of("x/log", [Checkpoint("x/log/1", 7, b"\1" * 32)])


def record(thing, at_ns, size=10):
    return Verification(
        object=thing, at_ns=at_ns, by="test", bytes=size, frames=1, sessions=1, findings=0,
        verdict="verified", log=None,
    )  # fmt: skip


def alarm(thing, reason="gone", at_ns=5):
    finding = Finding("tampered", "object", thing, None, None, reason)
    return Alarm(at_ns, "x/log", "node-1", finding)


def found(*alarms, of=None):
    return {each.id: (each.finding.object if of is None else of, each) for each in alarms}


@asynccontextmanager
async def opened(path, **options):
    state = await State.open(path, **options)
    try:
        yield state
    finally:
        await state.close()


@pytest.fixture
async def state(tmp_path):
    async with opened(tmp_path / "state.db") as found:
        yield found


async def test_nothing_is_known_at_first(state):
    assert await state.verified() == {}
    assert await state.last() == (0, 0)
    assert await state.read_since(0, 10) == 0
    assert await state.history() == []
    assert await state.standing() == []
    assert await state.seen() is None


async def test_records_outlive_the_process(tmp_path):
    path = tmp_path / "state.db"
    async with opened(path) as state:
        await state.keep([record("a", 1), record("b", 1)], {}, seen=SEEN)
        await state.keep([record("a", 7, 4), record(PASS, 7, 0)], {})
    async with opened(path, read_only=True) as state:
        assert await state.verified() == {"a": 7, "b": 1, PASS: 7}
        assert await state.last() == (7, 4)
        assert await state.read_since(2, 10) == 4
        assert await state.read_since(0, 10) == 24
        assert await state.read_since(0, 1) == 20
        assert await state.seen() == SEEN
        assert [each.object for each in await state.history()] == ["a", "b", "a", PASS]
        assert [each.object for each in await state.history(["b"])] == ["b", PASS]
        assert [each.at_ns for each in await state.history(["a"], limit=2)] == [7, 7]
        with pytest.raises(StoreError):
            await state.keep([record("c", 9)], {})


async def test_old_records_of_an_object_go(state):
    for at_ns in range(KEPT + 5):
        await state.keep([record("a", at_ns)], {})
    await state.keep([record("b", 0)], {})
    kept = await state.history()
    assert [each.at_ns for each in kept] == [*range(5, KEPT + 5), 0]


async def test_a_finding_is_new_once_while_it_stands(state):
    one = alarm("a")
    assert await state.keep([record("a", 1)], found(one), send=True) == [one]
    assert await state.keep([record("a", 2)], found(replace(one, at_ns=6)), send=True) == []
    assert await state.standing() == [one]
    assert [each.alarm for each in await state.waiting()] == [one]


async def test_it_stands_until_its_object_is_read_without_it(state):
    one, other = alarm("a"), alarm("log", "rolled back")
    await state.keep([record("a", 1)], found(one) | found(other, of=PASS), send=True)
    await state.keep([record("b", 2)], {}, send=True)
    assert await state.standing() == [one, other]
    assert await state.standing("a") == [one]
    assert await state.standing(PASS) == [other]
    await state.keep([record("a", 3)], {}, send=True)
    assert await state.standing() == [other]
    await state.keep([record(PASS, 4)], {}, send=True)
    assert await state.standing() == []
    assert await state.keep([record("a", 5)], found(one), send=True) == [one]
    assert len(await state.waiting()) == 3, "what is gone meanwhile is still told"


async def test_alarms_wait_until_they_are_taken(state):
    alarms = [alarm("a", str(number)) for number in range(3)]
    await state.keep([record("a", 1)], found(*alarms), send=True)
    assert await state.waiting_count() == 3
    (first, *rest) = await state.waiting()
    await state.sent(first.id)
    await state.sent(first.id)
    assert await state.waiting() == rest
    assert [each.alarm for each in rest] == alarms[1:]


async def test_nobody_to_send_to(state):
    assert await state.keep([record("a", 1)], found(alarm("a"))) == [alarm("a")]
    assert await state.waiting_count() == 0


@pytest.mark.parametrize(
    ("sql", "ask"),
    [
        ("UPDATE verification SET record = x'00'", State.history),
        ("UPDATE finding SET alarm = x'7b7d'", State.standing),
        ("UPDATE seen SET state = x'7b7d0a'", State.seen),
    ],
)
async def test_damage_is_said(tmp_path, sql, ask):
    path = tmp_path / "state.db"
    async with opened(path) as state:
        await state.keep([record("a", 1)], found(alarm("a")), seen=SEEN)
    with sqlite3.connect(path) as database:
        database.execute(sql)
    database.close()
    async with opened(path) as state:
        with pytest.raises(StoreCorrupt, match="damaged"):
            await ask(state)
