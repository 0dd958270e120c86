"""Whether the tests would notice if a check of the second verifier were missing.

    python -m tests.house.second_mutants                        every check
    python -m tests.house.second_mutants --part 1/4             a quarter of them
    python -m tests.house.second_mutants --sample 12 --seed 7   some

As `verifier_mutants`, for a file that nobody imports: what is removed is a `need(...)`, a finding
or a comparison. The whole corpus is put to it in this process, instead of a run of its tests.
"""

import argparse
import ast
import functools
import random
import sys
from collections.abc import Iterator, Sequence

from tests.house.verifier_mutants import Mutant, mutants_of, mutated
from tests.verifier.judging import FILE, ROOT, asked, loaded, noticed, questions

__all__ = ["EQUIVALENT", "checks", "drawn", "survives"]

MODULE = str(FILE.relative_to(ROOT))
ARITHMETIC = ("strict_y", "point", "add", "verify_ed25519")

# Source of what was removed: why nothing changes.
EQUIVALENT: dict[str, str] = {
    "x & 1 == data[31] >> 7": "every point is its negative then, the base point too, and the same"
    " equations hold",
    "need(kind in RECORDS + STATEMENTS, f'an entry of the type {kind!r:.80}')": "a statement of"
    " another type is refused by the members of an entry",
    "need(lo < hi, 'a compact range has hashes left over')": "1 << -1 is a ValueError as well",
}


@functools.cache
def _as_it_is():
    """The verifier's module with its signatures remembered, and its answers."""
    module = loaded(compile(FILE.read_text(encoding="utf-8"), str(FILE), "exec"))
    module.own_verify_ed25519 = module.verify_ed25519
    module.verify_ed25519 = functools.lru_cache(maxsize=65_536)(module.verify_ed25519)
    return module, [asked(ask, module) for _, ask in questions()]


@functools.cache
def checks() -> list[Mutant]:
    """Every check, except of what is no verification: the command line and what is printed."""
    tree = ast.parse(FILE.read_text(encoding="utf-8"))
    last = next(node.lineno for node in tree.body if getattr(node, "name", "") == "utc")
    return [mutant for mutant in mutants_of(MODULE) if mutant.line < last]


def survives(mutant: Mutant) -> bool:
    """Whether the verifier answers everything as before."""
    module, expected = _as_it_is()
    code = compile(mutated(mutant), str(FILE), "exec")
    try:
        other = loaded(code)
    except (ArithmeticError, LookupError, ValueError):
        return False
    other.own_verify_ed25519 = other.verify_ed25519
    if not _is_arithmetic(mutant):
        other.own_verify_ed25519 = other.verify_ed25519 = module.verify_ed25519
    return noticed(other, expected) is None


def _is_arithmetic(mutant: Mutant) -> bool:
    tree = ast.parse(FILE.read_text(encoding="utf-8"))
    return any(
        node.name in ARITHMETIC and node.lineno <= mutant.line <= node.end_lineno
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    )


def drawn(sample: int, seed: int) -> Iterator[Mutant]:
    """So many checks, drawn by the seed, or all when `sample` is 0."""
    found = [mutant for mutant in checks() if mutant.source not in EQUIVALENT]
    luck = random.Random(seed)
    yield from luck.sample(found, min(sample, len(found))) if sample else found


def main(words: Sequence[str]) -> int:
    """Name the survivors; 1 when there are any."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=0, help="so many of them, drawn by chance")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="1/1", help="which part of them, of how many")
    given = parser.parse_args(words)
    part, parts = (int(word) for word in given.part.split("/"))
    chosen = list(drawn(given.sample, given.seed))[part - 1 :: parts]
    survivors = 0
    for mutant in chosen:
        if survives(mutant):
            survivors += 1
            print(f"survived: {mutant}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants were noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
