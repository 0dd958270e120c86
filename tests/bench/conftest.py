"""`make bench`: every `bench_*.py` here; never part of `make test`.

make bench ARGS="-k copy"            one of them
make bench ARGS="--quick"            short rounds, to see that it works
make bench ARGS="--routes 'direct,bare relay'"
make bench ARGS="--realtime"         on a machine that others use too (as root; they wait)
make bench ARGS="--write"            put the results into the documentation
"""

import datetime as dt
import os

import pytest

from tests.bench import harness
from tests.bench.lab import Lab
from tests.servers import jvm
from tests.servers.postgres import postgres_server  # noqa: F401

jvm.brief = False


def pytest_addoption(parser):
    group = parser.getgroup("bench")
    group.addoption("--write", action="store_true", help="write the results into the documentation")
    group.addoption("--quick", action="store_true", help="short rounds: figures mean little")
    group.addoption("--rounds", type=int, default=0, help="rounds of each benchmark")
    group.addoption(
        "--realtime", action="store_true", help="before all other processes of a shared machine"
    )
    group.addoption("--routes", default="", help="only these routes, separated by commas")


def pytest_collect_file(file_path, parent):
    if parent.session.isinitpath(file_path):
        return None  # pytest itself collects the file that is named to it
    if file_path.name.startswith("bench_") and file_path.suffix == ".py":
        return pytest.Module.from_parent(parent, path=file_path)
    return None


@pytest.fixture(scope="session", autouse=True)
def priority(request):
    """Run everything before the machine's other work when asked to; children inherit it."""
    if not request.config.getoption("--realtime"):
        yield
        return
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    yield
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(scope="session")
def lab(request):
    """The database and the routes to it."""
    routes = request.config.getoption("--routes")
    made = Lab(tuple(name.strip() for name in routes.split(",") if name.strip()))
    yield made
    made.close()


@pytest.fixture(scope="session")
def effort(request):
    """Return rounds and seconds: `effort(rounds, seconds)` asks for so many, less when quick."""
    asked, quick = request.config.getoption("--rounds"), request.config.getoption("--quick")

    def choose(rounds, seconds):
        if quick:
            return asked or 1, min(seconds, 2)
        return asked or rounds, seconds

    return choose


@pytest.fixture
def publish(request):
    """Print a result, and keep it when `--write` was given."""

    def show(name, *tables):
        for table in tables:
            print(table.text(), flush=True)
        if request.config.getoption("--write"):
            how = ", with real-time priority" if request.config.getoption("--realtime") else ""
            day = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}"
            when = f"Measured {day} on {harness.machine()}{how}.\n"
            harness.write(name, "\n".join([*(table.markdown() for table in tables), when]))

    return show
