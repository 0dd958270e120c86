"""`sealtape verify --all --schedule`, `--once` and `--history`."""

import asyncio
import json
import os
import signal
import subprocess
import sys

import pytest

from tests.capture.metrics.http import get
from tests.factories.deployments import tree_state
from tests.factories.logs import grow_log
from tests.factories.webhooks import webhook
from tests.indexer.harm import overwrite
from tests.servers.postgres import free_port

ROUND = ("verify", "--all", "--schedule", "--once")


@pytest.fixture
def logged(copied):
    """A deployment with a log, all of which verifies but that one session is live."""
    asyncio.run(grow_log(copied))
    return copied


def configure(site, **verify):
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in verify.items())
    site.config.write_text(site.config.read_text() + f"\n[verify]\n{text}")


def damage(site):
    path = site.objects()[0]
    whole = path.read_bytes()
    overwrite(path, whole[:-1] + b"?")
    return str(path.relative_to(site.folder / "vault"))


def test_a_round_and_its_history(run, logged, recorded):
    answer = run("-c", logged.config, *ROUND, "--json")
    assert answer.code == 0, answer
    told = answer.json
    assert told["verdict"] == "verified"
    assert told["objects"] == len(logged.objects())
    assert told["bytes"] == sum(path.stat().st_size for path in logged.objects())
    assert (told["share"], told["unverified"], told["findings"]) == (1, 0, [])
    history = run("-c", logged.config, "verify", "--history", "--json").json
    assert len(history["verifications"]) == told["objects"] + 1
    passed = [each for each in history["verifications"] if each["object"] is None]
    assert len(passed) == 1
    for each in history["verifications"]:
        assert each["verdict"] == "verified"
        assert each["by"].startswith("sealtape ")
        assert each["log"]["size"] > 3
    name = recorded.closed.session.hex()
    own = run("-c", logged.config, "verify", "--history", name[:12], "--json").json
    assert 2 <= len(own["verifications"]) <= len(history["verifications"])
    people = run("-c", logged.config, "verify", "--history").out
    assert "ledger and log" in people
    assert people.count("verified") == len(history["verifications"])


def test_what_was_changed_is_found_and_listed_until_it_is_mended(run, logged, recorded):
    configure(logged, again_s=0)
    assert run("-c", logged.config, *ROUND).code == 0
    path = logged.objects()[0]
    whole = path.read_bytes()
    key = damage(logged)
    answer = run("-c", logged.config, *ROUND, "--json")
    assert answer.code == 1
    assert key in {finding["object"] for finding in answer.json["fresh"]}
    again = run("-c", logged.config, *ROUND, "--json")
    assert again.code == 1
    assert again.json["fresh"] == []
    assert again.json["findings"] == answer.json["findings"]
    people = run("-c", logged.config, *ROUND)
    assert people.out.startswith("TAMPERED ")
    assert people.out.splitlines()[-1].startswith("TAMPERED: 100.0% verified lately, ")
    history = run("-c", logged.config, "verify", "--history", "--json").json
    assert history["findings"] == answer.json["findings"]
    own = run("-c", logged.config, "verify", "--history", recorded.closed.session.hex(), "--json")
    assert own.json["verifications"]
    overwrite(path, whole)
    assert run("-c", logged.config, *ROUND).code == 0


def test_only_its_own_file_is_written(run, logged):
    before = tree_state(logged.folder)
    run("-c", logged.config, *ROUND)
    run("-c", logged.config, "verify", "--all")
    run("-c", logged.config, "verify", "--history")
    after = tree_state(logged.folder)
    assert after.pop("verification.db")
    assert {name: facts for name, facts in after.items() if name != "."} == {
        name: facts for name, facts in before.items() if name != "."
    }


def test_a_state_elsewhere_and_a_policy_and_trust_of_ones_own(run, logged, tmp_path):
    for name in ("policy.toml", "trust.toml"):
        (tmp_path / name).write_bytes((logged.folder / name).read_bytes())
        (logged.folder / name).unlink()
    configure(logged, state=str(tmp_path / "mine.db"))
    before = tree_state(logged.folder)
    own = ("--policy", tmp_path / "policy.toml", "--trust", tmp_path / "trust.toml")
    assert run("-c", logged.config, *ROUND, *own).code == 0
    assert (tmp_path / "mine.db").exists()
    assert tree_state(logged.folder) == before


def test_nothing_was_read_yet(run, copied, tmp_path):
    answer = run("-c", copied.config, "verify", "--history", "--json")
    assert answer.code == 66
    assert "there is no verification.db" in answer.error["message"]
    configure(copied, bytes_per_day=1)
    run("init", "lab", "--dev")
    assert run("-c", "lab", *ROUND, "--json").code == 74, "there is no ledger"


@pytest.mark.parametrize(
    "words",
    [
        ["--schedule"],
        ["--all", "--once"],
        ["--history", "--all"],
        ["--history", "--all", "--schedule"],
        ["--all", "--schedule", "--once", "--since", "x"],
        ["--all", "--schedule", "--once", "--deep"],
        ["--all", "--schedule", "--once", "--jobs", "2"],
        ["ab", "--all", "--schedule"],
    ],
)
def test_what_does_not_go_together(at, words):
    answer = at("verify", *words, "--json")
    assert answer.code == 64
    assert answer.error["code"] == "usage"


def test_the_status_says_it(run, logged):
    assert run("-c", logged.config, "status", "--json").json["verification"]["share"] is None
    run("-c", logged.config, *ROUND)
    status = run("-c", logged.config, "status", "--json").json["verification"]
    assert status == {"share": "100.0% in 30 days", "findings": 0, "last_finding": None}
    configure(logged, again_s=0, window="12h")
    damage(logged)
    run("-c", logged.config, *ROUND)
    status = run("-c", logged.config, "status", "--json").json["verification"]
    assert status["share"] == "100.0% in 0.5 days"
    assert status["findings"] > 0
    assert status["last_finding"].startswith("tampered: ")
    assert "last_finding" in run("-c", logged.config, "status").out
    (logged.folder / "verification.db").write_bytes(b"x" * 5000)
    broken = run("-c", logged.config, "status", "--json").json
    assert "damaged" in broken["verification"]["error"]
    assert broken["indexer"]["positions"]


async def test_as_a_service_until_it_is_stopped(logged):
    (logged.folder / "hook").write_text("correct horse\n")
    metrics = f"127.0.0.1:{free_port()}"
    async with webhook() as hook:
        configure(logged, again_s="100ms", every_s="50ms", metrics=metrics, webhook=hook.url)
        with logged.config.open("a") as file:
            file.write('webhook_secret = { file = "hook" }\n')
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "sealtape", "-c", str(logged.config),
            "verify", "--all", "--schedule",
            stderr=subprocess.PIPE,
            env={k: v for k, v in os.environ.items() if not k.startswith("SEALTAPE")},
        )  # fmt: skip
        try:
            key = damage(logged)
            await hook.until(2)
            assert key in {alarm.finding.object for alarm in hook.verified("correct horse")}
            values = (await get(metrics, "/metrics")).samples()
            assert values["sealtape_verify_findings", ("verdict", "tampered")] >= 2
            assert values[("sealtape_verify_share",)] == 1
            assert (await get(metrics, "/readyz")).status == 200
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(30):
                _, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0
    assert b"ERROR" in err
    assert b"verification found something" in err
    assert b"verdict=tampered" in err
    assert b"correct horse" not in err
