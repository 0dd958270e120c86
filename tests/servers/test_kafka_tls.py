import gc
import secrets
import ssl
import warnings
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.abc import AbstractTokenProvider
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAuthorizationFailedError


class _Token(AbstractTokenProvider):
    def __init__(self, token):
        self._token = token

    async def token(self):
        return self._token


def _scram(server, user, password=None):
    return {
        "bootstrap_servers": server.scram,
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": user,
        "sasl_plain_password": password or server.passwords[user],
        "ssl_context": ssl.create_default_context(cafile=server.ca),
    }


def _mtls(server, user):
    context = ssl.create_default_context(cafile=server.ca)
    if user:
        context.load_cert_chain(*server.certificate(user))
    return {"bootstrap_servers": server.mtls, "security_protocol": "SSL", "ssl_context": context}


def _oauth(server, token):
    return {
        "bootstrap_servers": server.oauth,
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "OAUTHBEARER",
        "sasl_oauth_token_provider": _Token(token),
        "ssl_context": ssl.create_default_context(cafile=server.ca),
    }


@pytest.fixture
async def topic(kafka_tls_server):
    name = f"t-{secrets.token_hex(4)}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_tls_server.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()
    return name


async def _send(settings, topic):
    producer = AIOKafkaProducer(**settings, acks="all", request_timeout_ms=5000)
    try:
        await producer.start()
        await producer.send_and_wait(topic, b"x")
    finally:
        await producer.stop()


async def test_users_by_password(kafka_tls_server, topic):
    await _send(_scram(kafka_tls_server, "capture"), topic)


async def test_users_by_certificate(kafka_tls_server, topic):
    await _send(_mtls(kafka_tls_server, "capture"), topic)


async def test_users_by_token(kafka_tls_server, topic):
    await _send(_oauth(kafka_tls_server, kafka_tls_server.token("capture")), topic)


@pytest.fixture
def refusal():
    """aiokafka forgets to close the socket of a connection that was refused."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


async def test_a_wrong_password_is_refused(refusal, kafka_tls_server, topic):
    with pytest.raises(KafkaError):
        await _send(_scram(kafka_tls_server, "capture", "wrong"), topic)


async def test_a_client_without_a_certificate_is_refused(refusal, kafka_tls_server, topic):
    with pytest.raises(KafkaConnectionError):
        await _send(_mtls(kafka_tls_server, None), topic)


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another"},
        {"iss": "https://elsewhere.test"},
        {"exp": int(datetime(2020, 1, 1, tzinfo=UTC).timestamp())},
    ],
    ids=["audience", "issuer", "expired"],
)
async def test_a_token_that_is_not_for_it_is_refused(refusal, kafka_tls_server, topic, claims):
    with pytest.raises(KafkaError):
        await _send(_oauth(kafka_tls_server, kafka_tls_server.token("capture", **claims)), topic)


@pytest.mark.parametrize("door", ["scram", "mtls", "oauth"])
async def test_an_acl_opens_a_topic_to_one_user_by_each_door(kafka_tls_server, topic, door):
    doors = {
        "scram": lambda user: _scram(kafka_tls_server, user),
        "mtls": lambda user: _mtls(kafka_tls_server, user),
        "oauth": lambda user: _oauth(kafka_tls_server, kafka_tls_server.token(user)),
    }
    kafka_tls_server.allow("capture", "WRITE", topic)
    await _send(doors[door]("capture"), topic)
    with pytest.raises(TopicAuthorizationFailedError):
        await _send(doors[door]("stranger"), topic)
