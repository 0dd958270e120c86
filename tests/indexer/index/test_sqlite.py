import random
import sqlite3
from dataclasses import replace

import pytest

from sealtape.indexer import tokens
from sealtape.indexer.index.base import Page, Update, open_index
from sealtape.indexer.index.sqlite import SqliteIndex
from sealtape.indexer.query import Query, parse
from sealtape.schemas.errors import NotFound, StoreBusy, StoreError
from tests.conformance.index import command, session

URL = "sqlite:index.db"


def files(folder) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir()).lower()


def secrets(number: int, n: int) -> tuple[str, str]:
    dice = random.Random(number * 1000 + n)
    return f"word{dice.getrandbits(60):015x}", f"err{dice.getrandbits(60):015x}"


def recording(number: int, count: int):
    owner = session(number, user=f"person-{number:04d}@example.com")
    commands = []
    for n in range(count):
        word, message = secrets(number, n)
        text = f"select {word} from orders where " + "x" * random.Random(n).randrange(700)
        one = command(owner, n, text=text, tables=(f"table_{word}",))
        commands += [one, replace(one, message=message, version=1, status="error")]
    return owner, commands


async def test_no_byte_of_a_dropped_session_remains(tmp_path):
    index = await open_index(URL, tmp_path)
    for number in range(1, 25):
        owner, commands = recording(number, 40)
        for at in range(0, len(commands), 7):
            await index.put(Update((owner,), tuple(commands[at : at + 7])))
    gone = range(2, 25, 3)
    before = files(tmp_path)
    assert all(secrets(number, 0)[0].encode() in before for number in gone)
    await index.drop(*(session(number).id for number in gone))
    after = files(tmp_path)
    for number in gone:
        assert f"person-{number:04d}".encode() not in after
        for n in range(40):
            for secret in secrets(number, n):
                # FTS5 stores terms by their difference from the one before.
                assert secret[:10].encode() not in after
                assert secret[5:].encode() not in after
    word, message = secrets(1, 3)
    for text in (word, message, f"table_{word}"):
        hits = await index.search_commands(parse(text, now_ns=0), Page())
        assert [hit.id for hit in hits.documents] == [command(session(1), 3).id]
    hits = await index.search_sessions(Query(), Page())
    assert len(hits.documents) == 24 - len(gone)
    await index.close()


@pytest.mark.parametrize("seed", range(4))
async def test_large_updates_with_old_and_new_and_repeated_commands(tmp_path, seed):
    dice = random.Random(seed)
    index = await open_index(URL, tmp_path)
    owner, gone = session(1), session(2)
    await index.drop(gone.id)
    expected = {}
    for _ in range(3):
        update = [command(gone, n) for n in range(3)]
        for _ in range(dice.choice((5, 128, 300, 700))):
            text = f"number{dice.randrange(9)} " + "y" * dice.choice((1, 1, 600))
            update.append(command(owner, dice.randrange(600), version=dice.randrange(3), text=text))
        for one in update[3:]:
            if one.id not in expected or one.version >= expected[one.id].version:
                expected[one.id] = one
        await index.put(Update((owner,), tuple(update)))
    everything = Page(limit=10_000)
    hits = await index.search_commands(Query(), everything)
    assert {hit.id: hit for hit in hits.documents} == expected
    for number in range(9):
        hits = await index.search_commands(parse(f"number{number}", now_ns=0), everything)
        assert {hit.id for hit in hits.documents} == {
            name for name, one in expected.items() if f"number{number}" in one.text
        }
    await index.close()


async def test_clear_leaves_nothing(tmp_path):
    index = await open_index(URL, tmp_path)
    owner, commands = recording(1, 30)
    await index.put(Update((owner,), tuple(commands), progress={owner.id: b"note-of-progress"}))
    await index.clear()
    after = files(tmp_path)
    for secret in (secrets(1, 5)[0][5:], "person-0001", owner.id, "note-of-progress"):
        assert secret.encode() not in after
    await index.close()


async def test_an_interrupted_cleaning_is_done_at_the_next_start(tmp_path, monkeypatch):
    index = await open_index(URL, tmp_path)
    owner, commands = recording(1, 30)
    await index.put(Update((owner,), tuple(commands)))

    async def killed(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SqliteIndex, "_clean", killed)
        with pytest.raises(KeyboardInterrupt):
            await index.drop(owner.id)
    await index.close()
    index = await open_index(URL, tmp_path)
    assert secrets(1, 5)[0][5:].encode() not in files(tmp_path)
    with pytest.raises(NotFound):
        await index.session(owner.id)
    await index.close()


async def test_a_reader_that_stays_makes_drop_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr("sealtape.indexer.index.sqlite._CHECKPOINT_ATTEMPTS", 1)
    monkeypatch.setattr("sealtape.ingest.sqlite.BUSY_TIMEOUT_S", 0.05)
    index = await open_index(URL, tmp_path)
    owner, commands = recording(1, 5)
    await index.put(Update((owner,), tuple(commands)))
    reader = sqlite3.connect(tmp_path / "index.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM commands").fetchone()
    with pytest.raises(StoreBusy):
        await index.drop(owner.id)
    reader.execute("COMMIT")
    reader.close()
    await index.drop(owner.id)
    assert secrets(1, 2)[0][5:].encode() not in files(tmp_path)
    await index.close()


async def test_reading_only_makes_no_file_and_sees_the_writer(tmp_path):
    with pytest.raises(StoreError):
        await open_index(URL, tmp_path, read_only=True)
    assert list(tmp_path.iterdir()) == []
    writer = await open_index(URL, tmp_path)
    await writer.put(Update((session(1),)))
    reader = await open_index(URL, tmp_path, read_only=True)
    assert await reader.session(session(1).id) == session(1)
    await writer.put(Update((session(2),)))
    assert await reader.session(session(2).id) == session(2)
    with pytest.raises(StoreError):
        await reader.put(Update((session(3),)))
    await reader.close()
    await writer.close()


async def test_another_rule_for_words_is_refused(tmp_path, monkeypatch):
    index = await open_index(URL, tmp_path)
    await index.close()
    monkeypatch.setattr(tokens, "VERSION", tokens.VERSION + 1)
    for read_only in (False, True):
        with pytest.raises(StoreError, match="Delete the file"):
            await open_index(URL, tmp_path, read_only=read_only)


async def test_the_file_is_its_owners(tmp_path):
    index = await open_index(URL, tmp_path)
    assert (tmp_path / "index.db").stat().st_mode & 0o077 == 0
    await index.close()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("user:" + ",".join(f"u{n}" for n in range(1500)), 0),
        ("user:" + ",".join([*(f"u{n}" for n in range(1500)), "ada"]), 1),
        (" ".join(f"-word{n}" for n in range(1500)), 1),
        ("source:" + ",".join(f"10.0.{n // 250}.{n % 250}" for n in range(1500)), 0),
    ],
)
async def test_a_query_may_have_many_terms_and_values(tmp_path, text, found):
    index = await open_index(URL, tmp_path)
    owner = session(1, user="ada", source="192.0.2.7")
    await index.put(Update((owner,), (command(owner, 0),)))
    query = parse(text, now_ns=0)
    # A page as large as it likes is as good as all.
    for page in (Page(), Page(limit=2**63)):
        assert len((await index.search_commands(query, page)).documents) == found
        assert len((await index.search_sessions(query, page)).documents) == found
    await index.close()
