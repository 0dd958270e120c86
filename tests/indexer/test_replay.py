from types import SimpleNamespace

import pytest

from sealtape.capture.postgres.codec.rows import Replay
from sealtape.indexer.reading import Keys, Recording
from sealtape.indexer.replay import Note, Statement, identity, raw, statements
from sealtape.schemas import slices
from sealtape.schemas.errors import KeyUnavailable, NotFound, UsageError
from sealtape.schemas.slices import CLIENT_IN, CLIENT_OUT, TARGET_IN
from tests.factories.sessions import START_NS, build_session, reader
from tests.factories.tapes import Tape, query


def opened(deployment, built, private=None):
    keys = Keys(deployment.keyring, private or reader("auditor"))
    recording = Recording(
        session=built.session,
        ledger=deployment.ledger,
        vault=deployment.vault,
        bus=deployment.bus,
        keys=keys,
    )
    return recording, keys


async def shown(deployment, built, **options):
    found = statements(*opened(deployment, built), **options)
    return [each async for each in found]


def texts(found):
    return [each.step.text for each in found if isinstance(each, Statement)]


async def bytes_of(deployment, built, leg):
    return b"".join([chunk async for chunk in raw(*opened(deployment, built), leg)])


@pytest.fixture(params=["live", "sealed"])
async def sent(request, deployment):
    async def send(built):
        await deployment.send(SimpleNamespace(messages=built.messages))
        if request.param == "sealed":
            await deployment.seal()

    return send


async def test_statements_with_their_rows(deployment, sent):
    tape = Tape()
    seqs = [tape.command("select name from a", "Lyon", "Kyōto")[0], tape.command("select 2")[0]]
    tape.slice(CLIENT_IN, b"")
    tape.data(tape.slice(CLIENT_IN, query("select pg_sleep(9)")))
    await sent(tape.close())
    found = await shown(deployment, tape)
    assert texts(found) == [*tape.statements, "select pg_sleep(9)"]
    assert [(each.epoch, each.seq) for each in found[:2]] == [(0, seq) for seq in seqs]
    first, second, last = (each.step for each in found)
    assert first.results[0].columns == [("name", "text")]
    assert first.results[0].rows == [["Lyon"], ["Kyōto"]]
    assert (second.results[0].tag, second.results[0].rows) == ("SELECT 0", [])
    assert last.status == "running"
    limited = await shown(deployment, tape, max_rows=1)
    assert (limited[0].step.results[0].rows, limited[0].step.results[0].count) == ([["Lyon"]], 2)


async def test_settings_that_change_what_statements_mean_come_first(deployment, sent):
    tape = Tape(parameters=("application_name=psql", "Search_Path=audit", "TimeZone=UTC"))
    seq, *_ = tape.command("select name from a", "Lyon")
    await sent(tape.close())
    note, first = await shown(deployment, tape)
    assert note == Note(0, 1, "the client connected with Search_Path=audit")
    assert isinstance(first, Statement)
    assert texts(await shown(deployment, tape, at=(0, seq))) == tape.statements


async def test_legs_to_the_byte(deployment, sent):
    tape = Tape()
    for n in range(30):
        tape.command(f"select {n}", "x" * n)
    begin = tape.slice(TARGET_IN, b"K\0\0\0\x0cAAAABBBB")
    tape.legs[CLIENT_OUT] = tape.legs[CLIENT_OUT][:-8]
    changed = slices.encode_slice(CLIENT_OUT, 0, len(tape.legs[CLIENT_OUT]), b"aaaabbbb", 8)
    tape.legs[CLIENT_OUT] += b"aaaabbbb"
    tape.data(begin, changed)
    tape.data(tape.slice(TARGET_IN, b"Z\0\0\0\x05I"))
    await sent(tape.close())
    for leg in slices.LEGS:
        assert await bytes_of(deployment, tape, leg) == tape.legs[leg]


async def test_legs_of_a_long_session_come_in_chunks(deployment, sent, monkeypatch):
    monkeypatch.setattr("sealtape.indexer.replay.CHUNK_BYTES", 1000)
    tape = Tape()
    for _ in range(20):
        tape.data(tape.slice(CLIENT_IN, query("x" * 5000)))
    await sent(tape.close())
    chunks = [chunk async for chunk in raw(*opened(deployment, tape), CLIENT_IN)]
    assert b"".join(chunks) == tape.legs[CLIENT_IN]
    assert len(chunks) == 20


async def test_stopping_to_read_a_leg_stops_everything(deployment):
    tape = Tape()
    for _ in range(20):
        tape.data(tape.slice(CLIENT_IN, query("x" * 300_00)))
    await deployment.send(tape.close())
    source = raw(*opened(deployment, tape), CLIENT_IN)
    async for chunk in source:
        assert chunk
        break
    await source.aclose()


@pytest.mark.parametrize("every", [0, 1, 3, 100])
@pytest.mark.parametrize("parts", [1, 3])
async def test_at_any_frame(deployment, sent, every, parts, monkeypatch):
    tape, seqs = Tape(), []
    for n in range(9):
        seqs.append(tape.command(f"select {n}", str(n)))
        if every and n % every == every - 1:
            tape.state(parts)
    await sent(tape.close())
    decoded = []
    watched = Replay.feed

    def feed(self, item):
        decoded.append(item)
        return watched(self, item)

    monkeypatch.setattr(Replay, "feed", feed)
    for n, (data, fact) in enumerate(seqs):
        for seq in (data, fact):
            decoded.clear()
            found = await shown(deployment, tape, at=(0, seq))
            assert texts(found) == tape.statements[n:]
            assert found[0].seq == data
            assert found[0].step.results[0].rows == [[str(n)]]
            if every:
                skipped = n // every * every
                assert len(decoded) == 2 * (9 - skipped)
    for seq in (0, 1, 2):
        assert texts(await shown(deployment, tape, at=(0, seq))) == tape.statements
    close = tape.frames[-1]
    assert texts(await shown(deployment, tape, at=(0, close.seq))) == []
    with pytest.raises(NotFound):
        await shown(deployment, tape, at=(0, close.seq + 1))
    with pytest.raises(NotFound):
        await shown(deployment, tape, at=(1, 0))


async def test_a_hole_is_told_and_a_state_ends_it(deployment, sent):
    tape = Tape()
    tape.command("select 1")
    tape.gap(client_in=10)
    lost = tape.seq - 1
    tape.command("select 2")
    tape.state(2)
    tape.command("select 3")
    tape.gap(client_out=7)
    tape.command("select 4")
    await sent(tape.close())
    found = await shown(deployment, tape)
    assert texts(found) == ["select 1", "select 3", "select 4"]
    [note] = [each for each in found if isinstance(each, Note)]
    assert found.index(note) == 1
    assert (note.seq, "missing" in note.text) == (lost, True)


async def test_bytes_that_are_not_the_protocol_are_told(deployment, sent):
    tape = Tape()
    tape.command("select 1")
    tape.data(tape.slice(CLIENT_IN, b"GET / HTTP/1.1\r\n\r\n" * 3))
    tape.data(tape.slice(CLIENT_IN, b"more of it"))
    await sent(tape.close())
    *found, note = await shown(deployment, tape)
    assert texts(found)[0] == "select 1"
    assert isinstance(note, Note)


async def test_epochs_follow_each_other(deployment, sent):
    first = build_session(commands=2, close=None, seed=5)
    second = build_session(
        session=first.session,
        epoch=1,
        continues=first.continues,
        commands=0,
        close="aborted",
        start_ns=START_NS + 10**9,
    )
    both = SimpleNamespace(session=first.session, messages=first.messages + second.messages)
    await sent(both)
    assert len(texts(await shown(deployment, first))) == 2
    assert texts(await shown(deployment, first, at=(1, 2))) == []


async def test_unencrypted_sessions_need_no_key(deployment, sent):
    tape = Tape(encrypt=False)
    tape.command("select 1")
    await sent(tape.close())
    recording, _ = opened(deployment, tape)
    keys = Keys(deployment.keyring, None)
    assert texts([each async for each in statements(recording, keys)]) == ["select 1"]
    assert (await identity(recording, keys)).user == "ada"


async def test_without_the_key(deployment, sent):
    tape = Tape()
    seqs = tape.command("select 1")
    await sent(tape.close())
    recording, keys = opened(deployment, tape, reader("indexer"))
    with pytest.raises(KeyUnavailable, match="data key"):
        _ = [each async for each in statements(recording, keys)]
    with pytest.raises(KeyUnavailable, match="data key"):
        _ = [each async for each in statements(recording, keys, at=(0, seqs[1]))]
    with pytest.raises(KeyUnavailable, match="data key"):
        _ = [chunk async for chunk in raw(recording, keys, CLIENT_IN)]
    stranger = Keys(deployment.keyring, reader("auditor", seed=9))
    assert await identity(recording, stranger) is None
    with pytest.raises(KeyUnavailable):
        _ = [each async for each in statements(recording, stranger, at=(0, seqs[0]))]


async def test_after_deletion(deployment):
    built = build_session(seed=6)
    await deployment.send(built)
    await deployment.seal()
    await deployment.keyring.destroy(built.session)
    with pytest.raises(KeyUnavailable, match="destroyed"):
        await shown(deployment, built)


async def test_a_journal_is_not_replayed(deployment):
    tape = Tape(protocol="journal")
    await deployment.send(tape.close())
    with pytest.raises(UsageError, match="journal"):
        await shown(deployment, tape)


async def test_no_such_session(deployment):
    tape = Tape()
    for call in (shown(deployment, tape), bytes_of(deployment, tape, CLIENT_IN)):
        with pytest.raises(NotFound):
            await call


async def test_many_statements_keep_their_frames(deployment, monkeypatch):
    monkeypatch.setattr("sealtape.indexer.replay._MARKS", 8)
    tape = Tape()
    seqs = [tape.command(f"select {n}")[0] for n in range(50)]
    await deployment.send(tape.close())
    assert [each.seq for each in await shown(deployment, tape)] == seqs
