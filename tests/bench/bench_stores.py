"""Ingest on the real servers: Kafka to a segment in S3, published in a PostgreSQL ledger.

Servers, load and ingest share the machine's cores; what is counted is ingest's own CPU. A frame of
64 KiB holds 63 slices of 1 KiB: ingest never looks into it, so slices cost what their frames cost.
"""

import asyncio
import statistics
import time

from sealtape.ingest.consumer import Consumer, Stores
from sealtape.ingest.keyring import open_keyring, prepare_keyring
from sealtape.ingest.ledger import open_ledger, prepare_ledger
from sealtape.ingest.sealer import Limits
from sealtape.ingest.vault import open_vault
from tests.bench.bench_ingest import MB, SHAPES
from tests.bench.harness import Table, figure
from tests.factories.kafka_topics import new_bus
from tests.factories.s3_vaults import SECRET_VARIABLE, s3_url
from tests.factories.sessions import build_session, node_signer

SLICES = {"64 KiB frames": 63}
WANTED = ("64 KiB frames", "16 KiB frames", "statements", "short sessions")
PUBLISHES = 300


class Watched:
    """A ledger of which the publish transactions are timed."""

    def __init__(self, ledger):
        self._ledger = ledger
        self.took = []

    def __getattr__(self, name):
        return getattr(self._ledger, name)

    async def publish(self, publication):
        began = time.perf_counter()
        await self._ledger.publish(publication)
        self.took.append(time.perf_counter() - began)


async def open_stores(servers, folder):
    """New ones on the servers."""
    database = servers["postgres"].database()
    ledger, keyring = (database.url(f"schema=sealtape_{name}") for name in ("ledger", "keyring"))
    await prepare_ledger(ledger, folder)
    await prepare_keyring(keyring, folder)
    return {
        "bus": await new_bus(servers["kafka"].bootstrap),
        "keyring": await open_keyring(keyring, folder),
        "vault": await open_vault(s3_url(servers["s3"], servers["s3"].bucket()), folder),
        "ledger": Watched(await open_ledger(ledger, folder)),
    }


async def fill(bus, shape):
    """Put a shape on the bus; returns frames, bytes and facts."""
    options = dict(SHAPES[shape])
    sessions = options.pop("sessions")
    frames = size = 0
    for number in range(sessions):
        built = build_session(seed=number, **options)
        frames += len(built.frames)
        size += sum(len(frame.payload) for frame in built.frames)
        encoded = built.encoded()
        for start in range(0, len(encoded), 64):
            await bus.append(0, encoded[start : start + 64])
    facts = sessions * options["commands"] * 2 if options.get("facts_frames", True) else 0
    return frames, size, facts


async def measure(servers, shape, folder):
    """Seal a shape; returns what was done and what it took."""
    stores = await open_stores(servers, folder)
    frames, size, facts = await fill(stores["bus"], shape)
    consumer = Consumer(
        stores=Stores(**stores), partition=0, owner="bench", limits=Limits(),
        verifiers=[node_signer().verifier],
    )  # fmt: skip
    consumer.leave()
    cpu, wall = time.process_time(), time.perf_counter()
    await consumer.hold()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert sum([row.frames async for row in stores["ledger"].sessions()]) == frames
    for store in stores.values():
        await store.close()
    return {"bytes": size, "frames": frames, "facts": facts, "cpu_s": cpu, "wall_s": wall}


async def publish_times(servers, folder, count):
    """Seconds that each of many small publications took, as a busy deployment makes them."""
    stores = await open_stores(servers, folder)
    consumer = Consumer(
        stores=Stores(**stores), partition=0, owner="bench",
        limits=Limits(segment_ns=0, idle_ns=0), verifiers=[node_signer().verifier],
    )  # fmt: skip
    working = asyncio.create_task(consumer.run())
    number = 0
    while len(stores["ledger"].took) < count:
        built = build_session(seed=number, commands=20)
        await stores["bus"].append(0, built.encoded())
        number += 1
        await asyncio.sleep(0.02)
    consumer.leave()
    await working
    took = stores["ledger"].took
    for store in stores.values():
        await store.close()
    return sorted(took)


def test_ingest_from_kafka_to_s3(
    kafka_server, s3_server, postgres_stores, effort, publish, tmp_path, monkeypatch
):
    monkeypatch.setenv(SECRET_VARIABLE, s3_server.secret_key)
    servers = {"kafka": kafka_server, "s3": s3_server, "postgres": postgres_stores}
    rounds, seconds = effort(3, 9)
    samples = {shape: [] for shape in WANTED}
    for _ in range(rounds):
        for shape, taken in samples.items():
            taken.append(asyncio.run(measure(servers, shape, tmp_path)))
    best = {shape: min(taken, key=lambda one: one["cpu_s"]) for shape, taken in samples.items()}
    table = Table(
        "Kafka to S3 with a PostgreSQL ledger, one ingest core",
        ("", "MB/CPU s", "frames/CPU s", "1 KiB slices/CPU s", "facts/CPU s", "MB/s wall"),
    )
    for shape, one in best.items():
        slices = one["frames"] * SLICES.get(shape, 0)
        table.row(
            shape,
            figure(one["bytes"] / MB / one["cpu_s"]),
            figure(one["frames"] / one["cpu_s"]),
            figure(slices / one["cpu_s"]) if slices else None,
            figure(one["facts"] / one["cpu_s"]) if one["facts"] else None,
            figure(one["bytes"] / MB / one["wall_s"]),
        )
    bulk, small = best["16 KiB frames"], best["64 KiB frames"]
    table.goal("MB/s of 16 KiB", bulk["bytes"] / MB / bulk["cpu_s"], 60, at_most=False)
    slices = small["frames"] * SLICES["64 KiB frames"] / small["cpu_s"]
    table.goal("slices/s of 1 KiB", slices, 50_000, at_most=False)
    facts = best["statements"]
    table.goal("facts/s", facts["facts"] / facts["cpu_s"], 20_000, at_most=False)
    took = asyncio.run(publish_times(servers, tmp_path, PUBLISHES if seconds == 9 else 20))
    tail = took[int(len(took) * 0.99)] * 1000
    times = Table(
        "The publish transaction in PostgreSQL", ("", "median, ms", "p99, ms", "most, ms")
    )
    times.row(
        f"{len(took)} publications", figure(statistics.median(took) * 1000), figure(tail),
        figure(took[-1] * 1000),
    )  # fmt: skip
    times.goal("p99, ms", tail, 20, at_most=True)
    publish("stores", table, times)
