"""Who may drop, repeat, reorder and invent messages between the nodes and ingest."""

from dataclasses import replace

from sealtape.schemas import messages
from tests.factories.deployments import interleaved, make_site, seal
from tests.factories.logs import grow_log
from tests.indexer.harm import tampered
from tests.stories.deployed import judged, looked


def encoded(built, dropped=()):
    return [(m.session, messages.encode(m)) for m in built.messages if m not in dropped]


async def test_he_drops_the_tail_of_a_session(tmp_path):
    site = make_site(tmp_path / "site")
    built = site.session(commands=4)
    await seal(site, pairs=encoded(built, built.messages[-4:]))
    report = await judged(site)
    assert report.verdict == "incomplete"
    assert {finding.session for finding in report.findings} == {built.session.hex()}


async def test_he_drops_a_session(tmp_path):
    """The node counted it, and the sessions behind it have the next numbers."""
    site = make_site(tmp_path / "site")
    first, _, last = (site.session(number=number) for number in (1, 2, 3))
    await seal(site, [first, last])
    await grow_log(site)
    await looked(site)
    report = await judged(site)
    assert report.verdict == "incomplete"
    reasons = [finding.reason for finding in report.findings]
    assert any("session_missing" in reason for reason in reasons), reasons


async def test_he_drops_the_beginning_of_a_session_that_its_node_takes_up(tmp_path):
    """It is told, and does not stop the monitor: the log goes on and is cosigned."""
    site = make_site(tmp_path / "site")
    _, second = site.recovered(commands=3)
    await seal(site, [second])
    await grow_log(site)
    report = await judged(site)
    tampered(report, layer="session", session=second.session.hex(), reason="missing")
    assert {finding.session for finding in report.findings} == {second.session.hex()}
    await seal(site, [site.session()])
    await grow_log(site)
    assert (await judged(site)).findings == report.findings


async def test_he_repeats_and_reorders_and_nothing_changes(tmp_path):
    site = make_site(tmp_path / "site")
    sessions = [site.session(number=number, commands=3) for number in (1, 2, 3)]
    await seal(site, pairs=interleaved(sessions, seed=5) + sessions[0].encoded())
    await grow_log(site)
    report = await judged(site)
    assert report.verdict == "verified", [finding.to_json() for finding in report.findings]


async def test_he_slips_in_a_frame_of_his_own(tmp_path):
    site = make_site(tmp_path / "site")
    built = site.session(commands=3)
    rival = replace(built.frames[3], payload=b"y" * 80)
    pairs = built.encoded()
    pairs.insert(
        list(built.messages).index(built.frames[3]) + 1, (built.session, messages.encode(rival))
    )
    await seal(site, pairs=pairs)
    report = await judged(site)
    assert report.verdict == "incomplete"
    (finding,) = report.findings
    assert (finding.session, finding.seq) == (built.session.hex(), 3)
    assert "conflict" in finding.reason


async def test_he_exchanges_a_frame_for_his_own(tmp_path):
    """Ingest has only his; what the session's key signed is of the other one."""
    site = make_site(tmp_path / "site")
    built = site.session(commands=3)
    forged = replace(built.frames[3], payload=b"y" * 80)
    pairs = [
        (m.session, messages.encode(forged if m is built.frames[3] else m)) for m in built.messages
    ]
    await seal(site, pairs=pairs)
    report = await judged(site)
    assert report.verdict == "incomplete"
    assert any("incident" in finding.reason for finding in report.findings)


async def test_he_puts_frames_of_one_session_into_another(tmp_path):
    site = make_site(tmp_path / "site")
    one, other = site.session(number=1, commands=3), site.session(number=2, commands=3)
    spliced = replace(other.frames[4], session=one.session)
    pairs = [
        (m.session, messages.encode(spliced if m is one.frames[4] else m)) for m in one.messages
    ]
    await seal(site, pairs=pairs + other.encoded())
    report = await judged(site)
    assert report.verdict == "incomplete"
    assert {finding.session for finding in report.findings} == {one.session.hex()}
