import asyncio

import psycopg
import pytest

from sealtape.capture.checks.targets import check_targets
from tests.capture.checks.found import levels, one
from tests.servers.postgres import free_port


def target(port, name="shop", *, user="scram", password="scram-secret", tls="disable", **more):
    lines = {
        "address": f"127.0.0.1:{port}",
        "database": "postgres",
        "user": user,
        "tls": tls,
        **more,
    }
    text = "".join(f'{key} = "{value}"\n' for key, value in lines.items())
    return f'[targets.{name}]\n{text}groups = ["*"]\npassword = {{ env = "{password}" }}\n'


@pytest.fixture(autouse=True)
def passwords(monkeypatch):
    for name in ("scram-secret", "wrong-secret"):
        monkeypatch.setenv(name, name)


async def test_targets_that_answer_and_one_that_does_not(deployment, postgres_server):
    more = target(postgres_server.port) + target(free_port(), "down")
    checks = await check_targets(deployment.settings(more=more))
    assert levels(checks) == {"target shop": "ok", "target down": "error"}
    assert "takes the credential" in one(checks, "ok", "postgres").message
    one(checks, "error", "nothing answers")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"password": "wrong-secret"}, "refused the credential"),
        ({"password": "NOT_SET"}, "cannot be read"),
        ({"database": "nowhere"}, "no such database"),
        ({"tls": "require"}, "does not offer TLS"),
        ({"tls": "verify-full", "tls_ca": "nowhere.pem"}, "tls_ca"),
    ],
)
async def test_what_is_wrong_is_said_without_a_secret(deployment, postgres_server, options, word):
    settings = deployment.settings(more=target(postgres_server.port, **options))
    check = one(await check_targets(settings), "error", word)
    assert "secret" not in check.message + check.hint


async def test_a_provider_that_is_not_installed(deployment, postgres_server):
    more = target(postgres_server.port).replace('env = "scram-secret"', 'provider = "vault:x"')
    one(await check_targets(deployment.settings(more=more)), "error", "providers")


async def test_a_way_in_clear_is_said_in_production(production, postgres_server):
    checks = await check_targets(production.settings(more=target(postgres_server.port)))
    one(checks, "warning", "verify-full")
    assert levels(checks) == {"target shop": "warning"}


async def test_no_target_at_all(deployment):
    one(await check_targets(deployment.settings()), "warning", "[targets.NAME]")


async def test_nobody_stays_connected(deployment, postgres_server):
    await check_targets(deployment.settings(more=target(postgres_server.port, user="scram")))
    dsn = f"host=127.0.0.1 port={postgres_server.port} user=postgres dbname=postgres"
    query = "select count(*) from pg_stat_activity where usename = 'scram' and state = 'idle'"

    def idle():
        with psycopg.connect(dsn) as connection:
            return connection.execute(query).fetchone()[0]

    before = await asyncio.to_thread(idle)
    for _ in range(3):
        await check_targets(deployment.settings(more=target(postgres_server.port)))
    async with asyncio.timeout(60):
        while await asyncio.to_thread(idle) > before:
            await asyncio.sleep(0.1)
