"""Edited rows of the ledger: whichever it is, verification finds it and names whose it is."""

from dataclasses import replace

import pytest

from sealtape.schemas import messages
from tests.factories.deployments import audit, make_site, seal
from tests.indexer.harm import edit, overwrite, sealed, site, tampered

__all__ = ["sealed", "site"]


# -- rows of the ledger ---------------------------------------------------------------------------

SEGMENT = 'CAST(replace(CAST(record AS TEXT), \'"rows":"\', \'"rows":"1\') AS BLOB)'
FRAGMENT = 'CAST(replace(CAST(record AS TEXT), \'"lo":"0"\', \'"lo":"1"\') AS BLOB)'
OTHER = "seg/v1/tenant=main/class=standard/dt=2026-11-22/0199f5b1c0de7a3c8d4e5f60718293a4-1.parquet"
COPY = (
    "session, 9, digest, lo, hi, nodes, last_ts_ns, bus_offset, attested, lost, closed, opening,"
    " changed_ns, in_log"
)
ONE = "session=(SELECT min(session) FROM session)"

CHAIN_EDITS = [
    "DELETE FROM segment WHERE id=1",
    "DELETE FROM segment WHERE id=2",
    "DELETE FROM segment",
    f"UPDATE segment SET record={SEGMENT} WHERE id=1",
    f"UPDATE segment SET record={SEGMENT} WHERE id=2",
    "UPDATE segment SET record=x'7b7d' WHERE id=1",
    "UPDATE segment SET record='text' WHERE id=2",
    "UPDATE segment SET record=7",
    "UPDATE segment SET record=(SELECT record FROM segment WHERE id=1) WHERE id=2",
    f"UPDATE segment SET key='{OTHER}' WHERE id=1",
    "UPDATE segment SET key='../../keys/node.key' WHERE id=1",
    "UPDATE segment SET key='keys' WHERE id=2",
    "UPDATE segment SET id=3 WHERE id=1",
    "UPDATE shard SET n=n+1",
    "UPDATE shard SET n=n-1",
    "UPDATE shard SET hash=zeroblob(32)",
    "UPDATE shard SET shard='frames/9'",
    "DELETE FROM shard",
    "INSERT INTO shard VALUES ('frames/9', 3, zeroblob(32))",
    "UPDATE lease SET next_offset=0",
    "DELETE FROM lease",
    "UPDATE object SET state='abandoned' WHERE key LIKE '%.parquet'",
    "DELETE FROM fragment WHERE segment_id=1 AND idx=0",
    "DELETE FROM fragment WHERE segment_id=2",
    "DELETE FROM fragment",
    "UPDATE fragment SET idx=9 WHERE idx=0 AND segment_id=1",
    "UPDATE fragment SET segment_id=1, idx=9 WHERE segment_id=2",
    f"UPDATE fragment SET record={FRAGMENT}",
    "UPDATE fragment SET record='text' WHERE segment_id=2",
    "UPDATE fragment SET record=x'7b7d'",
    "UPDATE fragment SET session=zeroblob(16) WHERE segment_id=2",
    "UPDATE fragment SET session='text' WHERE segment_id=2",
]
SESSION_EDITS = [
    f"DELETE FROM head WHERE {ONE}",
    f"UPDATE head SET hi=hi-1 WHERE {ONE}",
    f"UPDATE head SET hi=hi+1 WHERE {ONE}",
    f"UPDATE head SET hi='many' WHERE {ONE}",
    f"UPDATE head SET lo=1 WHERE {ONE}",
    f"UPDATE head SET nodes=zeroblob(length(nodes)) WHERE {ONE}",
    f"UPDATE head SET nodes=x'' WHERE {ONE}",
    f"UPDATE head SET nodes='text' WHERE {ONE}",
    f"UPDATE head SET last_ts_ns=last_ts_ns+1 WHERE {ONE}",
    f"UPDATE head SET attested=attested+1 WHERE {ONE}",
    f"UPDATE head SET attested=0 WHERE {ONE} AND attested>0",
    f"UPDATE head SET lost=1 WHERE {ONE}",
    f"UPDATE head SET closed='killed' WHERE {ONE}",
    f"UPDATE head SET opening=zeroblob(10) WHERE {ONE}",
    f"UPDATE head SET epoch=epoch+7 WHERE {ONE}",
    f"INSERT OR REPLACE INTO head SELECT {COPY} FROM head WHERE {ONE} AND epoch=0",
    f"DELETE FROM session WHERE {ONE}",
    f"UPDATE session SET state='live' WHERE {ONE}",
    f"UPDATE session SET state='incomplete' WHERE {ONE}",
    f"UPDATE session SET tenant='other' WHERE {ONE}",
    f"UPDATE session SET class='brief' WHERE {ONE}",
    f"UPDATE session SET epoch=epoch+1 WHERE {ONE}",
    f"UPDATE session SET frames=frames+1 WHERE {ONE}",
    f"UPDATE session SET frames='many' WHERE {ONE}",
    f"UPDATE session SET bytes=0 WHERE {ONE}",
    f"UPDATE session SET first_ts_ns=0 WHERE {ONE}",
    f"UPDATE session SET last_ts_ns=0 WHERE {ONE}",
    f"UPDATE session SET close_reason='killed' WHERE {ONE}",
    f"UPDATE session SET lost=1 WHERE {ONE}",
    f"UPDATE session SET incidents=1 WHERE {ONE}",
]


@pytest.mark.parametrize("statement", CHAIN_EDITS)
async def test_an_edited_chain(site, statement):
    edit(site, statement)
    found = tampered(await audit(site))
    assert {f.layer for f in found} & {"ledger", "chain"}


@pytest.mark.parametrize("statement", SESSION_EDITS)
async def test_an_edited_session(site, sealed, statement):
    least = min(built.session for built in [*sealed[1], *sealed[2]])
    edit(site, statement)
    for report in (await audit(site), await audit(site, least)):
        found = tampered(report, layer="ledger", session=least.hex())
        assert {f.session for f in found} == {least.hex()}


async def test_a_session_that_nobody_recorded(site):
    edit(
        site,
        "INSERT INTO session SELECT zeroblob(16), tenant, class, state, epoch, frames, bytes,"
        " first_ts_ns, last_ts_ns, close_reason, lost, incidents, revision"
        f" FROM session WHERE {ONE}",
    )
    tampered(await audit(site), session=bytes(16).hex())
    tampered(await audit(site, bytes(16)), session=bytes(16).hex())


async def test_a_session_whose_name_is_no_bytes(site):
    edit(site, f"UPDATE session SET session='text' WHERE {ONE}")
    tampered(await audit(site), layer="ledger", reason="lost the session's row")


async def test_a_fragment_that_the_ledger_hides_is_found_by_its_session(site, sealed):
    edit(site, ("DELETE FROM fragment WHERE session=?", sealed[2][0].session))
    tampered(await audit(site, sealed[2][0].session), session=sealed[2][0].session.hex())
    edit(site, ("UPDATE fragment SET session=? WHERE session=?", bytes(16), sealed[1][0].session))
    tampered(await audit(site, bytes(16)))


async def test_a_segment_that_the_ledger_hides(site, sealed):
    edit(site, "DELETE FROM segment WHERE id=2")
    built = sealed[2][0]
    tampered(await audit(site, built.session), session=built.session.hex())


async def test_an_unreadable_row_does_not_hide_the_rest(site, sealed):
    edit(site, "UPDATE segment SET record=x'00' WHERE id=1")
    path = site.objects()[1]
    data = bytearray(path.read_bytes())
    frame = sealed[2][0].frames[2]
    data[data.index(frame.payload) + 9] ^= 1
    overwrite(path, data)
    report = await audit(site)
    tampered(report, layer="ledger", object="segment 1")
    tampered(report, layer="frame", session=sealed[2][0].session.hex(), seq=2)


async def test_a_ledger_of_an_earlier_day(sealed, tmp_path):
    """The second segment is there, the ledger has not heard of it: a snapshot was put back."""
    site = make_site(tmp_path / "site")
    await seal(site, [site.session()])
    early = (site.folder / "ledger.db").read_bytes()
    await seal(site, [site.session()])
    (site.folder / "ledger.db").write_bytes(early)
    found = tampered(await audit(site), reason="does not know this object")
    assert len(found) == 2


# -- quarantine and incidents


async def conflicting(tmp_path):
    """Two frames with one number: one signed, one slipped into the bus."""
    site = make_site(tmp_path / "site")
    built = site.session()
    rival = replace(built.frames[3], payload=b"y" * 80)
    pairs = built.encoded()
    at = list(built.messages).index(built.frames[3])
    pairs.insert(at + 1, (built.session, messages.encode(rival)))
    await seal(site, pairs=pairs)
    return site, built


async def test_a_conflict_in_quarantine_is_incomplete(tmp_path):
    site, built = await conflicting(tmp_path)
    for report in (await audit(site), await audit(site, built.session)):
        assert report.verdict == "incomplete"
        (finding,) = report.findings
        assert (finding.session, finding.seq) == (built.session.hex(), 3)
        assert "conflict" in finding.reason


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM incident",
        "UPDATE incident SET bus_offset=bus_offset+1",
        "UPDATE incident SET reason='gap'",
        "DELETE FROM quarantine",
        "UPDATE quarantine SET data=zeroblob(length(data))",
        "UPDATE quarantine SET sha256=zeroblob(32)",
        "UPDATE quarantine SET size=size+1",
        "UPDATE quarantine SET key='quarantine/v1/gone'",
    ],
)
async def test_an_edited_quarantine(tmp_path, statement):
    site, _ = await conflicting(tmp_path)
    edit(site, statement)
    tampered(await audit(site))


async def test_a_large_message_in_quarantine(tmp_path):
    site = make_site(tmp_path / "site")
    await seal(site, pairs=[*site.session().encoded(), (bytes(16), bytes(100_000))])
    assert (await audit(site)).verdict == "incomplete"
    (path,) = (site.folder / "vault/quarantine").rglob("*.bin")
    overwrite(path, bytes(99_999))
    tampered(await audit(site), reason="not those that came")
