"""How cost grows with sessions: bytes of each in ledger, vault and index, and CPU of a frame.

Sessions are made by the encoder of the recording path: three frames of wrapped keys, OPEN, IDENT, a
command with its facts, CLOSE. `SEALTAPE_BENCH_SESSIONS` says how many there are in the end
(100,000; a million takes about ten times as long and 10 GB).
"""

import asyncio
import os
import time
from pathlib import Path

from sealtape.indexer.index import open_index
from sealtape.indexer.lane import IndexerStores
from sealtape.indexer.worker import rebuild
from sealtape.ingest.consumer import Consumer, Stores
from sealtape.ingest.sealer import Limits
from tests.bench.harness import DOCUMENT, Table, figure
from tests.factories.ingest_driver import open_ingest_stores
from tests.factories.sessions import build_session, node_signer, reader

BATCH = 1000


def bytes_below(path):
    """Bytes that a file, with what SQLite keeps beside it, or a folder takes."""
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return sum(each.stat().st_size for each in path.parent.glob(path.name + "*"))


async def append(bus, first, count):
    """Put sessions on the bus; returns their frames."""
    frames = 0
    for number in range(first, first + count):
        built = build_session(seed=number, commands=1, row_bytes=100)
        frames += len(built.frames)
        await bus.append(0, built.encoded())
    return frames


async def seal(stores):
    """Read to the end of the bus; returns seconds of CPU."""
    consumer = Consumer(
        stores=Stores(**stores), partition=0, owner="bench", limits=Limits(),
        verifiers=[node_signer().verifier],
    )  # fmt: skip
    consumer.leave()
    began = time.process_time()
    await consumer.hold()
    return time.process_time() - began


async def grow(folder, most):
    """Yield (sessions so far, CPU of a frame of the last ones) as they grow, then close."""
    stores = await open_ingest_stores(folder)
    done = 0
    for step in steps(most):
        frames, cpu = 0, 0.0
        while done < step:
            count = min(BATCH, step - done)
            frames += await append(stores["bus"], done, count)
            cpu += await seal(stores)
            done += count
        yield done, cpu / frames * 1e6
    for store in stores.values():
        await store.close()


def steps(most):
    """1,000, then three a decade up to `most`."""
    step, found = 1000, []
    while step < most:
        found += [n for n in (step, 2 * step, 5 * step) if n < most]
        step *= 10
    return [*found, most]


async def index_all(folder):
    """Make the index of what is sealed; returns its bytes and the CPU of a session."""
    stores = await open_ingest_stores(folder)
    index = await open_index("sqlite:index.db", folder)
    began = time.process_time()
    await rebuild(IndexerStores(**stores, index=index), reader("indexer"))
    cpu = time.process_time() - began
    await index.close()
    for store in stores.values():
        await store.close()
    return bytes_below(folder / "index.db"), cpu


def plot(points, path):
    """An SVG of CPU a frame over sessions, both axes from what was measured."""
    import math

    width, height, left, bottom = 640, 260, 60, 40
    most = max(cpu for _, cpu in points) * 1.25
    low, high = math.log10(points[0][0]), math.log10(points[-1][0])

    def at(sessions, cpu):
        x = left + (math.log10(sessions) - low) / (high - low) * (width - left - 20)
        return f"{x:.1f},{height - bottom - cpu / most * (height - bottom - 20):.1f}"

    places = [at(*point) for point in points]
    dots = "".join(
        f'<circle cx="{place.partition(",")[0]}" cy="{place.partition(",")[2]}" r="3"/>'
        for place in places
    )
    marks = "".join(
        f'<text x="{at(10**n, 0).partition(",")[0]}" y="{height - 20}" text-anchor="middle">'
        f"{10**n:,}</text>"
        for n in range(math.ceil(low), math.floor(high) + 1)
    )
    scale = "".join(
        f'<text x="{left - 8}" y="{at(points[0][0], most * part).partition(",")[2]}" '
        f'text-anchor="end">{most * part:.0f}</text>'
        for part in (0, 0.4, 0.8)
    )
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{height}" fill="white"/>'
        f'<path d="M{left},20V{height - bottom}H{width - 20}" fill="none" stroke="#999"/>'
        f'<polyline points="{" ".join(places)}" fill="none" stroke="#06c" stroke-width="2"/>'
        f'<g fill="#06c">{dots}</g>{marks}{scale}'
        f'<text x="{width / 2}" y="{height - 4}" text-anchor="middle">sessions sealed</text>'
        f'<text x="{left}" y="14">CPU µs a frame of the last sessions</text></svg>\n'
    )


def test_growth(effort, publish, request, tmp_path):
    _, seconds = effort(1, 9)
    most = int(os.environ.get("SEALTAPE_BENCH_SESSIONS", "100000")) if seconds == 9 else 2000
    table = Table(
        "What a session of five frames takes",
        ("sessions", "ledger, bytes each", "vault", "keyring", "sealing, CPU µs a frame"),
    )
    points = []

    async def run():
        async for count, cpu in grow(tmp_path, most):
            points.append((count, cpu))
            table.row(
                figure(count),
                *(
                    figure(bytes_below(Path(tmp_path, name)) / count)
                    for name in ("ledger.db", "vault", "keyring.db")
                ),
                figure(cpu),
            )
        return await index_all(tmp_path)

    size, cpu = asyncio.run(run())
    table.notes.append(
        f"the index, with one command of each session: {size / most:,.0f} bytes a session, "
        f"made anew in {cpu:,.0f} s of CPU"
    )
    first, last = points[0][1], points[-1][1]
    table.goal(
        "CPU of a frame at the end, × that at the beginning", last / first, 1.5, at_most=True
    )
    publish("growth", table)
    if request.config.getoption("--write"):
        plot(points, DOCUMENT.with_name("growth.svg"))
