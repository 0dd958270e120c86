"""`sealtape dev`: all rooms in one process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.factories.deployments import tree_state

URL = "shop=postgresql://app:hunter2@127.0.0.1:1/shopdb"


@pytest.fixture
def dev(tmp_path):
    """Start it on a folder; what is left running is ended."""
    started = []

    def start(*words):
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sealtape", "dev", str(tmp_path / "lab"), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("SEALTAPE")},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ready(process):
    line = process.stdout.readline()
    return json.loads(line) if line else pytest.fail(process.communicate()[1])


def test_one_line_when_ready_then_drains(dev, run, tmp_path):
    process = dev("--target", URL, "--json")
    line = ready(process)
    config = tmp_path / "lab/sealtape.toml"
    assert line["ready"] is True
    assert line["config"] == str(config)
    assert line["targets"] == ["shop"]
    host, port = line["listeners"]["postgres"].rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")  # SSLRequest
        assert client.recv(1) == b"S"
    answer = run("-c", config, "connect", "shop", "--user", "ada", "--json")
    assert answer.json["dsn"] == f"postgresql://ada@{host}:{port}/shop"
    assert run("-c", config, "status", "--json").json["capture"]["running"] is True
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == "", "one line and no more"
    err = process.stderr.read()
    assert process.wait(60) == 0, err
    assert "hunter2" not in err
    assert run("-c", config, "status", "--json").json["capture"]["running"] is False
    assert run("-c", config, "verify", "--all", "--json").json["verdict"] == "verified"


def test_for_people_and_again(dev, tmp_path):
    process = dev()
    assert process.stdout.readline().startswith("ready: PostgreSQL clients at 127.0.0.1:")
    process.send_signal(signal.SIGTERM)
    out = process.stdout.read()
    assert process.wait(60) == 0
    assert "none yet" in out
    assert "SEALTAPE_CONFIG=" in out
    keys = tree_state(tmp_path / "lab/keys")
    again = dev("--json")
    assert ready(again)["targets"] == []
    assert tree_state(tmp_path / "lab/keys") == keys, "keys are kept"


def test_killed_and_verified_while_and_after(dev, run, tmp_path):
    process = dev("--json")
    config = ready(process)["config"]
    for _ in range(5):
        assert run("-c", config, "verify", "--all").code in (0, 2, 74)
    process.kill()
    process.wait()
    before = tree_state(tmp_path / "lab")
    assert run("-c", config, "verify", "--all").code in (0, 2)
    after = tree_state(tmp_path / "lab")
    assert list(after) == list(before)
    assert run("-c", config, "status", "--json").json["capture"]["running"] is False


def test_what_is_sealed_is_verified_meanwhile(dev, run, tmp_path):
    run("init", tmp_path / "lab", "--dev")
    config = tmp_path / "lab/sealtape.toml"
    config.write_text(config.read_text() + '\n[verify]\nevery_s = "100ms"\n')
    process = dev("--json")
    ready(process)
    until = time.monotonic() + 30
    while (
        not (tmp_path / "lab/verification.db").exists()
        or not run("-c", config, "verify", "--history", "--json").json["verifications"]
    ):
        assert time.monotonic() < until
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_production_deployment_is_refused_and_untouched(run, tmp_path):
    run("init", "lab")
    before = tree_state(tmp_path / "lab")
    answer = run("dev", "lab", "--target", URL, "--json")
    assert answer.code == 64
    assert "production" in answer.error["message"]
    assert tree_state(tmp_path / "lab") == before


def test_a_target_that_is_none(run, tmp_path):
    answer = run("dev", "lab", "--target", "shop=mysql://x", "--json")
    assert answer.code == 64
    assert answer.error["code"] == "usage"


def test_a_folder_of_other_keys(run, tmp_path):
    (tmp_path / "lab/keys").mkdir(parents=True)
    assert run("dev", "lab").code == 73
