"""The log's time-stamps are what authorities of the policy made over its kept checkpoints."""

import hashlib
import shutil
import sys
import time

import pytest

from sealtape.indexer import audit_stamps
from sealtape.indexer.audit_stamps import Stamps
from sealtape.schemas.errors import SettingsError
from sealtape.schemas.evidence import parse_evidence_policy
from sealtape.schemas.segments import parse_manifest
from sealtape.schemas.verify import Report
from tests.factories import timestamps as tsa
from tests.factories.deployments import audit, make_site, seal
from tests.factories.logs import grow_log

ROOT = tsa.Party("Root 1", 10, ca=True)
SIGNER = tsa.Party("Authority 1", 11, ROOT)
STRANGER = tsa.Party("Root 2", 12, ca=True)


@pytest.fixture
async def site(tmp_path):
    made = make_site(tmp_path / "site")
    await seal(made, [made.session(commands=1)])
    await grow_log(made)
    return made


def log_files(site, name):
    return sorted((site.folder / "vault/log/v1/1" / name).iterdir())


def stamp(site, name="one", *, over=None, signer=SIGNER):
    """An authority's answer over the last kept checkpoint, beside it."""
    note = log_files(site, "checkpoints")[-1]
    folder = site.folder / "vault/log/v1/1/timestamps" / note.name
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(note.read_bytes() if over is None else over).digest()
    path = folder / f"{name}.tsr"
    path.write_bytes(tsa.answer(signer, digest))
    (folder / f"{name}.pem").write_bytes(signer.pem)
    return str(path.relative_to(site.folder / "vault"))


def policy_of(site, *, require=False, root=ROOT):
    text = (site.folder / "policy.toml").read_text()
    if require:
        text = text.replace("monitors = ", 'require = ["timestamp"]\nmonitors = ', 1)
    text += f'\n[[tsa]]\nname = "one"\nroots = """\n{root.pem.decode()}"""\n'
    return parse_evidence_policy(text.encode())


async def findings(site, *, later_s=0, **options):
    now = time.time_ns() + later_s * 10**9
    report = await audit(site, policy=policy_of(site, **options), now_ns=now)
    told = [item for item in report.findings if item.layer == "timestamp"]
    return [(item.verdict, item.object, item.reason) for item in told], report


async def test_one_that_verifies(site):
    stamp(site)
    told, report = await findings(site, require=True, later_s=4 * 3600)
    assert told == []
    assert not any("time-stamp" in note for note in report.notes)


async def test_one_over_something_else(site):
    name = stamp(site, over=b"another note")
    told, report = await findings(site)
    assert told == [("tampered", name, "the time-stamp is of something else: its digest differs")]
    assert report.exit_code == 1


async def test_one_of_nobody_the_policy_knows(site):
    name = stamp(site)
    told, _ = await findings(site, root=STRANGER)
    assert [item[:2] for item in told] == [("tampered", name)]


async def test_one_that_was_damaged(site):
    name = stamp(site)
    path = site.folder / "vault" / name
    path.write_bytes(path.read_bytes()[:-1])
    told, _ = await findings(site)
    assert [item[:2] for item in told] == [("tampered", name)]


async def test_an_authority_that_is_not_in_the_policy_is_noted(site):
    stamp(site, "two")
    told, report = await findings(site)
    assert told == []
    assert "the time-stamps of two are of no known authority" in report.notes


async def test_one_without_its_checkpoint_and_what_is_none(site):
    name = stamp(site)
    shutil.move(
        (site.folder / "vault" / name).parent,
        site.folder / "vault/log/v1/1/timestamps" / f"{10**6:020d}",
    )
    (site.folder / "vault/log/v1/1/timestamps/note.txt").write_text("?")
    told, _ = await findings(site)
    assert [reason for _, _, reason in told] == [
        "it is no time-stamp of the log", "the checkpoint that it stamps is not there",
    ]  # fmt: skip


async def test_a_required_one_may_be_late_and_not_missing(site):
    told, _ = await findings(site, require=True)
    assert told == [], "the seal is new"
    told, report = await findings(site, require=True, later_s=4 * 3600)
    ((verdict, name, reason),) = told
    assert (verdict, name) == ("incomplete", "log/v1/1/timestamps/")
    assert reason.startswith("none covers 1 seals")
    assert report.verdict == "incomplete"
    told, _ = await findings(site, later_s=4 * 3600)
    assert told == [], "not required"


async def test_seals_after_the_last_one(site):
    stamp(site)
    await seal(site, [site.session(commands=1)])
    await grow_log(site)
    told, _ = await findings(site, require=True, later_s=4 * 3600)
    assert [verdict for verdict, _, _ in told] == ["incomplete"]
    stamp(site)
    told, _ = await findings(site, require=True, later_s=4 * 3600)
    assert told == []


async def test_without_the_library(site, monkeypatch):
    stamp(site, over=b"another note")
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    told, report = await findings(site)
    assert told == []
    assert any("were not checked" in note for note in report.notes)
    with pytest.raises(SettingsError, match="rfc3161-client"):
        await findings(site, require=True)


async def of_session(site, *, manifest=None, later_s=0, **options):
    """What is found and noted of a session: of the only segment's, or of that manifest's."""
    if manifest is None:
        (manifest,) = (site.folder / "vault/seg").rglob("*.manifest.jsonl")
    _, (fragment, *_) = parse_manifest(manifest.read_bytes())
    now = time.time_ns() + later_s * 10**9
    report = await audit(site, fragment.session, policy=policy_of(site, **options), now_ns=now)
    return [(item.verdict, item.layer) for item in report.findings], report.notes


async def test_a_session_was_sealed_before_the_first_time_stamp_over_it(site):
    late = {"require": True, "later_s": 4 * 3600}
    assert await of_session(site, **late) == (
        [("incomplete", "timestamp")],
        ["no time-stamp in shard 1 covers the seal of epoch 0"],
    )
    assert (await of_session(site, require=True))[0] == [], "it may still come"
    stamp(site, "stranger")
    stamp(site)
    found, (note,) = await of_session(site, **late)
    assert found == []
    assert note.startswith("epoch 0 was sealed before 20")
    assert note.endswith("Z: time-stamp of one")
    await grow_log(site)
    stamp(site, signer=STRANGER)
    assert await of_session(site, **late) == ([], [note]), "the first one says most"


async def test_a_sessions_time_stamp_that_lies(site):
    stamp(site, over=b"another note")
    found, notes = await of_session(site)
    assert found == [("tampered", "timestamp")]
    assert notes == ["no time-stamp in shard 1 covers the seal of epoch 0"]


async def test_a_stamped_checkpoint_that_does_not_hold_is_no_bound(site):
    stamp(site)
    note = log_files(site, "checkpoints")[-1]
    note.chmod(0o644)
    note.write_bytes(note.read_bytes().replace(b"\n\n", b"\nmore\n\n", 1))
    stamp(site)
    found, notes = await of_session(site)
    assert (found, notes) == ([("tampered", "log")], [])


async def test_a_kept_checkpoint_that_does_not_hold_under_no_time_stamp(site):
    for note in log_files(site, "checkpoints"):
        note.chmod(0o644)
        note.write_bytes(note.read_bytes().replace(b"\n\n", b"\nmore\n\n", 1))
    found, _ = await of_session(site, require=True, later_s=4 * 3600)
    assert found == [("tampered", "log")]


async def test_a_session_without_the_library(site, monkeypatch):
    stamp(site)
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    found, (note,) = await of_session(site)
    assert found == []
    assert "were not checked" in note


async def test_a_stamped_checkpoint_of_another_history(site):
    """Signed and witnessed with the same keys, and without what this log has."""
    other = site.moved(site.folder.parent / "other")
    shutil.copytree(site.folder, other.folder)
    for each in (other, site):
        await seal(each, [each.session(commands=1)])
        await grow_log(each)
    stamp(other)
    for place in ("checkpoints", "timestamps"):
        path = log_files(other, place)[-1]
        into = site.folder / "vault/log/v1/1" / place / path.name
        if path.is_dir():
            shutil.copytree(path, into)
        else:
            into.unlink(missing_ok=True)
            shutil.copy(path, into)
    first = min((site.folder / "vault/seg").rglob("*.manifest.jsonl"))
    found, notes = await of_session(site, manifest=first)
    assert found == [("tampered", "log")]
    assert not any("sealed before" in note for note in notes)


async def test_a_later_shard_covers_the_seals_of_an_earlier_one(site):
    shard = audit_stamps._Shard
    for stamped, found in (({5: 1}, 0), ({}, 1)):
        report = Report()
        stamps = Stamps(policy_of(site, require=True), time.time_ns(), report)
        stamps._shards = {1: shard({9: 1}, {}, [4]), 2: shard({5: 1}, stamped, [])}
        stamps.finish()
        assert len(report.findings) == found
