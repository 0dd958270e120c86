"""FACTS bodies: vectors, the reference library both ways, limits kept when writing and reading."""

import io
import json
from pathlib import Path

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealtape.schemas import avro, facts
from sealtape.schemas.errors import FormatError
from sealtape.schemas.facts import Fact, Live
from sealtape.schemas.frames import MAX_BODY
from sealtape.schemas.wire import encode_long

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "facts.json").read_text(encoding="utf-8")
)
SCHEMA = fastavro.parse_schema(json.loads(avro.text("facts.v1")))
TS = 1_795_392_000_000_000_000
BLANK = facts.encode_fact(facts.encode_head(0, facts.COMMAND, 0))


def encoded(fact, ts_ns=TS):
    return facts.encode_fact(
        facts.encode_head(
            fact.n, fact.kind, fact.ts_ns - ts_ns, fact.leg, fact.offset, fact.length, fact.ref
        ),
        facts.encode_text(fact.text, fact.text_length, fact.text_sha256),
        facts.encode_statement(fact.normalized, fact.fingerprint, fact.effect, fact.objects),
        facts.encode_tail(
            parameters=fact.parameters,
            status=fact.status,
            rows=fact.rows,
            bytes_out=fact.bytes_out,
            duration_ns=fact.duration_ns,
            code=fact.code,
            message=fact.message,
            attributes=fact.attributes,
            live=fact.live,
        ),
    )


def body_of(items, totals=(0, 0, 0, 0), ts_ns=TS):
    return facts.encode_facts(totals, [encoded(fact, ts_ns) for fact in items])


def decoded_one(fact_bytes):
    (fact,) = facts.decode_facts(facts.encode_facts((0, 0, 0, 0), [fact_bytes]), TS).facts
    return fact


def row_of(fact):
    row = {name: getattr(fact, name) for name in Fact.__slots__ if name != "ts_ns"}
    live = [{name: getattr(one, name) for name in Live.__slots__} for one in fact.live]
    lists = {"objects": list(fact.objects), "parameters": list(fact.parameters), "live": live}
    return row | lists | {"at_ns": fact.ts_ns - TS}


def from_vector(row, ts_ns):
    values = {name: value for name, value in row.items() if name != "at_ns"}
    live = [
        Live(bytes.fromhex(one["session"]), one["epoch"], one["number"], one["size"],
             bytes.fromhex(one["root"]))
        for one in row["live"]
    ]  # fmt: skip
    values |= {
        "ts_ns": ts_ns + row["at_ns"],
        "text_sha256": bytes.fromhex(row["text_sha256"]),
        "objects": tuple(row["objects"]),
        "parameters": tuple(row["parameters"]),
        "live": tuple(live),
    }
    return Fact(**values)


@pytest.mark.parametrize("case", VECTORS["bodies"], ids=lambda case: case["name"])
def test_vectors(case):
    items = tuple(from_vector(row, case["ts_ns"]) for row in case["facts"])
    assert body_of(items, case["totals"], case["ts_ns"]).hex() == case["encoded"]
    body = facts.decode_facts(bytes.fromhex(case["encoded"]), case["ts_ns"])
    assert body == facts.FactsBody(tuple(case["totals"]), items)


@pytest.mark.parametrize("case", VECTORS["malformed"], ids=lambda case: case["name"])
def test_malformed_vectors(case):
    with pytest.raises(FormatError):
        facts.decode_facts(bytes.fromhex(case["encoded"]), TS)


def test_text_digest_vector():
    case = VECTORS["text_digest"]
    session, text = bytes.fromhex(case["session"]), case["text"].encode()
    salt = facts.text_salt(bytes.fromhex(case["data_key"]), session, case["epoch"])
    assert facts.text_digest(salt, text).hex() == case["sha256"]
    salt = facts.text_salt(None, session, case["epoch"])
    assert facts.text_digest(salt, text).hex() == case["sha256_without_key"]


counts = st.integers(0, 2**63 - 1)
words = st.text(alphabet=st.characters(codec="utf-8"), max_size=15)
any_live = st.builds(
    Live,
    session=st.binary(min_size=16, max_size=16),
    epoch=st.integers(0, 2**32 - 1),
    number=counts,
    size=counts,
    root=st.binary(min_size=32, max_size=32),
)


@st.composite
def any_fact(draw, n):
    keys = draw(st.dictionaries(words, words, max_size=4))
    full = {
        "text": draw(words),
        "text_length": draw(counts),
        "text_sha256": draw(st.sampled_from((b"", b"\x05" * 32))),
        "normalized": draw(words),
        "fingerprint": draw(words),
        "effect": draw(st.sampled_from(("read", "write", ""))),
        "objects": tuple(draw(st.lists(words, max_size=3))),
    }
    tail = {
        "parameters": tuple(draw(st.lists(words, max_size=3))),
        "status": draw(words),
        "rows": draw(st.integers(-1, 2**63 - 1)),
        "bytes_out": draw(counts),
        "duration_ns": draw(counts),
        "code": draw(words),
        "message": draw(words),
        "attributes": dict(sorted(keys.items(), key=lambda item: item[0].encode())),
        "live": tuple(draw(st.lists(any_live, max_size=2))),
    }
    return Fact(
        n=n,
        kind=draw(st.integers(0, 2**31 - 1)),
        ts_ns=TS + draw(counts),
        leg=draw(st.integers(-1, 3)),
        offset=draw(counts),
        length=draw(counts),
        ref=draw(st.integers(-1, n)),
        **(full if draw(st.booleans()) else {}),
        **(tail if draw(st.booleans()) else {}),
    )


@settings(max_examples=60)
@given(st.tuples(counts, counts, counts, counts), st.tuples(any_fact(0), any_fact(1), any_fact(2)))
def test_both_ways_against_the_reference_library(totals, items):
    body = body_of(items, totals)
    value = {"totals": list(totals), "facts": [row_of(fact) for fact in items]}
    assert fastavro.schemaless_reader(io.BytesIO(body[10:]), SCHEMA) == value
    out = io.BytesIO()
    fastavro.schemaless_writer(out, SCHEMA, value)
    assert facts.decode_facts(body[:10] + out.getvalue(), TS) == facts.FactsBody(totals, items)


@given(any_fact(7))
def test_a_fact_from_its_parts(fact):
    text = facts.encode_text(fact.text, fact.text_length, fact.text_sha256)
    statement = facts.encode_statement(fact.normalized, fact.fingerprint, fact.effect, fact.objects)
    whole = encoded(fact)
    head = facts.encode_head(
        fact.n, fact.kind, fact.ts_ns - TS, fact.leg, fact.offset, fact.length, fact.ref
    )
    tail = whole[len(head) + len(text) + len(statement) :]
    head = (fact.n, fact.kind, fact.ts_ns, fact.leg, fact.offset, fact.length, fact.ref)
    assert facts.decode_parts(head, text, statement, tail) == fact
    for bad in ((text, statement + b"\0", tail), (text, statement, tail + b"\0")):
        with pytest.raises(FormatError, match="after the end"):
            facts.decode_parts(head, *bad)


def test_every_cut_is_refused():
    items = [
        Fact(0, 1, TS, 0, 0, 5, text_sha256=bytes(32), objects=("t",), attributes={"a": "b"}),
        Fact(1, 2, TS + 500, rows=3, live=(Live(bytes(16), 0, 1, 2, bytes(32)),)),
    ]
    body = body_of(items)
    for size in range(len(body)):
        with pytest.raises(FormatError):
            facts.decode_facts(body[:size], TS)


def test_defaults_are_the_blank_fact():
    assert decoded_one(BLANK) == Fact(0, facts.COMMAND, TS)
    assert facts.encode_tail() == facts.NO_TAIL


def test_kinds_have_names():
    assert [facts.KIND_NAMES[kind] for kind in sorted(facts.KIND_NAMES)] == [
        "COMMAND",
        "RESULT",
        "DECISION",
        "MASK",
        "ACCESS",
        "REFUSAL",
        "HEARTBEAT",
        "NODE",
    ]


def test_what_is_too_long_is_cut():
    head = facts.encode_head(0, facts.RESULT, 0)
    fact = decoded_one(
        facts.encode_fact(
            head,
            facts.encode_text("é" * 4096, 8192, b""),
            facts.encode_statement("x" * 5000, "f" * 200, "e" * 40, ["t" * 300] * 70),
            facts.encode_tail(
                parameters=["p" * 2000] * 70,
                status="s" * 200,
                code="c" * 80,
                message="m" * 2000,
                attributes={"k": "v" * 600},
            ),
        )
    )
    assert fact.text == "é" * 2048
    assert (len(fact.normalized), len(fact.fingerprint), len(fact.effect)) == (4096, 128, 32)
    assert fact.objects == ("t" * 256,) * 64
    assert fact.parameters == ("p" * 1024,) * 64
    assert (len(fact.status), len(fact.code), len(fact.message)) == (128, 64, 1024)
    assert fact.attributes == {"k": "v" * 512}


def test_the_largest_fact_fits_a_body():
    fact = Fact(
        2**63 - 1,
        2**31 - 1,
        TS,
        3,
        2**63 - 1,
        2**63 - 1,
        2**63 - 1,
        "x" * 4096,
        2**63 - 1,
        bytes(32),
        "x" * 4096,
        "x" * 128,
        "x" * 32,
        ("x" * 256,) * 64,
        ("x" * 1024,) * 64,
        "x" * 128,
        2**63 - 1,
        2**63 - 1,
        2**63 - 1,
        "x" * 64,
        "x" * 1024,
        {f"{n:064}": "x" * 512 for n in range(32)},
        (Live(bytes(16), 2**32 - 1, 2**63 - 1, 2**63 - 1, bytes(32)),) * 256,
    )
    body = body_of([fact])
    assert len(body) < MAX_BODY
    assert facts.decode_facts(body, TS).facts == (fact,)


@pytest.mark.parametrize(
    "attributes", [{f"k{n}": "" for n in range(33)}, {"k" * 65: ""}], ids=["many", "long"]
)
def test_too_many_or_too_long_attributes_are_not_written(attributes):
    with pytest.raises(FormatError, match="attributes"):
        facts.encode_tail(attributes=attributes)


def test_a_long_heartbeat_must_be_split():
    with pytest.raises(FormatError, match="split"):
        facts.encode_tail(live=[Live(bytes(16), 0, 1, 1, bytes(32))] * 257)


def test_a_digest_of_another_length_is_not_written():
    with pytest.raises(FormatError, match="32 bytes"):
        facts.encode_text("", 0, b"short")


def test_a_body_above_the_limit_is_refused():
    body = facts.encode_facts((0, 0, 0, 0), [BLANK])
    with pytest.raises(FormatError, match="FACTS"):
        facts.decode_facts(body + bytes(MAX_BODY), TS)
    with pytest.raises(FormatError, match="FACTS"):
        facts.decode_facts(b"\xc3\x01" + bytes(40), TS)


HEAD = [0, facts.COMMAND, 0, -1, 0, 0, -1]


def with_head(numbers):
    head = b"".join(map(encode_long, numbers))
    return facts.encode_facts((0, 0, 0, 0), [facts.encode_fact(head)])


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, -1), (1, -1), (1, 2**31), (2, -1), (3, -2), (3, 4), (4, -1), (5, -1), (6, -2), (6, 1)],
)
def test_numbers_of_a_head_have_ranges(place, value):
    numbers = [*HEAD]
    facts.decode_facts(with_head(numbers), TS)
    numbers[place] = value
    with pytest.raises(FormatError, match="range"):
        facts.decode_facts(with_head(numbers), TS)


@pytest.mark.parametrize("counts", [(-2, 0, 0), (0, -1, 0), (0, 0, -1)])
def test_counts_of_a_tail_have_ranges(counts):
    tail = b"\0\0" + b"".join(map(encode_long, counts)) + bytes(4)
    body = facts.encode_facts(
        (0, 0, 0, 0), [facts.encode_fact(facts.encode_head(0, facts.RESULT, 0), tail=tail)]
    )
    with pytest.raises(FormatError, match="range"):
        facts.decode_facts(body, TS)


@pytest.mark.parametrize(
    "number",
    [
        b"\x80\x00",
        b"\x82\x80\x00",
        b"\xff" * 9 + b"\x02",
        b"\xff" * 10 + b"\x01",
        b"\x80" * 9 + b"\x00",
        b"\xff" * 200_000,
        b"\x80",
    ],
)
def test_numbers_have_one_form(number):
    good = with_head(HEAD)
    at = good.index(b"".join(map(encode_long, HEAD)))
    with pytest.raises(FormatError):
        facts.decode_facts(good[: at + 4] + number + good[at + 5 :], TS)
    with pytest.raises(FormatError):
        facts.decode_facts(good[: at + 4] + number, TS)


def test_statements_are_told_apart_by_all_they_have(monkeypatch):
    monkeypatch.setattr(facts, "_MAX_KNOWN", 2)
    told = [
        ("select ?", "f1", "read", ("a",)),
        ("select ?", "f1", "read", ("a", "b")),
        ("select ?", "f2", "write", ()),
        ("select ??", "f1", "read", ("a",)),
        ("", "f1", "read", ("a",)),
        ("x" * 4096, "f3", "read", ("a",)),
        ("delete", "", "", ()),
    ]
    for first in told:
        for then in told:
            encoded = [
                facts.encode_fact(
                    facts.encode_head(n, facts.COMMAND, 0), statement=facts.encode_statement(*each)
                )
                for n, each in enumerate((first, then, first, then))
            ]
            found = facts.decode_facts(facts.encode_facts((0, 0, 0, 0), encoded), TS).facts
            assert [(f.normalized, f.fingerprint, f.effect, f.objects) for f in found] == [
                first,
                then,
                first,
                then,
            ]
    assert len(facts._known) <= 2
