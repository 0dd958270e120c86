"""The examples in the format pages are bytes of the golden vectors, not somebody's typing."""

import re

import pytest

from tests.docs.errors_page import PAGE
from tests.vectors.generate_a import FOLDER

SPEC = PAGE.parent / "spec"
PAGES = ["frame.md", "tree-and-checkpoints.md", "keys.md", "spool.md", "bus-dir.md"]
VECTORS = "".join(
    (FOLDER / name).read_text(encoding="utf-8").replace("\\n", "\n")
    for name in (
        "frame.json",
        "tree.json",
        "notes.json",
        "keys.json",
        "wraps.json",
        "spool.json",
        "bus-dir.json",
    )
)
FENCE = re.compile(r"^```(hex|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples(page, language):
    text = (SPEC / page).read_text(encoding="utf-8")
    return [body for found, body in FENCE.findall(text) if found == language]


@pytest.mark.parametrize("page", PAGES)
def test_hex_examples_are_in_the_vectors(page):
    found = examples(page, "hex")
    assert found
    for body in found:
        value = "".join(line.split()[0] for line in body.splitlines())
        assert re.fullmatch(r"(?:[0-9a-f]{2})+", value)
        assert value in VECTORS, value


def test_the_note_and_the_key_are_in_the_vectors():
    found = examples("tree-and-checkpoints.md", "text")
    assert len(found) == 2
    for body in found:
        assert body.rstrip("\n") in VECTORS


@pytest.mark.parametrize("page", PAGES)
def test_rules_are_numbered_without_gaps(page):
    text = (SPEC / page).read_text(encoding="utf-8")
    numbers = [int(number) for number in re.findall(r"^(\d+)\. ", text, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 10
    assert "MUST" in text
