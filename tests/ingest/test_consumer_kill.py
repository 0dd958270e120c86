"""`kill -9` of a real ingest process at each step: same roots, no loss, nothing twice."""

import asyncio
import signal
import sys
from hashlib import sha256
from pathlib import Path

from sealtape.ingest.collector import Collector
from sealtape.ingest.parquet import read_rows
from sealtape.schemas.layout import manifest_key
from sealtape.schemas.segments import FIRST_PREV, parse_manifest, record_hash
from sealtape.schemas.tree import CompactRange
from tests.factories.ingest_driver import open_ingest_stores
from tests.factories.sessions import build_session

ROOT = Path(__file__).parents[2]
STEPS = [
    f"{call}:{when}"
    for call in (
        "keyring.put#2",
        "ledger.stage#1",
        "vault.put_new#1",
        "vault.put_new#2",
        "ledger.publish#1",
        "bus.mark#1",
    )
    for when in ("before", "after")
]


async def run_driver(folder, step=""):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.factories.ingest_driver", str(folder), step, cwd=ROOT
    )
    return await process.wait()


async def sealed_leaves(stores):
    """Every sealed leaf by name; objects, manifests and the chain are checked on the way."""
    head, n, leaves = FIRST_PREV, 0, {}
    async for segment in stores["ledger"].segments():
        record = segment.record
        assert (record.n, record.prev) == (n, head)
        n, head = n + 1, record_hash(record)
        data = await stores["vault"].get(segment.key)
        assert sha256(data).digest() == record.sha256
        manifest, _ = parse_manifest(await stores["vault"].get(manifest_key(segment.key)))
        assert manifest == record
        for _, row in read_rows(data):
            assert (row.session, row.seq) not in leaves, "sealed twice"
            leaves[row.session, row.seq] = row.leaf
    return leaves


async def test_every_step_may_be_the_last(tmp_path):
    built = []
    for number, step in enumerate(STEPS):
        session = build_session(seed=f"kill {number}", commands=number + 1)
        stores = await open_ingest_stores(tmp_path)
        await stores["bus"].append(0, session.encoded())
        for store in stores.values():
            await store.close()
        built.append(session)
        assert await run_driver(tmp_path, step) == -signal.SIGKILL, step
    assert await run_driver(tmp_path) == 0

    stores = await open_ingest_stores(tmp_path)
    ledger = stores["ledger"]
    leaves = await sealed_leaves(stores)
    assert leaves == {(s.session, f.seq): f.leaf() for s in built for f in s.frames}
    for session in built:
        merged = CompactRange()
        for fragment in await ledger.fragments(session.session):
            merged.extend(fragment.record.range)
        assert merged.root() == session.tree.root()
        row = await ledger.session(session.session)
        assert (row.state, row.frames, row.revision) == ("sealed", len(session.frames), 1)
        assert len(await stores["keyring"].get(session.session, 0, "facts")) == 2
    assert await ledger.incidents() == []
    topic = stores["bus"].topic
    assert await ledger.position(topic, 0) == (await stores["bus"].bounds(0))[1]
    events = [event.kind for event in await ledger.outbox()]
    assert events.count("session-open") == events.count("session-sealed") == len(built)

    await Collector(ledger, stores["vault"]).collect(0.0)
    named = {row.key async for row in ledger.segments()}
    named |= {manifest_key(key) for key in named}
    assert {key async for key in stores["vault"].keys("")} == named
    for store in stores.values():
        await store.close()
