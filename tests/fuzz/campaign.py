"""Every parser of foreign bytes in turn, each guided by what its inputs reach: `make fuzz`.

    python -m tests.fuzz.campaign --runs N --seed S [--folder DIR] [PARSER ...]

The inputs are divided among the parsers, the slow ones get less. Exit code 1 says that there was a
finding; it is named with the command that plays it again. `--folder` keeps the corpora, and the
next campaign begins with them; without it only findings are kept.
"""

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.seeds import FEWER, PARSERS

__all__ = ["Outcome", "main", "outcome", "shares"]

CHECKOUT = Path(__file__).resolve().parents[2]
FINDINGS = ("crash-*", "timeout-*", "oom-*", "leak-*")
NO_ATHERIS = """\
fuzz: atheris is not installed. `make fuzz` does it where there is a wheel: on Linux and x86-64, for
fuzz: CPython 3.11 to 3.14. Elsewhere it runs inputs that nothing guides."""


class Outcome(NamedTuple):
    """What became of one parser."""

    runs: int
    coverage: int
    findings: list[Path]
    failed: bool


def shares(total, names):
    """How many of the inputs each parser gets; together they are the total."""
    weights = {name: max(FEWER.values()) // FEWER.get(name, 1) for name in names}
    given, all_weights, so_far, shared = {}, sum(weights.values()), 0, 0
    for name, weight in weights.items():
        so_far += weight
        given[name] = total * so_far // all_weights - shared
        shared += given[name]
    return given


def outcome(log, folder, code):
    """Read from what libFuzzer wrote and left."""
    lines = re.findall(r"^#(\d+)\t.*?\bcov: (\d+)", log, re.MULTILINE)
    units = re.findall(r"^stat::number_of_executed_units: (\d+)", log, re.MULTILINE)
    runs, coverage = lines[-1] if lines else (0, 0)
    findings = sorted(path for form in FINDINGS for path in folder.glob(form))
    return Outcome(int((units or [runs])[-1]), int(coverage), findings, code != 0)


def run(name, runs, seed, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for form in FINDINGS:  # of an earlier campaign
        for path in folder.glob(form):
            path.rename(path.with_name(f"old-{path.name}"))
    words = [sys.executable, "-m", "tests.fuzz.guided", name]
    words += ["--runs", str(runs), "--seed", str(seed), "--folder", str(folder)]
    with (folder / "log").open("wb") as log:
        done = subprocess.run(words, cwd=CHECKOUT, stdout=log, stderr=log, check=False)
    text = (folder / "log").read_text(encoding="utf-8", errors="replace")
    return outcome(text, folder, done.returncode)


def campaign(total, seed, folder, names):
    """The outcomes by parser, told as they come."""
    outcomes = {}
    print(f"fuzz: {total} inputs, seed {seed}, in {folder}", flush=True)
    for name, runs in shares(total, names).items():
        begun = time.monotonic()
        found = outcomes[name] = run(name, runs, seed, folder / name)
        took = time.monotonic() - begun
        state = "FAILED" if found.failed else "ok"
        told = f"{found.runs:>9} runs  coverage {found.coverage:>5}  {took:>6.0f} s  {state}"
        print(f"{name:16} {told}", flush=True)
        for path in found.findings:
            print(f"  {sys.executable} -m tests.fuzz.guided {name} --replay {path}")
        if found.failed:
            print(f"  the whole story: {folder / name / 'log'}", flush=True)
    return outcomes


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Feeds every parser of foreign bytes.")
    parser.add_argument("parsers", nargs="*", default=list(PARSERS), metavar="PARSER")
    parser.add_argument("--runs", type=int, default=200_000, help="inputs in all (200000)")
    parser.add_argument("--seed", type=int, default=1, help="of the inputs (1)")
    parser.add_argument("--folder", type=Path, help="for corpora and findings, kept")
    options = parser.parse_args(arguments)
    if unknown := set(options.parsers) - set(PARSERS):
        parser.error(f"no parser is called {min(unknown)}; there are: {', '.join(PARSERS)}")
    if importlib.util.find_spec("atheris") is None:
        print(NO_ATHERIS, file=sys.stderr)
        return 2
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="sealtape-fuzz-"))).resolve()
    outcomes = campaign(options.runs, options.seed, folder, options.parsers)
    failed = [name for name, found in outcomes.items() if found.failed]
    ran = sum(found.runs for found in outcomes.values())
    print(f"fuzz: {ran} inputs, failed: {', '.join(failed) or 'none'}")
    if not options.folder and not failed:
        shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
