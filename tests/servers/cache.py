"""What the servers are made of, fetched once: a cache folder outside the checkout.

    python -m tests.servers list           what there is
    python -m tests.servers fetch [NAME]   what is missing, by Maven and Go

The folder is `SEALTAPE_CACHE`, else `$XDG_CACHE_HOME/sealtape`, else `~/.cache/sealtape`. A thing
in it is one folder, `NAME-VERSION`, made elsewhere and renamed: it is whole or it is not there.

A server's module says how its parts are got:

    cache.register(cache.Recipe("kafka", cache.VERSIONS["kafka"], _build, needs=("mvn",), java=17))
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.servers import jvm

# The one place where versions stand.
VERSIONS = {
    "kafka": "4.4.0",
    "kafka-tools": "4.1.0",  # the newest that Maven has
    "keycloak": "26.4.7",
    "litewitness": "0.9.0",  # newer ones need a newer Go
    "log4j": "2.24.3",
    "openbao": "2.7.2",
    "opensearch": "3.4.0",
    "opensearch-secure": "2.19.4",
    "postgres": "18.6.0",
    "tessera": "1.0.4",
    "timestamp": "2.1.3",  # newer ones need a newer Go
    "toxiproxy": "2.12.0",
    "versitygw": "1.8.0",
}
_DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_HOW_TO_INSTALL = {
    "go": "Go 1.25 or newer (https://go.dev/dl)",
    "mvn": "Maven (Debian: apt-get install maven)",
    "ssh-agent": "OpenSSH's clients (Debian: apt-get install openssh-client)",
}
BEAT_S = 15.0


class FetchError(RuntimeError):
    """Something could not be fetched; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one thing comes into the cache.

    `build(folder)` fills an empty folder. `needs` are programs that it calls. `java` and
    `java_below` are the Java versions that *running* it wants: at least, less than (0: none, any).
    """

    name: str
    version: str
    build: Callable[[Path], None]
    needs: tuple[str, ...] = ()
    java: int = 0
    java_below: int = 0

    @property
    def folder(self) -> Path:
        """Where it is, when it is there."""
        return root() / f"{self.name}-{self.version}"

    def lack(self) -> str:
        """Why a server of this cannot be started here; empty when it can."""
        if not self.folder.is_dir():
            return f"{self.name} {self.version} is not in the cache"
        if self.java:
            try:
                jvm.find(self.java, self.java_below)
            except jvm.NoJavaError as error:
                return str(error)
        return ""


RECIPES: dict[str, Recipe] = {}


def root() -> Path:
    """The cache folder; it need not exist."""
    if chosen := os.environ.get("SEALTAPE_CACHE"):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "sealtape"


def register(recipe: Recipe) -> Recipe:
    """Make a recipe known to `fetch` and `list`."""
    RECIPES[recipe.name] = recipe
    return recipe


def folder(name: str) -> Path:
    """The folder of a thing that is in the cache; FetchError when it is not."""
    recipe = RECIPES[name]
    if not recipe.folder.is_dir():
        raise FetchError(f"{recipe.lack()}. Run `make fetch-servers`.")
    return recipe.folder


def fetch(name: str) -> Path:
    """Fetch a thing unless it is there, and return its folder."""
    recipe = RECIPES[name]
    with _lock(name):
        if recipe.folder.is_dir():
            say(name, f"{recipe.version} is there")
            return recipe.folder
        for program in recipe.needs:
            if shutil.which(program) is None:
                raise FetchError(f"{name} needs {_HOW_TO_INSTALL.get(program, program)}.")
        for left in root().glob(f".{name}-*.partial"):
            shutil.rmtree(left)
        partial = root() / f".{name}-{os.getpid()}.partial"
        partial.mkdir()
        started = time.monotonic()
        say(name, f"fetching {recipe.version}")
        try:
            recipe.build(partial)
            partial.rename(recipe.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        say(name, f"ready after {time.monotonic() - started:.0f} s")
        return recipe.folder


def say(name: str, text: str) -> None:
    """Print one line of progress."""
    print(f"servers: {name}: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _lock(name: str):
    root().mkdir(parents=True, exist_ok=True)
    with (root() / f".{name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(name, "another process fetches it; waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


# ------------------------------------------------------------------------------------ ways to fetch


def maven_file(coordinates: str, into: Path) -> Path:
    """Download one artifact, `group:artifact:version[:packaging]`, and return its path."""
    before = set(into.iterdir())
    goal = f"{_DEPENDENCY_PLUGIN}:copy"
    run("Maven", "mvn", goal, f"-Dartifact={coordinates}", f"-DoutputDirectory={into}", cwd=into)
    (path,) = set(into.iterdir()) - before
    return path


def maven_jars(coordinates: list[str], into: Path, *, exclude: tuple[str, ...] = ()) -> None:
    """Download jars with all that they need at run time. `exclude`: group ids left out."""
    skip = "".join(
        f"<exclusion><groupId>{group}</groupId><artifactId>*</artifactId></exclusion>"
        for group in exclude
    )
    wanted = "".join(
        "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>"
        "<exclusions>{}</exclusions></dependency>".format(*one.split(":"), skip)
        for one in coordinates
    )
    with tempfile.TemporaryDirectory() as scratch:
        pom = Path(scratch, "pom.xml")
        pom.write_text(
            '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
            "<groupId>local</groupId><artifactId>servers</artifactId><version>1</version>"
            f"<dependencies>{wanted}</dependencies></project>"
        )
        goal = f"{_DEPENDENCY_PLUGIN}:copy-dependencies"
        run("Maven", "mvn", "-f", pom, goal, f"-DoutputDirectory={into}", "-DincludeScope=runtime",
            cwd=scratch)  # fmt: skip


def go_program(package: str, version: str, into: Path) -> None:
    """Compile the program of a Go package into a folder."""
    environment = {"GOBIN": str(into), "GOFLAGS": "-mod=mod", "CGO_ENABLED": "0"}
    run("Go", "go", "install", "-trimpath", f"{package}@v{version}", cwd=into, **environment)


def run(label: str, program: str, *arguments: object, cwd: object, **environment: str) -> None:
    """Run a fetching program with a sign of life every while; FetchError when it fails.

    Maven is told to be quiet and to refuse what its checksums do not fit.
    """
    quiet = ("-q", "-B", "-C", "-Dstyle.color=never") if program == "mvn" else ()
    command = [program, *quiet, *(str(one) for one in arguments)]
    done = threading.Event()
    started = time.monotonic()

    def beat():
        while not done.wait(BEAT_S):
            say(label, f"still at work after {time.monotonic() - started:.0f} s: {command[-1]}")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        ended = subprocess.run(
            command, cwd=cwd, env={**os.environ, **environment}, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace",
        )  # fmt: skip
    finally:
        done.set()
        thread.join()
    if ended.returncode:
        last = "\n".join(ended.stdout.strip().splitlines()[-15:])
        raise FetchError(
            f"{' '.join(command)} ended with {ended.returncode}:\n{last}\n"
            f"Nothing half-done was kept. Does {label} reach its registry (proxy, mirror, settings)"
            "? Then run `make fetch-servers` again."
        )
