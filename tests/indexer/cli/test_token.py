"""`sealtape token`."""

import time

import jwt
import pytest


def claims(token):
    return jwt.decode(token, options={"verify_signature": False})


def test_the_bare_token_and_nothing_else(at):
    answer = at("token", "--user", "ada", "--group", "dba", "--group", "ops")
    assert answer.code == 0
    assert answer.err == ""
    (token,) = answer.out.splitlines()
    found = claims(token)
    assert found["sub"] == "ada"
    assert found["groups"] == ["dba", "ops"]
    assert found["exp"] - found["iat"] == 3600


def test_json(at):
    answer = at("token", "--user", "ada", "--json")
    assert set(answer.json) == {"token"}
    assert claims(answer.json["token"])["sub"] == "ada"


def test_an_agent_its_principal_and_its_run(at):
    words = ["--user", "svc", "--agent", "bot", "--on-behalf-of", "ada", "--run", "r-7"]
    text = str(claims(at("token", *words).out.strip()))
    assert all(value in text for value in ("svc", "bot", "ada", "r-7"))


@pytest.mark.parametrize(
    ("ttl", "seconds"), [("90s", 90), ("5m", 300), ("8h", 28800), ("2d", 172800)]
)
def test_terms(at, ttl, seconds):
    found = claims(at("token", "--user", "a", "--ttl", ttl).out.strip())
    assert found["exp"] - found["iat"] == seconds
    assert abs(found["iat"] - time.time()) < 60


@pytest.mark.parametrize("ttl", ["", "soon", "90", "-1h", "1h30", "5 parsecs", "nan", "1e400"])
def test_a_term_that_is_none(at, ttl):
    answer = at("token", "--user", "a", f"--ttl={ttl}", "--json")
    assert answer.code == 64
    assert answer.out == ""
    assert answer.error["code"] == "usage"
    assert "--ttl" in answer.error["message"]


def test_a_user_is_needed(at):
    assert at("token").code == 64


def test_production_has_no_issuer(run):
    run("init", "lab")
    answer = run("-c", "lab", "token", "--user", "ada")
    assert answer.code == 64
    assert "no development issuer" in answer.err
    assert answer.out == ""


@pytest.mark.parametrize("content", [None, b"\xff", b"no key"])
def test_a_key_that_cannot_be_had(run, tmp_path, content):
    run("init", "lab", "--dev")
    path = tmp_path / "lab/keys/issuer.key"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    answer = run("-c", "lab", "token", "--user", "ada", "--json")
    assert answer.code == (65 if content == b"no key" else 77)
    assert answer.out == ""
    assert answer.error["exit_code"] == answer.code
