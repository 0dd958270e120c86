"""Every wrap of a live deployment's keyring, removed, exchanged and changed.

No wrap is evidence: without a key the verdict is what it was, always. Who verifies with a key is
told of each session that it does not open, and of a key that is there and is not the session's.
"""

import shutil
import sqlite3
from contextlib import closing

import pytest

from tests.stories.deployed import judged

MISSING = {
    "it is gone": "DELETE FROM wrap WHERE id = :id",
    "it is for another reader": "UPDATE wrap SET recipient = 'auditor-0000000000000000'"
    " WHERE id = :id",
    "it is of another epoch": "UPDATE wrap SET epoch = epoch + 7 WHERE id = :id",
    "it is of another session": "UPDATE wrap SET session = zeroblob(16) WHERE id = :id",
    "it is called destroyed": "UPDATE wrap SET destroyed = 1 WHERE id = :id",
}
WRONG = {
    "another session's key": "UPDATE wrap SET sealed ="
    " (SELECT sealed FROM wrap o WHERE o.session <> wrap.session AND o.label = wrap.label"
    " AND o.recipient = wrap.recipient) WHERE id = :id",
    "a bit of it": "UPDATE wrap SET sealed = CAST(x'00' || substr(sealed, 2) AS BLOB)"
    " WHERE id = :id",
    "zeros": "UPDATE wrap SET sealed = zeroblob(length(sealed)) WHERE id = :id",
    "shorter": "UPDATE wrap SET sealed = substr(sealed, 2) WHERE id = :id",
    "an unknown suite": "UPDATE wrap SET suite = 'x' WHERE id = :id",
}


@pytest.fixture
def keyring(site):
    """Runs a statement on one of the auditor's wraps in a fresh copy of the keyring."""
    path, kept = site.folder / "keyring.db", site.folder / "kept.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(path, kept)

    def harm(statement, number):
        for file in site.folder.glob("keyring.db*"):
            file.unlink()
        shutil.copy(kept, path)
        with closing(sqlite3.connect(path)) as database, database:
            assert database.execute(statement, {"id": number}).rowcount == 1

    return harm


def wraps_of(site):
    """The auditor's: (id, session, label)."""
    with closing(sqlite3.connect(site.folder / "keyring.db")) as database:
        found = database.execute(
            "SELECT id, session, label FROM wrap WHERE recipient = ? ORDER BY id",
            (site.auditor.id,),
        ).fetchall()
    assert {label for *_, label in found} == {"data", "facts"}
    return found


async def verified_without_a_key(site):
    report = await judged(site)
    return (report.verdict, report.findings) == ("verified", [])


async def test_a_wrap_that_is_called_disputed_opens_what_commits_to_it(site, keyring):
    """Wraps of one label are told apart by the frames: a word in the keyring takes none away."""
    unharmed = (await judged(site, key=site.auditor)).notes
    for number, _, label in wraps_of(site)[:4]:
        keyring("UPDATE wrap SET disputed = 1 WHERE id = :id", number)
        assert await verified_without_a_key(site)
        report = await judged(site, key=site.auditor)
        assert report.verdict == "verified", (number, label)
        assert report.notes == unharmed, (number, label)


@pytest.mark.parametrize("what", MISSING)
async def test_a_wrap_that_is_missing_is_told_and_is_no_finding(site, keyring, what):
    """So it is when a recording's keys were destroyed as they should be."""
    for number, session, label in wraps_of(site)[:4]:
        keyring(MISSING[what], number)
        assert await verified_without_a_key(site)
        report = await judged(site, key=site.auditor)
        assert report.verdict == "verified"
        assert any(session.hex() in note for note in report.notes), (number, label)


@pytest.mark.parametrize("what", WRONG)
async def test_a_wrap_that_is_another_is_found(site, keyring, what):
    for number, session, label in wraps_of(site)[:2]:
        keyring(WRONG[what], number)
        assert await verified_without_a_key(site)
        report = await judged(site, key=site.auditor)
        assert report.verdict == "incomplete"
        (finding,) = report.findings
        assert (finding.layer, finding.object) == ("payload", "keyring")
        assert finding.session == session.hex()
        assert label in finding.reason
