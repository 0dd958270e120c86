"""Sizes, names, doors and mirrors."""

import ast
import importlib
from functools import cache

import pytest

from tests.house import sources

MODULE_LINES = 700
FUNCTION_LINES = 40
FUNCTION_WALL = 60

# Functions that may be longer than FUNCTION_LINES, never than FUNCTION_WALL: "path::name" -> why.
LONG_FUNCTIONS: dict[str, str] = {}

# Modules that may be longer than MODULE_LINES: path -> why.
LONG_MODULES: dict[str, str] = {
    "deploy/verifier/sealtape_verify.py": "an auditor takes one file, with nothing beside it",
}

# Source modules without a test file of their own: path -> what tests them instead.
UNMIRRORED: dict[str, str] = {}

VAGUE_MODULES = {"util", "utils", "helper", "helpers", "manager", "managers", "common", "misc"}
VAGUE_ENDINGS = ("Manager", "Helper", "Helpers", "Utils", "Util", "Impl")
CLOCK_CALLS = {"now", "utcnow", "today"}


def _functions():
    for path in sources.python_files(*sources.ROOMS):
        for name, node in _named(sources.tree(path)):
            yield f"{path}::{name}", _code_lines(node)


def _named(parent, prefix=""):
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
        inner = prefix + node.name + "." if hasattr(node, "name") and node.name else prefix
        yield from _named(node, inner)


def _code_lines(node):
    """Lines from `def` to the end, the docstring not counted."""
    docstring = 0
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is not None:
        docstring = first.end_lineno - first.lineno + 1
    return node.end_lineno - node.lineno + 1 - docstring


def test_modules_are_short():
    long = {}
    for path in sources.python_files():
        lines = sources.text(path).count("\n")
        if lines > MODULE_LINES:
            long[str(path)] = lines
    stale = set(LONG_MODULES) - set(long)
    assert not stale, f"no longer long; take them off LONG_MODULES: {stale}"
    long = {path: lines for path, lines in long.items() if path not in LONG_MODULES}
    assert not long, f"modules over {MODULE_LINES} lines; find the seam and split them: {long}"


def test_functions_are_short():
    lengths = dict(_functions())
    long = {
        name: lines
        for name, lines in lengths.items()
        if lines > (FUNCTION_WALL if name in LONG_FUNCTIONS else FUNCTION_LINES)
    }
    assert not long, f"functions over {FUNCTION_LINES} lines: {long}"
    stale = [n for n in LONG_FUNCTIONS if lengths.get(n, 0) <= FUNCTION_LINES]
    assert not stale, f"no longer long; take them off LONG_FUNCTIONS: {stale}"


def test_names_say_what_a_thing_is():
    vague = [
        str(path)
        for path in sources.python_files(*sources.ROOMS)
        if VAGUE_MODULES & {path.stem, *path.parts[:-1]} or path.stem.endswith("_impl")
    ]
    vague += [
        f"{path}::{node.name}"
        for path in sources.python_files(*sources.ROOMS)
        for node in ast.walk(sources.tree(path))
        if isinstance(node, ast.ClassDef) and node.name.endswith(VAGUE_ENDINGS)
    ]
    assert not vague, f"name them by the noun of what they are: {vague}"


@pytest.mark.parametrize("room", sources.ROOMS)
def test_a_room_opens_with_a_docstring_and_reexports(room):
    path = next(p for p in sources.python_files(room) if str(p) == f"{room}/__init__.py")
    assert ast.get_docstring(sources.tree(path)), f"{path} says nothing about the room"
    assert sources.is_bare(path), f"{path} is only a docstring and re-exports"


def test_schemas_reads_no_clock_and_opens_nothing():
    found = []
    for path in sources.python_files("schemas"):
        for node in ast.walk(sources.tree(path)):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            opens = isinstance(called, ast.Name) and called.id in {"open", "print", "input"}
            clock = isinstance(called, ast.Attribute) and called.attr in CLOCK_CALLS
            if opens or clock:
                found.append(f"{path}:{node.lineno}: {ast.unparse(called)}()")
    assert not found, f"pass the value in instead: {found}"


def test_every_module_has_its_test_file():
    present = {str(path) for path in sources.files()}
    missing = {}
    for path in sources.python_files(*sources.ROOMS):
        # A port's contract is tested by the conformance suite, on every adapter.
        if path.name == "base.py" or (path.name == "__init__.py" and sources.is_bare(path)):
            continue
        places = [str(place) for place in sources.mirrors(path)]
        if str(path) not in UNMIRRORED and not present.intersection(places):
            missing[str(path)] = places[0]
    assert not missing, f"no test file for: {missing}"


def test_unmirrored_modules_are_still_so():
    present = {str(path) for path in sources.files()}
    stale = [
        path
        for path in UNMIRRORED
        if path not in present
        or present.intersection(
            str(place) for place in sources.mirrors(type(sources.files()[0])(path))
        )
    ]
    assert not stale, f"take them off UNMIRRORED: {stale}"


def test_every_test_file_belongs_to_a_module():
    """`test_frames.py` or `test_frames_golden.py`, as long as there is a `frames.py`."""
    strays = []
    for path in sources.python_files("tests"):
        if path.parts[1] not in sources.ROOMS or not path.name.startswith("test_"):
            continue
        folder = sources.ROOT.joinpath(*path.parts[1:-1])
        subject = path.stem.removeprefix("test_")
        modules = {p.stem.strip("_") for p in folder.glob("*.py")}
        modules |= {p.name for p in folder.glob("*") if p.is_dir()}
        if not any(subject.strip("_") == m or subject.startswith(m + "_") for m in modules):
            strays.append(str(path))
    assert not strays, f"these tests mirror no module: {strays}"


@pytest.mark.parametrize("room", sources.ROOMS)
def test_bare_room_names_cannot_be_imported(room):
    with pytest.raises(ImportError, match=f"import sealtape.{room}"):
        importlib.import_module(room)


def test_what_tests_take_from_each_other_is_there():
    """Type checking leaves the tests out; to collect all of them is the long way to learn it."""
    lost = []
    for path in sources.python_files("tests"):
        for node in ast.walk(sources.tree(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests."):
                names = {alias.name for alias in node.names} - _offered(node.module)
                lost += [f"{path}:{node.lineno}: {node.module} has no {name}" for name in names]
    assert not lost


@cache
def _offered(module):
    """The names of a module of the tests: what it defines or imports, and the modules in it."""
    path = sources.ROOT.joinpath(*module.split("."))
    inside = {each.stem for each in path.glob("*.py")} | {
        each.parent.name for each in path.glob("*/*.py")
    }
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.is_file():
        return inside
    names = set()
    for node in ast.walk(sources.tree(file.relative_to(sources.ROOT))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return inside | names
