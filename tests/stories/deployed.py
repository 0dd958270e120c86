"""A running embedded deployment in the middle of its life, for attackers to be let loose on.

Four sessions in two segments, all in the log, under two witnessed checkpoints; and a copy of all of
it from between the two, as anybody who makes backups has one.
"""

import asyncio
import itertools
import shutil
from types import SimpleNamespace

import pytest

from sealtape.ingest.sealer import Limits
from sealtape.schemas.evidence import parse_evidence_policy
from tests.factories.deployments import audit, make_site, seal
from tests.factories.logs import grow_log

__all__ = ["PATIENT", "deployed", "judged", "log_file", "numbered", "place", "policy_of", "site"]

PATIENT = Limits(segment_ns=10**9, idle_ns=10**9)
_NUMBERS = itertools.count(1)


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
