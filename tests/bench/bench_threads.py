"""What threads would bring to sealing: zstd, AES-GCM and SHA-256 of OpenSSL release the GIL.

Bodies of 64 KiB are sealed (compressed, keyed, encrypted, hashed, encoded) in the event loop's
thread, then handed to one and to two threads. What does not scale is what holds the GIL and the
price of handing over; a capture node that shares two cores with its database gains nothing from it.
"""

import os
import time
from concurrent.futures import ThreadPoolExecutor

from sealtape.schemas.frames import Kind
from sealtape.schemas.keys import FrameSealer, Packer, derive_label_keys
from sealtape.schemas.messages import encode
from tests.bench.harness import Samples, Table, figure

BODY = 64 << 10
LINE = b"2026-11-22 customer 17 ordered item 4711, status=open, paid by card, shipped in parts\n"


def _bodies(kind, count):
    make = {
        "repetitive": lambda: (LINE * (BODY // len(LINE) + 1))[:BODY],
        "hex": lambda: os.urandom(BODY // 2).hex().encode(),
        "random": lambda: os.urandom(BODY),
    }
    return [make[kind]() for _ in range(count)]


def _seal_all(bodies):
    session = os.urandom(16)
    keys = derive_label_keys(os.urandom(32), os.urandom(32), session, 0)
    sealer = FrameSealer(session, 0, keys, lambda: os.urandom(32), Packer())
    sealer.next_seq = 2
    for seq, body in enumerate(bodies, 2):
        encode(sealer.seal(seq, seq, Kind.DATA, body))


def _speed(bodies, threads):
    size = sum(map(len, bodies))
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        cpu, begin = time.process_time(), time.perf_counter()
        if threads == 0:
            _seal_all(bodies)
        else:
            step = -(-len(bodies) // threads)
            parts = [bodies[i : i + step] for i in range(0, len(bodies), step)]
            list(pool.map(_seal_all, parts))
        wall = time.perf_counter() - begin
    return {"mb_s": size / 1e6 / wall, "cpu_s_gb": (time.process_time() - cpu) / (size / 1e9)}


def test_sealing_in_threads(effort, publish):
    rounds, seconds = effort(5, 9)
    count = 1000 if seconds == 9 else 200
    table = Table(
        "sealing 64 KiB frames, nothing else running",
        ("", "in the loop, MB/s", "CPU s/GB", "one thread", "two threads", "gain"),
    )
    for kind in ("repetitive", "hex", "random"):
        bodies = _bodies(kind, count)
        samples = Samples()
        for _ in range(rounds):
            for threads in (0, 1, 2):
                samples.add(threads, **_speed(bodies, threads))
        table.row(
            kind,
            figure(samples.median(0, "mb_s")),
            figure(samples.median(0, "cpu_s_gb")),
            figure(samples.median(1, "mb_s")),
            figure(samples.median(2, "mb_s")),
            figure(samples.ratio(2, 0, "mb_s")),
        )
    publish("threads", table)
