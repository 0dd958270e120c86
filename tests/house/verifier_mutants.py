"""Whether the tests would notice if a check of a verifier were missing.

    python -m tests.house.verifier_mutants schemas/verify/timing.py       every check of a module
    python -m tests.house.verifier_mutants --sample 12 --seed 7           some, of all modules

A mutant is a module without one check: a `raise`, or a `report.tampered(...)` or the like, replaced
by nothing, or a comparison turned around. The tests of the module run with
the mutant in its place; one of them has to fail, else the mutant has survived. `EQUIVALENT` names
those that no test can tell from the module, with the reason.
"""

import argparse
import ast
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["EQUIVALENT", "MODULES", "Mutant", "mutants_of", "own_tests", "survives"]

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    str(path.relative_to(ROOT))
    for place in ("schemas/verify/*.py", "schemas/tlog/*.py")
    for path in sorted(ROOT.glob(place))
    if path.name not in ("__init__.py", "base.py")
] + ["schemas/cosignatures.py", "schemas/notes.py", "schemas/tree.py"]
SAYS = ("tampered", "incomplete", "refuse", "find", "_tampered", "_incomplete", "_report")
TIMEOUT_S = 120
PLUGIN = "tests.house.mutant_in_place"

# (module, source of what was removed): why nothing changes.
EQUIVALENT: dict[tuple[str, str], str] = {}

_OPPOSITE = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One check that is missing: which node of the module, and its place and source."""

    module: str
    node: int
    line: int
    source: str

    def __str__(self) -> str:
        """As it is named in messages."""
        return f"{self.module}:{self.line}: {self.source}"


def mutants_of(module: str) -> list[Mutant]:
    """Every check of a module."""
    text = (ROOT / module).read_text(encoding="utf-8")
    found = []
    for number, node in enumerate(ast.walk(ast.parse(text))):
        if _is_check(node):
            source = ast.unparse(node)[:90]
            found.append(Mutant(module, number, node.lineno, source))
    return found


def _is_check(node: ast.AST) -> bool:
    if isinstance(node, ast.Raise):
        return node.exc is not None
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        function = node.value.func
        if isinstance(function, ast.Name):
            return function.id == "need"
        return isinstance(function, ast.Attribute) and function.attr in SAYS
    return isinstance(node, ast.Compare) and len(node.ops) == 1


def mutated(mutant: Mutant) -> ast.Module:
    """The module's tree without the check."""
    tree = ast.parse((ROOT / mutant.module).read_text(encoding="utf-8"))
    chosen = list(ast.walk(tree))[mutant.node]
    if isinstance(chosen, ast.Compare):
        chosen.ops = [_OPPOSITE[type(chosen.ops[0])]()]
        return tree

    class _Remove(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            if node is chosen:
                return ast.copy_location(ast.Pass(), node)
            return self.generic_visit(node)

    return ast.fix_missing_locations(_Remove().visit(tree))


def own_tests(module: str) -> list[str]:
    """The module's own tests, by their mirrored place; then those of whole bundles."""
    path = Path("tests") / module
    own = sorted((ROOT / path.parent).glob(f"test_{path.stem}*.py"))
    more = ["tests/schemas/verify/test_bundle.py"] if "verify" in module else []
    return [str(item.relative_to(ROOT)) for item in own] + [
        item for item in more if (ROOT / item) not in own
    ]


def survives(mutant: Mutant) -> bool:
    """Run the tests with the mutant in place; a run that hangs has noticed."""
    command = [
        sys.executable, "-P", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", PLUGIN,
        "-m", "not soak", *own_tests(mutant.module),
    ]  # fmt: skip
    given = {"SEALTAPE_MUTANT": f"{mutant.module}:{mutant.node}", "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | given,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def drawn(modules: Sequence[str], sample: int, seed: int) -> Iterator[Mutant]:
    """Checks of these modules: so many, drawn by the seed, or all when `sample` is 0."""
    found = [mutant for module in modules for mutant in mutants_of(module)]
    found = [item for item in found if (item.module, item.source) not in EQUIVALENT]
    luck = random.Random(seed)
    yield from luck.sample(found, min(sample, len(found))) if sample else found


def main(words: Sequence[str]) -> int:
    """Name the survivors; 1 when there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="paths from the repository's root; all without")
    parser.add_argument("--sample", type=int, default=0, help="so many of them, drawn by chance")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    count, survivors = 0, []
    for mutant in drawn(given.modules or MODULES, given.sample, given.seed):
        count += 1
        if survives(mutant):
            survivors.append(mutant)
            print(f"survived: {mutant}", flush=True)
    print(f"{count - len(survivors)} of {count} mutants were noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
