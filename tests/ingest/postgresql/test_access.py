from pathlib import Path

import pytest

from sealtape.ingest.postgresql.access import server_of
from sealtape.schemas.errors import SettingsError, StoreBusy, StoreError

BASE = Path()


def test_a_url_says_where_and_how():
    server = server_of(
        "postgresql://me@one,two:6000,[::1]:7000/db?schema=s&connections=3&statement_timeout=2s"
        "&lock_timeout=500ms&patience=0s&connect_timeout=1s&tls=disable",
        BASE,
        "default",
    )
    assert (server.schema, server.connections) == ("s", 3)
    times = (server.statement_s, server.lock_s, server.patience_s, server.connect_s)
    assert times == (2.0, 0.5, 0.0, 1.0)
    arguments = server._arguments()
    assert arguments["host"] == ["one", "two", "::1"]
    assert arguments["port"] == [5432, 6000, 7000]
    assert arguments["ssl"] is False
    assert server.place == "PostgreSQL at one,two:6000,[::1]:7000/db"
    assert server_of("postgresql://me@h/db", BASE, "default").schema == "default"


def test_tls_is_verified_unless_told():
    context = server_of("postgresql://me@h/db", BASE, "s")._arguments()["ssl"]
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/db",
        "postgresql://me@/db",
        "postgresql://me@h",
        "postgresql://me@h/",
        "postgresql://me@h/a/b",
        "postgresql://me:secret@h/db",
        "postgresql://me@h/db?schema=A",
        "postgresql://me@h/db?schema=a;drop",
        "postgresql://me@h/db?schema=" + 49 * "a",
        "postgresql://me@h/db?conections=1",
        "postgresql://me@h/db?connections=0",
        "postgresql://me@h/db?tls=maybe",
        "postgresql://me@h/db?ca=missing.pem",
    ],
)
def test_what_names_no_store_is_refused(url):
    with pytest.raises(SettingsError) as caught:
        server_of(url, BASE, "s")
    assert "secret" not in str(caught.value)


async def test_a_password_is_read_anew_for_each_connection(postgres_server, schema, tmp_path):
    url = schema.url(password_file="word").replace("postgres@", "scram@")
    file = tmp_path / "word"
    file.write_text(postgres_server.PASSWORDS["scram"] + "\n")
    server = server_of(url, tmp_path, "s")
    connection = await server.connect()
    assert await connection.fetchval("SELECT current_user") == "scram"
    await connection.close()
    file.write_text("wrong\n")
    with pytest.raises(StoreError) as caught:
        await server.connect()
    assert "password_file" in caught.value.hint
    assert "wrong" not in str(caught.value)
    file.unlink()
    with pytest.raises(SettingsError):
        await server.connect()


async def test_a_connection_has_limits_and_commits_for_good(schema):
    server = server_of(schema.url(statement_timeout="7s", lock_timeout="3s"), BASE, "s")

    async def settings(**how):
        connection = await server.connect(**how)
        names = (
            "search_path",
            "statement_timeout",
            "lock_timeout",
            "idle_in_transaction_session_timeout",
            "synchronous_commit",
            "default_transaction_read_only",
        )
        values = [await connection.fetchval(f"SHOW {name}") for name in names]
        await connection.close()
        return values

    # The server of the tests says synchronous_commit=off.
    assert await settings() == [schema.name, "7s", "3s", "10s", "on", "off"]
    assert await settings(read_only=True) == [schema.name, "7s", "3s", "10s", "off", "on"]
    assert (await settings(snapshot=True, read_only=True))[3] == "0"
    assert (await settings(unlimited=True))[1] == "0"


async def test_a_server_that_is_not_there_is_busy(tmp_path):
    server = server_of("postgresql://me@127.0.0.1:1/db?tls=disable", tmp_path, "s")
    with pytest.raises(StoreBusy, match="cannot be reached"):
        await server.connect()


async def test_a_server_without_tls_is_refused_where_tls_is_asked_for(schema):
    server = server_of(schema.url().replace("tls=disable", "tls=require"), BASE, "s")
    with pytest.raises(StoreError, match="SSL"):
        await server.connect()


async def test_the_host_that_is_the_primary_is_taken(schema, postgres_server):
    url = schema.url().replace("@127.0.0.1:", "@127.0.0.1:1,127.0.0.1:")
    connection = await server_of(url, BASE, "s").connect()
    assert connection.get_server_pid()
    await connection.close()


# -- TLS, on a server that has it


async def user_of(url):
    connection = await server_of(url, BASE, "s").connect()
    try:
        return await connection.fetchrow(
            "SELECT current_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        )
    finally:
        await connection.close()


async def test_a_server_is_known_by_its_certificate(postgres_stores):
    url = postgres_stores.database().url()
    assert await user_of(url) == ("admin", True)
    stranger = url.replace(f"ca={postgres_stores.ca}", "tls=verify-full")
    with pytest.raises(StoreError) as caught:
        await user_of(stranger)
    assert not isinstance(caught.value, StoreBusy)
    assert "ca" in caught.value.hint
    assert await user_of(stranger.replace("verify-full", "require")) == ("admin", True)


async def test_a_client_is_known_by_its_certificate(postgres_stores):
    database = postgres_stores.database()
    database.sql("CREATE ROLE ingest LOGIN IN ROLE by_certificate")
    try:
        certificate, key = postgres_stores.certificate("ingest")
        url = f"postgresql://ingest@{postgres_stores.address}/{database.name}"
        url += f"?ca={postgres_stores.ca}&cert={certificate}&key={key}"
        assert await user_of(url) == ("ingest", True)
        certificate, key = postgres_stores.certificate("stranger")
        wrong = f"{url.split('&')[0]}&cert={certificate}&key={key}"
        with pytest.raises(StoreError) as caught:
            await user_of(wrong)
        assert "certificate" in caught.value.hint
    finally:
        database.sql("DROP ROLE ingest")


async def test_a_wrong_password_is_said_without_it(postgres_stores, tmp_path):
    (tmp_path / "word").write_text("not-the-word")
    url = postgres_stores.database().url(password_file=tmp_path / "word")
    with pytest.raises(StoreError) as caught:
        await user_of(url)
    assert "not-the-word" not in str(caught.value)
    assert "password_file" in caught.value.hint
