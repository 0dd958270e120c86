"""Rules by their ids, as the page has them; violations and what they mean together."""

import re
from pathlib import Path

import pytest

from sealtape.schemas import canonical
from sealtape.schemas.errors import FormatError
from sealtape.schemas.verify.findings import Verdict
from sealtape.schemas.verify.violations import (
    BREACH,
    LATE,
    RULES,
    Limits,
    Violation,
    place_members,
    read_place,
    verdict_of,
)
from tests.factories.breaches import BREACHES

PAGE = Path(__file__).parents[3] / "docs" / "spec" / "monitor.md"
TEXT = PAGE.read_text(encoding="utf-8")
RULE = re.compile(
    r"^\d+\. `([a-z-]+)`( \(late\))?: (.*?)(?=^\d+\. |^#|^\|)", re.MULTILINE | re.DOTALL
)


def test_the_page_has_every_rule_in_order_with_its_grade_and_an_example():
    found = RULE.findall(TEXT)
    assert [name for name, _, _ in found] == list(RULES)
    for name, late, body in found:
        assert RULES[name].grade == (LATE if late else BREACH)
        assert "MUST" in body
        assert "*Example: " in " ".join(body.split())


def test_every_rule_is_broken_by_a_test():
    assert {rule for rule, _ in BREACHES} == set(RULES)


def test_the_page_has_every_limit_with_its_default():
    found = dict(re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", TEXT, re.MULTILINE))
    assert {
        name: int(value.replace(",", "")) for name, value in found.items()
    } == Limits().members()


def test_rules_are_numbered_without_gaps():
    numbers = [int(number) for number in re.findall(r"^(\d+)\. ", TEXT, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_violation():
    item = Violation(2, 7, "silent", "no heartbeat after it")
    assert item.grade == LATE
    assert str(item) == "entry 7 of shard 2: silent: no heartbeat after it"
    assert item.to_json() == {
        "number": 2,
        "index": 7,
        "rule": "silent",
        "grade": LATE,
        "reason": "no heartbeat after it",
    }
    data = canonical.encode(item.members())
    assert Violation.read(canonical.fields(data, "violation")) == item


def test_a_violation_of_no_rule_is_not_read():
    data = canonical.encode({"place": ["1", "2"], "rule": "fun", "reason": ""})
    with pytest.raises(FormatError, match="one of"):
        Violation.read(canonical.fields(data, "violation"))


def test_places():
    data = canonical.encode({"at": place_members((3, 2**40))})
    assert read_place(canonical.fields(data, "state"), "at") == (3, 2**40)


@pytest.mark.parametrize(
    ("rules", "size", "verdict"),
    [
        ([], 1, Verdict.VERIFIED),
        ([], 0, Verdict.INCOMPLETE),
        (["missing"], 1, Verdict.INCOMPLETE),
        (["missing", "chain"], 1, Verdict.TAMPERED),
    ],
)
def test_what_violations_mean_together(rules, size, verdict):
    assert verdict_of([Violation(1, 0, rule, "") for rule in rules], size) == verdict
