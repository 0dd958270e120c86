"""Who has a capture node and its key, when the sessions that he minds are over."""

from dataclasses import replace

from sealtape.indexer.export import Exporter
from sealtape.schemas import messages
from sealtape.schemas.verify.bundle import verify_bundle
from tests.factories.deployments import reading, seal
from tests.factories.logs import grow_log
from tests.factories.sessions import node_signer
from tests.indexer.harm import tampered
from tests.stories.deployed import PATIENT, judged, numbered, policy_of


async def test_he_records_the_session_anew(site, deployed):
    """Same session, other contents, an OPEN signed by the right node key."""
    old = deployed.first[0]
    anew = site.session(
        seed=4711, session=old.session, number=old.opening.number, commands=3, row_bytes=9
    )
    await seal(site, [anew], limits=PATIENT)
    report = await judged(site)
    assert report.verdict == "incomplete"
    assert {finding.session for finding in report.findings} == {old.session.hex()}
    assert all(finding.reason.startswith("incident ") for finding in report.findings)
    assert any("conflict" in finding.reason for finding in report.findings)


async def test_he_lets_a_session_that_was_closed_go_on(site, deployed):
    old = deployed.second[0]
    more = site.session(
        session=old.session, number=old.opening.number, epoch=1, continues=old.continues, commands=1
    )
    await seal(site, [more], limits=PATIENT)
    await grow_log(site)
    report = await judged(site)
    assert report.verdict == "incomplete"
    (finding,) = report.findings
    assert (finding.session, finding.epoch) == (old.session.hex(), 1)
    assert "after it was closed" in finding.reason


async def test_nor_does_a_bundle_of_it_pass(site, deployed, tmp_path):
    """Whoever gets the bundle alone is told the same."""
    old = deployed.second[0]
    follows = {"session": old.session, "number": old.opening.number, "continues": old.continues}
    await seal(site, [site.session(epoch=1, commands=1, **follows)], limits=PATIENT)
    await grow_log(site)
    async with reading(site) as (ledger, vault, _):
        place = tmp_path / "bundle.zip"
        exporter = Exporter(ledger, vault, progress=lambda *_: None)
        await exporter.export(old.session, place)
    report = verify_bundle(place.read_bytes(), policy_of(site))
    assert report.verdict == "incomplete"
    assert any("after epoch 0 was closed" in finding.reason for finding in report.findings)


async def test_he_invents_a_session_with_a_number_that_was_taken(site, deployed):
    old = deployed.second[0]
    await seal(site, [site.session(number=old.opening.number)], limits=PATIENT)
    await grow_log(site)
    tampered(await judged(site), layer="log", reason="numbers")


async def test_he_takes_up_a_session_of_another_node(site, deployed):
    """What he signs for it is put into quarantine, and the monitor goes on."""
    old = deployed.first[0]
    stranger = site.session(
        session=old.session, number=old.opening.number + 90, epoch=1, continues=old.continues,
        commands=1,
    )  # fmt: skip
    await seal(site, [stranger], limits=PATIENT)
    await grow_log(site)
    report = await judged(site)
    assert report.verdict == "incomplete"
    assert {finding.session for finding in report.findings} == {old.session.hex()}
    assert any("open_bad" in finding.reason for finding in report.findings)


async def test_he_appends_frames_behind_the_end(site, deployed):
    old = deployed.second[0]
    last = old.frames[-1]
    late = replace(last, seq=last.seq + 1)
    await seal(site, pairs=[(late.session, messages.encode(late))])
    tampered(await judged(site), layer="session", session=old.session.hex(), seq=late.seq)


async def test_he_opens_sessions_with_a_key_that_nobody_knows(site):
    stranger = replace(site, node=node_signer(site.node.verifier.name, seed=99))
    await seal(site, [numbered(stranger)], limits=PATIENT)
    report = await judged(site)
    assert report.verdict in ("tampered", "incomplete")
