"""Every refusal as a client meets it, and as the journal has it."""

import asyncio
import re
from pathlib import Path

import psycopg
import pytest

from sealtape.capture.postgres.refusals import REFUSALS, fatal, from_target, in_protocol, refusal
from sealtape.schemas.errors import Refused, TargetError
from tests.capture.postgres.gateway_world import gateway_world, psql
from tests.servers.postgres import free_port

DOCS = Path(__file__).parents[3] / "docs" / "connect.md"


async def refused(world, *arguments, **options):
    """Connect, be refused, and return (reason, sqlstate, what the client was told)."""
    with pytest.raises(psycopg.OperationalError) as caught:
        await asyncio.to_thread(psycopg.connect, world.dsn(*arguments, **options))
    reason, fields = world.worker.refusals[-1]
    told = str(caught.value)
    assert fields["message"] in told
    assert "HINT" in told
    assert fields["protocol"] == "postgres"
    assert fields["source"] == "127.0.0.1"
    assert not world.worker.sessions
    assert "scram" not in told
    assert "eyJ" not in told
    assert world.gateway.limits.total <= 1
    return reason, fields["code"], fields


async def test_tokens(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        assert (await refused(world, token="nonsense"))[:2] == ("token-invalid", "28P01")
        expired = world.token(ttl_s=-60)
        reason, code, fields = await refused(world, token=expired)
        assert (reason, code, fields["message"]) == (
            "token-expired",
            "28P01",
            "the token has expired",
        )
        assert fields["user"] == ""


async def test_an_empty_password(tmp_path, postgres_server):
    from sealtape.capture.postgres.codec import messages

    async with gateway_world(tmp_path, postgres_server) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(messages.startup({"user": "ada", "database": "shop"}))
        writer.write(messages.password_message(""))
        assert b"C28P01\0" in await reader.read()
        writer.close()
        assert world.worker.refusals[0][0] == "token-missing"


async def test_something_else_than_a_password(tmp_path, postgres_server):
    from sealtape.capture.postgres.codec import messages

    async with gateway_world(tmp_path, postgres_server) as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(messages.startup({"user": "ada", "database": "shop"}))
        writer.write(messages.message(b"Q", b"select 1\0"))
        assert b"C08P01\0" in await reader.read()
        writer.close()


async def test_no_key_set(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        (tmp_path / "jwks.json").unlink()
        assert (await refused(world))[:2] == ("keys-unavailable", "57P03")


async def test_targets(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        for name in ("nope", "No Such", "shop/", "../shop", "x" * 200):
            reason, code, fields = await refused(world, name)
            assert (reason, code, fields["user"]) == ("no-target", "3D000", "ada")
        token = world.token(groups=["visitors"])
        assert (await refused(world, token=token))[:2] == ("not-allowed", "42501")
        assert (await refused(world, "shop/secrets"))[:2] == ("database-not-allowed", "42501")


@pytest.mark.parametrize(
    "options",
    [
        {"options": "-c search_path=evil"},
        {"options": "-c role=postgres"},
        {"options": "-c session_preload_libraries=x"},
        {"options": "-W 5"},
        {"replication": "database"},
        {"replication": "true"},
    ],
)
async def test_startup_parameters(tmp_path, postgres_server, options):
    async with gateway_world(tmp_path, postgres_server) as world:
        assert (await refused(world, **options))[:2] == ("parameter-not-allowed", "0A000")


async def test_startup_parameters_that_a_target_allows(tmp_path, postgres_server):
    allowed = 'startup_parameters = ["search_path"]\nreplication = true'
    async with gateway_world(tmp_path, postgres_server, target=allowed) as world:
        code, out, _ = await psql(
            world.dsn(options="-c search_path=pg_catalog"), "-c", "show search_path"
        )
        assert (code, out) == (0, "pg_catalog\n")
        parameters = (await world.last_session()).ident.parameters
        assert "search_path=pg_catalog" in parameters
        assert "application_name=psql" in parameters
        code, out, err = await psql(world.dsn(replication="database"), "-c", "IDENTIFY_SYSTEM")
        assert code == 0, err
        assert out.count("|") == 3
        assert "replication=database" in (await world.last_session()).ident.parameters


async def test_the_target(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server, port=free_port()) as world:
        assert (await refused(world))[:2] == ("target-down", "08001")
    async with gateway_world(tmp_path, postgres_server) as world:
        (tmp_path / "password").write_text("wrong")
        assert (await refused(world))[:2] == ("target-credential", "28000")
        (tmp_path / "password").unlink()
        assert (await refused(world))[:2] == ("target-credential-missing", "28000")


async def test_what_the_target_says_of_the_clients_own_settings_is_passed_on(
    tmp_path, postgres_server
):
    async with gateway_world(tmp_path, postgres_server) as world:
        reason, code, fields = await refused(world, options="-c statement_timeout=soon")
        assert (reason, code) == ("target-refused", "22023")
        assert "statement_timeout" in fields["message"]


async def test_a_spool_that_fails(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        world.worker.broken = True
        assert (await refused(world))[:2] == ("recording-unavailable", "57P03")


async def test_a_gateway_that_stops(tmp_path, postgres_server):
    async with gateway_world(tmp_path, postgres_server) as world:
        world.gateway.closing = True
        assert (await refused(world))[:2] == ("shutting-down", "57P03")


# -- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", REFUSALS)
def test_every_refusal_is_a_good_error_message(reason):
    values = dict.fromkeys(("target", "database", "what"), "given") | {"sqlstate": "XX000"}
    made = refusal(reason, **values)
    assert made.reason == reason
    assert re.fullmatch(r"[0-9A-Z]{5}", made.protocol_code)
    assert made.message
    assert made.hint.endswith(".")
    assert "{" not in made.message
    assert fatal(made).count(b"FATAL") == 2


@pytest.mark.parametrize("reason", REFUSALS)
def test_every_refusal_is_in_the_documentation(reason):
    words = REFUSALS[reason]
    row = next(line for line in DOCS.read_text().splitlines() if line.startswith(f"| `{reason}` "))
    state = "the target's" if "{" in words.sqlstate else words.sqlstate
    assert state in row


def test_a_refusal_from_elsewhere_gets_postgresqls_words_once():
    plain = Refused("The token is bad.", reason="token-invalid", protocol_code="")
    assert in_protocol(plain).protocol_code == "28P01"
    assert in_protocol(plain).message == "The token is bad."
    given = refusal("tls-required")
    assert in_protocol(given) is given


def test_a_target_error_tells_the_client_only_its_reason():
    error = TargetError("user scram at 10.0.0.1", reason="target-credential")
    assert from_target(error, target="shop", database="d").message == (
        "target `shop` does not accept the gateway's credential"
    )
    assert from_target(TargetError("x"), target="shop", database="d").reason == "target-down"
