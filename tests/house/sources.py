"""The files of the checkout, for the house checks."""

import ast
import functools
import subprocess
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("schemas", "capture", "ingest", "indexer")


@functools.cache
def files() -> tuple[PurePosixPath, ...]:
    """Every file that is, or could be, committed; links are left out."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    paths = sorted({name for name in listed if name})
    return tuple(
        PurePosixPath(name)
        for name in paths
        if (ROOT / name).is_file() and not (ROOT / name).is_symlink()
    )


def python_files(*folders: str) -> list[PurePosixPath]:
    """The Python files, below these top-level folders when some are named."""
    return [p for p in files() if p.suffix == ".py" and (not folders or p.parts[0] in folders)]


@functools.cache
def text(path: PurePosixPath) -> str | None:
    """The text of a file, None for a binary one."""
    raw = (ROOT / path).read_bytes()
    if b"\0" in raw:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


@functools.cache
def tree(path: PurePosixPath) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse((ROOT / path).read_bytes(), str(path))


def is_bare(path: PurePosixPath) -> bool:
    """Whether a module only holds a docstring, imports, assignments and `if TYPE_CHECKING`."""
    plain = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.If)
    return all(
        isinstance(node, plain)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in tree(path).body
    )


def mirrors(path: PurePosixPath) -> list[PurePosixPath]:
    """Where the test file of a source module may be; the first one is the usual place."""
    tests = PurePosixPath("tests", *path.parts[:-1])
    if path.name == "__init__.py":
        return [tests.parent / f"test_{path.parent.name}.py", tests / "test_init.py"]
    if path.name == "__main__.py":
        return [tests / "test_main.py", tests / "test___main__.py"]
    return [tests / f"test_{path.name}"]
