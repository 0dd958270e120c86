import random
import sqlite3

import pytest

from sealtape.ingest.keyring import sqlite as module
from sealtape.ingest.keyring.sqlite import SqliteKeyring
from sealtape.schemas.errors import StoreBusy, StoreError
from tests.conformance.keyring import KeyringConformance, as_wrap, key_message


@pytest.fixture
async def keyring(tmp_path):
    keyring = await SqliteKeyring.open("sqlite:keyring.db", tmp_path)
    yield keyring
    await keyring.close()


class TestSqliteKeyring(KeyringConformance):
    pass


def raw_bytes(folder):
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))


@pytest.mark.parametrize("seed", range(4))
async def test_no_byte_of_a_destroyed_key_remains(tmp_path, monkeypatch, seed):
    """Also none that SQLite copied elsewhere while it kept its pages in order."""
    chance = random.Random(seed)
    keyring = await SqliteKeyring.open("sqlite:keyring.db", tmp_path)
    live, dead = {}, []

    async def skip(_):
        return None

    for _ in range(400):
        if chance.random() < 0.6 or not live:
            session = chance.randbytes(16)
            live[session] = []
            for label in ("data", "facts"):
                sealed = chance.randbytes(chance.choice([80, 1168]))
                live[session].append(sealed)
                await keyring.put(key_message(session=session, label=label, sealed=sealed))
            await keyring.dispute(key_message(session=session, sealed=chance.randbytes(80)))
        else:
            session = chance.choice(list(live))
            dead += live.pop(session)
            dead += [wrap.sealed for wrap in await keyring.disputed(session)]
            with monkeypatch.context() as patch:
                if chance.random() < 0.9:  # the checkpoint at the end must catch up on all
                    patch.setattr(SqliteKeyring, "_empty_log", skip)
                await keyring.destroy(session)
    await keyring.destroy(bytes(16))
    raw = raw_bytes(tmp_path)
    assert len(dead) > 200
    for sealed in dead:
        assert not any(sealed[at : at + 16] in raw for at in range(0, len(sealed) - 15, 16))
    for session, both in live.items():
        assert {wrap.sealed for wrap in await keyring.get(session, 0, "data")} <= set(both)
        assert all(sealed[:32] in raw for sealed in both)
    await keyring.close()


async def test_nothing_remains_in_the_log_while_it_is_open(keyring, tmp_path):
    await keyring.put(key_message(sealed=b"precious" * 10))
    assert b"precious" in raw_bytes(tmp_path)
    await keyring.destroy(bytes(16))
    assert b"precious" not in raw_bytes(tmp_path)
    assert (tmp_path / "keyring.db-wal").stat().st_size == 0


async def test_a_reader_that_holds_the_log_is_said_and_repaired(keyring, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHECKPOINT_ATTEMPTS", 2)
    monkeypatch.setattr(module, "_CHECKPOINT_PAUSE_S", 0.01)
    monkeypatch.setattr("sealtape.ingest.sqlite.BUSY_TIMEOUT_S", 0.1)
    await keyring._database.direct(lambda c: c.execute("PRAGMA busy_timeout=50").fetchone())
    await keyring.put(key_message(sealed=b"precious" * 10))
    reader = sqlite3.connect(tmp_path / "keyring.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM wrap").fetchone()
    with pytest.raises(StoreBusy) as caught:
        await keyring.destroy(bytes(16))
    assert caught.value.retry_after_s > 0
    reader.close()
    await keyring.destroy(bytes(16))
    assert b"precious" not in raw_bytes(tmp_path)


async def test_two_processes_may_share_it(tmp_path):
    one = await SqliteKeyring.open("sqlite:keyring.db", tmp_path)
    two = await SqliteKeyring.open("sqlite:keyring.db", tmp_path)
    await one.put(key_message())
    assert await two.get(bytes(16), 0, "data") == [as_wrap(key_message())]
    await two.destroy(bytes(16))
    assert await one.put(key_message()) is False
    await one.close()
    await two.close()


async def test_read_only_changes_no_file(tmp_path):
    keyring = await SqliteKeyring.open("sqlite:keyring.db", tmp_path)
    await keyring.put(key_message())
    await keyring.close()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    reading = await SqliteKeyring.open("sqlite:keyring.db", tmp_path, read_only=True)
    assert await reading.get(bytes(16), 0, "data") == [as_wrap(key_message())]
    with pytest.raises(StoreError):
        await reading.put(key_message(epoch=1))
    await reading.close()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


async def test_the_file_is_for_its_owner_only(keyring, tmp_path):
    assert (tmp_path / "keyring.db").stat().st_mode & 0o777 == 0o600


async def test_a_long_listing_comes_in_pages(keyring, monkeypatch):
    monkeypatch.setattr(module, "_PAGE", 2)
    names = [bytes([number]) * 16 for number in range(5)]
    for name in names:
        await keyring.put(key_message(session=name))
    assert [session async for session in keyring.sessions()] == names
