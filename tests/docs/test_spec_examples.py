"""The examples of the format pages are bytes of the golden vectors."""

import json
import re

import pytest

from tests.docs.errors_page import PAGE
from tests.vectors.generate_b import FOLDER

SPEC = PAGE.parent / "spec"
PAGES = {
    "messages.md": ["messages.json"],
    "data-and-facts.md": ["data.json", "facts.json"],
    "bodies.md": ["bodies.json"],
    "segments.md": ["segments.json"],
    "documents.md": ["documents.json"],
    "events.md": ["events.json"],
    "log.md": ["log.json"],
    "records.md": ["records.json"],
    "timestamps.md": ["timestamps.json"],
    "bundle.md": ["bundle.json"],
    "evidence-policy.md": ["bundle.json"],
    "witness.md": ["witness.json"],
    "verification.md": ["verification.json"],
}
FENCE = re.compile(r"^```(hex|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def strings(value):
    """All texts in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from strings(item)


@pytest.mark.parametrize("page", PAGES)
def test_examples_are_vectors(page):
    text = (SPEC / page).read_text(encoding="utf-8")
    known = set()
    for name in PAGES[page]:
        vectors = json.loads((FOLDER / name).read_text(encoding="utf-8"))
        known |= {value.rstrip("\n") for value in strings(vectors)}
    found = FENCE.findall(text)
    assert found
    for language, body in found:
        if language == "hex":
            assert "".join(line.split()[0] for line in body.splitlines()) in known
        elif page == "segments.md" and body.startswith("seg/"):
            assert set(body.splitlines()) <= known
        else:
            assert body.rstrip("\n") in known


@pytest.mark.parametrize("page", PAGES)
def test_rules_are_numbered_without_gaps(page):
    text = (SPEC / page).read_text(encoding="utf-8")
    numbers = [int(number) for number in re.findall(r"^(\d+)\. ", text, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert "MUST" in text
