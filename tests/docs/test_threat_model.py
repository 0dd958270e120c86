"""Every test that the threat model names is there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/threat-model.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`", PAGE)


def functions(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, kinds)}


def test_the_tests_that_it_names_are_there():
    absent = [f"{path}::{name}" for path, name in NAMED if name not in functions(path)]
    assert absent == []


def test_every_row_names_a_test():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "---" not in line]
    without = [row for row in rows[1:] if "::test_" not in row]
    assert len(rows) > 20
    assert without == []


def test_every_story_is_told():
    """A story that no row names is one that nobody finds."""
    told = {path for path, _ in NAMED}
    stories = {str(path.relative_to(ROOT)) for path in (ROOT / "tests/stories").glob("test_*.py")}
    assert stories <= told
