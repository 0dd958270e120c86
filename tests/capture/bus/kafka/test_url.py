from pathlib import Path

import pytest

from sealtape.capture.bus.kafka.url import parse_kafka_url
from sealtape.schemas.errors import SettingsError

BASE = Path("/etc/sealtape")
SCRAM = "kafka://ada@h/t?sasl=scram-sha-512&password_file=p"
OAUTH = "kafka://h/t?sasl=oauthbearer"
CLIENT = "&token_url=https://idp/token&client_id=c&client_secret_file=s"


def test_defaults_are_those_of_production():
    url = parse_kafka_url("kafka://a:9093,b,[::1]:9094/sealtape.frames", BASE)
    assert url.hosts == (("a", 9093), ("b", 9092), ("::1", 9094))
    assert (url.topic, url.partitions, url.replicas, url.min_isr) == ("sealtape.frames", 12, 3, 2)
    assert url.retention_s == 7 * 86400
    assert (url.compression, url.timeout_s, url.sasl) == ("none", 30.0, "")
    assert url.attempt_s == 10.0


def test_everything_can_be_said():
    url = parse_kafka_url(
        "kafka://a/t?partitions=3&replicas=5&min_isr=3&retention=0s&compression=zstd&timeout=6s",
        BASE,
    )
    assert (url.partitions, url.replicas, url.min_isr) == (3, 5, 3)
    assert (url.retention_s, url.compression, url.timeout_s) == (None, "zstd", 6.0)
    assert parse_kafka_url("kafka://a/t?replicas=1", BASE).min_isr == 1


@pytest.mark.parametrize(
    "url",
    [
        "kafka:///t",
        "kafka://h",
        "kafka://h/a/b",
        "kafka://h/..",
        "kafka://h/" + "t" * 201,
        "kafka://h/t%20t",
        "kafka://h/t?partitions=0",
        "kafka://h/t?partitions=1025",
        "kafka://h/t?replicas=2&min_isr=3",
        "kafka://h/t?timeout=0s",
        "kafka://h/t?retention=long",
        "kafka://h/t?compression=gzip",
        "kafka://h/t?colour=red",
        "kafka://h/t?sasl=kerberos",
        # a login that lacks a part, or has one too many
        "kafka://ada@h/t",
        "kafka://h/t?password_file=p",
        "kafka://ada@h/t?sasl=scram-sha-512",
        "kafka://h/t?sasl=scram-sha-256&password_file=p",
        "kafka://h/t?token_file=t",
        "kafka://ada@h/t?sasl=oauthbearer&token_file=t",
        OAUTH,
        OAUTH + "&token_file=t&client_id=c",
        OAUTH + "&token_url=https://idp/token&client_id=c",
        OAUTH + "&token_url=https://idp/token&client_secret_file=s",
        OAUTH + CLIENT + "&client_secret_env=S",
        # secrets that anybody on the way can read
        OAUTH + CLIENT.replace("https", "http"),
        OAUTH + "&token_file=t&tls=disable",
        "kafka://ada@h/t?sasl=plain&password_file=p&tls=disable",
        "kafka://ada@127.0.0.1,h/t?sasl=plain&password_file=p&tls=disable",
    ],
)
def test_what_makes_no_sense_is_a_settings_error(url):
    with pytest.raises(SettingsError) as caught:
        parse_kafka_url(url, BASE)
    assert caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        SCRAM,
        SCRAM + "&tls=disable",  # the password itself is never sent
        SCRAM.replace("512", "256").replace("password_file", "password_env"),
        "kafka://ada@h/t?sasl=plain&password_file=p",
        "kafka://ada@127.0.0.1,[::1],localhost/t?sasl=plain&password_file=p&tls=disable",
        OAUTH + "&token_file=t",
        OAUTH + CLIENT + "&scope=kafka&token_ca=ca.pem",
        OAUTH + CLIENT.replace("secret_file", "secret_env"),
        "kafka://h/t?ca=ca.pem&cert=c.pem&key=k.pem",
    ],
)
def test_ways_to_log_in(url):
    assert parse_kafka_url(url, BASE).base == BASE
