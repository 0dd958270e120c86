"""Logs that the real worker wrote, of sessions that the real ingest sealed, break no rule."""

from dataclasses import replace

import pytest

from sealtape.indexer.monitor import read_once
from sealtape.ingest.vault import open_vault
from sealtape.schemas import messages
from sealtape.schemas.evidence import parse_evidence_policy
from sealtape.schemas.frames import Kind
from sealtape.schemas.tlog.records import LogIncident
from tests.factories.deployments import interleaved, make_site, random_site, seal
from tests.factories.logs import grow_log, read_log


async def judged(site):
    policy = parse_evidence_policy((site.folder / "policy.toml").read_bytes())
    vault = await open_vault(site.settings.stores.vault, site.folder)
    try:
        return await read_once(vault, policy)
    finally:
        await vault.close()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_was_recorded(tmp_path, seed):
    site, sessions = random_site(tmp_path / "lab", seed)
    half = len(sessions) // 2
    await seal(site, pairs=interleaved(sessions[:half], seed))
    await grow_log(site)
    await seal(site, pairs=interleaved(sessions[half:], seed))
    await grow_log(site, 0.5)
    found = await judged(site)
    assert (found.verdict, found.violations) == ("verified", ())
    assert found.sessions == len({built.session for built in sessions})


async def test_frames_after_the_seal(tmp_path):
    """A session that was sealed, and of which more came: an incident says so."""
    site = make_site(tmp_path / "lab")
    built = site.session(commands=4, final_checkpoint=False)
    late = replace(built.frames[-1], seq=len(built.frames), kind=Kind.DATA)
    await seal(site, [built])
    await grow_log(site, 1.0)
    await seal(site, pairs=[(built.session, messages.encode(late))])
    await grow_log(site, 1.0)
    entries, _ = await read_log(site)
    said = [each.reason for each in entries if isinstance(each, LogIncident)]
    assert "after_seal" in said
    found = await judged(site)
    assert (found.verdict, found.violations) == ("verified", ())
