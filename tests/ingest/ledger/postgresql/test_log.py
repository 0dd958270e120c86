"""What the conformance suite cannot see: several writers, lost connections, who may what."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from sealtape.ingest.ledger import open_ledger, prepare_ledger
from sealtape.ingest.ledger.postgresql import log as module
from sealtape.ingest.ledger.postgresql.schema import LAYOUT, ledger_server
from sealtape.ingest.postgresql.layout import Layout, prepare
from sealtape.schemas.errors import Fenced, StoreError
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
from tests.conformance.postgresql import Cutter, Schema

BASE = Path()


@pytest.fixture
async def cutter(schema):
    cutter = await Cutter(schema.server).start()
    yield cutter
    await cutter.stop()


async def test_of_many_writers_one_goes_on(schema):
    """Everybody appends where the log is, with the lease that was current when he claimed."""
    ledgers = [await open_ledger(schema.url("ingest"), BASE) for _ in range(4)]
    for n in range(10):
        leases = [await writer(ledger, "w") for ledger in ledgers]
        tries = [
            ledger.log_append(lease, 1, n, entries(n, f"{n}/{number}"), b"c")
            for number, (ledger, lease) in enumerate(zip(ledgers, leases, strict=True))
            for _ in range(2)
        ]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes if outcome is not None] == [Fenced] * 7
    assert [entry.name for entry in await ledgers[0].log_entries(1)] == [
        f"{n}/3" for n in range(10)
    ]
    for ledger in ledgers:
        await ledger.close()


async def test_publications_and_seals_of_the_same_heads_do_not_stop_each_other(schema):
    """One publishes heads anew in one order, another seals them in the log in another."""
    one, two = [await open_ledger(schema.url("ingest"), BASE) for _ in range(2)]
    frames, lease = await frames_lease(one), await writer(two)
    heads = [replace(CLOSED, session=bytes([n]) * 16) for n in range(40)]
    await publish(one, frames, *heads)

    async def again():
        before = heads
        for turn in range(10):
            after = [replace(head, offset=1000 + turn) for head in heads]
            for head, new in zip(reversed(before), reversed(after), strict=True):
                await publish(one, frames, new, before=head)
            before = after

    async def sealing():
        for n, head in enumerate(heads):
            await two.log_append(lease, 1, n, entries(n, seal(head.session)), b"c")

    await asyncio.gather(again(), sealing())
    assert await one.unsealed() == []
    assert (await two.log_state()).size == 40
    for ledger in (one, two):
        await ledger.close()


async def test_an_append_without_an_answer_is_there_or_not(schema, ledger, cutter):
    through = await open_ledger(cutter.url(schema.url("ingest")), BASE)
    for first, heard in ((0, True), (1, False)):
        lease = await writer(through)
        cutter.cut("COMMIT\0", forward=heard)
        with pytest.raises(StoreError, match="unknown"):
            await through.log_append(lease, 1, first, entries(first, f"n{first}"), b"c")
        assert (await ledger.log_state()).size == 1
    await through.log_append(await writer(through), 1, 1, entries(1, "n1"), b"c")
    assert [entry.name for entry in await ledger.log_entries(1)] == ["n0", "n1"]
    await through.close()


@pytest.mark.parametrize(
    "word", ["BEGIN", "FOR SHARE", "KEY UPDATE", "INTO log_entry", "log_state"]
)
async def test_a_connection_lost_before_the_commit_changes_nothing_but_time(
    schema, ledger, cutter, word
):
    through = await open_ledger(cutter.url(schema.url("ingest")), BASE)
    lease = await writer(through)
    cutter.cut(word, forward=True)
    await through.log_append(lease, 1, 0, entries(0, "log/1", "a"), b"c")
    assert cutter.cuts == 1
    assert len(await ledger.log_entries(1)) == (await ledger.log_state()).size == 2
    await through.close()


async def test_who_reads_may_submit_and_nothing_else(schema, ledger):
    reader = await open_ledger(schema.url("reader"), BASE)
    lease = await writer(ledger)
    await ledger.log_append(lease, 1, 0, entries(0, "log/1", "statement/a"), b"c")
    await publish(ledger, await frames_lease(ledger), CLOSED)
    number = await reader.submit("statement", b"x")
    assert [item.id for item in await reader.inbox()] == [number]
    assert await reader.log_state() == await ledger.log_state()
    assert await reader.log_entries(1) == await ledger.log_entries(1)
    assert await reader.log_find(["log/1"]) == {"log/1": (1, 0)}
    assert await reader.log_statements(1) == await ledger.log_statements(1)
    assert await reader.unsealed() == await ledger.unsealed()
    for call in (
        reader.log_append(lease, 1, 2, [], b"d"),
        reader.log_noted(lease, 1, b"n", b""),
        reader.taken([number]),
        reader._database.change("UPDATE inbox SET payload = ''"),
    ):
        with pytest.raises(StoreError, match=r"permission denied|term"):
            await call
    assert len(await ledger.inbox()) == 1
    await reader.close()


async def test_ids_of_the_inbox_grow_in_the_order_in_which_they_are_seen(schema):
    """A tail that asks for what is after the last id it saw misses nothing."""
    ledgers = [await open_ledger(schema.url(word), BASE) for word in ("ingest", "reader") * 2]

    async def submitting(ledger):
        for number in range(25):
            await ledger.submit("incident", b"%d" % number)

    work = [asyncio.create_task(submitting(ledger)) for ledger in ledgers]
    seen, done = [], False
    while not done:
        done = all(task.done() for task in work)
        seen += [item.id for item in await ledgers[0].inbox(seen[-1] if seen else 0)]
    await asyncio.gather(*work)
    assert len(seen) == len(set(seen)) == 100
    assert seen == sorted(seen)
    for ledger in ledgers:
        await ledger.close()


async def test_the_work_does_not_grow_with_what_is_sealed(schema, ledger):
    schema.sql(
        "INSERT INTO head SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), 0, '', 0, 1, '', 1, 1, 1,"
        " 0, 'client', '', clock_timestamp(), true FROM generate_series(1, 20000) AS n;"
        " INSERT INTO log_entry SELECT 1, n, 'seal/' || n, '' FROM generate_series(1, 20000) AS n;"
        " ANALYZE head; ANALYZE log_entry"
    )
    await publish(ledger, await frames_lease(ledger), *[replace(CLOSED, session=SESSIONS[-1])])

    async def plan(sql, *values):
        rows = await ledger._database.fetch("EXPLAIN " + sql, *values)
        return "\n".join(row[0] for row in rows)

    unsealed = await plan(module._UNSEALED, b"", -1, 500)
    assert "head_unsealed" in unsealed
    assert "Seq Scan on head h" not in unsealed
    assert "log_entry_name" in await plan(module._STATEMENTS, 1, 0, 100)
    find = "SELECT idx FROM log_entry WHERE name = ANY($1::text[]) AND name <> ''"
    assert "log_entry_name" in await plan(find, ["seal/7", "seal/9"])


async def test_an_older_schema_has_all_its_heads_unsealed(postgres_server):
    schema = Schema(postgres_server, "older")
    older = Layout(LAYOUT.scripts[:2], LAYOUT.roles, "SELECT 1")
    await prepare(ledger_server(schema.url(), BASE), older)
    for head in (replace(CLOSED, session=SESSIONS[1]), replace(OPEN, session=SESSIONS[2])):
        schema.sql(
            f"INSERT INTO head VALUES ('\\x{head.session.hex()}', 0, '\\x{head.digest().hex()}',"
            f" 0, {head.hi}, '\\x{head.nodes[0].hex()}', {head.last_ts_ns}, {head.offset},"
            f" {head.attested}, 0, '{head.closed}', '\\x{head.opening.hex()}')"
        )
    assert len(await prepare_ledger(schema.url(), BASE)) == len(LAYOUT.scripts) - 2
    ledger = await open_ledger(schema.url(), BASE)
    found = await ledger.unsealed()
    assert named(found) == [(SESSIONS[1], 0)]
    assert found[0].changed_ns > 0
    await ledger.close()
    schema.drop()


async def test_a_snapshot_of_the_log_stays_as_it_was(schema, ledger):
    lease = await writer(ledger)
    await ledger.log_append(lease, 1, 0, entries(0, "log/1"), b"c")
    snapshot = await open_ledger(schema.url("reader"), BASE, snapshot=True)
    await ledger.log_append(lease, 1, 1, entries(1, "a"), b"d")
    assert (await snapshot.log_state()).size == len(await snapshot.log_entries(1)) == 1
    with pytest.raises(StoreError, match="reading only"):
        await snapshot.submit("statement", b"x")
    await snapshot.close()
