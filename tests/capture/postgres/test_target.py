"""Logging in to targets: every kind of login, every way it fails, and no secret told."""

import asyncio
import contextlib
import struct

import psycopg
import pytest

from sealtape.capture.postgres.codec import messages
from sealtape.capture.postgres.target import TargetDialer
from sealtape.schemas.errors import TargetError
from sealtape.schemas.settings import TargetSettings
from tests.capture.postgres.gateway_world import gateway_world
from tests.servers.postgres import free_port
from tests.servers.tls import TlsFront, write_certificate


def dialer(folder, *, port, user="scram", password="scram-secret", host="127.0.0.1", **settings):
    async def credential():
        if isinstance(password, Exception):
            raise password
        return password

    chosen = TargetSettings(
        address=f"{host}:{port}", database="postgres", user=user, groups=("*",),
        **{"tls": "disable", **settings},
    )  # fmt: skip
    return TargetDialer(name="shop", settings=chosen, base=folder, credential=credential)


async def greeting_of(chosen, **parameters):
    wire, greeting = await chosen.dial({"database": "postgres", **parameters})
    wire.transport.write(messages.TERMINATE)
    wire.transport.close()
    return greeting


async def reason_of(chosen, **parameters):
    with pytest.raises(TargetError) as caught:
        await greeting_of(chosen, **parameters)
    error = caught.value
    for secret in ("scram-secret", "md5-secret", "wrong-secret", "scram"):
        assert secret not in str(error)
        assert secret not in str(error.context)
    return error.context["reason"]


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("scram", "scram-secret"),
        ("md5", "md5-secret"),
        ("clear", "clear-secret"),
        ("postgres", None),
    ],
)
async def test_every_kind_of_login(tmp_path, postgres_server, user, password):
    chosen = dialer(tmp_path, port=postgres_server.port, user=user, password=password)
    greeting = await greeting_of(chosen, application_name="x")
    assert greeting.stream.startswith(messages.AUTHENTICATION_OK)
    assert greeting.stream.endswith(messages.ready_for_query())
    assert greeting.parameters["application_name"] == "x"
    key = messages.backend_key_data(greeting.process, greeting.key)
    assert greeting.stream[greeting.key_start : greeting.key_stop] == key


@pytest.mark.parametrize("user", ["scram", "md5", "clear", "nobody-there"])
async def test_a_wrong_credential(tmp_path, postgres_server, user):
    chosen = dialer(tmp_path, port=postgres_server.port, user=user, password="wrong-secret")
    if user == "nobody-there":
        chosen = dialer(tmp_path, port=postgres_server.port, user=user, password="wrong-secret")
    assert await reason_of(chosen) == "target-credential"


async def test_no_credential_where_one_is_asked_for(tmp_path, postgres_server):
    chosen = dialer(tmp_path, port=postgres_server.port, password=None)
    assert await reason_of(chosen) == "target-credential"


@pytest.mark.parametrize("error", [OSError("x"), ValueError("x"), TargetError("x")])
async def test_a_credential_that_cannot_be_read(tmp_path, postgres_server, error):
    chosen = dialer(tmp_path, port=postgres_server.port, password=error)
    assert await reason_of(chosen) == "target-credential-missing"


async def test_nothing_there(tmp_path):
    assert await reason_of(dialer(tmp_path, port=free_port())) == "target-down"
    assert await reason_of(dialer(tmp_path, port=1, host="nowhere.invalid")) == "target-down"


async def test_no_such_database_and_settings_the_target_refuses(tmp_path, postgres_server):
    chosen = dialer(tmp_path, port=postgres_server.port)
    assert await reason_of(chosen, database="nope") == "target-database"
    with pytest.raises(TargetError) as caught:
        await greeting_of(chosen, statement_timeout="soon")
    assert caught.value.context["reason"] == "target-refused"
    assert caught.value.context["sqlstate"] == "22023"
    assert "statement_timeout" in caught.value.context["what"]


# -- TLS ------------------------------------------------------------------------------------------


@pytest.fixture
async def front(tmp_path, postgres_server):
    chain, key = write_certificate(tmp_path)
    async with TlsFront("127.0.0.1", postgres_server.port, chain, key) as running:
        yield running


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_tls_to_the_target_is_verified(tmp_path, front, host):
    chosen = dialer(tmp_path, port=front.port, host=host, tls="verify-full", tls_ca="tls.crt")
    assert (await greeting_of(chosen)).key


async def test_required_tls_takes_any_certificate(tmp_path, front):
    assert (await greeting_of(dialer(tmp_path, port=front.port, tls="require"))).key


async def test_a_certificate_nobody_vouches_for(tmp_path, front):
    assert await reason_of(dialer(tmp_path, port=front.port, tls="verify-full")) == "target-tls"


async def test_a_certificate_for_another_name(tmp_path, postgres_server):
    chain, key = write_certificate(tmp_path, names=("elsewhere.test",), addresses=())
    async with TlsFront("127.0.0.1", postgres_server.port, chain, key) as front:
        chosen = dialer(tmp_path, port=front.port, tls="verify-full", tls_ca="tls.crt")
        assert await reason_of(chosen) == "target-tls"


@pytest.mark.parametrize("tls", ["require", "verify-full"])
async def test_a_target_without_tls_gets_no_credential(tmp_path, postgres_server, tls):
    assert await reason_of(dialer(tmp_path, port=postgres_server.port, tls=tls)) == "target-tls"


def test_ca_certificates_that_are_not_there(tmp_path):
    with pytest.raises(TargetError):
        dialer(tmp_path, port=1, tls="verify-full", tls_ca="no.crt")


async def test_a_cancel_goes_over_tls_too(tmp_path, front):
    chosen = dialer(tmp_path, port=front.port, tls="verify-full", tls_ca="tls.crt")
    await asyncio.wait_for(chosen.cancel(1, b"abcd"), 60)
    await dialer(tmp_path, port=free_port()).cancel(1, b"abcd")  # nobody there: no matter


# -- targets that misbehave -----------------------------------------------------------------------


@contextlib.asynccontextmanager
async def rogue(*answers):
    """A target that answers what it is sent, message by message, with `answers`, then closes."""

    serving = set()

    async def serve(reader, writer):
        serving.add(asyncio.current_task())
        with contextlib.suppress(OSError):
            for answer in answers or [b""]:
                await reader.read(65536)
                writer.write(answer)
                await writer.drain()
            if answers:
                await asyncio.wait_for(reader.read(), 60)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await asyncio.gather(*serving)


def auth(code, rest=b""):
    return messages.message(b"R", struct.pack(">I", code) + rest)


SASL = auth(10, b"SCRAM-SHA-256\0\0")
OK = messages.AUTHENTICATION_OK
READY = messages.ready_for_query()


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([], "target-down"),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "target-protocol"),
        ([SASL, OK + READY], "target-credential"),  # it skips its own proof
        ([SASL, auth(11, b"r=x,s=y,i=1")], "target-credential"),
        ([auth(10, b"SCRAM-SHA-256-PLUS\0\0")], "target-credential"),
        ([auth(7)], "target-credential"),  # GSS
        ([auth(11, b"r=x")], "target-credential"),
        ([b"R\0\0\0\5x"], "target-protocol"),
        ([READY], "target-protocol"),
        ([OK + b"K\0\0\0\x05x"], "target-protocol"),
        ([OK + messages.message(b"N", b"x" * 9000) * 200], "target-protocol"),
        ([messages.error_response("53300", "sorry, too many clients")], "target-full"),
        (
            [messages.error_response("57P03", "the database system is starting up")],
            "target-starting",
        ),
        ([messages.error_response("XX000", 'secret of "scram"')], "target-refused"),
        ([messages.message(b"E", b"Mno code\0\0")], "target-refused"),
        ([messages.message(b"E", b"C1234567\0\0")], "target-refused"),
    ],
)
async def test_targets_that_misbehave(tmp_path, answers, reason):
    async with rogue(*answers) as port:
        assert await reason_of(dialer(tmp_path, port=port)) == reason


async def test_a_target_without_cancel_keys_works(tmp_path):
    status = messages.parameter_status("server_version", "9")
    async with rogue(OK + status + READY) as port:
        greeting = await greeting_of(dialer(tmp_path, port=port, password=None))
        assert (greeting.key, greeting.key_start, greeting.key_stop) == (b"", 0, 0)
        assert greeting.stream == OK + status + READY


async def test_a_client_of_a_target_without_cancel_keys_gets_none(tmp_path, postgres_server):
    async with (
        rogue(OK + READY, messages.message(b"C", b"SELECT 1\0") + READY) as port,
        gateway_world(tmp_path, postgres_server, port=port) as world,
    ):
        connection = await asyncio.to_thread(psycopg.connect, world.dsn(), autocommit=True)
        await asyncio.to_thread(connection.execute, "select 1")
        assert connection.info.backend_pid == 0
        connection.close()
        recorded = await world.last_session()
        assert recorded.leg(3) == recorded.leg(2)
