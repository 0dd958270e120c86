"""What `sealtape verify` brings for the log: the policy, and what an earlier run has seen."""

import asyncio
import shutil

import pytest

from sealtape.indexer.cli import verify_log
from sealtape.ingest.vault import open_vault
from sealtape.schemas.errors import SettingsError, StoreError, UsageError
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.verify import Report
from sealtape.schemas.verify.log_state import SeenLog
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log

LOG = "sealtape.example/log"
SEEN = SeenLog.of(LOG, [Checkpoint(f"{LOG}/1", 7, b"\1" * 32)])


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    site = make_site(tmp_path_factory.mktemp("logged") / "site")

    async def fill():
        await seal(site, [site.session()])
        await grow_log(site)

    asyncio.run(fill())
    return site


async def trust(site, **options):
    vault = await open_vault(site.settings.stores.vault, site.folder)
    given = {"policy": None, "since": None} | options
    try:
        return await verify_log.log_trust(site.settings, vault, **given)
    finally:
        await vault.close()


async def test_the_deployments_own_policy_unless_another_is_named(logged, tmp_path):
    own = await trust(logged)
    assert own.policy.log == logged.settings.deployment.log
    assert own.signed[1] > 3
    assert own.since is None
    elsewhere = tmp_path / "mine.toml"
    shutil.copy(logged.folder / "policy.toml", elsewhere)
    assert (await trust(logged, policy=str(elsewhere))).policy.sha256 == own.policy.sha256
    bare = logged.moved(tmp_path / "bare")
    shutil.copytree(logged.folder, bare.folder)
    (bare.folder / "policy.toml").unlink()
    assert (await trust(bare)).policy is None


async def test_a_policy_that_is_none(logged, tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        await trust(logged, policy=str(tmp_path / "absent"))


def test_the_state_of_an_earlier_run(tmp_path):
    path = tmp_path / "seen"
    assert verify_log.read_seen(None) is None
    assert verify_log.read_seen(str(path)) is None
    verify_log.keep_seen(str(path), SEEN)
    assert verify_log.read_seen(str(path)) == SEEN
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UsageError, match="not the state"):
        verify_log.read_seen(str(path))


def test_the_state_that_cannot_be_written(tmp_path):
    with pytest.raises(StoreError, match="seen"):
        verify_log.keep_seen(str(tmp_path / "none" / "seen"), SEEN)


def test_the_state_stays_when_something_is_wrong(tmp_path):
    path = tmp_path / "seen"
    report = Report(sessions=1)
    report.tampered("log", "log", "rolled back")
    assert verify_log.worth_keeping(str(path), SEEN, report) is None
    assert "shows what was seen before" in report.notes[0]
    good = Report(sessions=1)
    assert verify_log.worth_keeping(str(path), SEEN, good) == SEEN
    assert verify_log.worth_keeping(None, SEEN, good) is None
    assert verify_log.worth_keeping(str(path), None, good) is None
    verify_log.keep_seen(None, SEEN)
    verify_log.keep_seen(str(path), None)
    assert not path.exists()


def test_at_the_command_line(logged, tmp_path, run):
    state = tmp_path / "seen"
    config = str(logged.config)
    answer = run("-c", config, "verify", "--all", "--since", str(state))
    assert answer.code == 0, answer
    assert SeenLog.from_json(state.read_bytes()).checkpoints[0].size > 3
    assert run("-c", config, "verify", "--all", "--since", str(state)).code == 0
    lost = run("-c", config, "verify", "--all", "--since", str(tmp_path / "none" / "seen"))
    assert (lost.code, "VERIFIED" in lost.out) == (74, True), lost
    assert "none/seen" in lost.err
    far = SeenLog.of(
        logged.settings.deployment.log,
        [Checkpoint(f"{logged.settings.deployment.log}/1", 10_000, b"\1" * 32)],
    )
    state.write_bytes(far.to_json())
    caught = run("-c", config, "verify", "--all", "--since", str(state), "--json")
    assert caught.code == 1
    assert any("rolled back" in f["reason"] for f in caught.json["findings"])
    assert state.read_bytes() == far.to_json()
    assert run("-c", config, "verify", "ab", "--since", str(state)).code == 64
    state.write_bytes(SeenLog.of("other/log", [Checkpoint("other/log/1", 3, b"\1" * 32)]).to_json())
    other = run("-c", config, "verify", "--all", "--since", str(state))
    assert (other.code, "seen of the log other/log" in other.err) == (64, True)


def test_an_earlier_shards_checkpoint_that_is_gone_is_a_finding(copied, run, tmp_path):
    asyncio.run(grow_log(copied))
    config = str(copied.config)
    assert run("-c", config, "log", "rotate").code == 0
    asyncio.run(grow_log(copied))
    (copied.folder / "policy.toml").unlink()  # it does not name the new keys
    state = tmp_path / "seen"
    assert run("-c", config, "verify", "--all", "--since", str(state)).code == 2, "one is live"
    before = state.read_bytes()
    assert len(SeenLog.from_json(before).checkpoints) == 2
    for name in ("checkpoint", "checkpoint.pending"):
        (copied.folder / "vault/log/v1/1" / name).unlink()
    caught = run("-c", config, "verify", "--all", "--since", str(state), "--json")
    assert caught.code == 1, caught
    assert any(f["object"].startswith("log/v1/1/") for f in caught.json["findings"])
    assert state.read_bytes() == before
    assert run("-c", config, "verify", "--all", "--schedule", "--once").code == 1
