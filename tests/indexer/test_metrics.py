import json
import math
from dataclasses import replace

from sealtape.capture.metrics import Histogram
from sealtape.capture.metrics.vitals import written
from sealtape.indexer.metrics import MEASURES, IndexerVitals
from sealtape.indexer.node import serve
from sealtape.indexer.snapshot import FOUND_S, IndexerSnapshot, LaneSnapshot, Tally
from sealtape.schemas.errors import StoreBusy
from tests.capture.metrics.http import get, samples
from tests.factories.deployments import make_site, seal
from tests.factories.rooms import room
from tests.servers.postgres import free_port

NOW_MS = 1_000_000_000_000
TALLY = {
    "frames": 10, "commands": 9, "segments": 8, "destroyed": 7, "unreadable": 6, "malformed": 5,
    "early": 4, "unanswered": 3, "restarted": 2,
}  # fmt: skip


def lane(partition, **values):
    known = {
        "topic": "frames@0123", "partition": partition, "term": 1, "position": 90, "end": 100,
        "segments": 4, "published": 6, "oldest_ms": None,
    }  # fmt: skip
    return LaneSnapshot(**{**known, **values})


def snapshot(**values):
    found = Histogram(FOUND_S)
    found.observe(0.4, 3)
    known = {
        "worker": "x1", "workers": ("x1", "x2", "x3"), "beaten_s": 0.5, "lanes": (lane(0),),
        "claiming": (1, 2), "tally": Tally(**TALLY), "fenced": 1, "failures": 11, "found_s": found,
    }  # fmt: skip
    return IndexerSnapshot(**{**known, **values})


def vitals(found, **options):
    told = IndexerVitals(node="n1", lease_s=15, clock_ms=lambda: NOW_MS)
    told.attach(lambda: found, partitions=4, **options)
    return told


async def scraped(told):
    found = samples(written(await told.families()).decode())
    return {name: value for name, value in found.items() if name[0].startswith("sealtape_indexer")}


def value(found, name, **labels):
    return found.get((f"sealtape_indexer_{name}", *sorted(labels.items())))


async def test_a_snapshot_is_written_down():
    lanes = (lane(0, oldest_ms=NOW_MS - 2500), lane(3, oldest_ms=NOW_MS + 9, published=1))
    found = await scraped(vitals(snapshot(lanes=lanes), sent=lambda: 77))
    assert value(found, "lag", partition="0") == 10
    assert value(found, "segments_behind", partition="0") == 2
    assert value(found, "segments_behind", partition="3") == 0
    assert value(found, "oldest_unindexed_seconds", partition="0") == 2.5
    assert value(found, "oldest_unindexed_seconds", partition="3") == 0
    for name, expected in {**TALLY, "fenced": 1, "failures": 11, "events_sent": 77}.items():
        assert value(found, f"{name}_total") == expected
    assert value(found, "partitions") == 4
    assert value(found, "partitions_held") == 2
    assert value(found, "partitions_claiming") == 2
    assert value(found, "workers_live") == 3
    assert value(found, "heartbeat_age_seconds") == 0.5
    assert value(found, "searchable_seconds_bucket", le="0.5") == 3


async def test_ready_is_who_hears_from_ledger_and_index():
    async def away():
        raise StoreBusy("no", retry_after_s=1)

    told = IndexerVitals(node="n1", lease_s=15)
    assert not (await told.readiness()).ready
    assert await scraped(told) == {}
    assert (await vitals(snapshot()).readiness()).ready
    assert not (await vitals(snapshot(beaten_s=math.inf)).readiness()).ready
    readiness = await vitals(snapshot(), probes={"index": away}).readiness()
    assert not readiness.ready
    assert readiness.checks["index"] == "failing: store-busy"


def test_every_metric_says_what_it_is():
    assert len({each.name for each in MEASURES}) == len(MEASURES)
    assert all(each.doc.endswith(".") for each in MEASURES)


async def test_an_indexer_tells_while_it_indexes(tmp_path):
    site = make_site(tmp_path / "site")
    built = site.session(commands=5)
    await seal(site, [built])
    address = f"127.0.0.1:{free_port()}"
    settings = replace(site.settings, indexer=replace(site.settings.indexer, metrics=address))
    async with room(serve, settings) as ask:
        indexed = await ask(address, "/metrics", lambda it: value(it.samples(), "segments_total"))
        found = indexed.samples()
        assert value(found, "commands_total") == 5
        assert value(found, "events_sent_total") >= 7  # the session's beginning and end, statements
        assert value(found, "unreadable_total") == 0
        answer = await get(address, "/readyz")
        checks = json.loads(answer.body)["checks"]
        assert (answer.status, checks["bus"], checks["index"]) == (200, "ok", "ok")
