"""The log is what is sealed, under checkpoints that count; and whatever is not so is found."""

import asyncio
import itertools
import shutil
import time
from dataclasses import replace

import pytest

from sealtape.ingest.sealer import Limits
from sealtape.ingest.tlog.opening import read_policy
from sealtape.ingest.tlog.store import CHECKPOINT, PENDING
from sealtape.schemas.evidence import parse_evidence_policy
from sealtape.schemas.tlog.tiles import Tile, encode_entries, parse_entries
from sealtape.schemas.verify.log_state import SeenLog
from tests.factories.deployments import audit, audited, make_site, seal
from tests.factories.logs import grow_log, read_log, rotate, writing
from tests.indexer.harm import edit, overwrite, tampered

HOUR_NS = 3600 * 10**9
_NUMBERS = itertools.count(1)


def session(site, **options):
    """A session with a number of its own, as every one of a node has."""
    return site.session(number=next(_NUMBERS), **options)


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Two segments, in the log, witnessed; a copy of all of it from between them."""
    site = make_site(tmp_path_factory.mktemp("log") / "site")
    earlier = tmp_path_factory.mktemp("earlier") / "site"

    async def fill():
        patient = Limits(segment_ns=10**9, idle_ns=10**9)
        first, crashed = session(site, commands=3), next(_NUMBERS)
        recovered = site.recovered(commands=2, number=crashed)
        await seal(site, [first, *recovered], limits=patient)
        await grow_log(site)
        shutil.copytree(site.folder, earlier)
        await seal(site, [session(site, commands=2)], limits=patient)
        await grow_log(site)

    asyncio.run(fill())
    return site, site.moved(earlier)


@pytest.fixture
def site(logged, tmp_path):
    """A copy to do harm to."""
    shutil.copytree(logged[0].folder, tmp_path / "copy")
    return logged[0].moved(tmp_path / "copy")


def policy_of(site):
    return parse_evidence_policy((site.folder / "policy.toml").read_bytes())


async def judged(site, session=None, **options):
    return await audit(site, session, policy=policy_of(site), **options)


def log_file(site, name):
    return site.folder / "vault/log/v1/1" / name


async def test_whole(logged):
    for site in logged:
        report = await judged(site)
        assert [finding.to_json() for finding in report.findings] == []
        assert report.verdict == "verified"


async def test_without_a_policy_nobodys_signature_counts_and_that_is_said(logged):
    report = await audit(logged[0])
    assert report.verdict == "verified"
    assert any("no evidence policy" in note for note in report.notes)


async def test_one_session(logged):
    site = logged[0]
    (last, _) = await read_log(site)
    sessions = {entry.session for entry in last if getattr(entry, "kind", "") == "session-open"}
    assert len(sessions) == 3
    for session in sessions:
        report = await judged(site, session)
        assert [finding.to_json() for finding in report.findings] == []
        assert report.verdict == "verified"


# -- objects of the log ---------------------------------------------------------------------------


def bundle_with(site, change):
    """Write the entry bundles anew with other entries."""
    for path in log_file(site, "tile/entries").rglob("*"):
        if path.is_file():
            name = str(path.relative_to(log_file(site, "")))
            tile = Tile.from_path(name)
            overwrite(path, encode_entries(change(parse_entries(tile, path.read_bytes()))))


@pytest.mark.parametrize("index", [0, 3, -1])
async def test_an_entry_that_was_changed(site, index):
    def change(entries):
        changed = list(entries)
        changed[index] = changed[index].replace(b'"v":1', b'"v":2')
        return changed

    bundle_with(site, change)
    tampered(await judged(site), layer="log")


async def test_entries_that_were_swapped(site):
    bundle_with(site, lambda entries: [entries[1], entries[0], *entries[2:]])
    tampered(await judged(site), layer="log")


@pytest.mark.parametrize("where", ["tile/0", "tile/entries"])
async def test_a_tile_with_a_flipped_bit(site, where):
    path = max(path for path in log_file(site, where).rglob("*") if path.is_file())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    overwrite(path, bytes(data))
    name = str(path.relative_to(site.folder / "vault"))
    found = tampered(await judged(site), layer="log")
    assert any(finding.object == name for finding in found) or where == "tile/entries"


@pytest.mark.parametrize("where", ["tile/0", "tile/entries"])
async def test_a_tile_that_is_gone(site, where):
    for path in log_file(site, where).rglob("*"):
        if path.is_file():
            path.unlink()
    tampered(await judged(site), layer="log")


async def test_a_stranger_among_the_tiles(site):
    path = log_file(site, "tile/0/999")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x" * 32)
    assert (await judged(site)).verdict == "verified"  # what no leaf reaches says nothing
    path.rename(path.with_name("stranger"))
    tampered(await judged(site), layer="log", reason="no tile")


# -- checkpoints ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [CHECKPOINT, PENDING])
async def test_a_checkpoint_that_was_changed(site, name):
    path = log_file(site, name)
    overwrite(path, path.read_bytes().replace(b"\n", b"\n ", 1))
    tampered(await judged(site), layer="log", object=f"log/v1/1/{name}")


async def test_a_checkpoint_nobody_cosigned(site):
    path = log_file(site, CHECKPOINT)
    shutil.rmtree(log_file(site, "checkpoints"))
    text, _, lines = path.read_bytes().partition(b"\n\n")
    own = [line for line in lines.splitlines() if b"/log/1 " in line]
    assert 0 < len(own) < len(lines.splitlines())
    overwrite(path, text + b"\n\n" + b"".join(line + b"\n" for line in own))
    report = await judged(site)
    assert report.verdict == "incomplete"
    assert "quorum" in report.findings[0].reason


async def test_no_checkpoint(site):
    log_file(site, CHECKPOINT).unlink()
    tampered(await judged(site), layer="log", reason="rolled back")


async def test_a_policy_of_another_log(site, tmp_path):
    stranger = make_site(tmp_path / "stranger")
    tampered(await audit(site, policy=policy_of(stranger)), layer="log")


# -- rolled back ----------------------------------------------------------------------------------


async def test_an_old_ledger_is_older_than_its_log(site, logged):
    shutil.copy(logged[1].folder / "ledger.db", site.folder / "ledger.db")
    for name in ("ledger.db-wal", "ledger.db-shm"):
        (site.folder / name).unlink(missing_ok=True)
    tampered(await judged(site), layer="ledger", reason="an old copy")


async def test_everything_rolled_back_shows_against_an_earlier_run(logged):
    site, earlier = logged
    run = await audited(site, policy=policy_of(site))
    assert run.report.verdict == "verified"
    seen = SeenLog.from_json(run.log.seen.to_json())
    assert (await judged(earlier)).verdict == "verified"
    tampered(await judged(earlier, since=seen), layer="log", reason="rolled back")
    assert (await judged(site, since=seen)).verdict == "verified"
    before = (await audited(earlier, policy=policy_of(earlier))).log.seen
    assert (await judged(site, since=before)).verdict == "verified"


async def test_another_history_shows_against_an_earlier_run(logged, tmp_path):
    """The same keys, other entries: what a thief of all of them would show."""
    site, _ = logged
    seen = (await audited(site, policy=policy_of(site))).log.seen
    fork = make_site(tmp_path / "fork")
    for name in ("keys", "log.policy", "policy.toml", "trust.toml"):
        source, target = site.folder / name, fork.folder / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    (fork.folder / "keys/log.signed").unlink()  # without it the signer refuses
    fork = site.moved(fork.folder)
    for _ in range(2):
        await seal(fork, [session(site, commands=1) for _ in range(6)])
        await grow_log(fork)
    assert (await judged(fork)).verdict == "verified"
    tampered(await judged(fork, since=seen), layer="log", reason="another history")


# -- the ledger and what is sealed ----------------------------------------------------------------


async def test_a_row_of_the_log_that_was_edited(site):
    edit(site, "UPDATE log_entry SET entry = cast(entry || ' ' AS BLOB) WHERE idx = 2")
    tampered(await judged(site), layer="ledger", object="log entry 2")


async def test_a_segment_that_only_the_log_knows(site):
    last = site.objects()[-1]
    key = str(last.relative_to(site.folder / "vault"))
    edit(
        site,
        "DELETE FROM fragment WHERE segment_id = (SELECT max(id) FROM segment)",
        "DELETE FROM segment WHERE id = (SELECT max(id) FROM segment)",
    )
    tampered(await judged(site), layer="log", object=key)


async def test_a_segment_that_the_log_does_not_know(logged, tmp_path):
    site = make_site(tmp_path / "late")
    await seal(site, [session(site)])
    assert (await judged(site)).verdict == "verified"  # there is no log at all yet
    assert (await judged(site, now_ns=time.time_ns() + HOUR_NS)).verdict == "incomplete"
    await grow_log(site)
    await seal(site, [session(site)])
    assert (await judged(site)).verdict == "verified"
    report = await judged(site, now_ns=time.time_ns() + HOUR_NS)
    assert report.verdict == "incomplete"
    assert any("not in the log" in finding.reason for finding in report.findings)


async def test_no_false_alarm_while_the_log_grows(tmp_path):
    site = make_site(tmp_path / "busy")
    await seal(site, [session(site)])
    await grow_log(site)
    async with writing(site) as (stores, _):
        for _ in range(6):
            await seal(site, [session(site, commands=2)])
            report = await judged(site)
            assert [f.to_json() for f in report.findings if f.verdict == "tampered"] == []
    assert stores is not None


# -- a log of two shards --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_shards(tmp_path_factory):
    """A first shard of more than a bundle's entries that has ended, and the next one."""
    site = make_site(tmp_path_factory.mktemp("two") / "site")

    async def fill():
        await seal(site, [site.session(commands=0) for _ in range(130)])
        await grow_log(site)
        rotate(site)
        await seal(site, [site.session(commands=1)])
        await grow_log(site)

    asyncio.run(fill())
    return site


@pytest.fixture
def rotated(two_shards, tmp_path):
    shutil.copytree(two_shards.folder, tmp_path / "copy")
    return two_shards.moved(tmp_path / "copy")


def policy_of_all(site, **changes):
    """The deployment's policy with the keys of all its shards."""
    return replace(policy_of(site), tlog=read_policy(site.settings), **changes)


def not_tampered(report):
    return not [finding for finding in report.findings if finding.verdict == "tampered"]


async def test_two_shards(two_shards):
    run = await audited(two_shards, policy=policy_of_all(two_shards, ml_dsa_from={"": 0}))
    assert not_tampered(run.report)
    assert not [f for f in run.report.findings if f.layer == "log"]
    assert [checkpoint.origin[-6:] for checkpoint in run.log.seen.checkpoints] == [
        "/log/1",
        "/log/2",
    ]


async def test_entries_of_an_ended_shard_that_are_gone(rotated):
    """A finding; the shard behind it is read all the same."""
    (last,) = log_file(rotated, "tile/entries").glob("001*/*")
    last.unlink()
    report = await audit(rotated, policy=policy_of_all(rotated))
    tampered(report, layer="log", reason="is missing")
    assert {f.object for f in report.findings if f.verdict == "tampered"} == {
        f"log/v1/1/tile/entries/001.p/{last.name}"
    }
    assert any("up to the missing entries" in note for note in report.notes)


async def test_an_ended_shard_that_is_gone(rotated):
    shutil.rmtree(log_file(rotated, ""))
    report = await audit(rotated, policy=policy_of_all(rotated))
    tampered(report, layer="log", object="log/v1/1/")
    assert not any("of shard 2" in f.object for f in report.findings)


async def test_a_row_of_an_ended_shard_that_was_edited(rotated):
    edit(
        rotated,
        "UPDATE log_entry SET entry = cast(entry || ' ' AS BLOB) WHERE number = 1 AND idx = 2",
    )
    for policy in (policy_of_all(rotated), None):
        report = await audit(rotated, policy=policy)
        tampered(report, layer="ledger", object="log entry 2 of shard 1")


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DELETE FROM log_entry WHERE number = 1 AND idx > 200", "entries, not 201"),
        ("INSERT INTO log_entry SELECT 1, 9999, 'stranger', x'00'", "it has more"),
    ],
)
async def test_rows_of_an_ended_shard_that_were_dropped_or_added(rotated, statement, reason):
    edit(rotated, statement)
    tampered(await audit(rotated, policy=policy_of_all(rotated)), layer="ledger", reason=reason)


# -- what a policy wants on checkpoints -----------------------------------------------------------


def without(site, unwanted):
    """Take lines off all checkpoints of the log."""
    folder = site.folder / "vault/log/v1"
    for path in [*folder.glob("*/checkpoint*"), *folder.glob("*/checkpoints/*")]:
        if path.is_file():
            text, _, lines = path.read_bytes().partition(b"\n\n")
            kept = [line for line in lines.splitlines(keepends=True) if not unwanted(line)]
            overwrite(path, text + b"\n\n" + b"".join(kept))


async def test_checkpoints_without_the_lines_that_a_policy_wants(site):
    policy = policy_of(site)
    without(site, lambda line: len(line) > 2000)  # the ML-DSA-44 lines
    assert (await audit(site, policy=policy)).verdict == "verified"
    origin = f"{site.settings.deployment.log}/1"
    wanting = replace(policy, ml_dsa_from={origin: 0})
    run = await audited(site, policy=wanting)
    assert run.report.verdict == "incomplete"
    assert all("ML-DSA-44 signature is missing" in f.reason for f in run.report.findings)
    assert run.log.seen.checkpoints == ()
    assert (await audit(site, policy=replace(policy, ml_dsa_from={origin: 10**6}))).verdict == (
        "verified"
    )


async def test_checkpoints_that_only_ml_dsa_signed(site):
    without(site, lambda line: b"/log/1 " in line and len(line) < 2000)
    tampered(await judged(site), layer="log", reason="Ed25519 signature is missing")


async def test_what_lacks_the_quorum_is_not_what_was_seen(site, logged):
    """Whoever has the log's key alone does not make a later, honest log look like another."""
    before = (await audited(logged[1], policy=policy_of(logged[1]))).log.seen
    without(site, lambda line: b"/log/1 " not in line)
    for since in (None, before):
        run = await audited(site, policy=policy_of(site), since=since)
        assert run.report.verdict == "incomplete"
        assert run.log.seen.checkpoints == (() if since is None else before.checkpoints)
