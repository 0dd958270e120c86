"""Verifying what is sealed, without a key, against the speed of SHA-256 alone."""

import asyncio
import hashlib
import os
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path

from sealtape.indexer.audit import Audit
from sealtape.indexer.judging import JudgePool
from sealtape.ingest.keyring import open_keyring
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.node import start_ingest
from sealtape.ingest.sealer import Limits
from sealtape.ingest.vault import open_vault
from sealtape.schemas.notes import Verifier
from sealtape.schemas.slices import TARGET_IN
from tests.bench.harness import Samples, Table, figure
from tests.capture.stage import Stage, open_on

LOG = "sealtape.test/log"


class Usage:
    """Wall and CPU seconds of a `with` block."""

    def __enter__(self):
        self._begin = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error):
        now = time.perf_counter(), time.process_time()
        self.wall_s, self.cpu_s = (b - a for a, b in zip(self._begin, now, strict=True))


async def bulk(worker, megabytes, frame_bytes):
    """Record one session that gets random bytes, a frame's worth at a time."""
    recorder, _ = await open_on(worker)
    chunk = os.urandom(frame_bytes)
    for _ in range(megabytes * 1_000_000 // frame_bytes):
        recorder.data(TARGET_IN, chunk)
        await asyncio.sleep(0)
    await worker.close_session(recorder, "client")


@asynccontextmanager
async def recorded(fill, **pace):
    """A bus with what `fill` recorded, and the stores to seal it into."""
    with tempfile.TemporaryDirectory(prefix="sealtape-bench-") as name:
        folder = Path(name)
        stage = Stage(folder, **pace)
        bus = stage.bus()
        worker = await stage.worker(bus)
        await fill(worker)
        await worker.stop(timeout_s=120)
        stores = {
            "keyring": await open_keyring("sqlite:keyring.db", folder),
            "vault": await open_vault("file:vault", folder),
            "ledger": await open_ledger("sqlite:ledger.db", folder),
        }
        try:
            yield folder, bus, stores, Verifier.from_vkey(stage.signer.vkey)
        finally:
            for store in (bus, *stores.values()):
                await store.close()


async def seal(bus, stores, verifier, **options):
    """Run ingest to the end of the bus."""
    running = await start_ingest(bus=bus, **stores, owner="bench", verifiers=[verifier], **options)
    await running.stop()
    _, end = await bus.bounds(0)
    assert await stores["ledger"].position(bus.topic, 0) == end, "not all of the bus was sealed"


async def _verify(megabytes, frame_bytes):
    def fill(worker):
        return bulk(worker, megabytes, frame_bytes)

    async with recorded(fill, frame_bytes=frame_bytes) as (_, bus, stores, verifier):
        await seal(bus, stores, verifier)
        # Memory that a virtual machine never used before costs as much as what is measured.
        await _audit(stores, verifier)
        used = await _audit(stores, verifier)
        return megabytes / used.cpu_s, megabytes / used.wall_s


async def _audit(stores, verifier, judge=None):
    listed = [key async for key in stores["vault"].keys("seg/v1/")]
    with Usage() as used:
        audit = Audit(
            ledger=stores["ledger"], vault=stores["vault"], log=LOG, trust=[verifier],
            now_ns=time.time_ns(), judge=judge,
        )  # fmt: skip
        report = await audit.everything(listed)
    wrong = [found for found in report.findings if found.layer != "log"]  # there is none here
    assert not wrong, wrong[:3]
    return used


async def _on_cores(megabytes, frame_bytes, cores):
    """MB/s by so many processes, on as many cores."""

    def fill(worker):
        return bulk(worker, megabytes, frame_bytes)

    async with recorded(fill, frame_bytes=frame_bytes) as (folder, bus, stores, verifier):
        await seal(bus, stores, verifier, limits=Limits(segment_bytes=16 << 20))
        rates = {}
        ours = os.sched_getaffinity(0)
        for count in (1, cores):
            os.sched_setaffinity(0, sorted(ours)[:count])
            judge = JudgePool("file:vault", folder, count)
            try:
                await _audit(stores, verifier, judge)  # starting processes is not measured
                rates[count] = megabytes / (await _audit(stores, verifier, judge)).wall_s
            finally:
                judge.close()
                os.sched_setaffinity(0, ours)
        return rates


def _raw_sha256(megabytes, size):
    data = os.urandom(size)
    count = megabytes * 1_000_000 // size
    with Usage() as used:
        for _ in range(count):
            hashlib.sha256(data).digest()
    return megabytes / used.cpu_s


def test_verify(effort, publish):
    """`verify --all` without a key: file hashes, digests, leaves, trees, signatures, the ledger."""
    rounds, seconds = effort(3, 9)
    megabytes = 1024 if seconds == 9 else 16  # what is done once is a small part of it
    samples = Samples()
    for _ in range(rounds):
        for size in (16 << 10, 64 << 10):
            cpu, wall = asyncio.run(_verify(megabytes, size))
            raw = _raw_sha256(megabytes, size)
            samples.add(f"{size >> 10} KiB frames", cpu=cpu, wall=wall, raw=raw, share=cpu / raw)
    table = Table(
        "verify, integrity only, one core",
        ("", "MB a CPU s", "MB/s", "raw SHA-256, MB/s", "share of it"),
    )
    for name in samples.routes:
        cells = ("cpu", "wall", "raw", "share")
        table.row(name, *(figure(samples.median(name, cell)) for cell in cells))
    share = samples.median("16 KiB frames", "share")
    table.goal("share of raw SHA-256 at 16 KiB frames", share, 0.30, at_most=False)
    publish("verify", table)


def test_verify_side_by_side(effort, publish):
    """`verify --all --jobs 2` on two cores against one process on one of them."""
    rounds, seconds = effort(3, 9)
    megabytes = 1024 if seconds == 9 else 32  # at the end one core waits for a segment's rest
    samples = Samples()
    for _ in range(rounds):
        rates = asyncio.run(_on_cores(megabytes, 16 << 10, 2))
        samples.add("two", mb_s=rates[2], ratio=rates[2] / rates[1])
        samples.add("one", mb_s=rates[1])
    table = Table("verify, 16 KiB frames, on two cores", ("", "MB/s", "of one"))
    table.row("one process, one core", figure(samples.median("one", "mb_s")), figure(1))
    ratio = samples.median("two", "ratio")
    table.row("--jobs 2, two cores", figure(samples.median("two", "mb_s")), figure(ratio))
    table.goal("gain of the second core", ratio, 1.8, at_most=False)
    publish("verify cores", table)
