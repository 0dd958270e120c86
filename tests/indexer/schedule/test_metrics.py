"""What scheduled verification tells about itself."""

import asyncio

from sealtape.capture.metrics.vitals import written
from sealtape.indexer.schedule.metrics import MEASURES, ScheduleVitals
from sealtape.indexer.schedule.serving import start_schedule
from tests.capture.metrics.http import samples
from tests.factories.webhooks import webhook
from tests.indexer.schedule.conftest import objects_of
from tests.indexer.schedule.test_serving import damage, settings_of, trust_of


async def told(vitals):
    return samples(written(await vitals.families()).decode())


async def test_before_it_has_looked(site):
    vitals = ScheduleVitals("node-1")
    found = await told(vitals)
    build = ("sealtape_build_info", ("node", "node-1"), ("room", "verify"))
    assert [key for key in found if key[:3] == build]
    assert not (await vitals.readiness()).ready


async def test_everything_that_it_tells(site):
    damage(site)
    vitals = ScheduleVitals("node-1")
    async with webhook() as hook:
        settings = settings_of(site, webhook=hook.url, every_s=0.05)
        running = await start_schedule(settings, **trust_of(site))
        vitals.attach(running)
        try:
            async with asyncio.timeout(60):
                while not running.sender.sent or running.rounds.coverage.unverified:
                    await asyncio.sleep(0.02)
                assert (await vitals.readiness()).ready
                await hook.until(running.rounds.standing["tampered"])
            text = written(await vitals.families()).decode()
            found = await told(vitals)
        finally:
            await running.stop()
    for each in MEASURES:
        assert f"# TYPE {each.name} " in text
    value = {key[0]: number for key, number in found.items() if len(key) == 1}
    assert value["sealtape_verify_share"] == 1
    assert value["sealtape_verify_objects"] == len(objects_of(site))
    assert value["sealtape_verify_read_objects_total"] == len(objects_of(site))
    assert value["sealtape_verify_read_bytes_total"] > 0
    assert value["sealtape_verify_unverified_objects"] == 0
    assert 0 <= value["sealtape_verify_oldest_seconds"] < 60
    assert value["sealtape_verify_passes_total"] == 1
    assert found["sealtape_verify_findings", ("verdict", "tampered")] > 0
    assert found["sealtape_verify_found_total", ("verdict", "tampered")] > 0
    assert found["sealtape_verify_findings", ("verdict", "incomplete")] == 0
