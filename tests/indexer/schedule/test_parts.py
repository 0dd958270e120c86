"""Objects one by one, or in batches by chance, find what everything at once finds."""

import random
import time

import pytest

from sealtape.indexer.audit_log import LogTrust, signed_sizes
from sealtape.indexer.schedule.parts import PartAudit
from sealtape.ingest.vault import open_vault
from sealtape.schemas.layout import SEGMENT_PREFIX
from sealtape.schemas.verification import PASS
from tests.factories.deployments import audit, interleaved, put, random_site, sealing, settled
from tests.factories.sessions import LOG
from tests.indexer.harm import edit, overwrite
from tests.indexer.schedule.conftest import objects_of

IS_LIVE = ("not closed", "fell silent")


class Walk:
    """Audits of parts of a site."""

    def __init__(self, site, stores):
        self.site, self.stores = site, stores

    async def part(self):
        vault = await open_vault(self.site.settings.stores.vault, self.site.folder)
        found = PartAudit(
            ledger=self.stores.ledger,
            vault=vault,
            log=LOG,
            trust=self.site.trusted,
            now_ns=time.time_ns(),
            log_trust=LogTrust(None, await signed_sizes(vault), None),
        )
        await found.follow()
        return found

    async def batch(self, keys):
        part = await self.part()
        await part.objects(set(keys))
        return part

    async def pass_over(self):
        part = await self.part()
        listed = [key async for key in self.stores.vault.keys(SEGMENT_PREFIX)]
        await part.pass_over(listed)
        return part


def told(findings):
    return {
        (each.verdict, each.layer, each.object, each.session, each.epoch, each.seq, each.reason)
        for each in findings
        if not each.reason.startswith(IS_LIVE[0]) and IS_LIVE[1] not in each.reason
    }


async def sealed(site, sessions, stores, running, luck):
    """Put the sessions on the bus in several stretches, so that they lie in several objects."""
    pairs = interleaved(sessions, luck.random())
    cuts = sorted(luck.sample(range(1, len(pairs)), min(3, len(pairs) - 1)))
    for begin, end in zip([0, *cuts], [*cuts, len(pairs)], strict=True):
        await put(stores.bus, pairs[begin:end])
        await settled(running)


def flip(site, luck):
    """Change a bit of some object, somewhere in its frames."""
    path = luck.choice(site.objects())
    data = bytearray(path.read_bytes())
    data[luck.randrange(4, len(data) * 2 // 3)] ^= 1 << luck.randrange(8)
    overwrite(path, data)


@pytest.mark.parametrize("seed", range(6))
async def test_by_chance(tmp_path, seed):
    luck = random.Random(seed)
    site, sessions = random_site(tmp_path / "site", seed)
    async with sealing(site) as (stores, running):
        await sealed(site, sessions, stores, running, luck)
        for harm in (False, True):
            if harm:
                flip(site, luck)
            expected = told((await audit(site)).findings)
            walk = Walk(site, stores)
            keys = objects_of(site)
            luck.shuffle(keys)
            parts = [await walk.pass_over()]
            while keys:
                many = luck.randrange(1, len(keys) + 1)
                parts.append(await walk.batch(keys[:many]))
                keys = keys[many:]
            assert told(f for part in parts for f in part.report.findings) == expected
            assert bool(expected) == harm or not harm


async def test_what_is_found_belongs_to_what_has_to_be_read_again(long_site, site):
    _, long, *_ = long_site
    keys = objects_of(site)
    key = keys[1]
    (site.folder / "vault" / key).unlink()
    async with sealing(site) as (stores, _):
        walk = Walk(site, stores)
        part = await walk.batch([key])
        scopes = {scope for scope, _ in part.found()}
        assert scopes == {key}
        assert key not in part.read
        whole = await walk.batch(keys)
        assert {scope for scope, _ in whole.found()} == {key}
        assert (await walk.pass_over()).report.findings == []
    assert long.session.hex() in {finding.session for finding in whole.report.findings}


async def test_the_beginning_of_a_session_is_read_with_its_end(long_site, site):
    _, long, *_ = long_site
    async with sealing(site) as (stores, _):
        places = [row.segment_key for row in await stores.ledger.fragments(long.session)]
        assert len(places) > 2
        part = await Walk(site, stores).batch(places[-1:])
    assert set(part.read) == {places[0], places[-1]}
    assert part.report.findings == []
    assert part.frames.keys() == part.read.keys()
    assert part.held.keys() == {places[-1]}


async def test_rows_that_cannot_be_read(long_site, site):
    _, long, *_ = long_site
    edit(site, ("UPDATE session SET frames = 'many' WHERE session = ?", long.session))
    edit(site, "UPDATE fragment SET record = x'00' WHERE segment_id = 1")
    async with sealing(site) as (stores, _):
        walk = Walk(site, stores)
        part = await walk.batch(objects_of(site))
        passed = await walk.pass_over()
    for found in (part, passed):
        assert {each.layer for each in found.report.findings} >= {"ledger"}
    assert PASS in {scope for scope, _ in passed.found()}
