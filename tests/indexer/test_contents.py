"""Opening payloads: which key opens what, what is a finding and what only a note."""

import sqlite3
from dataclasses import replace
from hashlib import sha256

import pytest

from sealtape.indexer.contents import ContentChecker
from sealtape.ingest.keyring import open_keyring
from sealtape.ingest.parquet import row_of
from sealtape.schemas.frames import Kind, Suite
from sealtape.schemas.keys import LABEL_DATA, label_of
from sealtape.schemas.verify import Report
from sealtape.schemas.wraps import wrap
from tests.factories.deployments import audit, make_site, reading, seal
from tests.factories.sessions import reader
from tests.indexer.harm import edit, overwrite, sealed, site, tampered

__all__ = ["sealed", "site"]


class Opened:
    """A deep check that only keeps what it is given."""

    made = []

    def __init__(self, session, data_key):
        self.session, self.data_key, self.bodies = session, data_key, []
        Opened.made.append(self)

    def body(self, frame, body):
        self.bodies.append((frame.epoch, frame.seq, body))

    def finish(self):
        return [(0, 2, "said by the check")]


@pytest.fixture
def opened():
    Opened.made = []
    return Opened


async def test_the_auditor_opens_everything(sealed, opened):
    site, _, second = sealed
    report = await audit(site, key=site.auditor)
    assert report.verdict == "verified"
    assert not [note for note in report.notes if "cannot be read" in note]
    report = await audit(site, second[0].session, key=site.auditor, deep=opened)
    (check,) = opened.made
    assert check.session == second[0].session
    assert check.data_key == second[0].label_keys.data
    assert [seq for _, seq, _ in check.bodies] == [frame.seq for frame in second[0].frames]
    assert check.bodies[1][2] == second[0].ident.to_json()
    finding = tampered(report, layer="facts", seq=2)[0]
    assert finding.reason == "said by the check"


async def test_without_encryption_no_key_is_needed(sealed, opened):
    site, first, _ = sealed
    clear = first[-1]
    assert clear.label_keys is None
    await audit(site, clear.session, key=reader("auditor", 99), deep=opened)
    (check,) = opened.made
    assert check.data_key is None
    assert len(check.bodies) == len(clear.frames)


@pytest.mark.parametrize("who", ["indexer", "stranger"])
async def test_a_key_that_does_not_open_all_is_a_note(sealed, opened, who):
    site, _, second = sealed
    built = second[0]
    key = site.indexer if who == "indexer" else reader("auditor", 99)
    report = await audit(site, built.session, key=key, deep=opened)
    assert report.verdict == "verified", "a deep check of half a session would accuse the innocent"
    shut = [frame for frame in built.frames if label_of(frame.kind) is not None]
    if who == "indexer":
        shut = [frame for frame in shut if label_of(frame.kind) == LABEL_DATA]
    (note,) = report.notes
    assert f"{len(shut)} payloads cannot be read" in note
    assert f"no key of it is wrapped for {key.id}" in note


async def test_keys_that_were_destroyed_are_a_note(site, sealed):
    built = sealed[2][0]
    keyring = await open_keyring("sqlite:keyring.db", site.folder)
    await keyring.destroy(built.session)
    await keyring.close()
    report = await audit(site, built.session, key=site.auditor)
    assert report.verdict == "verified"
    (note,) = report.notes
    assert "its keys were destroyed" in note


async def test_a_wrap_that_does_not_open_is_said(site, sealed):
    built = sealed[2][0]
    with sqlite3.connect(site.folder / "keyring.db") as keyring:
        keyring.execute(
            "UPDATE wrap SET sealed=zeroblob(length(sealed)) WHERE session=?", (built.session,)
        )
    keyring.close()
    report = await audit(site, built.session, key=site.auditor)
    assert report.verdict == "incomplete"
    assert {(f.layer, f.session) for f in report.findings} == {("payload", built.session.hex())}
    assert len(report.findings) == 2, "one a label, not one a frame"
    assert all("does not open" in f.reason for f in report.findings)


async def test_the_key_of_another_session_is_found_by_the_commitment(site, sealed):
    """Somebody wrapped a wrong key for the auditor under the right name."""
    built, other = sealed[2][0], sealed[1][0]
    false = wrap(site.auditor.public, other.label_keys.data, built.session, 0, "data")
    with sqlite3.connect(site.folder / "keyring.db") as keyring:
        changed = keyring.execute(
            "UPDATE wrap SET sealed=? WHERE session=? AND label='data'",
            (false.sealed, built.session),
        )
        assert changed.rowcount == 1
    keyring.close()
    assert (await audit(site, built.session)).verdict == "verified"
    report = await audit(site, built.session, key=site.auditor)
    found = tampered(report, layer="payload", session=built.session.hex())
    data = [frame.seq for frame in built.frames if label_of(frame.kind) == LABEL_DATA]
    assert [f.seq for f in found] == data


async def test_a_wrap_that_came_before_the_true_one_makes_nobody_a_forger(site, sealed):
    """The keyring keeps the true one aside; the frames say that it is."""
    built, other = sealed[2][0], sealed[1][0]
    false = wrap(site.auditor.public, other.label_keys.data, built.session, 0, "data")
    which = "WHERE session=? AND label='data' AND recipient=?"
    named = (built.session, site.auditor.id)
    with sqlite3.connect(site.folder / "keyring.db") as keyring:
        keyring.execute(
            "INSERT INTO wrap (session, epoch, label, recipient, suite, sealed, tenant, retention,"
            " disputed) SELECT session, epoch, label, recipient, suite, sealed, tenant, retention,"
            f" 1 FROM wrap {which}",
            named,
        )
        keyring.execute(
            f"UPDATE wrap SET sealed=? {which} AND NOT disputed", (false.sealed, *named)
        )
    keyring.close()
    report = await audit(site, built.session, key=site.auditor)
    assert report.verdict == "verified"
    assert not [note for note in report.notes if "cannot be read" in note]


def checked(built, frame, key):
    """What opening one frame says; `key` stands for what was unwrapped."""
    checker = ContentChecker(keyring=None, private=reader("auditor"))
    checker._keys[built.session, 0, label_of(frame.kind)] = [key]
    report = Report()
    checker.frame(row_of(frame), "object", report)
    return report


def test_a_payload_of_the_right_digest_and_the_wrong_commitment(tmp_path):
    """Hashes over the stored bytes agree with anything; the commitment is to one key."""
    built = make_site(tmp_path / "site").session()
    frame = next(frame for frame in built.frames if frame.kind == Kind.DATA)
    key = built.label_keys.data
    assert checked(built, frame, key).findings == []
    for at in (0, 31, 32, len(frame.payload) - 1):
        changed = bytearray(frame.payload)
        changed[at] ^= 1
        forged = replace(frame, payload=bytes(changed))
        assert row_of(forged).payload_sha256 == sha256(changed).digest()
        (finding,) = checked(built, forged, key).findings
        assert (finding.verdict, finding.layer, finding.seq) == ("tampered", "payload", frame.seq)
    for swapped in (b"", b"short", built.frames[1].payload):
        assert checked(built, replace(frame, payload=swapped), key).findings
    assert checked(built, replace(frame, seq=frame.seq + 1), key).findings
    assert checked(built, frame, built.label_keys.facts).findings


def test_what_a_later_version_wrote_is_not_called_damage(tmp_path):
    built = make_site(tmp_path / "site").session()
    frame = next(frame for frame in built.frames if frame.kind == Kind.DATA)
    for later in (replace(frame, suite=9), replace(frame, flags=1)):
        assert checked(built, later, built.label_keys.data).findings == []
    wrong = replace(frame, suite=Suite.PUBLIC)
    assert checked(built, wrong, built.label_keys.data).verdict == "tampered"


async def test_wraps_are_asked_for_once_an_epoch(sealed):
    site, _, second = sealed
    async with reading(site) as (_, _, keyring):
        checker = ContentChecker(keyring, site.auditor)
        await checker.prepare(second[0].session, 0, Report())
        before = dict(checker._keys)
        await checker.prepare(second[0].session, 0, Report())
        assert checker._keys == before
        assert {label for _, _, label in before} == {"data", "facts"}
        assert all(len(keys) == 1 for keys in before.values())


async def test_a_damaged_payload_is_named_with_and_without_a_key(site, sealed):
    built = sealed[2][0]
    path = site.objects()[1]
    data = bytearray(path.read_bytes())
    data[data.index(built.frames[2].payload) + 40] ^= 1
    overwrite(path, data)
    tampered(await audit(site), layer="frame", seq=2, session=built.session.hex())
    report = await audit(site, key=site.auditor)
    tampered(report, layer="payload", seq=2, session=built.session.hex())


async def test_a_recovered_session_opens_with_a_key_for_each_epoch(tmp_path):
    site = make_site(tmp_path / "site")
    await seal(site, site.recovered(commands=2))
    report = await audit(site, key=site.auditor)
    assert report.verdict == "verified"
    assert not [note for note in report.notes if "cannot be read" in note]
    edit(site, "UPDATE session SET state='live'")
    assert (await audit(site, key=site.auditor)).verdict == "tampered"
