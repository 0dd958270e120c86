"""Identity with a real provider: Keycloak signs, people and agents log in, and forgeries fail."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import subprocess
import time

import asyncpg
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.utils import base64url_encode

from sealtape.capture.identity import KeySet, TokenVerifier
from sealtape.capture.identity.fetch import provider_context
from sealtape.capture.identity.jwks import REFRESH_S, STALE_WAIT_S, UNKNOWN_KID_S
from sealtape.schemas.errors import Refused
from sealtape.schemas.settings import IdentitySettings
from tests.journeys.lab import SEALTAPE, Lab
from tests.servers.postgres import client_environment, free_port, program


class Clock:
    """Monotonic seconds that a test moves on."""

    now = 1000.0

    def __call__(self):
        return self.now


def make_verifier(keycloak, clock=None, **settings):
    chosen = {
        "issuer": keycloak.issuer,
        "jwks": keycloak.jwks,
        "ca": str(keycloak.ca),
        "user_claim": "preferred_username",
        "agent_claims": ("act.sub", "agent"),
        "on_behalf_of_claims": ("preferred_username",),
        "leeway_s": 0.0,
    }
    identity = IdentitySettings(**chosen | settings)
    context = provider_context(identity.ca, keycloak.place)
    keys = KeySet(
        source=identity.jwks, base=keycloak.place, context=context, clock=clock or Clock()
    )
    return TokenVerifier(settings=identity, keys=keys)


async def refused(verifier, token):
    with pytest.raises(Refused) as caught:
        await verifier.verify(token)
    assert token.rpartition(".")[2] not in str(caught.value) or token.endswith(".")
    return caught.value


async def test_an_agent_a_person_and_an_agent_for_a_person(keycloak_server):
    verifier = make_verifier(keycloak_server)
    agent = await verifier.verify(keycloak_server.agent_token())
    assert (agent.user, agent.groups) == ("service-account-agent-7", ("dba",))
    assert agent.agent.id == "agent-7"
    person = await verifier.verify(keycloak_server.person_token())
    assert (person.user, person.groups, person.agent) == ("ada", ("dba",), None)
    for_person = await verifier.verify(keycloak_server.exchanged(keycloak_server.person_token()))
    assert (for_person.user, for_person.subject) == ("ada", person.subject)
    assert for_person.agent.id == "agent-7"
    assert for_person.agent.on_behalf_of == ("ada",)


async def test_tokens_of_the_provider_that_are_not_for_us(keycloak_server):
    verifier = make_verifier(keycloak_server)
    assert "not valid yet" in str(await refused(verifier, keycloak_server.agent_token("early")))
    said = await refused(verifier, keycloak_server.agent_token("elsewhere"))
    assert said.reason == "token-invalid"
    assert "`aud`" in str(said) or "another audience" in str(said)
    brief = keycloak_server.agent_token("brief")
    await asyncio.sleep(2.1)
    assert (await refused(verifier, brief)).reason == "token-expired"
    foreign = keycloak_server.admin_token()  # another realm: other keys, another issuer
    assert (await refused(verifier, foreign)).reason == "token-invalid"
    elsewhere = make_verifier(keycloak_server, issuer=keycloak_server.issuer + "x")
    said = await refused(elsewhere, keycloak_server.agent_token())
    assert "another issuer" in str(said)


def forgeries(keycloak):
    """Name to a token that nobody but a careless verifier takes, made from a real one."""
    real = keycloak.agent_token()
    header, claims = (
        jwt.get_unverified_header(real),
        jwt.decode(real, options={"verify_signature": False}),
    )
    head, body, signature = real.split(".")
    mine = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key = keycloak.public_key(header["kid"])
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def encoded(value):
        return base64url_encode(json.dumps(value).encode()).decode()

    def hmacked(secret):
        signing = f"{encoded(header | {'alg': 'HS256'})}.{body}"
        mac = hmac.digest(secret, signing.encode(), hashlib.sha256)
        return f"{signing}.{base64url_encode(mac).decode()}"

    def signed(changes=None, **headers):
        return jwt.encode(
            claims | (changes or {}), mine, "RS256", headers={"kid": header["kid"], **headers}
        )

    encrypted = header | {"enc": "A256GCM", "alg": "RSA-OAEP"}
    embedded = jwt.algorithms.RSAAlgorithm.to_jwk(mine.public_key(), as_dict=True)
    return {
        "alg none": f"{encoded(header | {'alg': 'none'})}.{body}.",
        "alg None": f"{encoded(header | {'alg': 'None'})}.{body}.",
        "alg nOnE, with the signature": f"{encoded(header | {'alg': 'nOnE'})}.{body}.{signature}",
        "no alg": f"{encoded({'kid': header['kid']})}.{body}.{signature}",
        "HS256 with the public key as PEM": hmacked(pem),
        "HS256 with the public key as DER": hmacked(
            key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ),
        "HS256 with nothing": hmacked(b""),
        "another key of the same name": signed(),
        "a key it brings along": signed(jwk=embedded),
        "a key it points at": signed(jku="https://127.0.0.1:1/keys"),
        "a certificate it brings along": signed(x5c=["MIIB"]),
        "a name that is not listed": signed(kid="nobody"),
        "a path for a name": signed(kid="../../../dev/null"),
        "more groups": f"{head}.{encoded(claims | {'groups': ['admins']})}.{signature}",
        "a longer life": f"{head}.{encoded(claims | {'exp': claims['exp'] + 9999})}.{signature}",
        "no signature": f"{head}.{body}.",
        "two parts": f"{head}.{body}",
        "a cut signature": real[:-4],
        "a changed signature": f"{head}.{body}."
        + ("A" if signature[0] != "A" else "B")
        + signature[1:],
        "critical extensions": signed(crit=["exp"]),
        "a nested token": jwt.encode(
            {"jwt": real}, mine, "RS256", headers={"cty": "JWT", "kid": header["kid"]}
        ),
        "encrypted in name": f"{encoded(encrypted)}.{body}.{signature}",
    }


async def test_no_forgery_is_taken(keycloak_server):
    verifier = make_verifier(keycloak_server)
    await verifier.verify(keycloak_server.agent_token())
    for name, token in forgeries(keycloak_server).items():
        with pytest.raises(Refused) as caught:
            raise AssertionError(f"{name}: taken for {await verifier.verify(token)}")
        assert caught.value.reason == "token-invalid", name


async def test_keys_are_rotated_and_a_provider_that_is_down_is_no_outage(keycloak_alone):
    keycloak = keycloak_alone
    clock = Clock()
    verifier = make_verifier(keycloak, clock)
    before = keycloak.agent_token()
    await verifier.verify(before)
    keycloak.rotate_keys()
    after = keycloak.agent_token()
    kids = [jwt.get_unverified_header(token)["kid"] for token in (before, after)]
    assert kids[0] != kids[1]
    clock.now += UNKNOWN_KID_S + 1
    await verifier.verify(after)
    await verifier.verify(before)  # the old key is listed until it is disabled
    keycloak.pause()
    try:
        clock.now += REFRESH_S + 1
        started = time.monotonic()
        await verifier.verify(after)  # who comes first after a quiet time waits for newer keys
        assert time.monotonic() - started < STALE_WAIT_S + 4
        nobody = make_verifier(keycloak)
        assert (await refused(nobody, after)).reason == "keys-unavailable"
    finally:
        keycloak.resume()
    await verifier._keys.close()


@contextlib.asynccontextmanager
async def laboratory(folder, keycloak, postgres):
    """A deployment whose identity provider is Keycloak."""
    async with Lab(folder, postgres.port) as lab:
        text = lab.config.read_text()
        start, end = text.index("[identity]"), text.index("[ingest]")
        identity = f"""[identity]
issuer = "{keycloak.issuer}"
jwks = "{keycloak.jwks}"
ca = "{keycloak.ca}"
user_claim = "preferred_username"
agent_claims = ["act.sub", "agent"]
on_behalf_of_claims = ["preferred_username"]
[identity.login]
client = "sealtape-cli"
scope = "openid"

"""
        text = text[:start] + identity + text[end:]
        text = text.replace("127.0.0.1:0", f"127.0.0.1:{free_port()}")
        lab.config.write_text(text)
        await lab.dev()
        yield lab


async def test_a_person_logs_in_by_device_connects_and_loses_the_group(
    tmp_path, keycloak_server, postgres_server
):
    environment = client_environment(XDG_STATE_HOME=str(tmp_path / "state"))

    def sealtape(*words):
        return subprocess.run(
            [*SEALTAPE, "-c", str(lab.config), *words], capture_output=True, text=True,
            check=False, env=environment, timeout=60, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    async with laboratory(tmp_path, keycloak_server, postgres_server) as lab:
        login = await asyncio.create_subprocess_exec(
            *SEALTAPE, "-c", str(lab.config), "login", "--json",
            stdout=asyncio.subprocess.PIPE, env=environment,
        )  # fmt: skip
        shown = json.loads(await login.stdout.readline())
        await asyncio.to_thread(keycloak_server.confirm, shown["verification_uri_complete"])
        assert json.loads(await login.stdout.readline()) == {"logged_in": True}
        assert await login.wait() == 0
        (saved,) = (tmp_path / "state").rglob("*.json")
        assert saved.stat().st_mode & 0o077 == 0
        psql = (
            "connect",
            "shop",
            "--user",
            "ada",
            "--",
            program("psql"),
            "-XAt",
            "-c",
            "select 41 + 1",
        )
        ran = await asyncio.to_thread(sealtape, *psql)
        assert (ran.stdout.strip(), ran.returncode) == ("42", 0), ran.stderr
        kept = json.loads(saved.read_text())
        saved.write_text(json.dumps(kept | {"expires_at_s": time.time() + 1}))
        with keycloak_server.without_group("ada", "dba"):
            ran = await asyncio.to_thread(sealtape, *psql)  # refreshed, and the group is gone
            assert ran.returncode != 0
            assert "none of your groups may open target `shop`" in ran.stderr
        assert json.loads(saved.read_text())["token"] != kept["token"]
        assert (await asyncio.to_thread(sealtape, "login", "--out")).returncode == 0
        assert not saved.exists()
        await lab.sealed(1)
        (session,) = await lab.sessions("user:ada")
        assert session.groups == ("dba",)


async def test_an_agent_acts_for_a_person_and_both_are_in_the_record(
    tmp_path, keycloak_server, postgres_server
):
    async with laboratory(tmp_path, keycloak_server, postgres_server) as lab:
        token = keycloak_server.exchanged(keycloak_server.person_token())
        async with lab.asyncpg(token=token) as connection:
            assert await connection.fetchval("select 1") == 1
        with pytest.raises(asyncpg.PostgresError, match=r"another audience|`aud`"):
            async with lab.asyncpg(token=keycloak_server.agent_token("elsewhere")):
                pass
        await lab.sealed(1)
        (session,) = await lab.sessions("user:ada")
        assert session.agent == "agent-7"
        assert session.on_behalf_of == ("ada",)
