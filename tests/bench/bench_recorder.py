"""What recording costs, without sockets: CPU per round trip, and CPU per gigabyte in bulk.

One round trip is what a select-only pgbench transaction gives the recorder: the client's bytes, a
COMMAND, the target's bytes, a RESULT, two forwards, in two loop ticks. Run it as a script for the
figures (`--profile` for where they come from), or by `make bench`.
"""

import argparse
import asyncio
import contextlib
import cProfile
import os
import pstats
import tempfile
import time
from pathlib import Path

from sealtape.capture.epoch import Terms
from sealtape.schemas.facts import COMMAND, RESULT, encode_statement, encode_tail
from sealtape.schemas.slices import CLIENT_IN, TARGET_IN
from tests.capture.stage import CLASS, Stage, open_on

SESSIONS = 16
QUERY = b"Q" + b"SELECT abalance FROM pgbench_accounts WHERE aid = 1234567;\0" + bytes(4)
ANSWER = b"T" + os.urandom(130)
STATEMENT = encode_statement(
    "SELECT abalance FROM pgbench_accounts WHERE aid = $1", "0123456789abcdef", "read", ["accounts"]
)
TAIL = encode_tail(status="ok", rows=1, bytes_out=120, duration_ns=100_000)


def nowhere(_data):
    """Stand in for a transport's write."""


async def round_trips(worker, count, terms):
    sessions = [(await open_on(worker, terms))[0] for _ in range(SESSIONS)]
    await asyncio.sleep(0.3)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(count // SESSIONS):
        for recorder in sessions:
            recorder.data(CLIENT_IN, QUERY)
            recorder.fact(COMMAND, CLIENT_IN, recorder.offsets[0], 64, statement=STATEMENT)
            recorder.forward(nowhere, QUERY)
        await asyncio.sleep(0)
        for recorder in sessions:
            recorder.data(TARGET_IN, ANSWER)
            recorder.fact(RESULT, TARGET_IN, recorder.offsets[2], 131, ref=1, tail=TAIL)
            recorder.forward(nowhere, ANSWER)
        await asyncio.sleep(0)
    for recorder in sessions:
        await worker.close_session(recorder, "client")
    await worker._shipper.idle()
    return time.process_time() - cpu, time.perf_counter() - wall


async def bulk(worker, chunk, megabytes, make, terms):
    recorder, _ = await open_on(worker, terms)
    await asyncio.sleep(0.3)
    chunks = [make(chunk) for _ in range(8)]
    cpu, wall = time.process_time(), time.perf_counter()
    for index in range(megabytes * 1_000_000 // chunk):
        data = chunks[index % 8]
        recorder.data(TARGET_IN, data)
        recorder.forward(nowhere, data)
        await asyncio.sleep(0)
    await worker.close_session(recorder, "client")
    await worker._shipper.idle()
    return time.process_time() - cpu, time.perf_counter() - wall


def repetitive(size):
    row = b"1234567\tsome text that repeats\t2026-11-22 20:00:00\t42\n"
    return (row * (size // len(row) + 1))[:size]


def hexadecimal(size):
    return os.urandom(size // 2 + 1).hex().encode()[:size]


async def measure(count, megabytes, level):
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(folder)
        bus = stage.bus()
        worker = await stage.worker(bus)
        terms = Terms(retention=CLASS, level=level)
        try:
            cpu, wall = await round_trips(worker, count, terms)
            yield f"round trips, {SESSIONS} sessions, {level}", cpu / count * 1e6, "us CPU", wall
            for make in (repetitive, hexadecimal, os.urandom):
                for chunk in (8_192, 32_768, 65_536, 262_144):
                    cpu, wall = await bulk(worker, chunk, megabytes, make, terms)
                    name = f"bulk {make.__name__}, reads of {chunk}"
                    yield name, cpu * 1000 / megabytes, "CPU-s/GB", megabytes / wall
        finally:
            await worker.stop()
            await bus.close()


async def run(count, megabytes, level):
    async for name, value, unit, other in measure(count, megabytes, level):
        print(f"{name:45} {value:8.2f} {unit}   {other:8.1f}")


def test_recording_stays_cheap():
    """A wall far above what is measured: it catches an accident, not a trend."""

    async def first():
        async with contextlib.aclosing(measure(4_000, 1, "spooled")) as figures:
            return (await anext(figures))[1]

    assert asyncio.run(first()) < 60


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60_000)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--level", default="spooled")
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    main = run(options.count, options.megabytes, options.level)
    if options.uvloop:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    else:
        runner = asyncio.Runner()
    with runner:
        if options.profile:
            with cProfile.Profile() as profile:
                runner.run(main)
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        else:
            runner.run(main)
