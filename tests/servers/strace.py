"""strace: makes a program's system calls fail, or ends it at one of them; from Debian's packages.

run = strace(*words, calls=("write", "fsync"), fault=Fault("fsync", 3, "EIO"), …)
run.status, run.calls            what the program ended with, and its calls in their order
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers import availability, cache

PACKAGES = ("strace", "libunwind8")
KILL = "KILL"
KILLED = (-9, 137)
_CALL = re.compile(r"(\d+) +([a-z0-9_]+)\(.*")


def _build(folder):
    if found := shutil.which("strace"):
        shutil.copy(found, folder / "strace")
        return
    cache.run("Debian", "apt-get", "download", *PACKAGES, cwd=folder)
    for package in folder.glob("*.deb"):
        cache.run("Debian", "dpkg-deb", "-x", package, folder / "package", cwd=folder)
        package.unlink()
    (folder / "package/usr/bin/strace").rename(folder / "strace")
    (folder / "lib").mkdir()
    for library in (folder / "package").rglob("*.so.*"):
        library.rename(folder / "lib" / library.name)
    shutil.rmtree(folder / "package")


_NEEDS = () if shutil.which("strace") else ("apt-get", "dpkg-deb")
cache.register(cache.Recipe("strace", "debian", _build, needs=_NEEDS))


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at the `number`-th call of that name that a thread makes.

    `what` is KILL, which comes before the call is carried out, or the error that it returns.
    """

    call: str
    number: int
    what: str

    def __str__(self):
        return f"{self.call}#{self.number}:{self.what}"

    @property
    def option(self):
        what = "signal=KILL" if self.what == KILL else f"error={self.what}"
        return f"inject={self.call}:{what}:when={self.number}"


@dataclass(frozen=True, slots=True)
class Traced:
    """How a program ended, and what it did: (thread, call, its number in that thread) each."""

    status: int
    output: str
    calls: list[tuple[int, str, int]]
    injected: bool

    @property
    def points(self):
        """Where a fault can be put, once each: the first thread that comes so far has it."""
        return list(dict.fromkeys((call, number) for _, call, number in self.calls))


class Strace:
    """The program."""

    KIND, PARTS = "strace", ("strace",)

    def __init__(self):
        own = shutil.which("strace")
        self._words, self._environment = [own], {}
        if own is None:
            folder = cache.folder("strace")
            self._words = [folder / "strace"]
            if (folder / "lib").is_dir():
                self._words += ["-E", "LD_LIBRARY_PATH"]  # not for what is traced
                self._environment = {"LD_LIBRARY_PATH": str(folder / "lib")}

    def __call__(self, *words, calls, fault=None, timeout=60, **options):
        """Run a program under it to its end; `options` are those of `subprocess.run`."""
        inject = [] if fault is None else ["-e", fault.option]
        # The filter makes all other calls fast; a signal that is to come at a call gets lost in it.
        fast = [] if fault is not None and fault.what == KILL else ["--seccomp-bpf"]
        environment = {**options.pop("env", os.environ), **self._environment}
        with tempfile.TemporaryDirectory(prefix="sealtape-strace-") as folder:
            trace = Path(folder, "trace")
            # A name that this architecture lacks is passed over: `?rename`.
            known = ",".join(f"?{name}" for name in calls)
            done = subprocess.run(
                [*self._words, "-f", *fast, "-qq", "-o", trace, "-e", f"trace={known}", *inject,
                 "--", *words],
                env=environment, check=False, timeout=timeout, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
            )  # fmt: skip
            lines = trace.read_text(errors="replace").splitlines()
        killed = fault is not None and fault.what == KILL and done.returncode in KILLED
        failed = any(line.endswith("(INJECTED)") for line in lines)
        return Traced(done.returncode, done.stdout, _calls(lines), killed or failed)

    def lack(self):
        """Why it cannot trace here; empty when it can."""
        try:
            done = self("true", calls=("exit_group",))
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        return done.output.strip() if done.status else ""


def _calls(lines):
    found, counts = [], Counter()
    for line in lines:
        if match := _CALL.match(line):
            thread, call = int(match[1]), match[2]
            counts[thread, call] += 1
            found.append((thread, call, counts[thread, call]))
    return found


@pytest.fixture(scope="session")
def strace():
    """It, where processes may be traced."""
    if shutil.which("strace") is None:
        if availability.mode() == "containers":
            pytest.skip(f"{availability.SKIPPED}strace, and SEALTAPE_SERVERS=containers")
        availability.need(Strace)
    elif availability.mode() == "off":
        pytest.skip(f"{availability.SKIPPED}strace, and SEALTAPE_SERVERS=off")
    program = Strace()
    if lack := program.lack():
        text = f"{availability.SKIPPED}strace may not trace here ({lack})"
        if availability.mode() == "local":
            pytest.fail(text, pytrace=False)
        pytest.skip(text)
    return program
