import asyncio
import json
import math
from dataclasses import replace

from sealtape.capture.bus import open_bus
from sealtape.capture.metrics import Histogram
from sealtape.capture.metrics.vitals import written
from sealtape.ingest.findings import REASONS
from sealtape.ingest.metrics import MEASURES, IngestVitals
from sealtape.ingest.node import serve
from sealtape.ingest.snapshot import SEALED_S, IngestSnapshot, PartitionSnapshot
from sealtape.ingest.tlog.worker import LogSnapshot
from sealtape.schemas.errors import StoreBusy
from tests.capture.metrics.http import get, samples
from tests.factories.deployments import make_site
from tests.factories.rooms import room
from tests.servers.postgres import free_port

NOW_MS = 1_000_000_000_000


def part(partition, topic="sealtape.frames@0123", **values):
    known = {
        "topic": topic, "partition": partition, "term": 3, "position": 10, "read_to": 20,
        "end": 25, "oldest_ms": None, "retention_half": False,
        "retention_s": 100.0,
    }  # fmt: skip
    return PartitionSnapshot(**{**known, **values})


def snapshot(**values):
    sealed = Histogram(SEALED_S)
    sealed.observe(3.0, 2)
    known = {
        "worker": "w1", "workers": ("w1", "w2"), "beaten_s": 1.5, "partitions": (part(0),),
        "claiming": (("sealtape.frames@0123", 1),), "segments": 4, "frames": 100, "bytes": 5000,
        "duplicates": 2, "quarantined": 1, "incidents": {"gap": 3, "new-reason": 1}, "fenced": 1,
        "failures": 7, "sealed_s": sealed,
    }  # fmt: skip
    return IngestSnapshot(**{**known, **values})


def vitals(found, **options):
    told = IngestVitals(node="n1", lease_s=15, clock_ms=lambda: NOW_MS)
    topics = ("sealtape.keys@4567", "sealtape.frames@0123")
    told.attach(lambda: found, topics=topics, partitions=2, **options)
    return told


async def scraped(told):
    found = samples(written(await told.families()).decode())
    return {name: value for name, value in found.items() if name[0].startswith("sealtape_ingest")}


def value(found, name, **labels):
    return found.get((f"sealtape_ingest_{name}", *sorted(labels.items())))


async def test_a_snapshot_is_written_down():
    parts = (part(0, oldest_ms=NOW_MS - 25_000), part(1), part(0, "sealtape.keys@4567", end=10))
    relayed = 9, (NOW_MS - 4000) * 10**6
    found = await scraped(vitals(snapshot(partitions=parts), relayed=lambda: relayed))
    frames = {"topic": "sealtape.frames", "partition": "0"}
    assert value(found, "lag", **frames) == 15
    assert value(found, "oldest_unsealed_seconds", **frames) == 25
    assert value(found, "retention_used_ratio", **frames) == 0.25
    assert value(found, "oldest_unsealed_seconds", **frames | {"partition": "1"}) == 0
    assert value(found, "lag", topic="sealtape.keys", partition="0") == 0
    assert value(found, "partitions_held", topic="sealtape.frames") == 2
    assert value(found, "partitions_held", topic="sealtape.keys") == 1
    assert value(found, "partitions") == 2
    assert value(found, "partitions_claiming") == 1
    assert value(found, "workers_live") == 2
    assert value(found, "events_oldest_seconds") == 4
    assert value(found, "heartbeat_age_seconds") == 1.5
    for name, expected in {
        "segments": 4, "frames": 100, "bytes": 5000, "duplicates": 2, "quarantined": 1,
        "fenced": 1, "failures": 7, "gaps": 3, "events_relayed": 9,
    }.items():  # fmt: skip
        assert value(found, f"{name}_total") == expected
    assert value(found, "seal_seconds_count") == 2
    assert value(found, "seal_seconds_bucket", le="5.0") == 2


async def test_events_that_do_not_wait_have_no_age():
    for oldest_ns in (None, (NOW_MS + 5000) * 10**6):
        found = await scraped(vitals(snapshot(), relayed=lambda oldest=oldest_ns: (9, oldest)))
        assert value(found, "events_oldest_seconds") == 0


async def test_what_is_pending_is_told_by_whoever_writes_the_log():
    now = LogSnapshot(held=True, number=1, size=40, signed=38, witnessed=30)
    found = await scraped(vitals(snapshot(), log=lambda: now))
    assert value(found, "log_pending") == 10
    assert value(found, "log_pending_seals") == 0
    assert value(found, "log_oldest_pending_seconds") == 0
    now = replace(now, pending=3, pending_s=12.5)
    found = await scraped(vitals(snapshot(), log=lambda: now))
    assert value(found, "log_pending_seals") == 3
    assert value(found, "log_oldest_pending_seconds") == 12.5
    now = LogSnapshot()
    found = await scraped(vitals(snapshot(), log=lambda: now))
    assert value(found, "log_held") == 0
    assert value(found, "log_pending_seals") is None


async def test_every_reason_is_there_before_it_happens():
    found = await scraped(vitals(snapshot()))
    reasons = {dict(name[1:])["reason"] for name in found if name[0].endswith("incidents_total")}
    assert reasons == REASONS.keys() | {"new-reason"}
    assert value(found, "incidents_total", reason="gap") == 3
    assert value(found, "incidents_total", reason="conflict") == 0


async def test_a_topic_of_which_nothing_is_held_says_so():
    found = await scraped(vitals(snapshot(partitions=())))
    assert value(found, "partitions_held", topic="sealtape.frames") == 0


async def test_a_clock_behind_the_bus_makes_no_negative_age():
    found = await scraped(vitals(snapshot(partitions=(part(0, oldest_ms=NOW_MS + 5000),))))
    assert value(found, "oldest_unsealed_seconds", topic="sealtape.frames", partition="0") == 0


async def test_a_bus_that_keeps_everything_has_no_retention_to_use():
    told = vitals(snapshot(partitions=(part(0, retention_s=None),)))
    assert not [name for name in await scraped(told) if "retention" in name[0]]


async def test_ready_is_who_hears_from_the_ledger():
    told = IngestVitals(node="n1", lease_s=15)
    assert not (await told.readiness()).ready
    assert await scraped(told) == {}
    for beaten_s, ready in ((0.1, True), (14.9, True), (15.1, False), (math.inf, False)):
        assert (await vitals(snapshot(beaten_s=beaten_s)).readiness()).ready == ready
    spare = await vitals(snapshot(partitions=(), claiming=())).readiness()
    assert spare.ready
    assert spare.checks["partitions"] == "0 held, 0 claiming, 2 workers"


async def test_a_store_that_does_not_answer_makes_it_not_ready(monkeypatch):
    async def fine():
        return 1

    async def away():
        raise StoreBusy("the broker at 10.0.0.1 is away", retry_after_s=1)

    async def hangs():
        await asyncio.sleep(60)

    monkeypatch.setattr("sealtape.capture.metrics.vitals.PROBE_S", 0.1)
    for probe, how in ((fine, "ok"), (away, "failing: store-busy"), (hangs, "failing: no answer")):
        readiness = await vitals(snapshot(), probes={"bus": probe}).readiness()
        assert readiness.ready == (how == "ok")
        assert readiness.checks["bus"] == how


def test_every_metric_says_what_it_is():
    assert len({each.name for each in MEASURES}) == len(MEASURES)
    assert all(each.doc.endswith(".") for each in MEASURES)


async def test_a_worker_tells_while_it_seals(tmp_path):
    site = make_site(tmp_path / "site")
    address = f"127.0.0.1:{free_port()}"
    settings = replace(site.settings, ingest=replace(site.settings.ingest, metrics=address))
    built = site.session()
    bus = open_bus(settings.stores.bus, site.folder)
    await bus.append(bus.partition_of(built.session), built.encoded())
    await bus.close()
    async with room(serve, settings) as ask:
        sealed = await ask(address, "/metrics", lambda it: value(it.samples(), "segments_total"))
        found = sealed.samples()
        assert value(found, "frames_total") == len(built.frames)
        assert value(found, "seal_seconds_count") >= 1
        assert value(found, "partitions_held", topic=settings.stores.bus.partition("?")[0]) in (
            1,
            None,
        )
        answer = await get(address, "/readyz")
        assert (answer.status, json.loads(answer.body)["ready"]) == (200, True)


async def test_a_worker_whose_vault_refuses_it_is_not_ready(tmp_path):
    """Also when there is nothing to seal yet."""
    site = make_site(tmp_path / "site")
    address = f"127.0.0.1:{free_port()}"
    (site.folder / "vault").write_text("where the vault wants a folder")
    settings = replace(site.settings, ingest=replace(site.settings.ingest, metrics=address))
    async with room(serve, settings) as ask:
        answer = await ask(address, "/readyz", lambda it: "vault" in json.loads(it.body)["checks"])
        checks = json.loads(answer.body)["checks"]
        assert (answer.status, checks["vault"]) == (503, "failing: store")
        assert checks["bus"] == "ok"
