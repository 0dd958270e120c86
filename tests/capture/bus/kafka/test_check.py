import pytest

from sealtape.capture.bus import check_bus
from sealtape.capture.bus.kafka.brokers import Description, Partition
from sealtape.capture.bus.kafka.check import _check_permissions, _check_replicas
from sealtape.capture.bus.kafka.url import parse_kafka_url
from tests.factories.kafka_topics import BASE, foreign_topic, kafka_url, new_topic
from tests.servers.process import free_port

THREE = parse_kafka_url("kafka://h/t?partitions=2", BASE)


def by_name(checks):
    return {check.name: (check.level, check.message) for check in checks}


async def test_a_topic_of_ours_is_in_order(kafka_server):
    checks = await check_bus(await new_topic(kafka_server.bootstrap), BASE)
    found = by_name(checks)
    assert list(found) == [
        "bus: brokers",
        "bus: topic",
        "bus: replicas",
        "bus: topic settings",
        "bus: permissions",
    ]
    assert {level for level, _ in found.values()} == {"ok", "warning"}
    assert "one copy" in found["bus: replicas"][1]
    assert "read, write" in found["bus: permissions"][1]


async def test_a_topic_that_is_not_there_is_an_error(kafka_server):
    checks = await check_bus(kafka_url(kafka_server.bootstrap), BASE)
    assert by_name(checks)["bus: topic"][0] == "error"
    assert "sealtape setup" in checks[-1].hint


async def test_every_difference_is_named_with_what_to_do(kafka_server):
    url = kafka_url(kafka_server.bootstrap, partitions=2)
    await foreign_topic(kafka_server.bootstrap, url, cleanup_policy="compact", retention_bytes=1000)
    url = url.replace("partitions=2", "partitions=3")
    checks = await check_bus(url, BASE)
    assert by_name(checks)["bus: topic"] == (
        "error",
        f"{parse_kafka_url(url, BASE).topic} has 2 partitions, not 3.",
    )
    settings = [check for check in checks if check.name == "bus: topic settings"]
    names = {check.message.split()[0]: check.level for check in settings}
    assert names["cleanup.policy"] == names["retention.bytes"] == "error"
    assert names["max.message.bytes"] == "error"
    assert all("kafka-configs.sh" in check.hint for check in settings)


async def test_brokers_that_do_not_answer_are_named(kafka_server):
    away = f"127.0.0.1:{free_port()}"
    checks = await check_bus(kafka_url(away), BASE)
    assert [(check.name, check.level) for check in checks] == [("bus: brokers", "error")]
    assert away in checks[0].message
    url = await new_topic(kafka_server.bootstrap)
    checks = await check_bus(url.replace("//", f"//{away},"), BASE)
    assert by_name(checks)["bus: brokers"][0] == "warning"
    assert by_name(checks)["bus: topic"][0] == "ok"


async def test_a_listener_that_leads_nowhere_is_an_error(kafka_behind, line):
    """The address in the URL works; the one that the broker tells everybody does not."""
    url = await new_topic(kafka_behind.server.bootstrap)
    line.cut()
    (first, *_) = await check_bus(url, BASE)
    assert (first.name, first.level) == ("bus: brokers", "error")
    assert kafka_behind.proxy.address in first.message
    assert "advertised" in first.hint


async def test_a_url_that_means_nothing_is_an_error():
    (check,) = await check_bus("kafka://h/t?colour=red", BASE)
    assert check.level == "error"


def described(*partitions, operations=None):
    return Description({1: ("h", 1)}, 1, 0, bytes(16), partitions, operations)


@pytest.mark.parametrize(
    ("partitions", "level", "words"),
    [
        ([Partition(0, 1, (1, 2, 3), (1, 2, 3))], "ok", "in sync"),
        ([Partition(0, 1, (1, 2), (1, 2))], "error", "fewer than 3 replicas"),
        ([Partition(0, -1, (1, 2, 3), (1, 2))], "error", "no leader"),
        ([Partition(0, 1, (1, 2, 3), (1,))], "error", "fewer than 2 in sync"),
        ([Partition(0, 1, (1, 2, 3), (1, 2))], "warning", "not in sync"),
    ],
)
def test_replicas(partitions, level, words):
    checks = _check_replicas(THREE, described(*partitions))
    assert checks[0].level == level
    assert words in checks[0].message


def test_a_minimum_that_stops_all_with_one_broker_is_a_warning():
    url = parse_kafka_url("kafka://h/t?replicas=2&min_isr=2", BASE)
    (check,) = _check_replicas(url, described(Partition(0, 1, (1, 2), (1, 2))))
    assert check.level == "warning"


@pytest.mark.parametrize(
    ("operations", "needs", "level"),
    [
        (None, ["write"], "ok"),
        (frozenset({"read", "describe"}), [], "ok"),
        (frozenset({"write"}), [], "ok"),
        (frozenset({"describe"}), [], "error"),
        (frozenset(), [], "error"),
        (frozenset({"read", "describe"}), ["read"], "ok"),
        (frozenset({"read", "describe"}), ["write"], "error"),
        (frozenset({"write"}), ["read", "write"], "error"),
    ],
)
def test_permissions(operations, needs, level):
    assert _check_permissions(THREE, described(operations=operations), needs).level == level
