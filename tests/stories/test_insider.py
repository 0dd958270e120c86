"""Who has all stores, and all keys of the operator; not those of the outside witnesses."""

import asyncio
import secrets
import shutil
import time

import pytest

from sealtape.ingest.keyring import open_keyring
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.tlog.signer_file import read_key
from sealtape.schemas.tlog.records import encode_entry
from sealtape.schemas.tlog.statements import Heading, IntentStatement, sign_statement
from tests.factories.deployments import audited, make_site, seal
from tests.factories.logs import grow_log
from tests.factories.sessions import LOG
from tests.indexer.harm import edit, tampered
from tests.stories.deployed import PATIENT, judged, numbered, place, policy_of

INSIDE = ("log.key", "log.mldsa.key", "node.key", "admin.key", "auditor.key", "indexer.key")


def all_anew(site, folder):
    """Another deployment with every key of the first but the witness's."""
    other = make_site(folder)
    for name in INSIDE:
        if (site.folder / "keys" / name).exists():
            shutil.copy(site.folder / "keys" / name, other.folder / "keys" / name)
    for name in ("trust.toml", "policy.toml"):
        shutil.copy(site.folder / name, other.folder / name)
    ours = [line for line in policy_lines(site) if line.startswith("log ")]
    rest = [line for line in policy_lines(other) if not line.startswith("log ")]
    (other.folder / "log.policy").write_text("\n".join([*ours, *rest]) + "\n")
    return site.moved(other.folder)


def policy_lines(site):
    return (site.folder / "log.policy").read_text().splitlines()


async def test_he_replaces_the_whole_deployment_by_another(site, tmp_path):
    """It is perfect in itself; the auditor's policy asks for a witness who has never seen it."""
    fork = all_anew(site, tmp_path / "fork")
    await seal(fork, [numbered(fork, commands=1) for _ in range(3)], limits=PATIENT)
    await grow_log(fork)
    report = await judged(fork, policy=policy_of(site))
    assert report.verdict == "incomplete"
    assert {finding.reason for finding in report.findings} == {
        "the policy's quorum did not cosign it"
    }
    seen = (await audited(site, policy=policy_of(site))).log.seen
    tampered(await judged(fork, policy=policy_of(site), since=seen), layer="log")


async def test_he_rolls_everything_back(deployed):
    """Only somebody who has seen more can tell: an earlier run's state, or the witness."""
    run = await audited(deployed.site, policy=policy_of(deployed.site))
    assert (await judged(deployed.earlier)).verdict == "verified"
    tampered(await judged(deployed.earlier, since=run.log.seen), layer="log", reason="rolled back")


async def test_he_removes_a_recording_early_and_all_that_the_stores_know_of_it(site, deployed):
    session = deployed.second[0].session
    path = site.objects()[1]
    path.unlink()
    path.with_name(path.stem + ".manifest.jsonl").unlink()
    for table in ("fragment", "head", "session"):
        edit(site, (f"DELETE FROM {table} WHERE session=?", session))
    edit(site, "DELETE FROM segment WHERE id=2", "UPDATE shard SET n=n-1")
    report = await judged(site)
    tampered(report, layer="log", object=place(site, path))
    tampered(report, layer="log", session=session.hex())


async def test_he_destroys_the_keys_of_a_recording(site, deployed):
    """That cannot be undone, and takes nothing from the evidence; it is told."""
    gone = deployed.first[0]
    keyring = await open_keyring("sqlite:keyring.db", site.folder)
    await keyring.destroy(gone.session)
    await keyring.close()
    report = await judged(site, key=site.auditor)
    assert report.verdict == "verified"
    assert any(gone.session.hex() in n and "keys were destroyed" in n for n in report.notes)


@pytest.mark.parametrize("basis", ["expired", "erasure"])
async def test_he_writes_his_own_tombstone_before_the_term_is_over(site, deployed, basis):
    """He is one administrator, and no reaper. Where the log takes it, it keeps that he did."""
    session = deployed.second[0].session
    heading = Heading(LOG, secrets.token_bytes(16), time.time_ns())
    matter = bytes(32) if basis == "expired" else secrets.token_bytes(32)
    intent = IntentStatement(heading, basis, matter, (session,))
    signer = read_key(site.folder / "keys/admin.key").signer()
    ledger = await open_ledger(site.settings.stores.ledger, site.folder)
    await ledger.submit("statement", encode_entry(sign_statement(intent, [signer])))
    await ledger.close()
    await grow_log(site)
    for path in (site.objects()[1], site.objects(".manifest.jsonl")[1]):
        await asyncio.to_thread(path.unlink)
    report = await judged(site)
    tampered(report, layer="object", reason="nothing says it was deleted")
    if basis == "erasure":
        tampered(report, layer="log", reason="signed:")
