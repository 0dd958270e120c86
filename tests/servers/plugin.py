"""The run's side of the servers: its name, its end, and one loud line about what was skipped."""

import os

import pytest

from tests.servers import availability
from tests.servers.process import Home


def _is_worker(config):
    return hasattr(config, "workerinput")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    if not _is_worker(config):
        Home.name_run()  # workers inherit it, and the keeper watches this process
    availability.mode()


def pytest_unconfigure(config):
    if not _is_worker(config):
        home = Home.current()
        if home.watched == os.getpid() and home.folder.exists():
            home.end()


def pytest_report_header(config):
    return f"servers: SEALTAPE_SERVERS={availability.mode() or 'what the cache has'}"


def pytest_terminal_summary(terminalreporter):
    reasons = [
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple) and availability.SKIPPED in report.longrepr[2]
    ]
    if not reasons:
        return
    lacking = sorted({one.removeprefix(availability.SKIPPED) for one in reasons})
    terminalreporter.write_sep("=", "NOT TESTED ON REAL SERVERS", red=True, bold=True)
    terminalreporter.write_line(
        f"{len(reasons)} tests were skipped for want of a server ({'; '.join(lacking)})."
        " `make servers` fetches and starts them all; `make fetch-servers` fetches them.",
        red=True,
    )
