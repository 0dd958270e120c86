"""What the conformance suite cannot see: plans, older files, other ways to open one."""

import sqlite3
import time
from dataclasses import replace

import pytest

from sealtape.ingest.ledger import log as module
from sealtape.ingest.ledger.publish import publish_all
from sealtape.ingest.ledger.rows import HeadChange, Lease, Publish
from sealtape.ingest.ledger.sqlite import _MIGRATIONS, SqliteLedger
from sealtape.schemas.errors import StoreError
from tests.conformance.ledger_log import (
    CLOSED,
    OPEN,
    SESSIONS,
    entries,
    frames_lease,
    named,
    publish,
    seal,
    writer,
)


@pytest.fixture
async def ledger(tmp_path):
    ledger = await SqliteLedger.open("sqlite:ledger.db", tmp_path)
    yield ledger
    await ledger.close()


async def plan(ledger, sql, *values):
    def work(connection):
        return [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + sql, values)]

    return await ledger._database.read(work)


async def test_the_work_does_not_grow_with_what_is_sealed(ledger):
    (first, *_) = await plan(ledger, module._UNSEALED, b"", -1, 9)
    assert first == "SEARCH h USING INDEX head_unsealed ((session,epoch)>(?,?))"
    (only,) = await plan(ledger, "SELECT 1 FROM log_entry WHERE name=? AND name<>''", "a")
    assert only.startswith("SEARCH log_entry USING COVERING INDEX log_entry_name")
    statements = await plan(ledger, module._STATEMENTS, 1, 0, 9)
    assert "log_entry_name (name>? AND name<?)" in statements[0]


async def test_a_head_is_put_without_reading_all_names(ledger):
    seen = []

    def work(connection):
        connection.set_trace_callback(seen.append)
        connection.execute("INSERT INTO lease VALUES ('frames',0,1,'w',0,0)")
        change = HeadChange(None, CLOSED)
        publish_all(
            connection,
            Publish(Lease("frames", 0, 1, "w", 0), 0, 0, "s", 7, heads=(change,)),
            time.time_ns(),
        )
        connection.set_trace_callback(None)
        (put,) = [text for text in seen if "INTO head" in text]
        return [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + put)]

    steps = await ledger._database.write(work)
    assert any("USING COVERING INDEX log_entry_name (name=?)" in step for step in steps)
    assert not any(step.startswith("SCAN log_entry") for step in steps)


async def test_an_older_file_has_all_its_heads_unsealed(tmp_path):
    """As they were when there was no log: changed at the time at which the file is brought up."""
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as old:
        for number, script in _MIGRATIONS[:3]:
            old.executescript(script)
            old.execute(f"PRAGMA user_version={number}")
        for head in (replace(CLOSED, session=SESSIONS[1]), replace(OPEN, session=SESSIONS[2])):
            values = (head.session, 0, head.digest(), 0, head.hi, head.nodes[0], head.last_ts_ns)
            values += (head.offset, head.attested, 0, head.closed, head.opening)
            old.execute(f"INSERT INTO head VALUES ({','.join('?' * 12)})", values)
    old.close()
    ledger = await SqliteLedger.open("sqlite:ledger.db", tmp_path)
    (item,) = await ledger.unsealed()
    assert item.head == replace(CLOSED, session=SESSIONS[1])
    assert abs(item.changed_ns - time.time_ns()) < 600 * 10**9
    lease = await writer(ledger)
    await ledger.log_append(lease, 1, 0, entries(0, seal(SESSIONS[1])), b"")
    assert await ledger.unsealed() == []
    await ledger.close()


async def everything(ledger):
    return (
        await ledger.log_state(),
        await ledger.log_entries(1),
        await ledger.log_find(["log/1", "b"]),
        await ledger.log_statements(1),
        await ledger.unsealed(),
        await ledger.inbox(),
    )


@pytest.mark.parametrize("mode", ["read_only", "snapshot"])
async def test_a_reader_reads_the_log_and_changes_nothing(ledger, tmp_path, mode):
    lease = await writer(ledger)
    await publish(ledger, await frames_lease(ledger), CLOSED)
    await ledger.log_append(lease, 1, 0, entries(0, "log/1", "statement/a"), b"c")
    await ledger.submit("statement", b"x")
    reading = await SqliteLedger.open("sqlite:ledger.db", tmp_path, **{mode: True})
    found = await everything(reading)
    assert found == await everything(ledger)
    for call in (
        reading.log_append(lease, 1, 2, [], b"d"),
        reading.log_noted(lease, 1, b"n", b""),
        reading.submit("statement", b"y"),
        reading.taken([1]),
    ):
        with pytest.raises(StoreError):
            await call
    await ledger.log_append(lease, 1, 2, entries(2, "b", seal(SESSIONS[0])), b"d")
    now = await everything(reading)
    assert now == (found if mode == "snapshot" else await everything(ledger))
    assert named(now[4]) == ([(SESSIONS[0], 0)] if mode == "snapshot" else [])
    await reading.close()


async def test_two_processes_append_to_one_log(ledger, tmp_path):
    other = await SqliteLedger.open("sqlite:ledger.db", tmp_path)
    lease = await writer(ledger)
    await ledger.log_append(lease, 1, 0, entries(0, "log/1"), b"c")
    await other.log_append(lease, 1, 1, entries(1, "a"), b"d")
    assert await other.log_entries(1) == await ledger.log_entries(1)
    assert (await ledger.log_state()).size == 2
    await other.close()
