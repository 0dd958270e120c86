from pathlib import Path

import pytest

from sealtape.capture.bus.kafka.url import parse_kafka_url
from sealtape.capture.bus.kafka.wanted import differences, wanted

WEEK = parse_kafka_url("kafka://h/t", Path("/"))
FOR_EVER = parse_kafka_url("kafka://h/t?retention=0s", Path("/"))


def test_a_topic_made_by_us_is_as_it_should_be():
    assert wanted(WEEK)["retention.ms"] == "604800000"
    assert wanted(FOR_EVER)["retention.ms"] == "-1"
    for url in (WEEK, FOR_EVER):
        assert differences(url, wanted(url)) == []


@pytest.mark.parametrize(
    ("name", "value", "level"),
    [
        ("cleanup.policy", "compact", "error"),
        ("cleanup.policy", "compact,delete", "error"),
        ("compression.type", "zstd", "warning"),
        ("max.message.bytes", "1048588", "error"),
        ("max.message.bytes", "99999999", None),
        ("message.timestamp.type", "CreateTime", "warning"),
        ("min.insync.replicas", "1", "error"),
        ("min.insync.replicas", "3", None),
        ("min.insync.replicas", "", "warning"),
        ("retention.bytes", "1073741824", "error"),
        ("retention.ms", "86400000", "error"),
        ("retention.ms", "2592000000", "warning"),
        ("retention.ms", "-1", "warning"),
        ("unclean.leader.election.enable", "true", "error"),
    ],
)
def test_what_differs_is_judged(name, value, level):
    found = differences(WEEK, {**wanted(WEEK), name: value})
    assert [kind for kind, _ in found] == ([] if level is None else [level])
    assert all(name in text for _, text in found)


def test_less_than_for_ever_is_an_error():
    assert differences(FOR_EVER, {**wanted(FOR_EVER), "retention.ms": "1"})[0][0] == "error"


def test_the_worst_comes_first():
    found = differences(
        WEEK, {**wanted(WEEK), "compression.type": "lz4", "cleanup.policy": "compact"}
    )
    assert [level for level, _ in found] == ["error", "warning"]
