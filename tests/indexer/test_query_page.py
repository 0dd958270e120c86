"""docs/query.md: every query on the page is read, and every example finds what the page says."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sealtape.indexer.index import Page, Update, open_index
from sealtape.indexer.query import FIELDS, form, parse
from sealtape.schemas.documents import CommandDocument, SessionDocument
from sealtape.schemas.errors import QueryError

PAGE = (Path(__file__).parents[2] / "docs" / "query.md").read_text(encoding="utf-8")
NOON = int(datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()) * 10**9
ALL = Page(limit=100)


def table(after: str) -> list[list[str]]:
    """The rows of the first table behind a text, without its header."""
    _, _, rest = PAGE.partition(after)
    lines = rest[rest.index("\n|") + 1 :].split("\n\n")[0].splitlines()
    return [
        [cell.strip().strip("`") for cell in line.strip("|").split(" | ")]
        for line in (line.replace("| |", "|  |") for line in lines[2:])
    ]


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text + "+00:00").timestamp()) * 10**9


@pytest.fixture
async def index(tmp_path):
    sessions, commands = {}, []
    for line in re.findall(r"^\| \d \|.*$", PAGE, re.MULTILINE):
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        n, session, user, target, source, time, text, effect, tables, error = cells
        names = {
            "session": bytes.fromhex(session.ljust(32, "0")),
            "tenant": "main",
            "retention": "standard",
            "user": user,
            "target": target,
            "protocol": "postgres",
            "source": source,
        }
        at = ns(time)
        first = sessions.get(session)
        sessions[session] = SessionDocument(
            **names,
            node="node-1",
            started_ns=first.started_ns if first else at,
            ended_ns=at,
            revision=1,
        )
        commands.append(
            CommandDocument(
                **names,
                epoch=0,
                n=int(n),
                seq=2,
                time_ns=at,
                leg=0,
                offset=0,
                length=1,
                text=text,
                effect=effect,
                tables=(tables,) if tables else (),
                status="error" if error else "ok",
                error=error,
            )
        )
    assert len(commands) == 5
    index = await open_index("sqlite:index.db", tmp_path)
    await index.put(Update(tuple(sessions.values()), tuple(commands)))
    yield index
    await index.close()


async def test_searches(index):
    rows = table("`search` finds:")
    assert len(rows) > 30
    for row in rows:
        query, found = row[0], row[1] if len(row) > 1 else ""
        hits = await index.search_commands(parse(query, now_ns=NOON), ALL)
        numbers = " ".join(str(n) for n in sorted(hit.n for hit in hits.documents))
        assert numbers == found.strip(" |"), query


async def test_sessions(index):
    rows = table("and `sessions`:")
    assert len(rows) == 6
    for query, found in rows:
        hits = await index.search_sessions(parse(query, now_ns=NOON), ALL)
        ids = " ".join(sorted(hit.id[:4] for hit in hits.documents))
        assert ids == found.strip(" |"), query


def test_the_page_names_every_field_and_no_other():
    fields = re.findall(r"`(\w+):`", PAGE.partition("| field | is |")[2].partition("**Times**")[0])
    assert set(FIELDS) == set(fields)


def test_what_a_query_on_the_page_looks_like():
    shown = re.search(r"sealtape search '(.*)'", PAGE)[1]
    assert parse(form(parse(shown, now_ns=NOON)), now_ns=NOON) == parse(shown, now_ns=NOON)
    parse('"http://example.com"', now_ns=NOON)
    with pytest.raises(QueryError) as caught:
        parse("usr:anna", now_ns=NOON)
    begin = re.search(r"``(There is no field 'usr'.*?); …``", PAGE)[1]
    assert str(caught.value).startswith(begin)
