"""A sealed deployment to do harm to, and the ways to do it."""

import asyncio
import shutil
import sqlite3

import pytest

from sealtape.ingest.sealer import Limits
from tests.factories.deployments import make_site, seal


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """Two segments: an encrypted session, a recovered one and one in the clear; then one more."""
    site = make_site(tmp_path_factory.mktemp("audit") / "site")
    first = [site.session(commands=3, row_bytes=60), *site.recovered(commands=2)]
    first.append(site.session(commands=2, row_bytes=60, encrypt=False))
    second = [site.session(commands=2)]

    async def fill():
        patient = Limits(segment_ns=10**9, idle_ns=10**9)
        await seal(site, first, limits=patient)
        await seal(site, second, limits=patient)

    asyncio.run(fill())
    assert len(site.objects()) == 2
    return site, first, second


@pytest.fixture
def site(sealed, tmp_path):
    """A copy to do harm to."""
    shutil.copytree(sealed[0].folder, tmp_path / "copy")
    return sealed[0].moved(tmp_path / "copy")


def edit(site, *statements):
    with sqlite3.connect(site.folder / "ledger.db") as ledger:
        for statement in statements:
            sql, *values = (statement,) if isinstance(statement, str) else statement
            assert ledger.execute(sql, values).rowcount, "nothing was edited"
    ledger.close()


def overwrite(path, data):
    path.chmod(0o644)
    path.write_bytes(data)


def tampered(report, **expected):
    """The findings of tampering; one of them must have what is expected."""
    assert report.verdict == "tampered"
    assert report.exit_code == 1
    found = [finding for finding in report.findings if finding.verdict == "tampered"]
    fitting = [
        f
        for f in found
        if all(
            value in getattr(f, name) if name == "reason" else getattr(f, name) == value
            for name, value in expected.items()
        )
    ]
    assert fitting, [f.to_json() for f in found]
    return found
