"""Small statements: pgbench's select-only lookups on 16 connections."""

import pytest

from tests.bench import processes
from tests.bench.harness import Table, figure, interleave, pgbench, window
from tests.bench.lab import (
    ACCOUNTS,
    DIRECT,
    HAPROXY,
    PGBOUNCER,
    RELAY,
    RELAY_TLS,
    SEALTAPE,
    SEALTAPE_TLS,
)

COLUMNS = (
    "",
    "TPS best",
    "median",
    "of the relay's",
    "CPU µs/trip least",
    "median",
    "× the relay's",
)


def _rows(table, samples, base):
    for name in samples.routes:
        table.row(
            name,
            figure(samples.best(name, "per_s")),
            figure(samples.median(name, "per_s")),
            figure(samples.ratio(name, base, "per_s")),
            figure(samples.least(name, "cpu_us")),
            figure(samples.median(name, "cpu_us")),
            figure(samples.ratio(name, base, "cpu_us")),
        )


def _goals(table, samples, route, base):
    if route in samples.routes and base in samples.routes:
        cpu, tps = samples.ratio(route, base, "cpu_us"), samples.ratio(route, base, "per_s")
        table.goal("CPU a round trip, × the bare relay's", cpu, 2.5, at_most=True)
        table.goal("TPS, of the bare relay's", tps, 0.55, at_most=False)


@pytest.mark.parametrize("protocol", ["simple", "prepared"])
def test_plaintext(lab, effort, publish, protocol):
    rounds, seconds = effort(5, 4)
    routes = lab.wants(DIRECT, RELAY, SEALTAPE, HAPROXY, PGBOUNCER)
    samples = interleave(
        rounds, routes,
        lambda route: window(route, pgbench(route, "-S", "-M", protocol, seconds=seconds)),
    )  # fmt: skip
    table = Table(f"pgbench -S, 16 clients, {protocol} protocol, plaintext", COLUMNS)
    _rows(table, samples, RELAY)
    _goals(table, samples, SEALTAPE, RELAY)
    publish(f"roundtrip {protocol}", table)


@pytest.mark.parametrize("protocol", ["simple", "prepared"])
def test_client_tls(lab, effort, publish, protocol):
    """TLS 1.3 towards the client, plaintext to the target; a Python client makes the load."""
    rounds, seconds = effort(3, 4)
    words = [
        "select", "--clients", "16", "--seconds", str(seconds + 1), "--protocol", protocol,
        "--accounts", str(ACCOUNTS),
    ]  # fmt: skip

    def measure(route):
        child = processes.load(route, *words, log=lab.log)
        return window(route, _after_first(processes.progress(child)))

    samples = interleave(rounds, lab.wants(RELAY_TLS, SEALTAPE_TLS), measure)
    table = Table(f"the same lookups, 16 clients, {protocol} protocol, client TLS 1.3", COLUMNS)
    _rows(table, samples, RELAY_TLS)
    publish(f"roundtrip tls {protocol}", table)


def _after_first(points):
    next(points)
    yield from points
