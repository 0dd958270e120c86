"""Who rules the PostgreSQL of the ledger: every row, and every dump that was ever made of it."""

from types import SimpleNamespace

import pytest

from sealtape.ingest.ledger import prepare_ledger
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log
from tests.indexer.harm import tampered
from tests.stories.deployed import PATIENT, judged, numbered

SCHEMA = "sealtape_ledger"


class Admin:
    """What he does to the ledger's database."""

    def __init__(self, database):
        self._database = database
        self._tables = [
            name
            for (name,) in database.sql(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = %s"
                " AND table_type = 'BASE TABLE'",
                SCHEMA,
            )
        ]
        assert {"segment", "head", "log_entry"} <= set(self._tables)

    def sql(self, text):
        """Nothing of the database's own stops him."""
        self._database.sql(
            f"SET search_path TO {SCHEMA}; SET session_replication_role = replica; {text}"
        )

    def dump(self):
        copies = [f"CREATE TABLE dump.{name} AS TABLE {SCHEMA}.{name}" for name in self._tables]
        self.sql("; ".join(["CREATE SCHEMA dump", *copies]))

    def restore(self):
        for name in self._tables:
            self.sql(f"DELETE FROM {name}; INSERT INTO {name} OVERRIDING SYSTEM VALUE"
                     f" SELECT * FROM dump.{name}")  # fmt: skip


@pytest.fixture
async def ruled(tmp_path, postgres_stores):
    """A deployment in the middle of its life, and a dump from before its last session."""
    database = postgres_stores.database()
    site = make_site(tmp_path / "site")
    site.config.write_text(f'{site.config.read_text()}ledger = "{database.url()}"\n')
    await prepare_ledger(database.url(), site.folder)
    admin, sessions = Admin(database), []
    for number in range(2):
        sessions.append(numbered(site, commands=2))
        await seal(site, sessions[-1:], limits=PATIENT)
        await grow_log(site)
        if not number:
            admin.dump()
    assert (await judged(site)).verdict == "verified"
    return SimpleNamespace(site=site, admin=admin, sessions=sessions)


async def test_he_restores_an_old_dump(ruled):
    ruled.admin.restore()
    report = await judged(ruled.site)
    tampered(report, layer="ledger", reason="old copy")
    newest = ruled.site.objects()[-1].name
    assert any(newest in finding.object for finding in report.findings)


async def test_he_erases_a_session(ruled):
    session = ruled.sessions[1].session.hex()
    for table in ("fragment", "head", "session"):
        ruled.admin.sql(f"DELETE FROM {table} WHERE session = '\\x{session}'")
    tampered(await judged(ruled.site), layer="ledger", session=session)


@pytest.mark.parametrize(
    ("statement", "layer"),
    [
        ("UPDATE session SET close_reason = 'killed' WHERE frames > 0", "ledger"),
        ("UPDATE head SET attested = attested - 1 WHERE attested > 0", "ledger"),
        ("DELETE FROM fragment WHERE n = 1", "ledger"),
        ("UPDATE segment SET record = (SELECT record FROM segment LIMIT 1) WHERE n = 1", "chain"),
        ("UPDATE log_entry SET entry = '\\x7b7d' WHERE idx = 1", "ledger"),
        ("DELETE FROM log_entry WHERE idx = (SELECT max(idx) FROM log_entry)", "ledger"),
        ("UPDATE log_state SET size = size - 1", "ledger"),
    ],
)
async def test_he_rewrites_history(ruled, statement, layer):
    ruled.admin.sql(statement)
    tampered(await judged(ruled.site), layer=layer)
