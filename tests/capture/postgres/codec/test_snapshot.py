import json

import pytest

from sealtape.capture.postgres.codec import snapshot
from sealtape.capture.postgres.codec.derive import decode_parts
from sealtape.capture.postgres.codec.statements import MAX_TEXT
from sealtape.capture.postgres.codec.tracker import Tracker
from sealtape.schemas.errors import FormatError
from sealtape.schemas.facts import NO_TEXT, Fact, encode_head
from tests.capture.postgres.codec import pg_script as pg


class Follower:
    """A tracker and what it told, facts numbered on from `n`."""

    def __init__(self, n=0):
        self.n = n
        self.facts: list[Fact] = []
        self.tracker = Tracker(
            emit=self.emit, classifier=pg.CLASSIFIER, salt=b"salt", parameters=True
        )

    def emit(self, kind, leg, offset, length, ref, text, statement, tail, *, error=False):
        head = encode_head(self.n, kind, 0, leg, offset, length, ref)
        self.facts.append(decode_parts(head, 0, text, statement, tail))
        self.n += 1
        return self.n - 1

    def feed(self, script, start=0):
        for index, (side, data) in enumerate(script):
            feed = self.tracker.client if side == "c" else self.tracker.server
            feed(data, pg.T0 + (start + index) * pg.STEP_NS)


def again(follower):
    """Another follower that goes on from a snapshot of the first."""
    data = snapshot.dump(follower.tracker)
    found = Follower(follower.n)
    snapshot.load(found.tracker, data)
    assert snapshot.dump(found.tracker) == data
    return found


def check_everywhere(script, cut):
    """Snapshots at every chunk of the script cut to pieces tell the same facts."""
    pieces = [(side, data[i : i + cut]) for side, data in script for i in range(0, len(data), cut)]
    whole = Follower()
    whole.feed(pieces)
    taken = 0
    first = Follower()
    for index, piece in enumerate(pieces):
        if first.tracker.at_rest:
            second = again(first)
            second.feed(pieces[index:], index)
            assert first.facts + second.facts == whole.facts
            taken += 1
        first.feed([piece], index)
    return taken


@pytest.mark.parametrize(("name", "script"), pg.captures(), ids=[n for n, _ in pg.captures()])
def test_snapshots_of_recorded_sessions(name, script):
    assert check_everywhere(script, 1 << 20) == len(script)
    assert check_everywhere(script, 61) > len(script) / 2


def test_snapshots_with_everything_in_flight():
    script = [
        ("s", pg.GREETING),
        ("c", pg.query("set client_encoding to sjis")),
        ("s", pg.setting("client_encoding", "SJIS") + pg.tag("SET") + pg.ready()),
        ("c", pg.query("begin")),
        ("s", pg.tag("BEGIN") + pg.ready(b"T")),
        ("c", pg.parse("s", "select $1") + pg.describe(b"S", "s")),
        ("s", pg.PARSED + pg.parameter_types(23) + pg.columns(("a", 23, 0))),
        ("c", pg.bind("p", "s", [b"\0\0\0\7"], [1]) + pg.execute("p", 1) + pg.SYNC),
        ("s", pg.BOUND + pg.row(b"1") + pg.SUSPENDED + pg.ready(b"T")),
        ("c", pg.bind("q", "none") + pg.execute("p") + pg.parse("t", "select 2")),
        ("c", pg.close(b"S", "s") + pg.close(b"P", "p") + pg.COPY_DONE + pg.query("deallocate s")),
        ("c", pg.bind("", "t") + pg.execute() + pg.function(7) + pg.SYNC),
        ("s", pg.row(b"2") + pg.tag("SELECT 1") + pg.PARSED),
        ("s", pg.CLOSED + pg.error() + pg.ready(b"E")),
        ("c", pg.query("select 1; select 2")),
        ("s", pg.row(b"1") + pg.tag("SELECT 1")),
        ("s", pg.error("22012", "division by zero")),
        ("s", pg.ready(b"E")),
        ("c", pg.parse("", "copy t from stdin") + pg.bind() + pg.execute() + pg.SYNC),
        ("s", pg.PARSED + pg.BOUND + pg.COPY_IN),
        ("c", pg.copy_data(b"x" * 300) + pg.COPY_DONE + pg.SYNC),
        ("s", pg.tag("COPY 1") + pg.ready(b"T")),
    ]
    assert check_everywhere(script, 1 << 20) == len(script)
    assert check_everywhere(script, 9) > 50


def test_a_snapshot_in_the_middle_of_a_row():
    script = [("s", pg.GREETING), ("c", pg.query("select 1"))]
    row = pg.row(b"x" * 10_000)
    first = Follower()
    first.feed([*script, ("s", row[:500])])
    assert first.tracker.at_rest
    second = again(first)
    second.feed([("s", row[500:] + pg.tag("SELECT 1") + pg.ready())])
    assert second.facts[0].rows == 1


def test_a_truncated_statement_survives_as_what_it_is():
    text = "select '" + "x" * MAX_TEXT + "'"
    first = Follower()
    first.feed(
        [
            ("s", pg.GREETING),
            ("c", pg.parse("s", text) + pg.SYNC),
            ("s", pg.PARSED + pg.ready()),
        ]
    )
    second = again(first)
    second.feed([("c", pg.bind("", "s") + pg.execute())])
    assert second.facts[0].effect == "unknown"
    assert second.facts[0].text_sha256 == b""
    assert NO_TEXT


def test_what_is_no_snapshot():
    good = json.loads(snapshot.dump(Follower().tracker))
    for bad in (
        b"",
        b"[]",
        b"{}",
        b"null",
        json.dumps({**good, "v": 2}).encode(),
        json.dumps({**good, "pending": [[["b", "?"]]]}).encode(),
        json.dumps({**good, "pending": [[["b"]]]}).encode(),
        json.dumps({**good, "scanners": []}).encode(),
        json.dumps({**good, "plain": {}}).encode(),
        json.dumps({**good, "statements": [[1]]}).encode(),
        json.dumps({**good, "statements": [[1, 2, 3, 4, 5]]}).encode(),
        json.dumps({**good, "settings": 5}).encode(),
    ):
        with pytest.raises(FormatError):
            snapshot.load(Follower().tracker, bad)
