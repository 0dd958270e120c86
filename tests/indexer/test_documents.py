from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealtape.indexer.documents import SKIPPED, UNANSWERED, Reached, SessionFold, again_of, finished
from sealtape.indexer.heard import Chain
from sealtape.schemas import canonical, facts
from sealtape.schemas.bodies import Agent, Close, Ident, make_open
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import Frame, Kind
from sealtape.schemas.keys import open_payload
from tests.factories.sessions import START_NS, BuiltSession, build_session, node_signer


def bodies(built: BuiltSession):
    for frame in built.frames:
        key = built.label_keys and built.label_keys.facts
        read = frame.kind in (Kind.OPEN, Kind.IDENT, Kind.FACTS, Kind.CLOSE)
        yield frame, open_payload(frame, key) if read else b""


def fold_all(*sessions: BuiltSession):
    fold, commands = SessionFold(sessions[0].session), {}
    for built in sessions:
        for frame, body in bodies(built):
            assert fold.feed(frame, body)
    _, changed, orphans = fold.take()
    assert orphans == []
    commands.update((command.id, command) for command in changed)
    return fold, commands


class Maker:
    """Frames of one epoch with any bodies; they are never opened, only folded."""

    def __init__(self, built: BuiltSession, fold: SessionFold, epoch=0):
        self.built, self.fold, self.epoch, self.n = built, fold, epoch, 0

    def feed(self, kind, body, *, seq=None, ts_ns=0):
        seq = self.fold.next_seq(self.epoch) if seq is None else seq
        frame = Frame(
            self.built.session, self.epoch, seq, START_NS + (ts_ns or seq), kind, 0, 0, b""
        )
        return self.fold.feed(frame, body)

    def open(self, **changes):
        opening = replace(self.built.opening, epoch=self.epoch, **changes)
        return self.feed(Kind.OPEN, make_open(opening, node_signer()))

    def ident(self, **changes):
        return self.feed(Kind.IDENT, replace(self.built.ident, **changes).to_json())

    def facts(self, *items, totals=(1, 1, 2, 2)):
        encoded = []
        for kind, ref, extra in items:
            head = facts.encode_head(self.n, kind, 0, ref=ref)
            statement = facts.encode_statement(**extra.pop("statement", {}))
            encoded.append(
                facts.encode_fact(head, statement=statement, tail=facts.encode_tail(**extra))
            )
            self.n += 1
        return self.feed(Kind.FACTS, facts.encode_facts(totals, encoded))

    def close(self, reason="client", **changes):
        body = Close(**({"reason": reason, "totals": (1, 1, 2, 2)} | changes)).to_json()
        return self.feed(Kind.CLOSE, body)

    def take(self):
        document, commands, orphans = self.fold.take()
        return document, {command.n: command for command in commands}, orphans


@pytest.fixture
def maker():
    built = build_session(commands=0, close=None)
    made = Maker(built, SessionFold(built.session))
    made.open()
    made.ident()
    return made


def test_a_whole_session():
    built = build_session(commands=3, user="ada", encrypt=True)
    fold, commands = fold_all(built)
    document = fold.document
    data = built.frames[-1]
    assert document.to_json()
    assert (document.user, document.groups, document.target) == ("ada", ("dba",), "shop")
    assert (document.source, document.database, document.node) == ("127.0.0.1:5", "shop", "node-1")
    assert (document.tenant, document.retention) == ("main", "standard")
    assert (document.started_ns, document.ended_ns) == (START_NS, data.ts_ns)
    assert (document.state, document.close_reason) == ("closed", "client")
    assert document.frames == len(built.frames) == 9
    assert document.revision == 18
    assert (document.commands, document.errors, document.effects) == (3, 0, ("read",))
    first = commands[f"{built.session.hex()}:0:0"]
    assert first.to_json()
    assert (first.text, first.tables, first.effect) == (
        "select 0 from orders",
        ("orders",),
        "read",
    )
    assert (first.status, first.rows, first.version, first.seq) == ("ok", 1, 1, 3)
    assert (first.user, first.source, first.leg, first.offset) == ("ada", "127.0.0.1:5", 0, 0)
    assert first.length == len(b"Q\0\0\0\0select 0 from orders\0")
    assert len(commands) == 3
    totals = document.bytes_client, document.bytes_server
    assert totals == (3 * first.length, sum(c.bytes_out for c in commands.values()))


def test_live_until_close():
    built = build_session(commands=1)
    fold = SessionFold(built.session)
    seen = []
    for frame, body in bodies(built):
        fold.feed(frame, body)
        document, commands, _ = fold.take()
        seen.append((document.state, document.user, len(commands)))
    assert seen == [
        ("live", "", 0),
        ("live", "ada", 0),
        ("live", "ada", 0),
        ("live", "ada", 1),
        ("closed", "ada", 0),
    ]
    assert fold.take() == (None, [], [])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_batches_copies_and_restarts_change_nothing(data):
    first = build_session(commands=4, close=None, seed=3)
    second = build_session(
        session=first.session,
        epoch=1,
        continues=first.continues,
        commands=1,
        seed=4,
        close="aborted",
    )
    frames = [*bodies(first), *bodies(second)]
    fold, kept, document = SessionFold(first.session), {}, None
    position = 0
    while position < len(frames):
        start = data.draw(st.integers(max(0, position - 3), position))
        stop = data.draw(st.integers(position + 1, len(frames)))
        for frame, body in frames[start:stop]:
            fold.feed(frame, body)
        position = stop
        document, commands, orphans = fold.take()
        kept.update((command.id, command) for command in commands)
        for orphan in orphans:
            kept[orphan.command] = finished(kept[orphan.command], orphan.result)
        if data.draw(st.booleans()):
            fold = SessionFold.restore(first.session, fold.progress(), document)
            for name in fold.running():
                fold.give(kept[name])
    whole, commands = fold_all(first, second)
    assert document == whole.document
    assert kept == commands
    assert document.state == "closed"
    assert document.close_reason == "aborted"


def test_a_frame_that_was_seen_is_told():
    built = build_session(commands=1)
    fold, _ = fold_all(built)
    assert not fold.feed(built.frames[2], b"")
    assert fold.take()[0] is None


def test_running_then_failed(maker):
    maker.facts((facts.COMMAND, -1, {"statement": {"normalized": "drop table x"}}))
    document, commands, _ = maker.take()
    assert (commands[0].status, commands[0].version, document.commands) == ("running", 0, 1)
    maker.facts(
        (
            facts.RESULT,
            0,
            {"status": "error", "code": "42P01", "message": "no x", "duration_ns": 7},
        )
    )
    document, commands, _ = maker.take()
    assert (commands[0].status, commands[0].version) == ("error", 1)
    assert (commands[0].error, commands[0].message) == ("42P01", "no x")
    assert (commands[0].text, commands[0].duration_ns) == ("drop table x", 7)
    assert document.errors == 1


@pytest.mark.parametrize(
    ("tail", "status", "error", "message", "errors"),
    [
        ({"status": "SELECT 1", "rows": 1}, "ok", "", "", 0),
        ({"status": "cancelled", "code": "57014"}, "error", "57014", "", 1),
        ({"status": "error"}, "error", "", "", 1),
        ({"status": "skipped"}, "error", "", SKIPPED, 0),
    ],
)
def test_results(maker, tail, status, error, message, errors):
    maker.facts((facts.COMMAND, -1, {}), (facts.RESULT, 0, tail))
    document, commands, _ = maker.take()
    command = commands[0]
    assert (command.status, command.error, command.message) == (status, error, message)
    assert document.errors == errors


def test_a_later_result_overrides(maker):
    maker.facts((facts.COMMAND, -1, {}), (facts.RESULT, 0, {"status": "INSERT 0 1"}))
    maker.facts((facts.RESULT, 0, {"status": "error", "code": "23503"}))
    _, commands, orphans = maker.take()
    assert (commands[0].status, commands[0].version, orphans) == ("error", 2, [])
    maker.facts((facts.RESULT, 0, {"status": "error", "code": "23505"}))
    _, changed, [orphan] = maker.take()
    assert changed == {}
    assert orphan.command == commands[0].id
    again = finished(commands[0], orphan.result)
    assert (again.error, again.version) == ("23505", 3)


def test_what_runs_at_the_end_is_an_error(maker):
    maker.facts((facts.COMMAND, -1, {}), (facts.COMMAND, -1, {}), (facts.RESULT, 0, {}))
    maker.close(commands=5, errors=2, totals=(9, 9, 8, 8))
    document, commands, _ = maker.take()
    assert (commands[0].status, commands[1].status) == ("ok", "error")
    assert commands[1].message == UNANSWERED
    assert (document.commands, document.errors) == (5, 2)
    assert (document.bytes_client, document.bytes_server) == (9, 8)


def test_results_of_commands_from_before_a_restart(maker, monkeypatch):
    maker.facts((facts.COMMAND, -1, {}), (facts.COMMAND, -1, {}))
    document, commands, _ = maker.take()
    fold = SessionFold.restore(document.session, maker.fold.progress(), document)
    assert fold.running() == [commands[0].id, commands[1].id]
    fold.give(commands[0])
    fold.give(replace(commands[0], n=7, status="ok"))
    assert fold.running() == [commands[1].id]
    again = Maker(maker.built, fold)
    again.n = 2
    again.facts((facts.RESULT, 0, {}), (facts.RESULT, 1, {}))
    _, changed, orphans = again.take()
    assert changed[0].status == "ok"
    assert [orphan.command for orphan in orphans] == [commands[1].id]
    again.close()
    assert again.take()[1] == {}


def test_the_oldest_running_are_forgotten_but_not_lost(maker, monkeypatch):
    monkeypatch.setattr("sealtape.indexer.documents.MAX_RUNNING", 2)
    maker.facts(*[(facts.COMMAND, -1, {})] * 3)
    commands = maker.take()[1]
    maker.facts((facts.RESULT, 0, {}), (facts.RESULT, 1, {}))
    _, changed, orphans = maker.take()
    assert list(changed) == [1]
    assert [orphan.command for orphan in orphans] == [commands[0].id]


def test_an_orphan_names_the_epoch_of_its_command(maker):
    maker.facts((facts.COMMAND, -1, {}))
    maker.take()
    again = Maker(maker.built, maker.fold, epoch=3)
    again.n = 1
    again.feed(Kind.DATA, b"")
    maker.fold._running.clear()
    again.facts((facts.COMMAND, -1, {}), (facts.RESULT, 0, {}), (facts.RESULT, 1, {}))
    _, changed, orphans = again.take()
    assert [orphan.command.split(":")[1:] for orphan in orphans] == [["0", "0"]]
    assert [command.epoch for command in changed.values()] == [3]


def test_refusals_are_commands_of_the_journal():
    built = build_session(commands=0, close=None)
    made = Maker(built, SessionFold(built.session))
    made.open(type="journal", number=0)
    made.facts(
        (
            facts.REFUSAL,
            -1,
            {
                "status": "expired",
                "code": "28000",
                "message": "the token has expired",
                "attributes": {"user": "eve", "target": "shop", "source": "192.0.2.9"},
            },
        ),
        (facts.HEARTBEAT, -1, {}),
    )
    document, commands, _ = made.take()
    assert (document.protocol, document.user, document.commands) == ("journal", "", 0)
    assert document.effects == ("refused",)
    refusal = commands[0]
    assert refusal.to_json()
    assert (refusal.effect, refusal.status, refusal.error) == ("refused", "error", "28000")
    assert (refusal.user, refusal.target, refusal.source) == ("eve", "shop", "192.0.2.9")
    assert refusal.protocol == "journal"
    assert refusal.text == refusal.message == "the token has expired"
    assert list(commands) == [0]


def test_a_journal_keeps_its_protocol_and_lineage_is_read():
    built = build_session(commands=0, close=None)
    made = Maker(built, SessionFold(built.session))
    made.open(type="journal", number=0)
    agent = Agent("agent-7", ("ada",), "run-1")
    made.ident(agent=agent, application="psql", software="libpq")
    document = made.take()[0]
    assert document.protocol == "journal"
    assert (document.agent, document.on_behalf_of, document.run) == ("agent-7", ("ada",), "run-1")
    assert document.client == "libpq"


@pytest.mark.parametrize(
    ("ip", "port", "source"),
    [
        ("::1", 7, "[::1]:7"),
        ("10.0.0.1", 7, "10.0.0.1:7"),
        ("10.0.0.1", 0, "10.0.0.1"),
        ("", 7, ""),
    ],
)
def test_sources(ip, port, source):
    built = build_session(commands=0, close=None)
    made = Maker(built, SessionFold(built.session))
    made.open()
    made.ident(source_ip=ip, source_port=port)
    assert made.take()[0].source == source


def test_sealed_and_opened_again(maker):
    assert not maker.fold.closed
    assert not maker.fold.seal()
    maker.close()
    document = maker.take()[0]
    assert maker.fold.closed
    assert maker.fold.seal()
    assert not maker.fold.seal()
    sealed = maker.take()[0]
    assert (sealed.state, sealed.revision) == ("sealed", document.revision + 1)
    again = Maker(maker.built, maker.fold, epoch=1)
    again.feed(Kind.DATA, b"")
    document = again.take()[0]
    assert (document.state, document.ended_ns, document.close_reason) == ("live", None, "")
    assert document.revision > sealed.revision
    assert not SessionFold(bytes(16)).seal()
    assert not SessionFold(bytes(16)).closed


def test_what_cannot_be_read_is_counted_and_passed_over(maker):
    assert maker.feed(Kind.FACTS, None)
    assert maker.feed(Kind.FACTS, b"rubbish")
    assert maker.feed(Kind.CLOSE, b"{}")
    assert maker.feed(99, b"anything")
    document = maker.take()[0]
    assert maker.fold.skipped == 3
    assert document.frames == 6
    assert maker.fold.next_seq(0) == 6


def test_lost_frames_are_stepped_over(maker):
    assert maker.feed(Kind.DATA, b"", seq=9)
    assert maker.fold.next_seq(0) == 10
    assert not maker.feed(Kind.DATA, b"", seq=5)
    assert maker.take()[0].frames == 3


def test_without_an_opening_there_is_no_document():
    built = build_session(commands=0)
    fold = SessionFold(built.session)
    made = Maker(built, fold)
    made.feed(Kind.IDENT, built.ident.to_json(), seq=1)
    assert made.take() == (None, {}, [])
    assert fold.skipped == 1


def test_progress_is_read_strictly():
    for bad in (b"", b"{}", b'{"epochs":[],"revision":"0","running":["x"],"v":1}'):
        with pytest.raises(FormatError):
            SessionFold.restore(bytes(16), bad, None)
    fold = SessionFold.restore(bytes(16), SessionFold(bytes(16)).progress(), None)
    assert fold.next_seq(0) == 0


def test_progress_says_what_is_not_sealed_and_how_often_it_began_anew(maker):
    fold = maker.fold
    assert again_of(fold.progress()) == again_of(b"no progress") == 0
    fold.again, fold.heard = 2, {epoch: Chain(1, 5, b"d" * 32) for epoch in fold.epochs}
    progress = fold.progress()
    assert canonical.encode(canonical.decode(progress, "progress")) == progress
    assert again_of(progress) == 2
    restored = SessionFold.restore(fold.session, progress, fold.document)
    assert (restored.again, restored.heard) == (2, fold.heard)
    assert restored.progress() == progress


def test_progress_of_another_revision_is_refused(maker):
    before = maker.fold.progress()
    maker.facts((facts.COMMAND, -1, {}))
    assert SessionFold.restore(bytes(16), before, None).next_seq(0) > 0
    for progress, document in (
        (before, maker.fold.document),
        (maker.fold.progress(), replace(maker.fold.document, revision=1)),
    ):
        with pytest.raises(FormatError, match="another revision"):
            SessionFold.restore(bytes(16), progress, document)


def test_progress_is_canonical(maker):
    for _ in range(2):
        maker.facts((facts.COMMAND, -1, {}), (facts.COMMAND, -1, {}), (facts.RESULT, maker.n, {}))
    again = Maker(maker.built, maker.fold, epoch=1)
    again.feed(Kind.DATA, b"")
    for fold in (SessionFold(bytes(16)), maker.fold):
        progress = fold.progress()
        assert canonical.encode(canonical.decode(progress, "progress")) == progress
        restored = SessionFold.restore(fold.session, progress, fold.document)
        assert restored.progress() == progress
    maker.close()
    progress = maker.fold.progress()
    assert canonical.encode(canonical.decode(progress, "progress")) == progress


def test_a_session_has_the_effects_of_all_its_commands(maker):
    def told(*effects):
        names = [{"normalized": "x", "effect": effect} for effect in effects]
        maker.facts(*((facts.COMMAND, -1, {"statement": name}) for name in names))
        return maker.take()[0].effects

    assert told("write", "", "read") == ("read", "write")
    assert told("read") == ("read", "write")
    fold = SessionFold.restore(maker.fold.session, maker.fold.progress(), maker.fold.document)
    assert fold.document.effects == ("read", "write")
    assert told("ddl") == ("ddl", "read", "write")


def test_a_result_changes_what_it_tells_of_and_nothing_else(maker):
    maker.facts(
        (facts.COMMAND, -1, {"statement": {"normalized": "x", "effect": "read", "objects": ["t"]}})
    )
    assert maker.fold.pending == 1
    [command] = maker.take()[1].values()
    command = replace(command, version=3, agent="a", run="r", fingerprint="f", groups=("g",))
    result = facts.Fact(1, facts.RESULT, 1, status="SELECT 1", rows=5, bytes_out=6, duration_ns=7)
    assert finished(command, result) == replace(
        command, version=4, status="ok", rows=5, bytes_out=6, duration_ns=7
    )
    assert maker.fold.pending == 0


def test_progress_holds_nothing_personal():
    ident = Ident(user="ada", target="shop", protocol="postgres", node="node-1")
    built = build_session(commands=3, user=ident.user, close=None)
    fold, _ = fold_all(built)
    assert b"ada" not in fold.progress()
    assert b"select" not in fold.progress()


def test_how_far_a_fold_has_come(maker):
    assert SessionFold(maker.built.session).reached == Reached(0, 0, -1, closed=False)
    assert maker.fold.reached == Reached(2, 0, 1, closed=False)
    maker.facts((facts.COMMAND, -1, {}))
    maker.epoch = 1
    maker.close("aborted")
    assert maker.fold.reached == Reached(4, 1, 0, closed=True)
    again = SessionFold.restore(maker.built.session, maker.fold.progress(), None)
    assert again.reached == maker.fold.reached


def test_its_node_fell_silent_and_came_back(maker):
    assert not SessionFold(bytes(16)).fall_silent()
    before = maker.fold.document.revision
    assert maker.fold.fall_silent()
    assert not maker.fold.fall_silent()
    document = maker.take()[0]
    assert (document.state, document.revision) == ("incomplete", before + 1)
    again = SessionFold.restore(document.session, maker.fold.progress(), document)
    assert again.document.state == "incomplete"
    assert not again.seal()
    maker.close()
    assert maker.fold.document.state == "closed"
    assert not maker.fold.fall_silent()
