"""Bulk: COPY of 200 MB out of the database, text that repeats and text that does not."""

import pytest

from tests.bench import processes
from tests.bench.harness import Table, figure, interleave
from tests.bench.lab import COPY_BYTES, DIRECT, HAPROXY, PGBOUNCER, RELAY, SEALTAPE

COLUMNS = ("", "MB/s best", "median", "of the relay's", "CPU s/GB least", "median")


@pytest.mark.parametrize("data", ["repetitive", "hex"])
def test_copy_out(lab, effort, publish, data):
    rounds, _ = effort(4, 0)
    statement = lab.copies[data]

    def measure(route):
        cpu = processes.cpu_s(route.pids)
        child = processes.load(route, "drain", statement, log=lab.log)
        points = list(processes.progress(child))
        gigabytes = points[-1][1] / 1e9
        # What is left to do (frames to seal, the bus to write) is part of the price.
        processes.settle(route.pids)
        return {
            "mb_s": gigabytes * 1e3 / (points[-1][0] - points[0][0]),
            "cpu_s_gb": (processes.cpu_s(route.pids) - cpu) / gigabytes,
        }

    samples = interleave(rounds, lab.wants(DIRECT, RELAY, SEALTAPE, HAPROXY, PGBOUNCER), measure)
    table = Table(f"COPY {COPY_BYTES / 1e6:.0f} MB out, {data} data, plaintext", COLUMNS)
    for name in samples.routes:
        table.row(
            name,
            figure(samples.best(name, "mb_s")),
            figure(samples.median(name, "mb_s")),
            figure(samples.ratio(name, RELAY, "mb_s")),
            figure(samples.least(name, "cpu_s_gb")),
            figure(samples.median(name, "cpu_s_gb")),
        )
    if SEALTAPE in samples.routes and RELAY in samples.routes:
        speed = samples.ratio(SEALTAPE, RELAY, "mb_s")
        table.goal("throughput, of the bare relay's", speed, 0.40, at_most=False)
        cpu = samples.median(SEALTAPE, "cpu_s_gb")
        table.goal("CPU seconds a GB", cpu, 8.0, at_most=True)
    publish(f"copy {data}", table)
