import sqlite3
from dataclasses import replace
from hashlib import sha256

import pytest

from sealtape.ingest.ledger import sqlite as module
from sealtape.ingest.ledger.rows import Incident, Quarantined
from sealtape.ingest.ledger.sqlite import SqliteLedger
from sealtape.schemas.errors import StoreError
from tests.conformance.ledger import (
    A,
    LedgerConformance,
    claimed,
    contents,
    key_of,
    published,
    sealed_segment,
    session_change,
)


class LedgerClock:
    def __init__(self):
        self.now_ns = 1_790_000_000_000_000_000

    def __call__(self):
        return self.now_ns

    def forward(self, seconds):
        self.now_ns += int(seconds * 1e9)


@pytest.fixture
def clock():
    return LedgerClock()


@pytest.fixture
async def ledger(tmp_path, clock):
    ledger = await SqliteLedger.open("sqlite:ledger.db", tmp_path)
    ledger._clock_ns = clock
    yield ledger
    await ledger.close()


class TestSqliteLedger(LedgerConformance):
    pass


async def test_it_is_set_up_to_survive_a_crash_of_the_host(ledger):
    def pragmas(connection):
        names = ("journal_mode", "synchronous", "secure_delete", "foreign_keys")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await ledger._database.direct(pragmas) == ["wal", 2, 1, 1]


def test_the_layout_is_pinned():
    """A script that was released is never edited; write another one."""
    pinned = [sha256(text.encode()).hexdigest() for _, text in module._MIGRATIONS]
    assert pinned == [
        "ed61df9436d9141e388347d41189e81729c2e08d019bba70b4703f183db77ca6",
        "f402e73b38845eb64f934b0122cb03a80f7dee745beb72b4c63cfc9a53775d4b",
        "21a4bbb2183148224188424f35bde0bb148fe4b5b20badbd0ff3da2cc59dc89c",
        "492665c03d58346ec00d5fec11187b68d295e08a6dfdee1b7fb6bbee683cb37c",
        "78d11dcb4a42c2c4b138df44028cfdbf480d5728eb8db18fbb2ac43052e06286",
    ]


async def test_an_older_file_keeps_what_is_in_quarantine(tmp_path):
    """And takes another message at an offset that it knows."""
    row = ("frames", 0, 4, "malformed", b"", b"q" * 32, 2, b"xx", "", 7)
    said = ("frames", 0, 4, "malformed", "why", b"", -1, -1, 7)
    with sqlite3.connect(tmp_path / "ledger.db") as file:
        for number, script in module._MIGRATIONS[:4]:
            file.executescript(script)
            file.execute(f"PRAGMA user_version={number}")
        file.execute(f"INSERT INTO quarantine VALUES ({','.join('?' * 10)})", row)
        file.execute(f"INSERT INTO incident VALUES ({','.join('?' * 10)})", (41, *said))
    file.close()
    ledger = await SqliteLedger.open("sqlite:ledger.db", tmp_path)
    kept, stated = Quarantined(*row), Incident(*said, id=41)
    assert await ledger.quarantined("frames", 0) == [kept]
    assert await ledger.incidents() == [stated]
    lease = await claimed(ledger)
    again = replace(kept, sha256=b"r" * 32, data=b"yy")
    new = replace(stated, session=A)
    await published(ledger, lease, 0, 5, incidents=(stated, new), quarantined=(kept, again))
    assert await ledger.quarantined("frames", 0) == [kept, again]
    old, added = await ledger.incidents()
    assert (old, added) == (stated, replace(new, id=added.id))
    assert added.id > old.id
    assert await ledger.incidents(session=A) == [added]
    await ledger.close()


async def test_two_processes_may_share_it(ledger, tmp_path, clock):
    other = await SqliteLedger.open("sqlite:ledger.db", tmp_path)
    other._clock_ns = clock
    lease = await claimed(ledger)
    assert await other.claim("frames", 0, "w2", 30.0) is None
    await published(ledger, lease, 0, 5, sealed_segment(1, [(A, 0, 0, 3)]))
    assert await contents(other) == await contents(ledger)
    await other.close()


async def test_read_only_changes_no_file(tmp_path, clock):
    ledger = await SqliteLedger.open("sqlite:ledger.db", tmp_path)
    await published(ledger, await claimed(ledger), 0, 5, sealed_segment(1, [(A, 0, 0, 3)]))
    expected = await contents(ledger)
    await ledger.close()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    reading = await SqliteLedger.open("sqlite:ledger.db", tmp_path, read_only=True)
    assert await contents(reading) == expected
    with pytest.raises(StoreError):
        await claimed(reading)
    await reading.close()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


async def test_a_snapshot_stays_as_it_was(ledger, tmp_path):
    lease = await claimed(ledger)
    first = sealed_segment(1, [(A, 0, 0, 3)])
    await published(ledger, lease, 0, 5, first)
    snapshot = await SqliteLedger.open("sqlite:ledger.db", tmp_path, snapshot=True)
    expected = await contents(snapshot)
    prev = module_hash(first)
    await published(ledger, lease, 5, 9, sealed_segment(2, [(A, 0, 3, 4)], prev=prev, n=1))
    assert await contents(snapshot) == expected != await contents(ledger)
    with pytest.raises(StoreError):
        await claimed(snapshot)
    await snapshot.close()


async def test_long_lists_come_in_pages(ledger, monkeypatch):
    monkeypatch.setattr(module, "_PAGE", 2)
    lease = await claimed(ledger)
    names = [bytes([number]) * 16 for number in range(5)]
    await published(ledger, lease, 0, 0, sessions=tuple(map(session_change, names)))
    assert [row.session async for row in ledger.sessions()] == names
    prev, segments = bytes(32), []
    for number in range(5):
        segments.append(sealed_segment(number, [(A, 0, number, number + 1)], prev=prev, n=number))
        prev = module_hash(segments[-1])
    await published(ledger, lease, 0, 0, *segments)
    assert [row.key async for row in ledger.segments()] == [key_of(n) for n in range(5)]
    assert [row.record.n async for row in ledger.chain(segments[0].record.shard, 1)] == [1, 2, 3, 4]


def module_hash(segment):
    from sealtape.schemas.segments import record_hash

    return record_hash(segment.record)


async def test_nothing_deleted_stays_in_the_bytes(ledger, tmp_path):
    def plant(connection):
        connection.execute(
            "INSERT INTO quarantine VALUES ('t',0,1,'r',x'',x'',2,?,'',0)", (b"precious" * 50,)
        )

    await ledger._database.write(plant)
    await ledger._database.write(lambda c: c.execute("DELETE FROM quarantine"))
    await ledger._database.direct(lambda c: c.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
    assert not any(b"precious" in file.read_bytes() for file in tmp_path.iterdir())


async def test_an_edited_row_is_not_read_as_something_else(ledger, tmp_path):
    await published(ledger, await claimed(ledger), 0, 5, sealed_segment(1, [(A, 0, 0, 3)]))
    other = sqlite3.connect(tmp_path / "ledger.db")
    other.execute("UPDATE segment SET record = substr(record, 1, 20)")
    other.commit()
    other.close()
    from sealtape.schemas.errors import FormatError

    with pytest.raises(FormatError):
        _ = [row async for row in ledger.segments()]
