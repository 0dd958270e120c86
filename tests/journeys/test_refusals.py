"""Clients that are turned away: what they are told, where it is found; and secrets stay secret."""

import asyncio

import asyncpg
import psycopg
import pytest

from tests.journeys.lab import Lab, target_text
from tests.journeys.secrets import Secrets
from tests.journeys.taps import Tap
from tests.servers.postgres import free_port

PASSWORDS = ("scram-secret", "the-targets-own-password", "typed-by-a-person")
TYPED = "alter role journey_role password 'typed-by-a-person'"


def settings(port):
    """Targets that refuse in every way."""
    wrong = target_text("wrong", port).replace("shop.password", "wrong.password")
    lost = target_text("lost", port).replace("shop.password", "nowhere.password")
    return (
        wrong
        + lost
        + target_text("down", free_port())
        + target_text("tls", port).replace('tls = "disable"', 'tls = "require"')
        + target_text("closed", port, groups='["admins"]')
        + target_text("narrow", port).replace('databases = ["*"]', 'databases = ["template1"]')
        + target_text("texts", port, more="full_text = true\nparameters = true")
    )


def cases(lab):
    """Reason to (database asked for, token, SQLSTATE, words)."""
    good = lab.token()
    head, body, signature = good.split(".")
    forged = ".".join((head, body, signature[:-8] + "AAAAAAAA"))
    return {
        "token-missing": ("shop", "", "28P01", "a token is required"),
        "not-a-token": ("shop", "not-a-token-at-all", "28P01", "token"),
        "forged": ("shop", forged, "28P01", "token"),
        "token-expired": ("shop", lab.token(ttl_s=-60), "28P01", "the token has expired"),
        "no-target": ("nowhere", good, "3D000", "there is no target `nowhere`"),
        "not-allowed": ("closed", good, "42501", "none of your groups may open target `closed`"),
        "no-group": ("shop", lab.token("eve", ()), "42501", "none of your groups"),
        "database": ("narrow/template0", good, "42501", "does not allow database `template0`"),
        "no-database": ("shop/nonesuch", good, "3D000", "no database `nonesuch`"),
        "target-down": ("down", good, "08001", "target `down` cannot be reached"),
        "wrong": ("wrong", good, "28000", "does not accept the gateway's credential"),
        "lost": ("lost", good, "28000", "credential for target `lost` cannot be read"),
        "target-tls": ("tls", good, "08001", "TLS that target `tls` offers"),
    }


async def refused(lab, port, database, token):
    """Connect; return SQLSTATE and words of the refusal."""
    with pytest.raises(asyncpg.PostgresError) as told:
        async with lab.asyncpg(database, port=port, token=token):
            pass
    return told.value.sqlstate, f"{told.value} {told.value.hint}"


async def test_who_is_turned_away_is_told_why_and_never_a_secret(tmp_path, postgres_server):
    port = postgres_server.port
    postgres_server.sql("drop role if exists journey_role; create role journey_role")
    async with Lab(tmp_path, port, more=settings(port)) as lab:
        (lab.folder / "secrets/wrong.password").write_text("the-targets-own-password\n")
        await lab.dev()
        tokens = [lab.token()]
        async with Tap(lab.port) as tap:
            for name, (database, token, code, words) in cases(lab).items():
                tokens.append(token)
                told, text = await refused(lab, tap.port, database, token)
                assert (told, words in text) == (code, True), (name, text)
            for database in ("shop", "texts"):
                async with lab.asyncpg(database, port=tap.port, token=tokens[0]) as connection:
                    await connection.execute(TYPED)
                    await connection.fetchval("select $1::text", "a parameter")
            await lab.sealed(2, "alter")
            await in_the_journal(lab)
            assert await lab.front.stop() == 0
            secrets = Secrets(*(token for token in tokens if token), *PASSWORDS)
            assert not any(secrets.found(each.received) for each in tap.connections)
            assert any(secrets.found(each.sent) for each in tap.connections)
        assert secrets.in_files(lab.folder) == []
        assert not secrets.found(lab.logs().encode())
        await in_frames(lab, secrets)
        report = await lab.verify()
        assert (report["verdict"], report["findings"]) == ("verified", [])


async def in_frames(lab, secrets):
    """What a person typed is in the recorded bytes, for auditors; nothing else is anywhere."""
    typed = Secrets("typed-by-a-person")
    secrets.parts -= typed.parts
    looked, hits = await secrets.in_frames(lab)
    assert looked > 10
    assert hits == []
    _, hits = await typed.in_frames(lab)
    assert len(hits) == 2
    assert typed.in_files(lab.folder) == []


async def in_the_journal(lab):
    """Each refusal is found by the command line as docs/query.md says."""
    expected = sorted((case[2], case[3]) for case in cases(lab).values())

    async def found():
        return await lab.commands("effect:refused since:1d")

    await lab.until(found, lambda found: len(found) >= len(expected), what="refusals")
    hits = await lab.lines("search", "effect:refused since:1d")
    assert len(hits) == len(expected)
    left = [(hit["error"], hit["message"]) for hit in hits]
    for code, words in expected:
        (first, *_) = (each for each in left if each[0] == code and words in each[1])
        left.remove(first)
    assert left == []
    by_target = {hit["target"]: hit for hit in hits}
    assert by_target["closed"]["user"] == "ada"
    assert by_target["closed"]["source"] == "127.0.0.1"
    for query, count in (
        ("effect:refused user:eve", 1),
        ("effect:refused target:wrong user:ada", 1),
        ("effect:refused error:28P01", 4),
        ("effect:refused credential", 2),
        ("effect:refused source:127.0.0.1", len(expected)),
    ):
        assert len(await lab.commands(query)) == count, query


def one(dsn):
    with psycopg.connect(dsn) as connection:
        return connection.execute("select 1").fetchone()


async def test_a_client_without_tls_is_told_so_before_it_is_asked_for_a_token(
    tmp_path, postgres_server
):
    async with Lab(tmp_path, postgres_server.port) as lab:
        text = lab.config.read_text()
        lab.config.write_text(text.replace('plaintext = "loopback"', 'plaintext = "never"'))
        await lab.dev()
        async with Tap(lab.port) as tap:
            code, words = await refused(lab, tap.port, "shop", lab.token())
            assert code == "28000"
            assert "over TLS only" in words
            assert b"eyJ" not in tap.connections[0].sent  # the token was not even asked for
            dsn = lab.dsn(port=tap.port, sslmode="require")
            assert await asyncio.to_thread(one, dsn) == (1,)

        async def found():
            return await lab.commands("effect:refused error:28000 TLS")

        assert len(await lab.until(found)) == 1
