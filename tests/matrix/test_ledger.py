"""Every column of every table of a live deployment's ledger, edited: found, or neutral by name."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from sealtape.schemas.errors import StoreError
from tests.stories.deployed import judged

# Columns and tables in which an edit changes nothing that is shown or proven, and why.
BOOKKEEPING = {
    "lease": "who reads which partition now, and until when; next_offset is compared",
    "worker": "which processes are alive",
    "outbox": "events that are still to be sent",
    "inbox": "what is still to become an entry",
    "object": "what is staged: an object that is sealed and called abandoned is compared",
    "incident": "an incident only adds to a verdict; the log keeps those that count",
    "segment.shard": "the record in the row says it; the column only keeps two apart",
    "segment.n": "the record in the row says it; the column only keeps two apart",
    "fragment.idx": "it only orders rows; with one fragment there is no other order",
    "fragment.epoch": "the record in the row says it; the column only orders rows",
    "fragment.lo": "the record in the row says it; the column only orders rows",
    "fragment.hi": "the record in the row says it; the column only orders rows",
    "log_entry.name": "names only find entries",
    "log_entry.number": "a row of no shard is not read; the shard's own are counted",
    "log_state.one": "there is one row",
    "log_state.cursor": "where the log's worker goes on",
    "log_state.note": "the checkpoint is read from the vault",
    "head.changed_ns": "when it was changed last",
    "head.in_log": "whether the seal is still to be made",
    "head.bus_offset": "where ingest read it",
    "head.digest": "what the next frame's duplicate is compared with",
    "session.revision": "a counter for those who follow changes",
}
OTHERS = {"INTEGER": "{0}+1", "BLOB": "CAST(x'00' || {0} AS BLOB)", "TEXT": "{0} || 'x'"}
DAMAGED = ("zeroblob(5)", "'text'", "-1")


UNREADABLE = "unreadable"
FOUND = ("tampered", "incomplete", UNREADABLE)


async def verdict_of(site):
    """The verdict; or that the store refuses to be read, which ends verification with code 74."""
    try:
        return (await judged(site)).verdict
    except StoreError:
        return UNREADABLE


def columns(site):
    with closing(sqlite3.connect(site.folder / "ledger.db")) as ledger:
        tables = [
            name
            for (name,) in ledger.execute(
                "SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%'"
            )
            if ledger.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]
        ]
        return [
            (table, row[1], row[2] or "BLOB")
            for table in tables
            for row in ledger.execute(f'PRAGMA table_info("{table}")')
        ]


def neutral(table, column):
    return table in BOOKKEEPING or f"{table}.{column}" in BOOKKEEPING


async def missed(site, tmp_path, others):
    """What no verdict shows, of the edits of one row's column each."""
    found = []
    kept = tmp_path / "kept.db"
    with closing(sqlite3.connect(site.folder / "ledger.db")) as ledger:
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(site.folder / "ledger.db", kept)
    for table, column, kind in columns(site):
        for other in others(kind):
            if not edited(site, table, column, other.format(column)):
                continue
            verdict = await verdict_of(site)
            if verdict not in FOUND and not neutral(table, column):
                found.append(f"{table}.{column}={other}: {verdict}")
            for path in site.folder.glob("ledger.db*"):
                path.unlink()
            shutil.copy(kept, site.folder / "ledger.db")
    return found


def edited(site, table, column, value):
    """Edit the last row; False when a constraint of the table refuses it."""
    with closing(sqlite3.connect(site.folder / "ledger.db")) as ledger, ledger:
        key = [row[1] for row in ledger.execute(f'PRAGMA table_info("{table}")') if row[5]]
        names = ", ".join(key)
        last = f"SELECT {names} FROM {table} ORDER BY {', '.join(k + ' DESC' for k in key)} LIMIT 1"
        try:
            done = ledger.execute(
                f"UPDATE {table} SET {column}={value} WHERE ({names}) IN ({last})"
                f" AND {column} IS NOT {value}"
            )
        except sqlite3.IntegrityError:
            return False
        return done.rowcount > 0


async def test_every_column(site, tmp_path):
    found = await missed(site, tmp_path, lambda kind: [OTHERS.get(kind, OTHERS["BLOB"])])
    assert not found, found


@pytest.mark.soak
async def test_every_column_damaged(site, tmp_path):
    assert await missed(site, tmp_path, lambda _: DAMAGED) == []


@pytest.mark.parametrize("table", ["segment", "fragment", "head", "session", "shard", "log_entry"])
async def test_a_row_that_is_gone(site, table):
    with closing(sqlite3.connect(site.folder / "ledger.db")) as ledger, ledger:
        keys = [row[1] for row in ledger.execute(f"PRAGMA table_info({table})") if row[5]]
        names = ", ".join(keys)
        ledger.execute(
            f"DELETE FROM {table} WHERE ({names}) IN (SELECT {names} FROM {table} LIMIT 1)"
        )
    assert (await judged(site)).verdict == "tampered"


def test_the_neutral_ones_exist(site):
    """No row of the table outlives what it speaks of."""
    with closing(sqlite3.connect(site.folder / "ledger.db")) as ledger:
        tables = {
            name: {row[1] for row in ledger.execute(f"PRAGMA table_info({name})")}
            for (name,) in ledger.execute("SELECT name FROM sqlite_master WHERE type='table'")
        }
    gone = []
    for name in BOOKKEEPING:
        table, _, column = name.partition(".")
        if table not in tables or (column and column not in tables[table]):
            gone.append(name)
    assert gone == []
