import asyncio
import logging
import shutil

import pytest

from sealtape.capture.bus import check_bus, open_bus, prepare_bus
from sealtape.capture.bus.kafka import login
from sealtape.capture.bus.kafka.login import Tokens, connect
from sealtape.capture.bus.kafka.url import parse_kafka_url
from sealtape.schemas.errors import SettingsError, StoreBusy, StoreError
from tests.conformance.bus import read_all, values
from tests.factories.kafka_topics import BASE, kafka_url, new_topic, topic_of
from tests.factories.provider import scripted_provider
from tests.servers.process import free_port
from tests.servers.tls import Authority

TLS_PORT_WITHOUT_TLS = "was closed|does not answer|Kafka's protocol"


@pytest.fixture
async def topic(kafka_tls_server):
    return topic_of(await new_topic(kafka_tls_server.bootstrap))


def scram(server, topic, user="capture", **options):
    given = {
        "sasl": "scram-sha-512",
        "tls": "verify-full",
        "ca": server.ca,
        "password_file": server.password_file(user),
        "timeout": "12s",
        **options,
    }
    url = kafka_url(f"{user}@{server.scram}", topic, **given)
    return url if options.get("ca", "") is not None else url.replace("&ca=None", "")


def mtls(server, topic, user="capture", **options):
    chain, key = server.certificate(user)
    given = {"tls": "verify-full", "ca": server.ca, "cert": chain, "key": key, "timeout": "12s"}
    return kafka_url(server.mtls, topic, **{**given, **options})


def oauth(server, topic, **options):
    given = {"sasl": "oauthbearer", "tls": "verify-full", "ca": server.ca, "timeout": "12s"}
    return kafka_url(server.oauth, topic, **{**given, **options})


async def use(url):
    """Append and read."""
    bus = open_bus(url, BASE)
    try:
        await bus.append(0, [(b"k", b"let in")])
        return values(await read_all(bus))[-1]
    finally:
        await bus.close()


async def refused(url, match):
    """Try to start; return the error, which is not of the kind that passes by itself."""
    bus = open_bus(url, BASE)
    try:
        with pytest.raises(StoreError, match=match) as caught:
            await bus.start()
    finally:
        await bus.close()
    assert not isinstance(caught.value, StoreBusy)
    assert caught.value.hint
    checks = await check_bus(url, BASE)
    assert "error" in {check.level for check in checks}
    return str(caught.value) + str(checks)


# -- TLS -------------------------------------------------------------------------------------------


async def test_the_right_ca_and_password_let_in(kafka_tls_server, topic):
    assert await use(scram(kafka_tls_server, topic)) == b"let in"


async def test_a_name_in_the_certificate_counts(kafka_tls_server, topic):
    url = scram(kafka_tls_server, topic)
    assert await use(url.replace("127.0.0.1", "localhost")) == b"let in"


async def test_another_ca_is_refused(kafka_tls_server, topic, tmp_path):
    other = Authority(tmp_path)
    await refused(scram(kafka_tls_server, topic, ca=other.ca), "certificate is not valid")


async def test_the_systems_roots_are_taken_without_a_ca(kafka_tls_server, topic):
    await refused(scram(kafka_tls_server, topic, ca=None), "certificate is not valid")


async def test_a_name_that_is_not_in_the_certificate_is_refused(kafka_tls_server, topic, toxiproxy):
    proxy = toxiproxy.proxy(kafka_tls_server.scram, listen=f"127.0.0.2:{free_port()}")
    url = scram(kafka_tls_server, topic).replace(kafka_tls_server.scram, proxy.address)
    await refused(url, "127.0.0.2.*certificate is not valid")
    assert await use(url.replace("verify-full", "require")) == b"let in"
    proxy.close()


async def test_tls_may_be_encryption_only(kafka_tls_server, topic):
    assert await use(scram(kafka_tls_server, topic, ca=None, tls="require")) == b"let in"


async def test_plain_text_to_a_tls_listener_is_an_error(kafka_tls_server, topic):
    bus = open_bus(scram(kafka_tls_server, topic, tls="disable"), BASE)
    with pytest.raises(StoreError, match=TLS_PORT_WITHOUT_TLS):
        await bus.start()
    await bus.close()


async def test_tls_to_a_plain_listener_is_an_error(kafka_server):
    url = kafka_url(kafka_server.bootstrap, tls="verify-full", timeout="12s")
    bus = open_bus(url, BASE)
    with pytest.raises(StoreError, match=r"TLS fails|was closed|reset"):
        await bus.start()
    await bus.close()


async def test_files_that_are_not_there_are_named(kafka_tls_server, topic):
    for options in ({"ca": "/no/ca.pem"}, {"password_file": "/no/password"}):
        bus = open_bus(scram(kafka_tls_server, topic, **options), BASE)
        with pytest.raises(SettingsError):
            await bus.start()
        await bus.close()
        (check, *_) = await check_bus(scram(kafka_tls_server, topic, **options), BASE)
        assert check.level == "error"


# -- passwords and certificates --------------------------------------------------------------------


async def test_a_wrong_password_is_refused_and_not_told(kafka_tls_server, topic, tmp_path):
    wrong = tmp_path / "password"
    wrong.write_text("not-the-password-7f3a")
    text = await refused(scram(kafka_tls_server, topic, password_file=wrong), "is not accepted")
    assert "7f3a" not in text


async def test_a_user_nobody_knows_is_refused(kafka_tls_server, topic):
    url = scram(kafka_tls_server, topic).replace("capture@", "nobody@")
    await refused(url, "is not accepted")


async def test_a_way_in_that_is_not_offered_is_named(kafka_tls_server, topic):
    await refused(scram(kafka_tls_server, topic, sasl="scram-sha-256"), "does not offer")


async def test_a_password_that_is_changed_is_taken_by_the_next_connection(
    kafka_tls_server, topic, tmp_path
):
    secret = tmp_path / "password"
    secret.write_text("wrong yet")
    url = scram(kafka_tls_server, topic, password_file=secret)
    bus = open_bus(url, BASE)
    with pytest.raises(StoreError, match="not accepted"):
        await bus.start()
    shutil.copy(kafka_tls_server.password_file("capture"), secret)
    await bus.append(0, [(b"", b"let in")])
    await bus.close()


async def test_a_certificate_lets_in(kafka_tls_server, topic):
    assert await use(mtls(kafka_tls_server, topic)) == b"let in"


async def test_without_a_certificate_the_listener_refuses(kafka_tls_server, topic):
    url = kafka_url(
        kafka_tls_server.mtls, topic, tls="verify-full", ca=kafka_tls_server.ca, timeout="12s"
    )
    await refused(url, "TLS fails")


async def test_a_certificate_of_another_authority_is_refused(kafka_tls_server, topic, tmp_path):
    chain, key = Authority(tmp_path).client("capture")
    await refused(mtls(kafka_tls_server, topic, cert=chain, key=key), "TLS fails")


# -- tokens ----------------------------------------------------------------------------------------


def keep(tmp_path, text):
    path = tmp_path / "token"
    path.write_text(text + "\n")
    return path


async def test_a_token_file_lets_in_and_is_read_anew(kafka_tls_server, topic, tmp_path):
    path = keep(tmp_path, kafka_tls_server.token("capture", exp=1))
    url = oauth(kafka_tls_server, topic, token_file=path)
    bus = open_bus(url, BASE)
    with pytest.raises(StoreError, match="not accepted"):
        await bus.start()
    keep(tmp_path, kafka_tls_server.token("capture"))
    await bus.start()
    await bus.close()
    assert await use(url) == b"let in"


@pytest.mark.parametrize(
    "claims", [{"exp": 1}, {"aud": "another"}, {"iss": "https://other.test"}, {"sub": None}]
)
async def test_a_token_that_is_refused_says_so(kafka_tls_server, topic, tmp_path, claims):
    token = kafka_tls_server.token("capture", **claims)
    url = oauth(kafka_tls_server, topic, token_file=keep(tmp_path, token))
    assert token[-20:] not in await refused(url, "is not accepted")


async def test_a_token_file_that_is_not_there_is_named(kafka_tls_server, topic):
    await refused(oauth(kafka_tls_server, topic, token_file="/no/token"), "/no/token")


@pytest.fixture
def provider(tmp_path):
    with scripted_provider(tmp_path) as provider:
        yield provider


def by_client(server, topic, provider, tmp_path, **options):
    secret = tmp_path / "secret"
    secret.write_text("client-secret-91c\n")
    return oauth(
        server,
        topic,
        token_url=f"{provider.issuer}/token",
        token_ca=provider.ca,
        client_id="sealtape",
        client_secret_file=secret,
        **options,
    )


async def test_tokens_come_from_the_provider(kafka_tls_server, topic, provider, tmp_path):
    token = {"access_token": kafka_tls_server.token("capture"), "expires_in": 300}
    provider.answers["/token"] = [(200, token)]
    url = by_client(kafka_tls_server, topic, provider, tmp_path, scope="kafka")
    assert await use(url) == b"let in"
    assert provider.asked == [
        (
            "/token",
            {
                "grant_type": "client_credentials",
                "client_id": "sealtape",
                "client_secret": "client-secret-91c",
                "scope": "kafka",
            },
        )
    ]


async def test_a_token_is_kept_until_shortly_before_its_end(
    kafka_tls_server, topic, provider, tmp_path
):
    url = parse_kafka_url(by_client(kafka_tls_server, topic, provider, tmp_path), BASE)
    provider.answers["/token"] = [
        (200, {"access_token": "one", "expires_in": login.RENEW_S + 1}),
        (200, {"access_token": "two"}),
    ]
    tokens = Tokens(url)
    assert await asyncio.gather(*(tokens.token() for _ in range(5))) == ["one"] * 5
    await asyncio.sleep(1.1)
    assert [await tokens.token(), await tokens.token()] == ["two", "two"]
    assert len(provider.asked) == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((401, {"error": "invalid_client"}), StoreError),
        ((400, {"error": "invalid_scope"}), StoreError),
        ((503, b"down"), StoreBusy),
        ((200, b"[]"), StoreBusy),
        ((200, {"token": "x"}), StoreBusy),
    ],
)
async def test_a_provider_that_gives_none_is_named(
    kafka_tls_server, topic, provider, tmp_path, answer, kind
):
    provider.answers["/token"] = [answer]
    url = parse_kafka_url(by_client(kafka_tls_server, topic, provider, tmp_path), BASE)
    with pytest.raises(StoreError, match="/token") as caught:
        await Tokens(url).token()
    assert type(caught.value) is kind
    assert "client-secret" not in str(caught.value)


async def test_a_provider_that_is_away_is_busy(kafka_tls_server, topic, provider, tmp_path):
    url = by_client(kafka_tls_server, topic, provider, tmp_path)
    provider.stop()
    bus = open_bus(url, BASE)
    with pytest.raises(StoreBusy, match="No token"):
        await bus.start()
    await bus.close()


# -- rights ----------------------------------------------------------------------------------------


@pytest.fixture
async def closed_topic(kafka_tls_server, topic):
    """A topic with the rights docs/kafka.md gives."""
    for user, operation in (
        ("capture", "WRITE"),
        ("capture", "DESCRIBE"),
        ("ingest", "READ"),
        ("ingest", "DESCRIBE"),
    ):
        await asyncio.to_thread(kafka_tls_server.allow, user, operation, topic)
    return topic


async def test_capture_may_append_and_not_read(kafka_tls_server, closed_topic):
    bus = open_bus(scram(kafka_tls_server, closed_topic, "capture"), BASE)
    await bus.append(0, [(b"", b"one")])
    with pytest.raises(StoreError, match="ACLs refuse us") as caught:
        await bus.read(0, 0, max_bytes=100, wait_s=0)
    assert "docs/kafka.md" in caught.value.hint
    await bus.close()


async def test_ingest_may_read_and_not_append(kafka_tls_server, closed_topic):
    writer = open_bus(scram(kafka_tls_server, closed_topic, "capture"), BASE)
    await writer.append(0, [(b"", b"one")])
    await writer.close()
    bus = open_bus(mtls(kafka_tls_server, closed_topic, "ingest"), BASE)
    assert values(await read_all(bus)) == [b"one"]
    await bus.mark("ingest", 0, 1)
    assert await bus.marks(0) == {"ingest": 1}
    with pytest.raises(StoreError, match="ACLs refuse us"):
        await bus.append(0, [(b"", b"two")])
    await bus.close()


async def test_a_stranger_learns_nothing(kafka_tls_server, closed_topic):
    text = await refused(scram(kafka_tls_server, closed_topic, "stranger"), "ACLs refuse us")
    assert "partitions" not in text


async def test_checks_tell_what_we_may_do(kafka_tls_server, closed_topic):
    for user, words in (("capture", "describe, write"), ("ingest", "describe, read")):
        checks = await check_bus(scram(kafka_tls_server, closed_topic, user), BASE)
        found = {check.name: check for check in checks}
        assert words in found["bus: permissions"].message
        assert found["bus: topic settings"].level == "warning"
        assert "DescribeConfigs" in found["bus: topic settings"].hint


async def test_a_right_that_a_room_needs_and_has_not_is_an_error(kafka_tls_server, closed_topic):
    for user, needs, lacking in (
        ("capture", ["write"], ""),
        ("capture", ["read"], "we may only describe, write, and must read"),
        ("ingest", ["read"], ""),
        ("ingest", ["write"], "we may only describe, read, and must write"),
        ("ingest", ["write", "read"], "must write"),
    ):
        checks = await check_bus(scram(kafka_tls_server, closed_topic, user), BASE, needs)
        (found,) = [check for check in checks if check.name == "bus: permissions"]
        assert (found.level == "error", lacking in found.message) == (bool(lacking), True), needs
        assert not lacking or "docs/kafka.md" in found.hint


async def test_who_may_not_create_a_topic_is_told_how_it_is_made(kafka_tls_alone):
    server = kafka_tls_alone
    for operation in ("CREATE", "ALTER"):
        await asyncio.to_thread(
            server.allow, "admin", operation, "kafka-cluster", resource="cluster"
        )
    await asyncio.to_thread(server.allow, "admin", "CREATE", "t-", prefixed=True)
    with pytest.raises(StoreError, match="ACLs refuse us"):
        await prepare_bus(scram(server, None, "capture"), BASE)
    assert await prepare_bus(scram(server, None, "admin"), BASE)


# -- secrets ---------------------------------------------------------------------------------------


async def test_no_secret_is_logged_at_any_level(
    kafka_tls_server, topic, provider, tmp_path, caplog
):
    token = kafka_tls_server.token("capture")
    provider.answers["/token"] = [(200, {"access_token": token})]
    with caplog.at_level(logging.DEBUG):
        await use(scram(kafka_tls_server, topic))
        await use(by_client(kafka_tls_server, topic, provider, tmp_path))
    assert kafka_tls_server.passwords["capture"] not in caplog.text
    assert token[-20:] not in caplog.text
    assert "client-secret" not in caplog.text


async def test_a_connection_that_is_given_up_leaves_nothing_open(kafka_tls_server, topic):
    url = parse_kafka_url(scram(kafka_tls_server, topic), BASE)
    for wait_s in (0.001, 0.01, 0.03, 0.05):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(wait_s):
                while True:
                    await (await connect(url, Tokens(url), *url.hosts[0])).end()
    await asyncio.sleep(0.1)
