"""`sealtape monitor`: made, run as a process, asked, acknowledged; and once, for a verdict."""

import asyncio
import json
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from sealtape.capture.metrics.asking import metrics_at
from sealtape.capture.outbound import destination, post
from sealtape.indexer.monitor.folder import MonitorFolder
from sealtape.schemas.cosignatures import verifier_of
from sealtape.schemas.tlog.witnessing import parse_cosignatures
from tests.factories.breaches_of_segments import heartbeat_left_out
from tests.factories.breaches_of_sessions import sealed_twice
from tests.factories.happenings import generate_until
from tests.factories.log_vaults import LogVault

NAME = "office.example/monitor"


def history():
    return generate_until(time.time_ns(), 2, 20, turns=False)


def written(folder, made):
    """A vault with that history, and the evidence policy of whoever reads it."""
    log = asyncio.run(LogVault(folder / "vault", made).write())
    (folder / "policy.toml").write_text(log.policy_text())
    return log


def judging(folder):
    return ["monitor", "--log", f"file:{folder / 'vault'}", "--policy", folder / "policy.toml"]


@pytest.fixture
def office(run, tmp_path):
    """A monitor's folder, and its public keys."""
    answer = run("monitor", "init", tmp_path / "office", "--name", NAME, "--json")
    assert answer.code == 0, answer.err
    return tmp_path / "office", answer.json["vkeys"]


@contextmanager
def running(folder, *more):
    words = [*judging(folder), "--state", folder / "office", "--listen", "127.0.0.1:0", *more]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sealtape", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ready = process.stdout.readline()
        assert ready, process.stderr.read()
        yield ready, process
    finally:
        process.kill()
        process.communicate(timeout=30)


async def ask(log, url, old=0):
    place = destination(url, what="url")
    return await post(
        place,
        log.request(old),
        kind="text/plain",
        timeout_s=30,
        max_answer=70_000,
        path="/add-checkpoint",
    )


def test_init_makes_keys_and_says_what_to_do(run, tmp_path):
    folder = tmp_path / "office"
    answer = run("monitor", "init", folder, "--name", NAME)
    assert answer.code == 0
    assert f"witness office {NAME}+" in answer.out
    assert 'monitors = ["office"]' in answer.out
    for name in ("monitor.key", "monitor.mldsa.key"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    lines = (folder / "monitor.policy").read_text().splitlines()
    assert [verifier_of(line.split()[2]).name for line in lines] == [NAME, NAME]
    again = run("monitor", "init", folder, "--name", NAME)
    assert again.code == 73
    assert "holds a monitor already" in again.err


def test_a_folder_that_cannot_be_made(run, tmp_path):
    (tmp_path / "file").write_text("")
    assert run("monitor", "init", tmp_path / "file/office", "--name", NAME).code == 74


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["init"], "needs a folder and --name"),
        (["init", "x", "--name", "a b"], "cannot be made"),
        (["show"], "--state DIR names its folder"),
        (["show", "--state", "nowhere"], "no folder nowhere"),
        (["acknowledge", "--state", "."], "needs --reason"),
        ([], "needs --log URL and --policy FILE"),
        (["--log", "file:x", "--policy", "nowhere"], "cannot be read"),
    ],
)
def test_what_is_missing_is_said(run, words, said):
    answer = run("monitor", *words)
    assert answer.code == 64
    assert said in answer.err


def test_more_that_is_missing(run, tmp_path, office):
    folder, _ = office
    written(tmp_path, history())
    words = judging(tmp_path)
    assert "--listen HOST:PORT, or --once" in run(*words).err
    assert "is no limit" in run(*words, "--once", "--limit", "session=soon").err
    assert "is no limit" in run(*words, "--once", "--limit", "patience=5").err
    for name in ("monitor.key", "monitor.mldsa.key"):
        (folder / name).unlink()
    answer = run(*words, "--state", folder, "--listen", "127.0.0.1:0")
    assert answer.code == 64
    assert "no witness's key" in answer.err


def test_once_a_verdict(run, tmp_path):
    log = written(tmp_path, history())
    answer = run(*judging(tmp_path), "--once")
    assert answer.code == 0, answer.out
    assert answer.out.startswith("VERIFIED: sealtape.example/log, shard 1, ")
    assert f"judged by the policy {log.policy().sha256.hex()}" in answer.out
    answer = run(*judging(tmp_path), "--once", "--json")
    assert answer.json["verdict"] == "verified"
    assert answer.json["size"] == log.size
    assert answer.json["policy"] == log.policy().sha256.hex()
    answer = run(*judging(tmp_path), "--once", "--limit", "session=0", "--limit", "journal=0")
    assert answer.code == 2
    assert "LATE    entry " in answer.out
    assert ": unsealed: " in answer.out


@pytest.mark.parametrize(
    ("breach", "code", "word"),
    [(sealed_twice, 1, "TAMPERED"), (heartbeat_left_out, 2, "INCOMPLETE")],
)
def test_once_a_bad_one(run, tmp_path, breach, code, word):
    made = history()
    breach(made)
    written(tmp_path, made)
    answer = run(*judging(tmp_path), "--once")
    assert answer.code == code
    assert answer.out.splitlines()[-2].startswith(f"{word}: ")


def test_a_vault_that_is_empty(run, tmp_path):
    made = history()
    log = LogVault(tmp_path / "vault", made)
    (tmp_path / "vault").mkdir()
    (tmp_path / "policy.toml").write_text(log.policy_text())
    answer = run(*judging(tmp_path), "--once")
    assert answer.code == 2
    assert answer.out.startswith("INCOMPLETE")


def test_what_was_found_is_shown_and_acknowledged(run, tmp_path, office):
    folder, _ = office
    made = history()
    sealed_twice(made)
    written(tmp_path, made)
    found = run(*judging(tmp_path), "--once", "--json").json["violations"]
    assert run("monitor", "show", "--state", folder).out == "0 violations, 0 not acknowledged\n"
    assert run("monitor", "show", "--state", folder, "--json").out == ""
    words = [*judging(tmp_path), "--once", "--state", folder]
    assert run(*words).code == 1
    _keep(folder, found)
    shown = run("monitor", "show", "--state", folder)
    assert "BREACH  entry " in shown.out
    assert shown.out.endswith("1 violations, 1 not acknowledged\n")
    (line,) = run("monitor", "show", "--state", folder, "--json").lines
    assert (line["rule"], line["acknowledged"]) == ("seal-once", None)
    words = ["monitor", "acknowledge", "--state", folder, "--reason", "a drill"]
    answer = run(*words, "--by", "ann")
    assert answer.code == 0
    assert answer.out.endswith("1 violations acknowledged: a drill\n")
    assert run(*words, "--json").json == {"acknowledged": []}
    shown = run("monitor", "show", "--state", folder)
    assert "acknowledged by ann: a drill" in shown.out
    assert shown.out.endswith("1 violations, 0 not acknowledged\n")
    (line,) = run("monitor", "show", "--state", folder, "--json").lines
    assert line["acknowledged"] == {"by": "ann", "reason": "a drill"}
    answer = run(*judging(tmp_path), "--once", "--state", folder)
    assert answer.code == 0
    assert "acknowledged by ann: a drill" in answer.out


def _keep(folder, found):
    """As a monitor that runs on the folder keeps what it finds."""
    from sealtape.schemas.verify.violations import Violation

    items = [Violation(i["number"], i["index"], i["rule"], i["reason"]) for i in found]
    MonitorFolder(folder).add_found(items, time.time_ns())


def test_it_cosigns_until_a_signal(tmp_path, office):
    folder, vkeys = office
    log = written(tmp_path, history())
    with running(tmp_path, "--json", "--metrics", "127.0.0.1:0") as (ready, process):
        told = json.loads(ready)
        assert told["name"] == NAME
        answer = asyncio.run(ask(log, told["url"]))
        assert answer.status == 200, answer.body
        keys = [verifier_of(vkey) for vkey in vkeys]
        lines = parse_cosignatures(answer.body, log.checkpoint().text(), keys)
        assert len(lines) == 2
        found = asyncio.run(metrics_at(told["metrics"]))
        assert found["sealtape_monitor_read_size"] == log.size
        assert found["sealtape_monitor_objections"] == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert (folder / "rules.json").exists()


def test_after_a_breach_somebody_has_to_look(run, tmp_path, office):
    folder, _ = office
    made = history()
    sealed_twice(made)
    log = written(tmp_path, made)
    with running(tmp_path) as (ready, process):
        assert ready.startswith(f"{NAME} reads sealtape.example/log and cosigns at http://")
        url = ready.split()[-1]
        answer = asyncio.run(ask(log, url))
        assert answer.status == 403
        assert answer.body.startswith(b"not-admitted: entry ")
        assert run("monitor", "acknowledge", "--state", folder, "--reason", "a drill").code == 0
        assert asyncio.run(ask(log, url)).status == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
