"""`sealtape witness`: made, run as a process, killed; asked by the client of the log worker."""

import asyncio
import json
import random
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager

import pytest

from sealtape.capture.metrics.asking import metrics_at
from sealtape.indexer.cli import witness as module
from sealtape.ingest.tlog.witnesses import Witnesses
from sealtape.schemas import notes
from sealtape.schemas.cosignatures import verifier_of
from sealtape.schemas.tlog.keyfiles import format_key
from sealtape.schemas.tlog.policy import parse_policy
from tests.factories.growing import ORIGIN, GrowingLog
from tests.servers.tls import write_certificate

LOG = GrowingLog().grow(40)


@pytest.fixture
def made(run, tmp_path):
    """A witness's folder, and its public keys."""
    folder = tmp_path / "office"
    words = ["--name", "office.example/w", "--log", LOG.verifier.vkey, "--json"]
    answer = run("witness", "init", folder, *words)
    assert answer.code == 0, answer.err
    return folder, answer.json["vkeys"]


@contextmanager
def running(folder, *more):
    """The witness as a process; yields what it says when it is ready, and the process."""
    words = ["witness", "--state", folder, "--listen", "127.0.0.1:0", "--json", *more]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sealtape", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ready = process.stdout.readline()
        assert ready, process.stderr.read()
        yield json.loads(ready), process
    finally:
        process.kill()
        process.communicate(timeout=30)


def policy_of(vkey, url):
    text = f"log {LOG.verifier.vkey}\nwitness office {vkey} {url}\nquorum office\n"
    return parse_policy(text.encode())


def test_init_makes_keys_and_says_what_to_do(run, tmp_path):
    folder = tmp_path / "a/office"
    words = ["witness", "init", folder, "--name", "office.example/w"]
    answer = run(*words, "--log", LOG.verifier.vkey, "--log", LOG.ml_dsa_verifier.vkey)
    assert answer.code == 0, answer.err
    line, second = (folder / "witness.policy").read_text().splitlines()
    word, name, vkey = line.split()
    assert (word, name) == ("witness", "office")
    assert f"  {line} http://HOST:PORT\n" in answer.out
    assert f"sealtape witness --state {folder}" in answer.out
    assert type(verifier_of(vkey)).__name__ == "Cosigner"
    assert type(verifier_of(second.split()[2])).__name__ == "MlDsaCosigner"
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    logs = parse_policy((folder / "logs.policy").read_bytes()).logs
    assert [log.verifier.vkey for log in logs] == [LOG.verifier.vkey, LOG.ml_dsa_verifier.vkey]
    again = run(*words, "--log", LOG.verifier.vkey)
    assert again.code == 73
    assert "holds a witness already" in again.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["init"], "needs a folder"),
        (["init", "x", "--name", "n"], "needs a folder"),
        (["init", "x", "--log", LOG.verifier.vkey], "needs a folder"),
        (["init", "x", "--name", "a b", "--log", LOG.verifier.vkey], "not a key name"),
        (["init", "x", "--name", "n", "--log", "y"], "policy line 1"),
        ([], "needs --state DIR and --listen"),
        (["--state", "nowhere", "--listen", "127.0.0.1:0"], "There is no folder nowhere"),
    ],
)
def test_what_is_missing_is_said(run, words, said):
    answer = run("witness", *words)
    assert answer.code == 64
    assert said in answer.err


def test_an_address_is_one(run, tmp_path):
    answer = run("witness", "--state", tmp_path, "--listen", "7380")
    assert answer.code == 64
    assert "--listen" in answer.err


def test_a_folder_that_cannot_be_made(run, tmp_path):
    (tmp_path / "file").write_text("")
    words = ["--name", "n", "--log", LOG.verifier.vkey]
    answer = run("witness", "init", tmp_path / "file/office", *words)
    assert answer.code == 74


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "logs.policy").unlink(), "logs.policy cannot be read"),
        (lambda folder: (folder / "logs.policy").write_text("log x\n"), "policy line 1"),
        (lambda folder: (folder / "logs.policy").write_text("quorum none\n"), "names no log"),
        (lambda folder: (folder / "witness.key").write_text("x"), "cannot be read"),
        (lambda folder: [path.unlink() for path in folder.glob("*.key")], "no witness's key"),
    ],
)
def test_what_is_wrong_in_the_folder_is_said(run, made, spoil, said):
    folder, _ = made
    spoil(folder)
    answer = run("witness", "--state", folder, "--listen", "127.0.0.1:0")
    assert answer.code == 64
    assert said in answer.err


def test_what_is_named_must_be_there(run, made, tmp_path):
    folder, _ = made
    words = ["witness", "--state", folder, "--listen", "127.0.0.1:0"]
    assert "nokey is not there" in run(*words, "--key", tmp_path / "nokey").err
    assert "nopolicy cannot be read" in run(*words, "--policy", tmp_path / "nopolicy").err
    assert "nopem cannot be read" in run(*words, "--tls", tmp_path / "nopem").err


async def test_it_cosigns_until_a_signal(made):
    folder, vkeys = made
    with running(folder, "--metrics", "127.0.0.1:0") as (ready, process):
        assert ready["name"] == "office.example/w"
        assert ready["logs"] == [ORIGIN]
        for vkey in vkeys:
            client = Witnesses(policy_of(vkey, ready["url"]))
            lines = await client.cosign(LOG.note(), LOG.prove)
            assert policy_of(vkey, "").open(LOG.note() + "".join(lines).encode()).quorum
        told = await metrics_at(ready["metrics"])
        assert told["sealtape_witness_seen_size"] == 40
        assert told["sealtape_witness_cosigned_total"] == 2
        assert told["sealtape_witness_refused_total"] == 1
        assert told["sealtape_witness_last_cosigned_timestamp_seconds"] > 1_700_000_000
        # A second one on the same folder would have a memory of its own.
        second = subprocess.run(
            [sys.executable, "-P", "-m", "sealtape", "witness", "--state", folder,
             "--listen", "127.0.0.1:0"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert second.returncode == 75
        assert "Another witness runs on" in second.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    (seen,) = folder.glob("seen/*.checkpoint")
    assert notes.parse_checkpoint(notes.parse_note(seen.read_bytes()).text).size == 40


async def test_its_keys_logs_and_certificate_may_lie_elsewhere(made, tmp_path):
    folder, _ = made
    key = tmp_path / "other.key"
    key.write_text(format_key("other.example/w", b"\x04", b"\x33" * 32))
    vkey = module.cosigning_keys([key], [])[0].vkey
    log = GrowingLog("example.org/log/1").grow(3)
    (tmp_path / "followed").write_text(f"log {log.verifier.vkey}\nquorum none\n")
    chain, private = write_certificate(tmp_path)
    (tmp_path / "both.pem").write_bytes(chain.read_bytes() + private.read_bytes())
    more = ["--key", key, "--policy", tmp_path / "followed", "--tls", tmp_path / "both.pem"]
    with running(folder, *more) as (ready, _):
        assert ready["url"].startswith("https://")
        text = f"log {log.verifier.vkey}\nwitness o {vkey} {ready['url']}\nquorum o\n"
        client = Witnesses(parse_policy(text.encode()), ca=chain)
        assert len(await client.cosign(log.note(), log.prove)) == 1


async def test_killed_at_any_moment_it_never_cosigns_two_histories(made):
    """kill -9 while it is asked for two histories at once; whatever it released fits together."""
    folder, (vkey, _) = made
    choose = random.Random(7)
    long = GrowingLog().grow(200)
    histories = [long, long.fork(3)]
    released, size = [], 0
    for _ in range(5):
        with running(folder) as (ready, process):
            policy = policy_of(vkey, ready["url"])
            clients = [Witnesses(policy, timeout_s=5) for _ in histories]
            last = choose.randint(1, 6)
            for number in range(last + 1):
                size += choose.randint(1, 5)
                asking = [
                    asyncio.create_task(client.cosign(log.note(size), log.prove))
                    for client, log in zip(clients, histories, strict=True)
                ]
                if number == last:
                    await asyncio.sleep(choose.random() * 0.02)
                    process.kill()
                for log, lines in zip(histories, await asyncio.gather(*asking), strict=True):
                    if lines:
                        released.append(tuple(log.leaves[:size]))
    assert len(released) > 5
    released.sort(key=len)
    for one in released:
        assert released[-1][: len(one)] == one
