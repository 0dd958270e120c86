"""All rooms at once, each its own process: what sealing and indexing cost beside the recording."""

from tests.bench import processes
from tests.bench.harness import Table, figure, pgbench, window
from tests.bench.lab import SEALTAPE


def test_lookups_through_the_whole_pipeline(lab, effort, publish):
    """pgbench -S on 16 connections; then what is left is sealed and indexed, and counted too."""
    _, seconds = effort(1, 8)
    if not lab.wants(SEALTAPE):
        return
    deployment = lab.new_deployment()
    try:
        route = lab.gateway(deployment)
        for room in ("ingest", "index"):
            deployment.start(room)
        rooms = {name: (child.pid,) for name, child in deployment.rooms.items()}
        for pids in rooms.values():
            processes.settle(pids)
        before = {name: processes.cpu_s(pids) for name, pids in rooms.items()}
        done = window(route, pgbench(route, "-S", "-M", "prepared", seconds=seconds))
        for pids in rooms.values():
            processes.settle(pids, quiet=0.05)
        used = {name: processes.cpu_s(pids) - before[name] for name, pids in rooms.items()}
        # The window leaves out a second at each end; the rooms' work does not.
        trips = done["n"] * (seconds + 2) / seconds
    finally:
        deployment.close()
    table = Table(
        f"pgbench -S prepared through capture, ingest and indexer: {figure(done['per_s'])} TPS",
        ("room", "CPU µs a round trip", "of capture's"),
    )
    for name, cpu in used.items():
        table.row(name, figure(cpu / trips * 1e6), figure(cpu / used["capture"]))
    publish("pipeline", table)
