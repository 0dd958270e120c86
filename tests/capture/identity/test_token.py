import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sealtape.capture.identity import DevelopmentIssuer, KeySet, TokenVerifier
from sealtape.capture.identity.token import MAX_NAME, Agent
from sealtape.schemas.bodies import Ident
from sealtape.schemas.errors import Refused, SettingsError
from sealtape.schemas.settings import IdentitySettings

ISSUER = "https://issuer.test"


@pytest.fixture
def issuer():
    return DevelopmentIssuer.generate()


@pytest.fixture
def verifier(tmp_path, issuer):
    return make_verifier(tmp_path, issuer.jwks())


def make_verifier(folder, jwks, **settings):
    (folder / "jwks.json").write_text(json.dumps(jwks))
    keys = KeySet(source="file:jwks.json", base=folder)
    chosen = {"issuer": ISSUER, "audience": "sealtape", "jwks": "file:jwks.json", **settings}
    return TokenVerifier(settings=IdentitySettings(**chosen), keys=keys)


def sign(issuer, claims=None, *, drop=(), key=None, algorithm="ES256", headers=None):
    now = int(time.time())
    full = {"iss": ISSUER, "aud": "sealtape", "sub": "ada", "iat": now, "exp": now + 60}
    full |= claims or {}
    for name in drop:
        del full[name]
    kid = issuer.jwks()["keys"][0]["kid"]
    headers = {"kid": kid} if headers is None else headers
    return jwt.encode(full, key or issuer._private, algorithm=algorithm, headers=headers)


async def refused(verifier, token):
    with pytest.raises(Refused) as caught:
        await verifier.verify(token)
    for part in token.split("."):
        if len(part) > 12:
            assert part not in str(caught.value)
            assert part not in repr(caught.value.context)
    return caught.value


async def test_a_minted_token_gives_the_identity_that_was_asked_for(issuer, verifier):
    now = time.time()
    token = issuer.mint(
        issuer=ISSUER, audience="sealtape", user="ada", groups=["dba", "dev", "dba"],
        agent="bot-7", on_behalf_of="grace", run="run-1", ttl_s=90, now_s=now,
    )  # fmt: skip
    identity = await verifier.verify(token)
    assert (identity.user, identity.subject, identity.issuer) == ("ada", "ada", ISSUER)
    assert identity.groups == ("dba", "dev")
    assert identity.agent == Agent("bot-7", ("grace",), "run-1")
    assert identity.run == "run-1"
    assert identity.token_id
    assert identity.expires_ns == int(now + 90) * 1_000_000_000


async def test_a_person_is_no_agent(issuer, verifier):
    identity = await verifier.verify(sign(issuer))
    assert identity.agent is None
    assert identity.groups == ()
    assert identity.run == identity.token_id == ""


async def test_the_chain_of_actors_names_the_nearest_first_and_the_person_last(issuer, verifier):
    act = {"sub": "writer", "act": {"sub": "planner", "act": {"sub": "scheduler"}}}
    identity = await verifier.verify(sign(issuer, {"act": act}))
    assert identity.agent == Agent("writer", ("planner", "scheduler", "ada"), "")


async def test_an_actor_chain_without_end_is_cut(issuer, verifier):
    act = {"sub": "last"}
    for number in range(40):
        act = {"sub": f"a{number}", "act": act}
    identity = await verifier.verify(sign(issuer, {"act": act}))
    assert len(identity.agent.on_behalf_of) == 16


async def test_azp_names_the_agent_where_there_is_no_act(issuer, verifier):
    identity = await verifier.verify(sign(issuer, {"azp": "copilot", "run_id": "r-9"}))
    assert identity.agent == Agent("copilot", ("ada",), "r-9")


async def test_an_agent_with_a_token_of_its_own_acts_for_nobody(issuer, verifier):
    identity = await verifier.verify(sign(issuer, {"sub": "bot", "azp": "bot"}))
    assert identity.agent == Agent("bot", (), "")


async def test_claim_names_are_settings_and_an_exact_name_goes_before_a_dotted_way(
    tmp_path, issuer
):
    verifier = make_verifier(
        tmp_path, issuer.jwks(), user_claim="email", groups_claim="https://x.test/roles",
        agent_claims=("actor.name",), on_behalf_of_claims=("for",), run_claims=("job.id",),
    )  # fmt: skip
    claims = {
        "email": "ada@x.test", "https://x.test/roles": "dba", "actor": {"name": "bot"},
        "for": ["grace", "bot"], "job.id": "exact", "job": {"id": "dotted"},
    }  # fmt: skip
    identity = await verifier.verify(sign(issuer, claims))
    assert (identity.user, identity.subject, identity.groups) == ("ada@x.test", "ada", ("dba",))
    assert identity.agent == Agent("bot", ("grace",), "exact")


@pytest.mark.parametrize("claim", ["exp", "iat", "sub", "iss", "aud"])
async def test_every_claim_that_pins_a_token_must_be_there(issuer, verifier, claim):
    error = await refused(verifier, sign(issuer, drop=[claim]))
    assert error.reason == "token-invalid"
    assert claim in error.message or claim in {"iss", "aud"}


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"aud": "other"}, "another audience"),
        ({"iss": "https://evil.test"}, "another issuer"),
        ({"nbf": 4_000_000_000}, "not valid yet"),
        ({"iat": 4_000_000_000}, "not valid yet"),
        ({"sub": 7}, "malformed"),
        ({"sub": ""}, "no usable `sub`"),
        ({"sub": "x" * (MAX_NAME + 1)}, "longer than"),
        ({"exp": "soon"}, "malformed"),
        ({"groups": [1]}, "not a list"),
        ({"groups": {"a": 1}}, "not a list"),
        ({"sub": "a\ud800"}, "not text"),
        ({"groups": ["g" * 300]}, "longer than"),
    ],
)
async def test_claims_that_do_not_fit_are_refused(issuer, verifier, claims, words):
    error = await refused(verifier, sign(issuer, claims))
    assert error.reason == "token-invalid"
    assert words in error.message


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"groups": [f"g{number}" for number in range(1025)]}, "1024 groups"),
        ({"exp": int(time.time()) * 1000}, "`exp`"),  # in milliseconds
        ({"exp": 1 << 62}, "`exp`"),
    ],
)
async def test_what_a_recording_has_no_room_for_is_refused(issuer, verifier, claims, words):
    found = await refused(verifier, sign(issuer, claims))
    assert found.reason == "token-invalid"
    assert words in found.message
    most = {"groups": [f"g{number}" for number in range(1024)], "exp": 9_000_000_000}
    identity = await verifier.verify(sign(issuer, most))
    ident = Ident(
        user="ada",
        target="shop",
        protocol="postgres",
        node="n",
        groups=identity.groups,
        expires_ns=identity.expires_ns,
    )
    assert Ident.from_json(ident.to_json()) == ident


async def test_an_expired_token_is_told_apart_and_leeway_counts(issuer, verifier):
    now = int(time.time())
    error = await refused(verifier, sign(issuer, {"iat": now - 100, "exp": now - 20}))
    assert error.reason == "token-expired"
    assert await verifier.verify(sign(issuer, {"iat": now - 100, "exp": now - 5}))


async def test_a_changed_token_is_refused(issuer, verifier):
    head, body, signature = sign(issuer).split(".")
    flipped = ("A" if signature[0] != "A" else "B") + signature[1:]
    error = await refused(verifier, f"{head}.{body}.{flipped}")
    assert "signature does not verify" in error.message


@pytest.mark.parametrize(
    "junk", ["", "x", "a.b.c", "é" * 9, "x" * 60_000, "eyJhbGciOiJFUzI1NiJ9.e30"]
)
async def test_junk_is_no_token(verifier, junk):
    assert (await refused(verifier, junk)).reason == "token-invalid"


async def test_another_algorithm_is_refused_whatever_it_is_signed_with(issuer, verifier):
    shared = issuer.jwks()["keys"][0]["x"] * 2
    for algorithm, key in (("HS256", shared), ("none", None)):
        token = jwt.encode({"sub": "ada"}, key, algorithm=algorithm)
        assert "algorithm is not accepted" in (await refused(verifier, token)).message


async def test_a_key_for_one_algorithm_verifies_no_other(tmp_path):
    private = rsa.generate_private_key(65537, 2048)
    public = jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    jwks = {"keys": [{**public, "kid": "k", "alg": "RS512"}]}
    verifier = make_verifier(tmp_path, jwks)
    issuer = DevelopmentIssuer.generate()
    token = sign(issuer, key=private, algorithm="RS256", headers={"kid": "k"})
    assert "another algorithm" in (await refused(verifier, token)).message


async def test_a_key_of_the_wrong_kind_is_no_server_error(tmp_path, issuer):
    private = rsa.generate_private_key(65537, 2048)
    public = jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    verifier = make_verifier(tmp_path, {"keys": [{**public, "kid": "k"}]})
    token = sign(issuer, headers={"kid": "k"})  # ES256, under an RSA key's name
    assert (await refused(verifier, token)).reason == "token-invalid"


async def test_rsa_tokens_verify_and_a_set_of_one_key_needs_no_name(tmp_path):
    private = rsa.generate_private_key(65537, 2048)
    public = jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    verifier = make_verifier(tmp_path, {"keys": [{**public, "kid": "k"}]})
    token = sign(DevelopmentIssuer.generate(), key=private, algorithm="RS256", headers={})
    assert (await verifier.verify(token)).user == "ada"


async def test_a_token_signed_with_a_strangers_key_is_refused(issuer, verifier):
    stranger = ec.generate_private_key(ec.SECP256R1())
    assert "does not verify" in (await refused(verifier, sign(issuer, key=stranger))).message
    error = await refused(verifier, sign(issuer, headers={"kid": "unknown"}))
    assert "does not list" in error.message
    error = await refused(verifier, sign(issuer, headers={"kid": "k", "typ": "JWT", "x": 1}))
    assert error.reason == "token-invalid"


@pytest.mark.parametrize("algorithms", [("HS256",), ("ES256", "none"), ()])
def test_symmetric_algorithms_are_a_mistake_in_the_settings(tmp_path, issuer, algorithms):
    with pytest.raises(SettingsError):
        make_verifier(tmp_path, issuer.jwks(), algorithms=algorithms)
