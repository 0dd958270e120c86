"""What every index adapter must do. A test module gives `index_url`, a fresh index per test.

`found_command` and `found_session` are the query language once more, over plain documents: each
adapter must find what they find.
"""

import asyncio
import ipaddress
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sealtape.indexer import tokens
from sealtape.indexer.index.base import Page, Update, open_index
from sealtape.indexer.query import (
    Failed,
    Match,
    Not,
    Query,
    Since,
    Source,
    Text,
    Until,
    Value,
    form,
    parse,
)
from sealtape.schemas.documents import CommandDocument, SessionDocument
from sealtape.schemas.errors import Ambiguous, NotFound, StoreError, UsageError

S = 10**9
MANY = Page(limit=10_000)


def session(number: int, **changes) -> SessionDocument:
    values = {
        "session": number.to_bytes(16, "big"),
        "tenant": "main",
        "retention": "standard",
        "user": "anna@example.com",
        "groups": ("dba", "Ops"),
        "target": "shop",
        "protocol": "postgres",
        "source": "10.1.2.3",
        "node": "node-1",
        "started_ns": number * S,
        "revision": 4,
    }
    return SessionDocument(**(values | changes))


def command(owner: SessionDocument, n: int, **changes) -> CommandDocument:
    values = {
        "session": owner.session,
        "epoch": 0,
        "n": n,
        "seq": 2 + n,
        "tenant": owner.tenant,
        "retention": owner.retention,
        "user": owner.user,
        "groups": owner.groups,
        "agent": owner.agent,
        "run": owner.run,
        "target": owner.target,
        "protocol": owner.protocol,
        "source": owner.source,
        "time_ns": owner.started_ns + n,
        "leg": 0,
        "offset": 0,
        "length": 10,
        "text": "select 1",
        "effect": "read",
    }
    return CommandDocument(**(values | changes))


def query(text: str) -> Query:
    return parse(text, now_ns=10_000 * S)


# -- the language over plain documents ------


def names(values, wanted: Value, behind_dot: bool = False) -> bool:
    for value in map(tokens.fold, values):
        tails = [value]
        if behind_dot:
            tails += [value[at + 1 :] for at, char in enumerate(value) if char == "."]
        for tail in tails:
            if value and (tail == wanted.text or (wanted.prefix and tail.startswith(wanted.text))):
                return True
    return False


def host(source: str) -> str:
    if source.startswith("["):
        return source[1 : source.index("]")]
    return source.split(":")[0] if source.count(":") == 1 else source


def has_words(text: str, wanted: Text) -> bool:
    words, size = tokens.words(text), len(wanted.words)
    for at in range(len(words) - size + 1):
        part = words[at : at + size]
        if part == wanted.words:
            return True
        starts = wanted.prefix and part[-1].startswith(wanted.words[-1])
        if starts and part[:-1] == wanted.words[:-1]:
            return True
    return False


def holds(term, owner: SessionDocument, found: CommandDocument | None) -> bool:
    match term:
        case Not(inner):
            return not holds(inner, owner, found)
        case Text():
            texts = (found.text, *found.tables, found.message)
            return any(has_words(text, term) for text in texts)
        case Failed(wanted):
            return (found.status == "error") == wanted
        case Since(ns):
            if found:
                return found.time_ns >= ns
            return owner.ended_ns is None or owner.ended_ns >= ns
        case Until(ns):
            return (found.time_ns if found else owner.started_ns) < ns
        case Source(networks):
            source = host((found or owner).source)
            return bool(source) and any(
                ipaddress.ip_address(source) in ipaddress.ip_network(network)
                for network in networks
            )
        case Match("session", values):
            return any(owner.id.startswith(value.text) for value in values)
        case Match("group", values):
            return any(names((found or owner).groups, value) for value in values)
        case Match("table", values):
            return any(names(found.tables, value, behind_dot=True) for value in values)
        case Match("effect" | "error" as field, values):
            return any(names([getattr(found, field)], value) for value in values)
        case Match(field, values):
            return any(names([getattr(found or owner, field)], value) for value in values)


def of_command(term) -> bool:
    match term:
        case Match(field, _):
            return field in ("effect", "table", "error")
        case Text() | Failed():
            return True
    return False


def found_command(wanted: Query, owner: SessionDocument, found: CommandDocument) -> bool:
    return all(holds(term, owner, found) for term in wanted.terms)


def found_session(wanted: Query, owner: SessionDocument, commands: list[CommandDocument]) -> bool:
    if owner.protocol == "journal" and not any(
        isinstance(term, Match) and term.field in ("protocol", "session") for term in wanted.terms
    ):
        return False
    together = []
    for term in wanted.terms:
        negative = isinstance(term, Not)
        inner = term.term if negative else term
        if isinstance(inner, Failed) and not inner.wanted:
            inner, negative = Failed(wanted=True), not negative
        if not of_command(inner):
            if not holds(term, owner, None):
                return False
        elif negative:
            if any(holds(inner, owner, found) for found in commands):
                return False
        else:
            together.append(inner)
    if not together:
        return True
    times = [
        term
        for term in wanted.terms
        if isinstance(term.term if isinstance(term, Not) else term, Since | Until)
    ]
    return any(all(holds(term, owner, found) for term in [*together, *times]) for found in commands)


# -- documents and queries at random ------

WORDS = ("select", "drop", "orders", "public", "customer", "o'brien", "zürich", "x1", "naïve_id")
USERS = ("anna@example.com", "Anna", "ben", "ben ding", "")
TABLES = ("orders", "public.orders", "shop.public.orders", "public.order_items", "Zürich.x")
ADDRESSES = ("10.1.2.3", "10.200.0.1:7", "192.0.2.7:65535", "[2001:db8::1]:5432", "2001:db8::1", "")
NETWORKS = ("10.0.0.0/8", "10.1.2.3/32", "2001:db8::/32", "0.0.0.0/0", "::/0", "192.0.2.7/32")


def random_world(dice: random.Random):
    world = []
    for number in range(1, 9):
        agent = dice.choice(("", "agent-7", "Agent-77"))
        owner = session(
            number * 7919 << dice.choice((0, 60, 120)) & (1 << 128) - 1,
            user=dice.choice(USERS),
            groups=tuple(dice.sample(("dba", "Ops", "dev.eu"), dice.randrange(4))),
            agent=agent,
            run=dice.choice(("", "run-1")),
            target=dice.choice(("shop", "orders")),
            protocol=dice.choice(("postgres", "postgres", "journal")),
            source=dice.choice(ADDRESSES),
            started_ns=number * 10 * S,
            ended_ns=dice.choice((None, number * 10 * S + 15 * S)),
        )
        commands = []
        for n in range(dice.randrange(5)):
            failed = dice.random() < 0.3
            commands.append(
                command(
                    owner,
                    n,
                    time_ns=owner.started_ns + dice.randrange(20) * S,
                    user=dice.choice((owner.user, owner.user, "carl")),
                    text=dice.choice((" ", ".", "_", "(")).join(dice.choices(WORDS, k=3)),
                    tables=tuple(dice.sample(TABLES, dice.randrange(3))),
                    effect=dice.choice(("read", "write", "")),
                    status="error" if failed else "ok",
                    error=dice.choice(("42P01", "23505")) if failed else "",
                    message=dice.choice(("no such thing: orders", "")) if failed else "",
                )
            )
        effects = {each.effect for each in commands} - {""}
        world.append((replace(owner, effects=tuple(sorted(effects))), commands))
    return world


def random_term(dice: random.Random):
    kind = dice.randrange(9)
    prefix = dice.random() < 0.3
    if kind < 2:
        words = tokens.words(" ".join(dice.choices(WORDS, k=dice.choice((1, 1, 2)))))
        if prefix:
            words = (*words[:-1], words[-1][: dice.randrange(1, 4)])
        return Text(words, prefix)
    if kind == 2:
        return Failed(dice.random() < 0.5)
    if kind == 3:
        return Source(tuple(dice.sample(NETWORKS, dice.choice((1, 2)))))
    if kind == 4:
        return dice.choice((Since, Until))(dice.randrange(120) * S)
    if kind == 5:
        value = f"{dice.randrange(1 << 8):02x}"[dice.randrange(2) :]
        return Match("session", (Value(value.lstrip("0") or "0", prefix=True),))
    field, choices = dice.choice(
        (
            ("user", (*USERS[:-1], "carl")),
            ("group", ("dba", "ops", "eu")),
            ("agent", ("agent-7",)),
            ("run", ("run-1",)),
            ("target", ("shop", "orders")),
            ("protocol", ("postgres", "journal")),
            ("effect", ("read", "write")),
            ("table", (*TABLES, "public", "items")),
            ("error", ("42p01", "23505")),
        )
    )
    values = []
    for text in dice.sample(choices, dice.randrange(1, min(3, len(choices) + 1))):
        cut = tokens.fold(text)[: dice.randrange(4)] if prefix else tokens.fold(text)
        values.append(Value(cut, prefix))
    return Match(field, tuple(values))


def random_query(dice: random.Random) -> Query:
    terms = []
    for _ in range(dice.randrange(1, 4)):
        term = random_term(dice)
        terms.append(Not(term) if dice.random() < 0.3 else term)
    return Query(tuple(terms))


class IndexContract:
    @pytest.fixture
    async def index(self, index_url):
        index = await open_index(index_url, Path("/"))
        yield index
        await index.close()

    async def ids(self, index, text: str) -> set[str]:
        hits = await index.search_commands(query(text), MANY)
        return {hit.id for hit in hits.documents}

    async def test_finds_what_the_language_says(self, index):
        dice = random.Random(7)
        for _ in range(4):
            world = random_world(dice)
            await index.clear()
            await index.put(
                Update(
                    sessions=tuple(owner for owner, _ in world),
                    commands=tuple(one for _, commands in world for one in commands),
                )
            )
            found_any = 0
            for _ in range(150):
                wanted = random_query(dice)
                hits = await index.search_commands(wanted, MANY)
                expected = {
                    one.id
                    for owner, commands in world
                    for one in commands
                    if found_command(wanted, owner, one)
                }
                assert {hit.id for hit in hits.documents} == expected, form(wanted)
                found_any += bool(expected)
                hits = await index.search_sessions(wanted, MANY)
                expected = {
                    owner.id for owner, commands in world if found_session(wanted, owner, commands)
                }
                assert {hit.id for hit in hits.documents} == expected, form(wanted)
                found_any += bool(expected)
            assert found_any > 60

    async def test_documents_come_back_as_they_went_in(self, index):
        owner = session(
            1, user='Ünï "code"\x00\u2028', client="psql 18", ended_ns=5 * S, state="closed"
        )
        one = command(owner, 0, text="select 'a\x00b' -- \U0001f600", duration_ns=12, rows=3)
        await index.put(Update((owner,), (one,)))
        assert (await index.search_sessions(Query(), Page())).documents == (owner,)
        assert (await index.search_commands(Query(), Page())).documents == (one,)
        assert await index.command(one.id) == one
        assert await index.command(one.id + "1") is None

    async def test_twice_is_once(self, index):
        owner = session(1)
        update = Update((owner,), tuple(command(owner, n) for n in range(5)))
        await index.put(update)
        await index.put(update)
        assert len((await index.search_commands(query("select"), MANY)).documents) == 5
        assert len((await index.search_sessions(query("select"), MANY)).documents) == 1

    async def test_older_never_overwrites_newer(self, index):
        old = session(1, revision=3)
        new = replace(old, revision=4, state="closed", ended_ns=9 * S, user="ben")
        running = command(old, 0, text="drop table orders")
        done = replace(
            running,
            version=1,
            user="ben",
            status="error",
            error="42P01",
            message="no such table",
            seq=9,
        )
        for first, then in (((new, done), (old, running)), ((old, running), (new, done))):
            await index.clear()
            await index.put(Update((first[0],), (first[1],)))
            await index.put(Update((then[0],), (then[1],)))
            assert await index.session(old.id) == new
            assert await index.command(running.id) == done
            assert await self.ids(index, 'drop "such table" error:42p01 user:ben') == {running.id}
            assert await self.ids(index, "user:anna*") == set()

    async def test_a_session_that_is_indexed_anew(self, index):
        """What was withdrawn is gone, and of what comes then only the number of times counts."""
        old, other = session(1, revision=9), session(2)
        forged = [command(old, n, version=2, text=f"forged {n}") for n in range(5)]
        await index.put(Update((old, other), (*forged, command(other, 0))))
        for _ in range(2):
            await index.withdraw(old.id, 1)
        assert await self.ids(index, "forged") == set()
        assert await self.ids(index, "") == {command(other, 0).id}
        new, true = replace(old, revision=4), command(old, 1, text="true", version=0)
        await index.put(Update((new,), (true,), progress={old.id: b"p"}, again={old.id: 1}))
        await index.put(Update((old,), forged[:2], progress={old.id: b"late"}))
        await index.withdraw(old.id, 1)
        assert await index.session(old.id) == new
        assert await index.command(true.id) == true
        assert await index.progress(old.id) == b"p"
        done = replace(true, version=1, status="ok")
        await index.put(Update((new,), (done, replace(done, n=3)), again={old.id: 1}))
        assert await index.command(done.id) == done
        assert await self.ids(index, "true") == {done.id, replace(done, n=3).id}

    async def test_a_result_changes_the_words(self, index):
        owner = session(1)
        running = command(owner, 0, text="alpha beta")
        await index.put(Update((owner,), (running,)))
        assert await self.ids(index, "alpha") == {running.id}
        await index.put(Update((), (replace(running, version=1, text="beta gamma"),)))
        assert await self.ids(index, "alpha") == set()
        assert await self.ids(index, '"beta gamma"') == {running.id}

    async def test_by_prefix(self, index):
        first, second = session(0xAB << 120, started_ns=1), session((0xAC << 120) + 1, started_ns=2)
        await index.put(Update((first, second)))
        assert await index.session("ab") == first
        assert await index.session("AC0") == second
        assert await index.session(first.id) == first
        for wrong in ("", "xyz", "0" * 33, "ab*", "%"):
            with pytest.raises(UsageError):
                await index.session(wrong)
        with pytest.raises(NotFound):
            await index.session("ad")
        with pytest.raises(Ambiguous):
            await index.session("a")

    @pytest.mark.parametrize("oldest_first", [False, True])
    async def test_pages(self, index, oldest_first):
        owners = [session(number, started_ns=number // 3 * S) for number in range(1, 12)]
        commands = [command(owner, n, time_ns=5 * S) for owner in owners[:3] for n in range(4)]
        await index.put(Update(tuple(owners), tuple(commands)))
        for search, count in ((index.search_sessions, 11), (index.search_commands, 12)):
            whole = await search(Query(), Page(limit=20, oldest_first=oldest_first))
            assert whole.next == ""
            pieces, after = [], ""
            for _ in range(6):
                page = Page(limit=2, after=after, oldest_first=oldest_first)
                hits = await search(Query(), page)
                pieces += hits.documents
                after = hits.next
                if not after:
                    break
            assert after == ""
            assert tuple(pieces) == whole.documents
            assert len(pieces) == count
            order = [
                (hit.time_ns, hit.n) if isinstance(hit, CommandDocument) else (hit.started_ns, 0)
                for hit in pieces
            ]
            assert order == sorted(order, reverse=not oldest_first)

    @pytest.mark.parametrize(
        "cursor", ["x", "1.2", "1.2.-3", "1.2.3 OR 1", f"{2**63}.1.1", "1.2.٣"]
    )
    async def test_a_cursor_is_not_believed(self, index, cursor):
        for search in (index.search_sessions, index.search_commands):
            with pytest.raises(UsageError):
                await search(Query(), Page(after=cursor))
            with pytest.raises(UsageError):
                await search(Query(), Page(limit=0))

    async def test_words_of_the_back_end_mean_nothing(self, index):
        owner = session(1)
        texts = ("a AND b", "near(x y)", "text: c", "^start", "plus + minus")
        commands = tuple(command(owner, n, text=text) for n, text in enumerate(texts))
        await index.put(Update((owner,), commands))
        assert await self.ids(index, "AND") == {commands[0].id}
        assert await self.ids(index, "OR") == set()
        assert await self.ids(index, "NOT b") == set()
        assert await self.ids(index, "NEAR(x") == {commands[1].id}
        assert await self.ids(index, '"text: c"') == {commands[2].id}
        assert await self.ids(index, "minus") == {commands[4].id}

    async def test_a_phrase_does_not_reach_from_one_name_into_the_next(self, index):
        owner = session(1)
        apart = command(owner, 0, text="call f()", tables=("shop.orders", "items", "\u00b6"))
        whole = command(owner, 1, text="call g()", tables=("order.items", "x.orders_items"))
        await index.put(Update((owner,), (apart, whole)))
        assert await self.ids(index, '"orders items"') == {whole.id}
        assert await self.ids(index, '"orders it"*') == {whole.id}
        assert await self.ids(index, "shop.orders") == {apart.id}
        assert await self.ids(index, "items") == {apart.id, whole.id}
        assert await self.ids(index, '"f shop"') == set()

    async def test_positions_and_progress(self, index):
        assert await index.positions() == {}
        assert await index.progress("0" * 32) is None
        await index.put(Update(positions={"bus/0": 7, "ledger": 1}, progress={"0" * 32: b"\0one"}))
        await index.put(Update(positions={"bus/0": 9}))
        assert await index.positions() == {"bus/0": 9, "ledger": 1}
        assert await index.progress("0" * 32) == b"\0one"
        await index.put(Update(progress={"0" * 32: None}))
        assert await index.progress("0" * 32) is None

    async def test_drop_is_for_ever(self, index):
        gone, kept = session(1), session(2)
        update = Update(
            (gone, kept), (command(gone, 0), command(kept, 0)), {"bus/0": 4}, {gone.id: b"p"}
        )
        await index.put(update)
        await index.drop(gone.id, "f" * 32)
        for _ in range(2):
            assert await self.ids(index, "select") == {command(kept, 0).id}
            assert (await index.search_sessions(Query(), MANY)).documents == (kept,)
            assert await index.progress(gone.id) is None
            with pytest.raises(NotFound):
                await index.session(gone.id)
            await index.put(update)
        await index.drop(gone.id)
        assert await index.positions() == {"bus/0": 4}

    async def test_clear_forgets_everything(self, index):
        owner = session(1)
        update = Update((owner,), (command(owner, 0),), {"bus/0": 4}, {owner.id: b"p"})
        await index.put(update)
        await index.drop(owner.id)
        await index.clear()
        assert await index.positions() == {}
        await index.put(update)
        assert await self.ids(index, "select") == {command(owner, 0).id}
        await index.clear()
        assert await self.ids(index, "") == set()
        assert await index.progress(owner.id) is None

    async def test_it_survives_closing(self, index, index_url):
        owner = session(1)
        await index.put(Update((owner,), (command(owner, 0),), {"bus/0": 4}))
        await index.close()
        await index.close()
        again = await open_index(index_url, Path("/"))
        try:
            assert await self.ids(again, "select") == {command(owner, 0).id}
            assert await again.positions() == {"bus/0": 4}
        finally:
            await again.close()
        with pytest.raises(StoreError):
            await index.session("ab")

    async def test_the_loop_goes_on(self, index):
        owner = session(1)
        commands = tuple(command(owner, n, text="word " * 200) for n in range(2000))
        gaps, stop = [], asyncio.Event()

        async def clock():
            while not stop.is_set():
                before = time.perf_counter()
                await asyncio.sleep(0.001)
                gaps.append(time.perf_counter() - before)

        ticking = asyncio.create_task(clock())
        began = time.perf_counter()
        await index.put(Update((owner,), commands))
        took = time.perf_counter() - began
        stop.set()
        await ticking
        assert len(gaps) > 10
        assert max(gaps) < max(0.2, took / 2)
