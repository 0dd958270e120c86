"""Who rules the broker between the nodes and ingest, and deletes what ingest has not read."""

from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from sealtape.ingest.node import open_stores
from tests.factories.deployments import make_site, put, seal
from tests.factories.kafka_topics import admin_of, new_topic, topic_of
from tests.factories.logs import grow_log
from tests.stories.deployed import judged, looked


@pytest.fixture
async def brokered(tmp_path, kafka_server):
    """A deployment whose bus is a topic of one partition, and who rules it."""
    site = make_site(tmp_path / "site")
    url = await new_topic(kafka_server.bootstrap)
    text = site.config.read_text()
    site.config.write_text(text.replace("dir:bus?partitions=1", url))

    async def send(pairs):
        """Put messages there that ingest is to read later."""
        stores = await open_stores(site.settings)
        await put(stores.bus, pairs)
        for store in (stores.bus, stores.keyring, stores.vault, stores.ledger):
            await store.close()

    async def drop():
        """Delete all that is there now, as `kafka-delete-records` and a short retention do."""
        place = TopicPartition(topic_of(url), 0)
        async with admin_of(kafka_server.bootstrap) as admin:
            await admin.delete_records({place: RecordsToDelete(before_offset=-1)})

    return SimpleNamespace(site=site, send=send, drop=drop)


async def test_he_drops_the_tail_of_a_session(brokered):
    site = brokered.site
    first, second = site.session(number=1, commands=4), site.session(number=2)
    pairs = first.encoded()
    await seal(site, pairs=pairs[:-4])
    await brokered.send(pairs[-4:])
    await brokered.drop()
    await seal(site, [second])
    await grow_log(site)
    report = await judged(site)
    assert report.verdict == "incomplete"
    assert first.session.hex() in {finding.session for finding in report.findings}
    assert second.session.hex() not in {finding.session for finding in report.findings}
    assert "bus_lost" in " ".join(finding.reason for finding in report.findings)


async def test_he_drops_a_session(brokered):
    """That something was deleted shows at once; whose number is missing, a little later."""
    site = brokered.site
    first, second, third = (site.session(number=number) for number in (1, 2, 3))
    await seal(site, [first])
    await brokered.send(second.encoded())
    await brokered.drop()
    await seal(site, [third])
    await grow_log(site)
    await looked(site)
    report = await judged(site)
    assert report.verdict == "incomplete"
    reasons = " ".join(finding.reason for finding in report.findings)
    assert "bus_lost" in reasons
    assert "session_missing" in reasons
