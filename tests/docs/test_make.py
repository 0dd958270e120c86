"""Every `make` target in a document is one that the Makefile has."""

import re

import pytest

from tests.docs.test_commands import FENCE, PAGES
from tests.house import sources

TARGETS = set(re.findall(r"^([a-z-]+):", (sources.ROOT / "Makefile").read_text(), re.MULTILINE))
LINE = re.compile(r"^(?:[A-Z]+=\S+ )*make +([a-z-]+)", re.MULTILINE)
INLINE = re.compile(r"`(?:[A-Z]+=\S+ )*make ([a-z-]+)[^`]*`")


def named(text):
    """The targets that a document names, in fences and between back quotes."""
    return {*INLINE.findall(text), *(n for body in FENCE.findall(text) for n in LINE.findall(body))}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_targets_in_documents_exist(page):
    assert named(sources.text(page)) <= TARGETS


def test_the_search_for_targets_finds_them():
    readme = next(page for page in PAGES if str(page) == "README.md")
    assert {"demo", "test"} <= named(sources.text(readme))
    assert named("```\nmake no-such X=1\n```\n`PYTHON=python3.13 make setup` `make`") == {
        "no-such",
        "setup",
    }


def test_contributors_are_told_of_every_target():
    page = next(page for page in PAGES if str(page) == "CONTRIBUTING.md")
    assert TARGETS - {"help"} <= named(sources.text(page))
