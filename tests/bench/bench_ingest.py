"""Ingest alone, from the embedded bus to published segments: bytes and facts per second of CPU.

Everything is on: decoding, digests, trees, signatures, keyring, Parquet, fsync'd vault, ledger. The
worst case for facts is a pair of frames for every statement (two facts), as an idle session makes.
"""

import asyncio
import cProfile
import pstats
import sys
import tempfile
import time
from pathlib import Path

import pytest

from sealtape.ingest.consumer import Consumer, Stores
from sealtape.ingest.sealer import Limits
from tests.bench.harness import Table, figure
from tests.factories.ingest_driver import open_ingest_stores
from tests.factories.sessions import build_session, node_signer

MB = 1_000_000
SHAPES = {
    "64 KiB frames": {"commands": 600, "row_bytes": 65_000, "facts_frames": False, "sessions": 4},
    "16 KiB frames": {"commands": 2000, "row_bytes": 16_000, "facts_frames": False, "sessions": 4},
    "1 KiB frames": {"commands": 6000, "row_bytes": 900, "facts_frames": False, "sessions": 5},
    "statements": {"commands": 2000, "row_bytes": 100, "sessions": 10},
    "short sessions": {"commands": 2, "row_bytes": 100, "sessions": 400},
}


async def measure(shape, folder, profile=None):
    """Put a shape on the bus, then read it to its end; returns what was done and what it took."""
    options = dict(SHAPES[shape])
    count = options.pop("sessions")
    stores = await open_ingest_stores(folder)
    frames = size = 0
    for number in range(count):
        built = build_session(seed=number, **options)
        frames += len(built.frames)
        size += sum(len(frame.payload) for frame in built.frames)
        encoded = built.encoded()
        for start in range(0, len(encoded), 256):
            await stores["bus"].append(0, encoded[start : start + 256])
    consumer = Consumer(
        stores=Stores(**stores), partition=0, owner="bench", limits=Limits(),
        verifiers=[node_signer().verifier],
    )  # fmt: skip
    consumer.leave()
    cpu, wall = time.process_time(), time.perf_counter()
    if profile is not None:
        profile.enable()
    await consumer.hold()
    if profile is not None:
        profile.disable()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    sealed = sum([row.frames async for row in stores["ledger"].sessions()])
    assert sealed == frames
    for store in stores.values():
        await store.close()
    facts = count * options["commands"] * 2 if options.get("facts_frames", True) else 0
    return {"bytes": size, "frames": frames, "facts": facts, "cpu_s": cpu, "wall_s": wall}


def test_ingest(effort, publish):
    rounds, _ = effort(3, 0)
    samples = {shape: [] for shape in SHAPES}
    for _ in range(rounds):
        for shape, taken in samples.items():
            with tempfile.TemporaryDirectory() as folder:
                taken.append(asyncio.run(measure(shape, Path(folder))))
    table = Table("ingest, one core", ("", "MB/CPU s", "frames/CPU s", "facts/CPU s", "MB/s wall"))
    best = {shape: min(taken, key=lambda one: one["cpu_s"]) for shape, taken in samples.items()}
    for shape, one in best.items():
        table.row(
            shape,
            figure(one["bytes"] / MB / one["cpu_s"]),
            figure(one["frames"] / one["cpu_s"]),
            figure(one["facts"] / one["cpu_s"]) if one["facts"] else None,
            figure(one["bytes"] / MB / one["wall_s"]),
        )
    bulk, statements = best["16 KiB frames"], best["statements"]
    table.goal("MB/s, 16 KiB frames", bulk["bytes"] / MB / bulk["cpu_s"], 60, at_most=False)
    table.goal("facts/s", statements["facts"] / statements["cpu_s"], 20_000, at_most=False)
    publish("ingest", table)


if __name__ == "__main__":
    for name in sys.argv[1:] or SHAPES:
        with tempfile.TemporaryDirectory() as place:
            watch = cProfile.Profile() if "--profile" in sys.argv else None
            if name in SHAPES:
                done = asyncio.run(measure(name, Path(place), watch))
                print(
                    f"{name}: {done['bytes'] / MB / done['cpu_s']:.0f} MB/CPU s,"
                    f" {done['frames'] / done['cpu_s']:.0f} frames/CPU s,"
                    f" wall {done['wall_s']:.2f} s, CPU {done['cpu_s']:.2f} s"
                )
                if watch is not None:
                    pstats.Stats(watch).sort_stats("tottime").print_stats(25)
    sys.exit(pytest.ExitCode.OK)
