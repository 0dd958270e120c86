"""Connecting: a session opened, one lookup, closed, again and again on four connections."""

import pytest

from tests.bench import processes
from tests.bench.harness import Table, figure, interleave, window
from tests.bench.lab import DIRECT, HAPROXY, PGBOUNCER, RELAY, RELAY_TLS, SEALTAPE, SEALTAPE_TLS

COLUMNS = ("", "connects/s best", "median", "of direct", "CPU ms each, least", "median")


@pytest.mark.parametrize("tls", [False, True], ids=["plaintext", "tls"])
def test_connects(lab, effort, publish, tls):
    """Direct is without TLS both times: this build of PostgreSQL has none."""
    rounds, seconds = effort(3, 4)
    words = ["connect", "--clients", "4", "--seconds", str(seconds)]

    def measure(route):
        return window(route, processes.progress(processes.load(route, *words, log=lab.log)))

    names = (
        (DIRECT, RELAY_TLS, SEALTAPE_TLS) if tls else (DIRECT, RELAY, SEALTAPE, HAPROXY, PGBOUNCER)
    )
    samples = interleave(rounds, lab.wants(*names), measure)
    table = Table(f"connects a second, {'client TLS 1.3' if tls else 'plaintext'}", COLUMNS)
    for name in samples.routes:
        table.row(
            name,
            figure(samples.best(name, "per_s")),
            figure(samples.median(name, "per_s")),
            figure(samples.ratio(name, DIRECT, "per_s")),
            figure(samples.least(name, "cpu_us") / 1e3),
            figure(samples.median(name, "cpu_us") / 1e3),
        )
    publish("connect tls" if tls else "connect", table)
