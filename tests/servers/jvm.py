"""A Java by its version, wherever this machine keeps it."""

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

# What a test's server does not live long enough to get back: half of what it costs to start one is
# the optimizing compiler. `make servers` and the benchmarks say False before they start any.
brief = True

_FOLDERS = ("/usr/lib/jvm", "/usr/java", "/opt", "/Library/Java/JavaVirtualMachines")
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


class NoJavaError(RuntimeError):
    """No Java of a wanted version; the message says what to do."""


def compilers() -> list[str]:
    """Options of a server's JVM: the quick compiler alone, unless it is to be fast later."""
    return ["-XX:TieredStopAtLevel=1"] if brief else []


def find(minimum: int, below: int = 0) -> Path:
    """Return the path of a `java`, the oldest that is at least `minimum` and less than `below`.

    `SEALTAPE_JAVA` (programs or their homes, divided by colons) overrides the search.
    """
    fitting = [
        (version, path)
        for path in _candidates()
        if (version := _version(path)) >= minimum and (not below or version < below)
    ]
    if fitting:
        return min(fitting, key=lambda one: one[0])[1]
    wanted = f"Java {minimum} or newer" + (f", older than {below}" if below else "")
    raise NoJavaError(
        f"no {wanted} found (looked at SEALTAPE_JAVA alone)" if "SEALTAPE_JAVA" in os.environ
        else f"no {wanted} found; install one or name it with SEALTAPE_JAVA"
    )  # fmt: skip


def _candidates():
    if chosen := os.environ.get("SEALTAPE_JAVA"):
        places = [Path(one) for one in chosen.split(os.pathsep) if one]
    else:
        places = [Path(home) for home in [os.environ.get("JAVA_HOME")] if home]
        places += [Path(found) for found in [shutil.which("java")] if found]
        for folder in map(Path, _FOLDERS):
            places += sorted(folder.glob("*")) + sorted(folder.glob("*/Contents/Home"))
        places += sorted(Path.home().glob(".sdkman/candidates/java/*"))
    for place in places:
        program = place if place.is_file() else place / "bin" / "java"
        if os.access(program, os.X_OK) and program.is_file():
            yield program.resolve()


@functools.cache
def _version(program: Path) -> int:
    ran = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
    found = _VERSION.search(ran.stderr)
    return int(found.group(1)) if found and ran.returncode == 0 else 0
