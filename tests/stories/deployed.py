"""A running embedded deployment in the middle of its life, for attackers to be let loose on.

Four sessions in two segments, all in the log, under two witnessed checkpoints; and a copy of all of
it from between the two, as anybody who makes backups has one.
"""

import asyncio
import itertools
import shutil
import time
from types import SimpleNamespace

import pytest

from sealtape.indexer.index import Page, open_index
from sealtape.indexer.query import parse
from sealtape.ingest.sealer import Limits
from sealtape.ingest.tlog.watch import WATCH, Look
from sealtape.schemas.evidence import parse_evidence_policy
from tests.factories.deployments import audit, make_site, seal
from tests.factories.logs import grow_log, log_of

__all__ = [
    "PATIENT",
    "STATEMENTS",
    "deployed",
    "found",
    "judged",
    "log_file",
    "looked",
    "numbered",
    "place",
    "policy_of",
    "site",
]

PATIENT = Limits(segment_ns=10**9, idle_ns=10**9)
_NUMBERS = itertools.count(1)

QUERY = parse("select", now_ns=0)
STATEMENTS = ["select 1 from secrets", "select 2 from orders"]


def numbered(site, **options):
    """A session with a number of its own, as every one of a node has."""
    return site.session(number=next(_NUMBERS), **options)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """Has `site`, `earlier` (the copy), `first` and `second`: what the segments hold."""
    site = make_site(tmp_path_factory.mktemp("deployed") / "site")
    earlier = tmp_path_factory.mktemp("earlier") / "site"
    first = [numbered(site, commands=3, row_bytes=60)]
    first += site.recovered(commands=2, number=next(_NUMBERS))
    first.append(numbered(site, commands=2, encrypt=False))
    second = [numbered(site, commands=2)]

    async def fill():
        await seal(site, first, limits=PATIENT)
        await grow_log(site)
        shutil.copytree(site.folder, earlier)
        await seal(site, second, limits=PATIENT)
        await grow_log(site)

    asyncio.run(fill())
    assert len(site.objects()) == 2
    return SimpleNamespace(site=site, earlier=site.moved(earlier), first=first, second=second)


@pytest.fixture
def site(deployed, tmp_path):
    """A copy to do harm to."""
    shutil.copytree(deployed.site.folder, tmp_path / "copy")
    return deployed.site.moved(tmp_path / "copy")


def policy_of(site):
    """The evidence policy that an auditor took away when the deployment was made."""
    return parse_evidence_policy((site.folder / "policy.toml").read_bytes())


async def judged(site, session=None, **options):
    """What `sealtape verify --policy` says of everything, or of one session."""
    return await audit(site, session, **({"policy": policy_of(site)} | options))


def log_file(site, name=""):
    """A file of the log's first shard."""
    return site.folder / "vault/log/v1/1" / name


def place(site, path):
    """What findings call an object."""
    return str(path.relative_to(site.folder / "vault"))


async def found(site):
    """What a search for a session of STATEMENTS finds."""
    index = await open_index(site.settings.stores.index, site.folder)
    try:
        hits = await index.search_commands(QUERY, Page(limit=10))
        return sorted(hit.text for hit in hits.documents)
    finally:
        await index.close()


async def looked(site):
    """The worker that misses sessions whose numbers others have passed."""
    async with log_of(site, witnesses=False) as (stores, parts):
        lease = await stores.ledger.claim(WATCH, 0, "watch", 600.0)
        look = Look(parts, stores.bus, lease)
        for seconds in (0.0, 301.0):
            await look.once(seconds, time.time_ns())
    await grow_log(site)
