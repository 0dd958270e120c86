"""TLS, plaintext, garbage and limits: everything before a session."""

import asyncio
import contextlib
import ssl
import struct

import asyncpg
import psycopg
import pytest

from sealtape.capture.postgres.codec import messages, startup
from sealtape.capture.postgres.handshake import is_loopback, server_context
from sealtape.schemas.errors import SettingsError
from tests.capture.postgres.gateway_world import gateway_world
from tests.servers.tls import SSL_REQUEST

GSS_REQUEST = struct.pack(">II", 8, 80877104)


def connect(dsn):
    def work():
        with psycopg.connect(dsn) as connection:
            return connection.execute("select 6 * 7").fetchone()[0], connection.pgconn.ssl_in_use

    return asyncio.to_thread(work)


async def fails(dsn):
    with pytest.raises(psycopg.OperationalError) as caught:
        await connect(dsn)
    return str(caught.value)


@contextlib.asynccontextmanager
async def raw(world):
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read_error(reader):
    """Return the fields of the ErrorResponse that comes next, and check that the end follows."""
    header = await reader.readexactly(5)
    assert header[:1] == b"E"
    body = await reader.readexactly(messages.parse_length(header))
    assert await reader.read() == b""
    return messages.fields(body)


async def hello(reader, writer, **parameters):
    """Send a StartupMessage in clear and return the authentication request."""
    writer.write(messages.startup({"user": "ada", "database": "shop", **parameters}))
    return await reader.readexactly(9)


def password(token):
    return messages.password_message(token)


# -- TLS ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", ["require", "verify-ca", "verify-full"])
@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
async def test_psycopg_connects_over_tls(tmp_path, postgres_server, tls, negotiation):
    async with gateway_world(tmp_path, postgres_server, listener='plaintext = "never"') as world:
        options = {"sslmode": tls, "sslnegotiation": negotiation}
        if tls != "require":
            options["sslrootcert"] = str(world.certificate)
        dsn = world.dsn(**options).replace(
            "host='127.0.0.1'", "host='localhost' hostaddr='127.0.0.1'"
        )
        assert await connect(dsn) == (42, True)
        recorded = await world.last_session()
        assert recorded.reason == "client"
        assert b"6 * 7" in recorded.leg(0)


async def test_asyncpg_connects_over_tls(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server, listener='plaintext = "never"') as world:
        context = ssl.create_default_context(cafile=str(world.certificate))
        connection = await asyncpg.connect(
            host="127.0.0.1", port=world.port, user="ada", database="shop", ssl=context,
            password=world.token(),
        )  # fmt: skip
        assert await connection.fetchval("select 6 * 7") == 42
        await connection.close()


async def test_a_client_that_prefers_gss_or_tls_ends_up_with_tls(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        assert await connect(world.dsn(sslmode="prefer", gssencmode="prefer")) == (42, True)


async def test_plaintext_is_refused_before_a_password_is_asked_for(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server, listener='plaintext = "never"') as world:
        assert "over TLS only" in await fails(world.dsn(sslmode="disable"))
        async with raw(world) as (reader, writer):
            writer.write(messages.startup({"user": "ada", "database": "shop"}))
            assert (await read_error(reader))["C"] == "28000"
        assert [reason for reason, _ in world.worker.refusals] == ["tls-required"] * 2


async def test_gss_is_declined_and_the_client_goes_on(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world, raw(world) as (reader, writer):
        writer.write(GSS_REQUEST)
        assert await reader.readexactly(1) == b"N"
        assert await hello(reader, writer) == messages.AUTHENTICATION_CLEARTEXT


@pytest.mark.parametrize("twice", [GSS_REQUEST, SSL_REQUEST])
async def test_encryption_is_asked_for_once(tmp_path, postgres_server, twice):
    async with gateway_world(tmp_path, postgres_server) as world, raw(world) as (reader, writer):
        writer.write(twice * 2)
        assert (await reader.read(1)) in {b"N", b"S"}
        rest = await reader.read()
        assert b"R\0\0\0" not in rest


async def test_bytes_in_clear_behind_an_ssl_request_never_reach_the_session(
    tmp_path, postgres_server
):
    async with gateway_world(tmp_path, postgres_server) as world, raw(world) as (reader, writer):
        injected = messages.startup({"user": "mallory", "database": "shop"})
        writer.write(SSL_REQUEST + injected)
        assert await reader.readexactly(1) == b"S"
        answer = await reader.read()  # a TLS alert at most, then the end
        assert answer[:1] in {b"", b"\x15"}
        await asyncio.sleep(0.05)
        assert world.worker.counts["tls-failed"] == 1


async def test_direct_tls_needs_the_alpn_name(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        context = ssl.create_default_context(cafile=str(world.certificate))
        context.set_alpn_protocols(["http/1.1"])
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port, ssl=context)
        assert (await read_error(reader))["C"] == "08P01"
        writer.close()
        assert world.worker.refusals[0][0] == "alpn"


async def test_encryption_inside_encryption_is_garbage(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        context = ssl.create_default_context(cafile=str(world.certificate))
        context.set_alpn_protocols(["postgresql"])
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port, ssl=context)
        writer.write(SSL_REQUEST)
        with contextlib.suppress(OSError):
            assert await reader.read() == b""
        writer.close()
        assert world.worker.counts["garbage"] == 1


# -- garbage and scanners -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (b"", "disconnected"),
        (b"\0", "disconnected"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "garbage"),
        (b"\0\0\0\x03abc", "garbage"),
        (b"\xff" * 64, "garbage"),
        (b"\0\0\0\x09\x04\xd2\x16\x2fx", "garbage"),
        (b"\x16\x03\x01\x00\x05hello", "tls-failed"),
        (b"SSH-2.0-scanner\r\n", "garbage"),
        (struct.pack(">II", 100, 3 << 16) + b"user\0", "disconnected"),
        (struct.pack(">II", 12, 3 << 16) + b"abcd", "garbage"),
    ],
)
async def test_what_is_no_client_is_counted_and_gets_no_session(
    tmp_path, postgres_server, sent, kind
):
    async with gateway_world(tmp_path, postgres_server) as world:
        async with raw(world) as (reader, writer):
            writer.write(sent)
            if writer.can_write_eof():
                writer.write_eof()
            with contextlib.suppress(ConnectionError):
                answer = await asyncio.wait_for(reader.read(), 60)
                assert answer[:1] in {b"", b"\x15"}
        for _ in range(100):
            if world.worker.counts:
                break
            await asyncio.sleep(0.01)
        assert world.worker.counts == {kind: 1}
        assert not world.worker.sessions
        assert not world.worker.refusals
        assert world.gateway.limits.total == 0


async def test_another_protocol_version_is_told_so(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world, raw(world) as (reader, writer):
        writer.write(struct.pack(">II", 9, 2 << 16) + b"\0")
        assert (await read_error(reader))["C"] == "0A000"


@pytest.mark.parametrize("where", ["startup", "password"])
async def test_the_first_packets_may_come_byte_by_byte(tmp_path, postgres_server, where):
    async with gateway_world(tmp_path, postgres_server) as world, raw(world) as (reader, writer):
        first = messages.startup({"user": "ada", "database": "shop"})
        second = password(world.token())
        for byte in first if where == "startup" else ():
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        if where == "password":
            writer.write(first)
        assert await reader.readexactly(9) == messages.AUTHENTICATION_CLEARTEXT
        for at in range(len(second)) if where == "password" else ():
            writer.write(second[at : at + 1])
            await asyncio.sleep(0)
        if where == "startup":
            writer.write(second)
        assert await reader.readexactly(9) == messages.AUTHENTICATION_OK


async def test_a_client_may_send_everything_at_once(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world, raw(world) as (reader, writer):
        query = messages.message(b"Q", b"select 'early'\0")
        writer.write(
            messages.startup({"user": "ada", "database": "shop"})
            + password(world.token()) + query + messages.TERMINATE
        )  # fmt: skip
        writer.write_eof()
        answer = await reader.read()
        assert b"early" in answer
        recorded = await world.last_session()
        assert recorded.leg(0) == recorded.leg(1) == query + messages.TERMINATE


async def test_a_client_of_protocol_3_2_is_spoken_to_and_unknown_options_are_declined(
    tmp_path, postgres_server
):
    async with gateway_world(tmp_path, postgres_server) as world:
        async with raw(world) as (reader, writer):
            wanted = {"user": "ada", "database": "shop", "_pq_.future": "1"}
            writer.write(messages.startup(wanted, 3 << 16 | 9999))
            header = await reader.readexactly(5)
            assert header[:1] == b"v"
            body = await reader.readexactly(messages.parse_length(header))
            assert messages.negotiated(body) == (messages.PROTOCOL_3_2, ["_pq_.future"])
            assert await reader.readexactly(9) == messages.AUTHENTICATION_CLEARTEXT
        async with raw(world) as (reader, writer):
            writer.write(messages.startup({"user": "ada", "database": "shop"}, 3 << 16 | 2))
            assert await reader.readexactly(9) == messages.AUTHENTICATION_CLEARTEXT


# -- limits ---------------------------------------------------------------------------------------


async def test_a_password_message_is_at_most_64_kib(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world, raw(world) as (reader, writer):
        await hello(reader, writer)
        writer.write(b"p" + struct.pack(">I", 1 << 20) + b"x" * 200_000)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        assert world.worker.counts["garbage"] == 1


async def test_who_does_not_authenticate_in_time_is_cut_off(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        world.gateway.settings = _replace(world.gateway.settings, auth_timeout_s=0.2)
        async with raw(world) as (reader, _), raw(world) as (other, writer):
            await hello(other, writer)
            assert await asyncio.wait_for(reader.read(), 60) == b""
            assert await asyncio.wait_for(other.read(), 60) == b""
        assert world.worker.counts["timeout"] == 2


def _replace(settings, **changes):
    from dataclasses import replace

    return replace(settings, **changes)


async def test_strangers_are_capped_in_all_and_by_address(tmp_path, postgres_server):
    capture = "max_unauthenticated = 5\nmax_per_address = 3"
    async with (
        gateway_world(tmp_path, postgres_server, capture=capture) as world,
        contextlib.AsyncExitStack() as stack,
    ):
        held = [await stack.enter_async_context(raw(world)) for _ in range(3)]
        await asyncio.sleep(0.1)
        async with raw(world) as (reader, _):
            assert await asyncio.wait_for(reader.read(), 60) == b""
        assert world.worker.counts["over-limit"] == 1
        await hello(*held[0])  # those who are in are served
        held[0][1].write(password(world.token()))
        assert await held[0][0].readexactly(9) == messages.AUTHENTICATION_OK
        assert await connect(world.dsn()) == (42, False)  # who is known counts no more


async def test_one_connection_too_many_is_told_so(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server, capture="max_connections = 1") as world:
        first = await asyncio.to_thread(psycopg.connect, world.dsn())
        assert "no connection left" in await fails(world.dsn())
        await asyncio.to_thread(first.close)
        await world.last_session()
        await asyncio.sleep(0.05)
        assert await connect(world.dsn()) == (42, False)
        assert world.worker.refusals[0][1]["code"] == "53300"


# -- parts ----------------------------------------------------------------------------------------


def test_loopback_is_told_in_all_its_forms():
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]))
    assert not any(map(is_loopback, ["10.0.0.1", "::", "fe80::1%eth0", "::ffff:10.0.0.1"]))


def test_a_certificate_that_is_not_there_is_a_mistake_in_the_settings(tmp_path):
    with pytest.raises(SettingsError):
        server_context(str(tmp_path / "no.crt"), str(tmp_path / "no.key"))


def test_the_limit_of_a_first_packet_is_postgresqls_own():
    assert startup.MAX_FIRST == 10_000
