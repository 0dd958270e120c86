"""Memory of the capture process: many idle sessions, and one value as large as they come."""

import subprocess
from contextlib import contextmanager
from dataclasses import replace

from tests.bench import processes
from tests.bench.harness import Table, figure
from tests.bench.lab import LARGEST_VALUE, RELAY, RELAY_TLS, SEALTAPE, SEALTAPE_TLS

IDLE = 1000


@contextmanager
def fresh(lab, *names):
    """Give the routes, Sealtape's through a process that has done nothing yet."""
    routes = lab.wants(*names)
    deployment = lab.new_deployment()
    try:
        yield [
            replace(lab.gateway(deployment), name=route.name, tls=route.tls)
            if route.name in (SEALTAPE, SEALTAPE_TLS)
            else route
            for route in routes
        ]
    finally:
        deployment.close()


def test_idle_sessions(lab, effort, publish):
    """1,000 sessions over TLS that say nothing."""
    count, _ = (IDLE, 0) if effort(2, 9)[1] == 9 else (50, 0)
    table = Table(
        f"{count} idle sessions over TLS",
        ("", "RSS before, MiB", "with them, MiB", "KiB a session", "peak, MiB"),
    )
    with fresh(lab, RELAY_TLS, SEALTAPE_TLS) as routes:
        found = [(route, *_hold(lab, route, count)) for route in routes]
    for route, before, after, peak in found:
        table.row(
            route.name, figure(before), figure(after), figure((after - before) / count * 1024),
            figure(peak),
        )  # fmt: skip
        if route.name == SEALTAPE_TLS:
            table.goal("RSS with all of them, MiB", after, 150, at_most=True)
    publish("idle", table)


def _hold(lab, route, count):
    processes.settle(route.pids)
    before = processes.rss_mib(route.pids)
    processes.reset_peak(route.pids)
    child = processes.load(route, "idle", str(count), stdin=subprocess.PIPE, log=lab.log)
    opened = child.process.stdout.readline()
    assert f'"n": {count}' in opened
    processes.settle(route.pids)
    after, peak = processes.rss_mib(route.pids), processes.peak_rss_mib(route.pids)
    child.process.stdin.close()
    left = child.process.stdout.read()
    assert f'"n": {count}' in left, "sessions were lost while idle"
    child.stop()
    return before, after, peak


def test_largest_value(lab, effort, publish):
    """One DataRow of 1,073,741,800 bytes: the largest that PostgreSQL sends."""
    size = LARGEST_VALUE if effort(2, 9)[1] == 9 else 1 << 24
    table = Table(
        f"one value of {size:,} bytes", ("", "RSS before, MiB", "peak, MiB", "added, MiB", "MB/s")
    )
    with fresh(lab, RELAY, SEALTAPE) as routes:
        found = [(route, *_stream(lab, route, size)) for route in routes]
    for route, before, peak, seconds in found:
        table.row(
            route.name, figure(before), figure(peak), figure(peak - before),
            figure(size / 1e6 / seconds),
        )  # fmt: skip
        if route.name == SEALTAPE:
            table.goal("RSS added, MiB", peak - before, 16, at_most=True)
    publish("largest value", table)


def _stream(lab, route, size):
    _drain(lab, route, 1 << 20)  # so that what any session needs is there
    processes.settle(route.pids)
    before = processes.rss_mib(route.pids)
    processes.reset_peak(route.pids)
    seconds = _drain(lab, route, size)
    return before, processes.peak_rss_mib(route.pids), seconds


def _drain(lab, route, size):
    child = processes.load(route, "drain", f"select repeat('x', {size})", log=lab.log)
    points = list(processes.progress(child))
    assert points[-1][1] > size
    return points[-1][0] - points[0][0]
