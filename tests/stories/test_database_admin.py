"""Who may write every row of the ledger, and restore any dump of it."""

import shutil
import sqlite3

import pytest

from tests.indexer.harm import edit, tampered
from tests.stories.deployed import judged

TABLES = ("fragment", "head", "session")


def rows_of(site, session):
    """Delete every row that names a session."""
    with sqlite3.connect(site.folder / "ledger.db") as ledger:
        for table in TABLES:
            assert ledger.execute(f"DELETE FROM {table} WHERE session=?", [session]).rowcount
    ledger.close()


async def test_he_restores_an_old_dump(site, deployed):
    for path in site.folder.glob("ledger.db*"):
        path.unlink()
    shutil.copy(deployed.earlier.folder / "ledger.db", site.folder / "ledger.db")
    report = await judged(site)
    tampered(report, layer="ledger", reason="old copy")
    for path in site.objects()[1:]:
        assert any(path.name in finding.object for finding in report.findings)


async def test_he_erases_a_session(site, deployed):
    session = deployed.second[0].session
    rows_of(site, session)
    tampered(await judged(site), layer="ledger", session=session.hex())


async def test_he_erases_a_session_and_its_segment_from_ledger_and_vault(site, deployed):
    """With the chain cut before it, all that is left agrees; the log remembers."""
    rows_of(site, deployed.second[0].session)
    edit(
        site,
        "DELETE FROM segment WHERE id=2",
        "UPDATE shard SET n=n-1, hash=(SELECT x'00' || zeroblob(31))",
    )
    path = site.objects()[1]
    path.unlink()
    path.with_name(path.stem + ".manifest.jsonl").unlink()
    report = await judged(site)
    tampered(report, layer="log")
    tampered(report, layer="log", session=deployed.second[0].session.hex())


@pytest.mark.parametrize(
    ("statement", "layer"),
    [
        ("UPDATE session SET close_reason='killed' WHERE frames > 0", "ledger"),
        ("UPDATE head SET attested=attested-1 WHERE attested > 0", "ledger"),
        ("DELETE FROM fragment WHERE segment_id=2", "ledger"),
        ("UPDATE segment SET record=(SELECT record FROM segment WHERE id=1) WHERE id=2", "chain"),
        ("UPDATE log_entry SET entry=x'7b7d' WHERE idx=1", "ledger"),
        ("DELETE FROM log_entry WHERE idx=(SELECT max(idx) FROM log_entry)", "ledger"),
        ("UPDATE log_state SET size=size-1", "ledger"),
        ("UPDATE log_state SET number=0, size=0, note=x'', witnessed=x''", "ledger"),
    ],
)
async def test_he_rewrites_history(site, statement, layer):
    edit(site, statement)
    tampered(await judged(site), layer=layer)


async def test_a_new_name_for_an_entry_deceives_nobody_who_asks_for_everything(site, deployed):
    session = deployed.second[0].session.hex()
    edit(site, ("UPDATE log_entry SET name='x' WHERE name=?", f"seal/{session}/0"))
    assert (await judged(site)).verdict == "verified", "names only find entries, they prove nothing"
