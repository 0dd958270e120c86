from hashlib import sha256

from sealtape.capture.postgres.codec import teller as module
from sealtape.capture.postgres.codec.memory import Prepared
from sealtape.capture.postgres.codec.scanner import TextDigest
from sealtape.capture.postgres.codec.statements import Classifier, classify
from sealtape.capture.postgres.codec.teller import COPY_DATA, DATA_ROW, Teller, severity
from sealtape.schemas.facts import (
    COMMAND,
    NO_TAIL,
    NODE,
    RESULT,
    decode_facts,
    encode_fact,
    encode_facts,
    encode_head,
)
from sealtape.schemas.slices import CLIENT_IN, TARGET_IN


class World:
    """A teller with counters to turn, and the facts it told."""

    def __init__(self, *, full_text=False):
        self.facts = []
        self.errors = 0
        self.counts = [0] * 256
        self.sizes = [0] * 256
        self.teller = Teller(
            emit=self.emit,
            classifier=Classifier(),
            salt=b"salt",
            full_text=full_text,
            server_counts=self.counts,
            client_sizes=self.sizes,
            mark=100,
        )

    def emit(self, kind, leg, offset, length, ref, text, statement, tail, *, error=False):
        head = encode_head(1000, kind, 0, leg, offset, length, ref)
        body = encode_facts((0, 0, 0, 0), [encode_fact(head, text, statement, tail)])
        self.facts += decode_facts(body, 0).facts
        self.errors += error
        return len(self.facts) - 1


def test_a_command_without_its_literals():
    world = World()
    statement, part = world.teller.classify(b"select 'secret' from t")
    assert world.teller.command(5, 28, statement.encoded, part, NO_TAIL) == 0
    (fact,) = world.facts
    assert (fact.kind, fact.leg, fact.offset, fact.length) == (COMMAND, CLIENT_IN, 5, 28)
    assert (fact.normalized, fact.text, fact.text_length) == ("select ? from t", "", 22)
    assert fact.text_sha256 == sha256(b"saltselect 'secret' from t").digest()
    assert fact.objects == ("t",)


def test_a_command_in_full():
    world = World(full_text=True)
    for text in (b"select 'x'", b"create role r password 'x'"):
        statement, part = world.teller.classify(text)
        world.teller.command(0, 1, statement.encoded, part, NO_TAIL)
    assert [fact.text for fact in world.facts] == ["select 'x'", "create role r password '***'"]


def test_an_overlong_command():
    digest = TextDigest(b"salt", 0)
    digest.update(b"select 'abc'")
    for full, text in ((False, ""), (True, "select 'pw")):
        world = World(full_text=full)
        statement, part = world.teller.overlong(b"select 'pw", digest)
        world.teller.command(0, 1, statement.encoded, part, NO_TAIL)
        (fact,) = world.facts
        assert (fact.normalized, fact.effect) == ("SELECT (12 bytes)", "unknown")
        assert fact.text_length == 12
        assert fact.text == text
        assert fact.text_sha256 == sha256(b"saltselect 'abc'").digest()


def test_odd_text_is_not_trusted():
    world = World()
    world.teller.odd = True
    assert world.teller.classify(b"select '\\'")[0].effect == "unknown"
    assert world.teller.classify("select 'é'".encode())[0].effect == "unknown"
    assert world.teller.classify(b"select 1")[0].effect == "read"


def test_results():
    world = World()
    teller = world.teller
    teller.now = 1000
    teller.result(3, 400, b"SELECT 2", 2, 150, 14)
    (fact,) = world.facts
    assert (fact.kind, fact.leg, fact.offset, fact.length) == (RESULT, TARGET_IN, 150, 14)
    assert (fact.ref, fact.status, fact.rows) == (3, "SELECT 2", 2)
    assert (fact.bytes_out, fact.duration_ns) == (64, 600)
    assert fact.attributes == {}
    teller.result(4, 2000, b"SELECT 2", 2, 164, 14)
    assert (world.facts[1].bytes_out, world.facts[1].duration_ns) == (14, 0)


def test_results_that_say_more():
    world = World()
    world.sizes[COPY_DATA] = 30
    world.teller.result(0, 0, b"COPY 2", 2, 150, 6)
    world.teller.result(1, 0, b"A; B", 2, 156, 6, 2)
    world.teller.result(2, 0, b"x" * 200, 2, 162, 6, 2)
    world.teller.result(3, 0, b"\xff" * 200 + b"y" * 200, 2, 168, 6)
    assert world.facts[0].attributes == {"copy_in_bytes": "30"}
    assert world.facts[1].attributes == {"statements": "2"}
    assert world.facts[2].status == "x" * 128
    assert world.facts[3].status == ""


def test_the_cache_of_tags_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "_STATUSES", 3)
    world = World()
    for n in range(10):
        world.teller.result(0, 0, b"SELECT %d" % n, n, 100, 0)
    assert len(world.teller._statuses) <= 3
    assert world.facts[9].status == "SELECT 9"


def test_failures():
    world = World()
    world.counts[DATA_ROW] = 5
    world.teller.now = 10
    world.teller.fail(1, 4, {"C": "42601x", "M": 'near "x"', "V": "ERROR"}, 7, (120, 30), 156)
    world.teller.fail(2, 4, {"C": "57014", "M": "canceling statement"}, 0, (160, 30), 190)
    world.teller.fail(-1, 40, {}, 0, (190, 1), 191)
    one, two, three = world.facts
    assert (one.status, one.code, one.message) == ("error", "42601", "near ?")
    assert (one.rows, one.bytes_out, one.duration_ns) == (12, 56, 6)
    assert one.attributes == {"severity": "ERROR"}
    assert (two.status, two.rows, two.message) == ("cancelled", 0, "canceling statement")
    assert (three.ref, three.code, three.duration_ns) == (-1, "", 0)
    assert world.errors == 3


def test_skipped_and_lost():
    world = World()
    world.teller.now = 9
    world.teller.skipped(0, 4)
    world.teller.lost(CLIENT_IN, 7, 8, "garbage")
    skipped, lost = world.facts
    assert (skipped.status, skipped.rows, skipped.duration_ns) == ("skipped", 0, 5)
    assert (lost.kind, lost.status, lost.message) == (NODE, "lost sync", "garbage")
    assert (lost.leg, lost.offset, lost.length) == (CLIENT_IN, 7, 8)
    assert world.errors == 0


def test_a_failed_parse():
    world = World()
    statement = classify(b"select x")
    prepared = Prepared(b"n", b"select x", statement, world.teller.classify(b"select x")[1])
    assert world.teller.failed_parse(prepared, 3, 4) == 0
    assert world.facts[0].attributes == {"stage": "parse", "statement": "n"}


def test_counting_rows():
    world = World()
    world.counts[DATA_ROW] = 3
    assert world.teller.since() == 3
    assert world.teller.since() == 0
    world.counts[DATA_ROW] = 5
    world.teller.ready(500)
    assert world.teller.since() == 0
    assert world.teller.state() == [500, 5, 0, 0]
    again = World()
    again.teller.resume([1, 2, 3, 1])
    assert again.teller.state() == [1, 2, 3, 1]
    assert again.teller.odd is True


def test_severity():
    assert severity({"S": "FEHLER", "V": "ERROR"}) == "ERROR"
    assert severity({"S": "ERROR"}) == "ERROR"
    assert severity({}) == ""
