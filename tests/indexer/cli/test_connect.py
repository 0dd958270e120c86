"""`sealtape connect`."""

import json
import os
import subprocess
import sys

import jwt
import pytest

from sealtape.indexer.cli.deployment import write_runtime

SHOW = (
    "import json, os, sys; print(json.dumps([sys.argv[1:],"
    " {k: v for k, v in os.environ.items() if k.startswith('PG')}]))"
)


@pytest.fixture
def running(copied):
    """A deployment from which a node runs, as far as the command can tell."""
    write_runtime(copied.folder, {"postgres": "127.0.0.1:6543"})
    return copied


def process(site, *words, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "SEALTAPE"))}
    return subprocess.run(
        [sys.executable, "-P", "-m", "sealtape", "-c", site.config, "connect", *words],
        capture_output=True,
        text=True,
        check=False,
        env=clean | environment,
        timeout=60,
    )


def test_json(run, running):
    answer = run("-c", running.config, "connect", "shop", "--user", "ada", "--json")
    assert answer.json == {
        "dsn": "postgresql://ada@127.0.0.1:6543/shop",
        "password_env": "PGPASSWORD",
    }


def test_another_database_of_a_target(run, running):
    answer = run("-c", running.config, "connect", "shop/other", "--user", "ada", "--json")
    assert answer.json["dsn"].endswith("/shop%2Fother")


def test_for_people(run, running):
    answer = run("-c", running.config, "connect", "shop", "--user", "ada")
    assert answer.out.splitlines()[0] == "postgresql://ada@127.0.0.1:6543/shop"
    assert "sealtape token --user ada" in answer.out


def test_an_unknown_target(run, running):
    answer = run("-c", running.config, "connect", "shoop", "--json")
    assert answer.code == 66
    assert answer.error["code"] == "not-found"
    assert "shop" in answer.error["message"].partition("Known")[2]
    run("init", "empty", "--dev")
    assert "none yet" in run("-c", "empty", "connect", "x").err


def test_where_nothing_runs_and_the_port_is_free(at):
    answer = at("connect", "shop", "--json")
    assert answer.code == 69
    assert "not running" in answer.error["message"]


def test_a_configured_port_is_taken_as_it_is(run, copied):
    text = copied.config.read_text().replace('"127.0.0.1:0"', '"[::1]:7000"')
    copied.config.write_text(text)
    answer = run("-c", copied.config, "connect", "shop", "--user", "ada", "--json")
    assert answer.json["dsn"] == "postgresql://ada@[::1]:7000/shop"


def test_production_names_the_tls_mode(run, tmp_path):
    run("init", "lab")
    config = tmp_path / "lab/sealtape.toml"
    target = '[targets.x]\naddress = "h:1"\ndatabase = "d"\nuser = "u"\ngroups = ["*"]\n'
    config.write_text(config.read_text() + target)
    answer = run("-c", config, "connect", "x", "--user", "ada", "--json")
    assert answer.json["dsn"] == "postgresql://ada@0.0.0.0:6432/x?sslmode=verify-full"


def test_a_client_is_run_with_everything_set(running):
    done = process(running, "shop", "--user", "ada", "--", sys.executable, "-c", SHOW, "--x", "--")
    assert done.returncode == 0, done.stderr
    words, given = json.loads(done.stdout)
    token = given.pop("PGPASSWORD")
    assert given == {
        "PGHOST": "127.0.0.1",
        "PGPORT": "6543",
        "PGDATABASE": "shop",
        "PGUSER": "ada",
    }
    assert words[0] == "--x"
    assert jwt.decode(token, options={"verify_signature": False})["sub"] == "ada"
    assert token not in done.stderr
    assert token not in done.stdout.replace(json.dumps(token), "")


def test_groups_of_the_minted_token(running):
    done = process(running, "shop", "--group", "dba", "--", sys.executable, "-c", SHOW)
    token = json.loads(done.stdout)[1]["PGPASSWORD"]
    assert jwt.decode(token, options={"verify_signature": False})["groups"] == ["dba"]


def test_a_token_that_is_given_is_passed_on(running):
    done = process(
        running, "shop", "--", sys.executable, "-c", SHOW, SEALTAPE_TOKEN="mine", PGSSLMODE="allow"
    )
    given = json.loads(done.stdout)[1]
    assert given["PGPASSWORD"] == "mine"
    assert given["PGSSLMODE"] == "allow"


@pytest.mark.parametrize("code", [0, 3, 64])
def test_the_exit_code_is_the_clients(running, code):
    done = process(running, "shop", "--", sys.executable, "-c", f"raise SystemExit({code})")
    assert done.returncode == code


def test_a_client_that_is_not_there(running):
    done = process(running, "shop", "--", "no-such-client", "-c", "select 1")
    assert done.returncode == 64
    assert "no-such-client" in done.stderr
    assert "Traceback" not in done.stderr


def test_production_mints_no_token(run, tmp_path):
    run("init", "lab")
    config = tmp_path / "lab/sealtape.toml"
    target = '[targets.x]\naddress = "h:1"\ndatabase = "d"\nuser = "u"\ngroups = ["*"]\n'
    config.write_text(config.read_text() + target)
    assert run("-c", config, "connect", "x", "--", "true").code == 64
