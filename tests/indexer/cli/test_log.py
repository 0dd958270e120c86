"""`sealtape log`: keys and policies made, the next shard prepared, how it stands."""

import asyncio
import re
import stat
from dataclasses import replace

import pytest

from sealtape.indexer.cli.log_files import LAB_WITNESSES
from sealtape.ingest.tlog.opening import read_policy
from sealtape.ingest.tlog.worker import LogWorker
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.evidence import parse_evidence_policy
from tests.factories.deployments import seal
from tests.factories.logs import grow_log, log_of, read_log


def forget_log(site):
    """Take away what an older deployment has not."""
    for path in site.folder.glob("keys/log*"):
        path.unlink()
    for name in ("keys/admin.key", "keys/witness.key", "keys/monitor.key"):
        (site.folder / name).unlink()
    for name in ("log.policy", "policy.toml"):
        (site.folder / name).unlink()


def test_init_makes_what_an_older_deployment_has_not(run, copied):
    forget_log(copied)
    with pytest.raises(SettingsError, match="sealtape log init"):
        read_policy(copied.settings)
    answer = run("-c", copied.config, "log", "init")
    assert answer.code == 0, answer.err
    assert read_policy(copied.settings).quorum == "lab"
    for name in ("log", "log.mldsa", "admin", "witness", "monitor"):
        mode = (copied.folder / f"keys/{name}.key").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600


def test_init_overwrites_nothing(run, copied):
    before = (copied.folder / "keys/log.key").read_bytes()
    answer = run("-c", copied.config, "log", "init", "--json")
    assert answer.error["code"] == "deployment-exists"
    assert (copied.folder / "keys/log.key").read_bytes() == before


def test_the_evidence_policy_names_the_same_keys(copied):
    policy = parse_evidence_policy((copied.folder / "policy.toml").read_bytes())
    own = read_policy(copied.settings)
    assert policy.log == copied.settings.deployment.log
    assert [key.verifier.vkey for key in policy.tlog.logs] == [
        key.verifier.vkey for key in own.logs
    ]
    assert [admin.name for admin in policy.admins] == ["sealtape.test/admin"]


def test_show_before_there_is_a_log(run, copied):
    shown = run("-c", copied.config, "log", "show", "--json").json
    assert (shown["origin"], shown["size"], shown["witnesses"]) == (None, 0, {})
    assert "error" not in shown


async def test_show_tells_sizes_and_witnesses(run, copied):
    await grow_log(copied)
    _, checkpoint = await read_log(copied)
    answer = await asyncio.to_thread(run, "-c", copied.config, "log", "show", "--json")
    shown = answer.json
    assert shown["size"] == shown["signed"] == shown["witnessed"] == checkpoint.size
    assert (shown["pending"], shown["pending_seals"], shown["oldest_pending"]) == (0, 0, None)
    assert set(shown["witnesses"]) == set(LAB_WITNESSES)
    assert shown["witnesses"]["witness"].startswith("20")
    people = await asyncio.to_thread(run, "-c", copied.config, "log", "show")
    assert "witness: 20" in people.out
    status = await asyncio.to_thread(run, "-c", copied.config, "status", "--json")
    assert status.json["log"]["witnessed"] == checkpoint.size


async def test_status_and_show_tell_what_is_pending(run, copied, monkeypatch):
    monkeypatch.setattr("sealtape.ingest.tlog.worker.FLUSH_S", 0.2)  # nobody will cosign
    await grow_log(copied)
    before = (await read_log(copied))[1].size
    await seal(copied, [copied.session() for _ in range(2)])
    async with log_of(copied) as (_, parts):
        worker = LogWorker(replace(parts, cosigners=None), owner="dev-1")
        task = asyncio.create_task(worker.run())
        async with asyncio.timeout(60):
            while worker.snapshot().pending < 2:
                await asyncio.sleep(0.02)
        worker.leave()
        await task
    status = await asyncio.to_thread(run, "-c", copied.config, "status", "--json")
    told = status.json["log"]
    assert (told["witnessed"], told["pending_seals"]) == (before, 2)
    assert told["pending"] == told["size"] - before > 2
    assert told["oldest_pending"].startswith("20")
    people = await asyncio.to_thread(run, "-c", copied.config, "status")
    assert re.search(r"pending_seals +2\n +oldest_pending +20", people.out)


async def test_a_rotated_log_goes_on_in_its_next_shard(run, copied):
    await grow_log(copied)
    first, before = await read_log(copied)
    answer = await asyncio.to_thread(run, "-c", copied.config, "log", "rotate", "--json")
    assert answer.json["origin"] == "sealtape.test/log/2"
    again = await asyncio.to_thread(run, "-c", copied.config, "log", "rotate")
    assert again.code == 0  # a third shard is prepared as well
    await grow_log(copied)
    second, after = await read_log(copied, number=2)
    assert after.origin == "sealtape.test/log/2"
    assert second[0].number == 2
    assert read_policy(copied.settings).open(second[0].before.encode()).checkpoint == before
    assert [each.kind for each in second[1:3]] == ["key", "key"]
    assert (await read_log(copied))[1] == before
    assert first[0].number == 1
    await grow_log(copied)
    third, _ = await read_log(copied, number=3)
    assert read_policy(copied.settings).open(third[0].before.encode()).checkpoint == after


def test_rotate_again_after_the_policy_was_put_back(run, copied):
    """By whoever manages settings, or because the first time was cut off: the keys are the same."""
    path = copied.folder / "log.policy"
    before = path.read_text()
    first = run("-c", copied.config, "log", "rotate", "--json").json
    path.write_text(before)
    again = run("-c", copied.config, "log", "rotate", "--json").json
    assert again == first
    path.write_text(before)
    (copied.folder / "keys/log-2.mldsa.key").unlink()
    third = run("-c", copied.config, "log", "rotate", "--json").json
    assert third["vkeys"][0] == first["vkeys"][0]
    origins = [key.verifier.name for key in read_policy(copied.settings).logs]
    assert origins == [f"sealtape.test/log/{number}" for number in (1, 1, 2, 2)]


def test_rotate_takes_no_key_of_another_shard(run, copied):
    keys = copied.folder / "keys"
    (keys / "log-2.key").write_bytes((keys / "log.key").read_bytes())
    answer = run("-c", copied.config, "log", "rotate")
    assert (answer.code != 0, "not the one of sealtape.test/log/2" in answer.err) == (True, True)
    assert len(read_policy(copied.settings).logs) == 2


def test_rotate_reads_the_policy_as_it_may_be_written(run, copied):
    path = copied.folder / "log.policy"
    lines = [f"\t{line}" for line in path.read_text().replace(" ", "\t").splitlines()]
    path.write_text("".join(f"{line}\n" for line in lines))
    assert run("-c", copied.config, "log", "rotate").code == 0
    assert len(read_policy(copied.settings).logs) == 4


def test_rotate_needs_the_keys_here(run, copied):
    text = copied.config.read_text()
    copied.config.write_text(text.replace("[log] ", '[log]\nsigner = "unix:run/s.sock"\n#'))
    answer = run("-c", copied.config, "log", "rotate")
    assert (answer.code, "another process" in answer.err) == (64, True)
