import sqlite3
from contextlib import closing

import pytest

from sealtape.indexer.index import fts5
from sealtape.indexer.index.base import Update
from sealtape.indexer.index.sqlite import SqliteIndex
from sealtape.indexer.query import parse
from tests.conformance.index import command, session

# What the conditions find is in tests/conformance/index.py; here: that values stay parameters.


@pytest.mark.parametrize("build", [fts5.commands, fts5.sessions])
@pytest.mark.parametrize(
    "text",
    [
        'user:"x\' OR 1=1 --"',
        'table:"a\\"b",c*',
        "group:dba*",
        "error:42p01 -error:true",
        "source:10.0.0.0/8 since:5 ".replace("since:5", "since:5s"),
        "union select",
        "session:ab until:2026-01-01",
    ],
)
def test_values_are_parameters(build, text):
    condition = build(parse(text, now_ns=10**18))
    assert condition.sql.count("?") == len(condition.parameters)
    for word in ("OR 1", "--", "42p01", "union", "dba", '"'):
        assert word not in condition.sql


@pytest.mark.parametrize(
    ("address", "packed"),
    [
        ("10.1.2.3", b"\x04\x0a\x01\x02\x03"),
        ("::ffff:10.1.2.3", b"\x04\x0a\x01\x02\x03"),
        ("10.1.2.3:5432", b"\x04\x0a\x01\x02\x03"),
        ("[::1]:5432", b"\x06" + bytes(15) + b"\x01"),
        ("[::1]", b"\x06" + bytes(15) + b"\x01"),
        ("::1", b"\x06" + bytes(15) + b"\x01"),
        ("fe80::1%eth0", b"\x06\xfe\x80" + bytes(13) + b"\x01"),
        ("", b""),
        ("unix", b""),
        ("a:b", b""),
        ("[", b""),
    ],
)
def test_addresses(address, packed):
    assert fts5.packed_address(address) == packed


SESSIONS, COMMANDS, PAGE = 400, 5, 10
STEP = 100


@pytest.fixture
async def file(tmp_path):
    """An index of sessions that all have the table `orders`, and the last ten a table `rare`."""
    index = await SqliteIndex.open("sqlite:index.db", tmp_path)
    owners = [session(number) for number in range(1, SESSIONS + 1)]
    commands = [
        command(
            owner, n, text="select 1",
            tables=("rare" if n == 4 and number >= SESSIONS - 10 else "orders",),
            error="42P01" if number % 50 == 7 else "",
        )
        for number, owner in enumerate(owners)
        for n in range(COMMANDS)
    ]  # fmt: skip
    await index.put(Update(tuple(owners), tuple(commands), {}, {}))
    await index.close()
    return tmp_path / "index.db"


def steps(file, text):
    """How much SQLite does for the first page of sessions, and how many it has."""
    condition, count = fts5.sessions(parse(text, now_ns=10**18)), 0

    def one_more():
        nonlocal count
        count += 1
        return 0

    with closing(sqlite3.connect(file)) as connection:
        connection.set_progress_handler(one_more, STEP)
        sql = f"SELECT s.id FROM sessions AS s WHERE {condition.sql} ORDER BY s.started_ns LIMIT ?"
        rows = connection.execute(sql, (*condition.parameters, PAGE)).fetchall()
    return count * STEP, len(rows)


@pytest.mark.parametrize("text", ["-table:rare", "-nothing", "-error:true", "-error:42p01"])
def test_what_few_sessions_have_is_asked_of_a_page_of_sessions(file, text):
    took, found = steps(file, text)
    assert found == PAGE
    assert took < 300 * PAGE


@pytest.mark.parametrize("text", ["-select", "-table:orders", "-select*"])
def test_what_all_have_is_found_with_their_first_command(file, text):
    """Not with each command of another session."""
    took, found = steps(file, text)
    assert found == 0
    assert took < 60 * SESSIONS
