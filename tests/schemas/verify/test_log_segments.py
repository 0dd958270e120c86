"""Chains of segments, what replaces them, and their manifests."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from sealtape.schemas import canonical, tree
from sealtape.schemas.segments import FIRST_PREV, parse_manifest
from sealtape.schemas.tlog.records import Listed, ShardEnd
from sealtape.schemas.verify.log_segments import Known, SegmentChains
from tests.factories.breaches import case_id, cases
from tests.factories.happenings import generate
from tests.factories.histories import Cut
from tests.factories.judging import check_breach, judge

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "segments.json").read_text(encoding="utf-8")
)
MANIFEST = VECTORS["manifest"].encode()
RECORD, FRAGMENTS = parse_manifest(MANIFEST)
DIGEST = sha256(RECORD.to_json()).digest()


class Chains(SegmentChains):
    """With what was reported."""

    def __init__(self):
        self.wrong = []
        super().__init__(lambda rule, place, reason: self.wrong.append((rule, place[1], reason)))

    def add(self, index, n, prev, **changes):
        record = replace(RECORD, n=n, prev=prev, **changes)
        digest = sha256(record.to_json()).digest()
        self.take((1, index), record, digest)
        return digest


RULES = ("chain", "replaces", "manifest")


@pytest.mark.parametrize(("rule", "breach"), cases(*RULES), ids=case_id)
def test_breaches(rule, breach):
    check_breach(rule, breach)


def test_a_chain():
    chains = Chains()
    first = chains.add(4, 0, FIRST_PREV)
    second = chains.add(5, 1, first)
    other = chains.add(6, 0, FIRST_PREV, shard="bus/1")
    assert chains.wrong == []
    ends = [ShardEnd("bus/0", 1, second).line(), ShardEnd("bus/1", 0, other).line()]
    assert chains.listed() == Listed.of(sorted(ends))
    assert chains.known(first) == Known((1, 4), 0, replaced=False)
    assert chains.known(other) == Known((1, 6), 1, replaced=False)
    assert chains.known(bytes(32)) is None


def test_a_chain_that_breaks_goes_on_from_there():
    chains = Chains()
    third = chains.add(1, 3, bytes([1]) * 32)
    fourth = chains.add(2, 4, third)
    chains.add(3, 4, third)
    chains.add(4, 5, fourth)
    reasons = [(rule, index, reason) for rule, index, reason in chains.wrong]
    assert reasons == [
        ("chain", 1, "record 3 of bus/0 follows nothing"),
        ("chain", 3, "record 4 of bus/0 follows record 4"),
    ]
    chains.add(5, 6, bytes([2]) * 32)
    assert chains.wrong[-1] == ("chain", 5, "record 6 of bus/0 names another record before it")


def test_replacing():
    chains = Chains()
    first = chains.add(0, 0, FIRST_PREV)
    second = chains.add(1, 1, first)
    other = chains.add(2, 0, FIRST_PREV, shard="bus/1")
    longer = replace(RECORD.retention, delete_after_s=RECORD.retention.delete_after_s + 1)
    third = chains.add(3, 2, second, retention=longer)
    assert chains.wrong == []
    merged = chains.add(4, 3, third, replaces=(first, second))
    assert chains.wrong == []
    assert chains.known(first).replaced
    assert not chains.known(merged).replaced
    chains.add(5, 4, merged, replaces=(first, other, third, bytes(32)))
    found = [(rule, index, reason.split(", ")[-1]) for rule, index, reason in chains.wrong]
    assert found == [
        ("replaces", 5, "is replaced already"),
        ("replaces", 5, "tenant or class"),
        ("replaces", 5, "tenant or class"),
        ("replaces", 5, "is none before it"),
    ]


def test_what_lies_in_a_segment():
    chains = Chains()
    found = chains.fragments((1, 0), DIGEST, {DIGEST: MANIFEST})
    lines = MANIFEST.split(b"\n")[1:-1]
    assert [record for record, _ in found] == list(FRAGMENTS)
    assert [leaf for _, leaf in found] == [tree.leaf_hash(line) for line in lines]
    assert chains.wrong == []


@pytest.mark.parametrize(
    ("manifests", "word"),
    [
        ({}, "gone"),
        ({DIGEST: None}, "gone"),
        ({DIGEST: MANIFEST[:-1]}, "line end"),
        ({bytes(32): MANIFEST}, "another's"),
    ],
)
def test_manifests_that_do_not_say_so(manifests, word):
    chains = Chains()
    assert chains.fragments((1, 3), next(iter(manifests), DIGEST), manifests) is None
    ((rule, index, reason),) = chains.wrong
    assert (rule, index) == ("manifest", 3)
    assert word in reason


def test_the_same_frames():
    item = FRAGMENTS[0]
    first = replace(item, lo=0, hi=2, nodes=item.nodes[:1])
    second = replace(item, lo=2, hi=3, nodes=item.nodes[:1])
    chains = Chains()
    chains.covers((1, 0), [(item, b"")], [(second, b""), (first, b"")])
    assert chains.wrong == []
    chains.covers((1, 0), [(first, b"")], [(item, b"")])
    chains.covers((1, 1), [(item, b""), (replace(item, epoch=1), b"")], [(item, b"")])
    assert [(rule, index) for rule, index, _ in chains.wrong] == [("replaces", 0), ("replaces", 1)]


def test_it_can_be_kept():
    chains, other = Chains(), Chains()
    first = chains.add(0, 0, FIRST_PREV)
    second = chains.add(1, 1, first)
    chains.add(2, 2, second, replaces=(first,))
    other.read(canonical.fields(canonical.encode(chains.members()), "state"))
    assert other.members() == chains.members()
    assert other.listed() == chains.listed()
    assert other.known(first) == chains.known(first)
    third = other.add(3, 0, FIRST_PREV, shard="bus/1")
    assert other.known(third).group == 1


def test_whole_histories():
    history = generate(3, 60)
    assert any(cut.replaces for cut in history.of(Cut))
    assert judge(history).violations == []
