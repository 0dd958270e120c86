"""Whether each pure module is covered, every branch of it, by its own test file alone.

A suite that covers a parser only by what passes through it from elsewhere does not test the parser.
So each module under the paths of `[tool.sealtape.individual_coverage]` is run under coverage with
nothing but the test file that mirrors it:

    python -m tests.house.individual_coverage [module.py ...]
"""

import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path, PurePosixPath

from tests.house import sources


def modules() -> list[PurePosixPath]:
    """The modules that the gate holds for; contracts (`base.py`) and bare doors are left out."""
    project = tomllib.loads((sources.ROOT / "pyproject.toml").read_text())
    folders = project["tool"]["sealtape"]["individual_coverage"]["paths"]
    return [
        path
        for path in sources.python_files(*sources.ROOMS)
        if any(path.is_relative_to(folder) for folder in folders)
        and path.name != "base.py"
        and not (path.name == "__init__.py" and sources.is_bare(path))
    ]


def check(module: PurePosixPath) -> str | None:
    """What is wrong with the coverage of one module, None when nothing is."""
    tests = [place for place in sources.mirrors(module) if (sources.ROOT / place).is_file()]
    if not tests:
        return f"has no test file {sources.mirrors(module)[0]}"
    with tempfile.TemporaryDirectory() as scratch:
        data = f"--data-file={scratch}/data"
        pytest = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not soak"]
        ran = _python(
            "-m", "coverage", "run", "--branch", data, f"--include={sources.ROOT / module}",
            *pytest, *map(str, tests), scratch=scratch,
        )  # fmt: skip
        if ran.returncode:
            return "its tests fail alone:\n" + "\n".join(ran.stdout.splitlines()[-30:])
        report = f"{scratch}/report.json"
        made = _python("-m", "coverage", "json", "-q", data, "-o", report, f"--include={module}")
        if made.returncode:
            return f"is never imported by {tests[0]}: {made.stdout}{made.stderr}"
        (found,) = json.loads(Path(report).read_text())["files"].values()
    gaps = [f"line {line}" for line in found["missing_lines"]]
    gaps += [f"branch {a} -> {b}" for a, b in found["missing_branches"]]
    return f"not covered by {tests[0]}: {', '.join(gaps)}" if gaps else None


def _python(*arguments: str, scratch: str = "") -> subprocess.CompletedProcess[str]:
    # Processes that run at the same time do not share hypothesis's examples.
    own = {"HYPOTHESIS_STORAGE_DIRECTORY": f"{scratch}/hypothesis"} if scratch else {}
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=sources.ROOT,
        env=os.environ | own,
        capture_output=True,
        text=True,
        check=False,
    )


def main(names: list[str]) -> int:
    """Check all modules, or those named; the exit code is 1 when one is not covered."""
    started = time.monotonic()
    chosen = [PurePosixPath(name) for name in names] or modules()
    failures = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for module, problem in zip(chosen, pool.map(check, chosen), strict=True):
            if problem:
                failures += 1
                print(f"{module}: {problem}")
    took = time.monotonic() - started
    print(f"individual coverage: {len(chosen) - failures} of {len(chosen)} modules, {took:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
