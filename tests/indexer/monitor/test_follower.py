"""Reading a log up to a checkpoint, in one go or in pieces, before and after crashes."""

import asyncio

import pytest

from sealtape.indexer.monitor import follower as module
from sealtape.indexer.monitor.folder import MonitorFolder
from sealtape.indexer.monitor.follower import Follower
from sealtape.indexer.monitor.source import LogSource
from sealtape.schemas.errors import DigestError, StoreBusy, StoreCorrupt, StoreFull
from sealtape.schemas.evidence import parse_evidence_policy
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.tlog.records import LogIncident
from sealtape.schemas.tlog.tiles import ENTRIES, Tile
from tests.factories.breaches_of_segments import heartbeat_left_out, replaces_nothing
from tests.factories.breaches_of_sessions import sealed_twice, vanishes_unsaid
from tests.factories.breaking import append
from tests.factories.happenings import generate
from tests.factories.histories import LOG, Begin, Cut, Done, Raw, Say
from tests.factories.judging import judge
from tests.factories.log_vaults import LogVault


def follow(written, folder=None, **options):
    policy = written.policy()
    source = LogSource(written.vault, policy.log, policy.tlog)
    return Follower(source, policy, folder=folder, clock_ns=lambda: written.at_ns, **options)


def same(follower, rules):
    assert follower.rules.violations == rules.violations
    assert follower.rules.late == rules.late
    mine, theirs = follower.rules, rules
    assert (mine.number, mine.size, mine.root) == (theirs.number, theirs.size, theirs.root)
    assert mine.to_json() == theirs.to_json()


def some_history(wanted, sessions=40):
    for seed in range(200):
        history = generate(seed, sessions)
        if wanted(history):
            return history
    raise AssertionError


@pytest.mark.parametrize("noted", [True, False])
async def test_checkpoint_by_checkpoint(tmp_path, noted):
    """A live monitor is shown each checkpoint; then its own times are those of the witnesses."""
    history = some_history(lambda h: h.of(Done) and len(h.of(Begin)) == 2)
    written = LogVault(tmp_path, history)
    follower = follow(written)
    while written.events:
        await written.write(1, noted=noted)
        await follower.reach(written.checkpoint())
    assert follower.rules.violations == judge(history).violations == []
    assert follower.rules.sessions == judge(history).sessions
    assert follower.objections() == []


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("keep", [1, 40, 10_000])
async def test_a_monitor_that_is_killed_finds_the_same(tmp_path, monkeypatch, every, keep):
    """Killed at any checkpoint: nothing is kept at the end but what was kept on the way."""
    monkeypatch.setattr(module, "KEEP_EVERY", keep)
    history = some_history(lambda h: vanishes_unsaid(h) and len(h.of(Begin)) == 2, 30)
    sealed_twice(history)
    written = LogVault(tmp_path / "vault", history)
    count = 0
    follower = follow(written, MonitorFolder(tmp_path / "state"))
    while written.events:
        await written.write(1, noted=False)
        await follower.reach(written.checkpoint())
        count += 1
        if count % every == 0:
            follower = follow(written, MonitorFolder(tmp_path / "state"))
    await follower.reach(written.checkpoint())
    rules = judge(history)
    assert {item.rule for item in rules.violations} == {"missing", "seal-once"}
    assert follower.rules.violations == rules.violations
    folder = MonitorFolder(tmp_path / "state")
    assert [item.violation for item in folder.found] == rules.violations
    assert {item.rule for item in follower.objections()} == {"missing", "seal-once"}


async def test_two_that_ask_at_once_take_turns(tmp_path):
    """Of shards that are cosigned apart: what is read for one must not be taken twice."""
    history = some_history(lambda h: len(h.of(Begin)) == 2)
    written = LogVault(tmp_path, history)
    asked = []
    while written.events:
        await written.write(1)
        asked.append(written.checkpoint())
    ends = [[each for each in asked if each.origin.endswith(end)][-1] for end in ("/1", "/2")]
    follower = follow(written)
    await follower.reach(asked[0])
    await asyncio.gather(*map(follower.reach, ends))
    same(follower, judge(history))


async def test_it_goes_on_from_what_it_kept(tmp_path):
    history = some_history(lambda h: len(h.of(Begin)) == 1)
    written = await LogVault(tmp_path / "vault", history).write()
    folder = MonitorFolder(tmp_path / "state")
    follower = follow(written, folder)
    await follower.reach(written.checkpoint())
    follower.keep()
    before = (tmp_path / "state" / "rules.json").stat()
    follower.keep()
    assert (tmp_path / "state" / "rules.json").stat() == before
    same(follower, judge(history))
    again = follow(written, MonitorFolder(tmp_path / "state"))
    same(again, judge(history))


@pytest.mark.parametrize("how", ["policy", "damage"])
async def test_a_state_that_is_of_no_use_is_made_anew(tmp_path, how, caplog):
    history = some_history(lambda h: len(h.of(Begin)) == 1 and len(h.admins) > h.threshold)
    written = await LogVault(tmp_path / "vault", history).write()
    folder = MonitorFolder(tmp_path / "state")
    follower = follow(written, folder)
    await follower.reach(written.checkpoint())
    follower.keep()
    if how == "damage":
        path = tmp_path / "state" / "rules.json"
        path.write_bytes(path.read_bytes()[:-9])
        again = follow(written, MonitorFolder(tmp_path / "state"))
    else:
        text = written.policy_text().replace(f"threshold = {history.threshold}", "threshold = 3")
        policy = parse_evidence_policy(text.encode())
        source = LogSource(written.vault, LOG, policy.tlog)
        again = Follower(
            source, policy, folder=MonitorFolder(tmp_path / "state"), clock_ns=lambda: 0
        )
    assert "from its beginning" in caplog.text
    assert again.rules.size == 0
    assert folder.rules() == b""
    await again.reach(written.checkpoint())
    if how == "damage":
        same(again, judge(history))
    else:
        assert {item.rule for item in again.rules.violations} == {"signed"}


# -- what is not what was signed -------------------------------------------------------------------


async def test_another_root(tmp_path):
    written = await LogVault(tmp_path, generate(1, 10, turns=False)).write()
    follower = follow(written)
    wrong = Checkpoint(written.origin, written.size, b"\x01" * 32)
    with pytest.raises(DigestError, match="do not have the root"):
        await follower.reach(wrong)
    assert follower.rules.violations == []
    await follower.reach(written.checkpoint())
    with pytest.raises(DigestError):
        await follower.reach(wrong)
    assert follower.rules.size == written.size


async def test_entries_that_are_missing_for_a_while(tmp_path):
    history = generate(1, 10, turns=False)
    written = await LogVault(tmp_path, history).write()
    bundle = tmp_path / written.store.prefix / Tile(ENTRIES, 0, min(256, written.size)).path
    bundle.rename(tmp_path / "away")
    follower = follow(written)
    with pytest.raises(StoreCorrupt, match="missing"):
        await follower.reach(written.checkpoint())
    (tmp_path / "away").rename(bundle)
    await follower.reach(written.checkpoint())
    same(follower, judge(history))


async def test_a_long_log_is_read_twice_and_must_not_change(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HELD", 10)
    history = generate(3, 40, turns=False)
    written = await LogVault(tmp_path, history).write(noted=False)
    follower = follow(written)
    pages = follower._source.pages

    async def changing(number, first, size):
        async for page in pages(number, first, size):
            yield [*page[:-1], b"poem"] if follower.second else page
        follower.second = True

    follower.second = False
    monkeypatch.setattr(follower._source, "pages", changing)
    with pytest.raises(StoreCorrupt, match="change as they are read"):
        await follower.reach(written.checkpoint())
    assert follower.rules.size == 0
    monkeypatch.undo()
    monkeypatch.setattr(module, "HELD", 10)
    await follower.reach(written.checkpoint())
    assert follower.rules.size == written.size
    assert follower.rules.sessions == judge(history).sessions


async def test_checkpoints_that_come_in_another_order(tmp_path):
    written = await LogVault(tmp_path, generate(3, 20, turns=False)).write(noted=False)
    sizes = sorted(size for _, size in written.notes)
    follower = follow(written)
    await follower.reach(written.checkpoint(sizes[1]))
    await follower.reach(written.checkpoint(sizes[2]))
    await follower.reach(written.checkpoint(sizes[1]))
    await follower.reach(written.checkpoint(sizes[2]))
    with pytest.raises(StoreBusy, match="further than"):
        await follower.reach(written.checkpoint(sizes[0]))
    assert follower.rules.size == sizes[2]


async def test_a_shard_that_has_ended(tmp_path):
    history = some_history(lambda h: len(h.of(Begin)) == 3)
    written = LogVault(tmp_path / "vault", history)
    ends = {}
    while written.events:
        await written.write(1)
        ends[written.number] = written.checkpoint()
    follower = follow(written)
    await follower.reach(ends[3])
    await follower.reach(ends[1])
    await follower.reach(ends[2])
    for number in (1, 2):
        size = ends[number].size
        with pytest.raises(DigestError, match="has ended"):
            await follower.reach(Checkpoint(ends[number].origin, size + 1, b"\x01" * 32))
    again = follow(written, MonitorFolder(tmp_path / "state"))
    await again.reach(ends[3])
    again.keep()
    third = follow(written, MonitorFolder(tmp_path / "state"))
    await third.reach(ends[1])
    assert third.rules.number == 3


async def test_a_shard_that_does_not_say_where_the_one_before_ends(tmp_path):
    history = some_history(lambda h: len(h.of(Begin)) == 2)
    begin = history.of(Begin)[1]
    at = history.steps.index(begin)
    history.steps[at] = Raw(b"poem")
    written = LogVault(tmp_path, history)
    # An honest writer goes on in shard 1; here the same entries lie in shard 2.
    shifted = False
    index = 0
    for event in written.events:
        if event.step is history.steps[at]:
            shifted = True
            event.step = begin
        if shifted:
            event.number, event.index = 2, index
            index += bool(event.entry)
    await written.write()
    follower = follow(written)
    await follower.reach(written.checkpoint())
    assert ("entry", 2, 0) in {
        (item.rule, item.number, item.index) for item in follower.rules.violations
    }


# -- manifests -------------------------------------------------------------------------------------


async def test_manifests_are_read_where_they_are_wanted(tmp_path):
    """Those of segments in shards that have ended too, also after a restart."""

    def wanted(history):
        begins = [history.steps.index(step) for step in history.of(Begin)[1:]]
        return any(
            begins and history.steps.index(done) > begins[0] > history.steps.index(cut)
            for done in history.of(Done)
            for cut in done.objects
        ) and any(cut.replaces for cut in history.of(Cut))

    history = some_history(wanted, 60)
    written = LogVault(tmp_path / "vault", history)
    while written.events:
        await written.write(1)
        follower = follow(written, MonitorFolder(tmp_path / "state"))
        await follower.reach(written.checkpoint())
        follower.keep()
    assert follower.rules.violations == []
    assert follower.rules.sessions == judge(history).sessions


async def test_what_looks_like_a_segment_and_is_none(tmp_path):
    history = generate(2, 8, turns=False)
    append(history, Raw(b'{"type":"segment"}'))
    written = await LogVault(tmp_path, history).write()
    follower = follow(written)
    await follower.reach(written.checkpoint())
    assert [item.rule for item in follower.rules.violations] == ["entry"]


async def test_replacing_a_segment_that_never_was(tmp_path):
    history = some_history(replaces_nothing)
    written = await LogVault(tmp_path, history).write()
    follower = follow(written)
    await follower.reach(written.checkpoint())
    assert [item.rule for item in follower.rules.violations] == ["replaces"]


# -- objections ------------------------------------------------------------------------------------


async def test_breaches_stand_until_they_are_acknowledged(tmp_path, caplog):
    history = generate(2, 20, turns=False)
    sealed_twice(history)
    written = await LogVault(tmp_path / "vault", history).write()
    follower = follow(written, MonitorFolder(tmp_path / "state"))
    await follower.reach(written.checkpoint())
    (breach,) = follower.objections()
    assert breach.rule == "seal-once"
    assert str(breach) in caplog.text
    assert follow(written).objections() == []
    alone = follow(written)
    await alone.reach(written.checkpoint())
    assert alone.objections() == [breach]
    restarted = follow(written, MonitorFolder(tmp_path / "state"))
    assert restarted.objections() == [breach]
    MonitorFolder(tmp_path / "state").acknowledge("ann", "a test", 1)
    assert follower.objections() == []
    assert restarted.objections() == []


async def test_a_breach_that_cannot_be_kept_is_told_and_lets_nothing_through(
    tmp_path, monkeypatch, caplog
):
    """A full disk, which has room again before an older checkpoint is asked for."""
    history = generate(2, 20, turns=False)
    sealed_twice(history)
    written = await LogVault(tmp_path / "vault", history).write(noted=False)
    sizes = sorted(size for _, size in written.notes)
    *_, before, last = [written.checkpoint(size) for size in sizes]
    folder = MonitorFolder(tmp_path / "state")
    follower = follow(written, folder)
    real = folder._append

    def full(name, lines):
        if name == "found.jsonl" and lines:
            raise StoreFull("no room")
        real(name, lines)

    monkeypatch.setattr(folder, "_append", full)
    for checkpoint in (before, last):
        caplog.clear()
        with pytest.raises(StoreFull):
            await follower.reach(checkpoint)
        assert "seal-once" in caplog.text
    assert folder.found == ()
    monkeypatch.setattr(folder, "_append", real)
    with pytest.raises(StoreBusy, match="further than"):
        await follower.reach(before)
    await follower.reach(last)
    assert [item.rule for item in follower.objections()] == ["seal-once"]
    assert [item.size for item in folder.read()] == [last.size]


async def test_what_is_late_stands_while_it_lasts(tmp_path):
    for seed in range(100):
        history = generate(seed, 30, turns=False)
        steps = vanishes_unsaid(history)
        if steps:
            break
    passed = steps[0].entry
    written = await LogVault(tmp_path / "vault", history).write()
    folder = MonitorFolder(tmp_path / "state")
    follower = follow(written, folder)
    await follower.reach(written.checkpoint())
    assert [item.rule for item in follower.objections()] == ["missing"]
    place = history.of(LogIncident)[0].entry.bus if history.of(LogIncident) else None
    assert place is not None
    incident = LogIncident(written.at_ns, "session_missing", place, passed.session, 0, 1)
    append(history, Say(incident))
    later = LogVault(tmp_path / "other", history)
    await later.write()
    found = follow(later, folder)
    await found.reach(later.checkpoint())
    assert found.objections() == []
    assert [item.rule for item in folder.unacknowledged()] == ["missing"]


async def test_what_is_late_may_be_acknowledged(tmp_path):
    history = generate(2, 20, turns=False)
    heartbeat_left_out(history)
    written = await LogVault(tmp_path / "vault", history).write()
    folder = MonitorFolder(tmp_path / "state")
    follower = follow(written, folder)
    await follower.reach(written.checkpoint())
    assert [item.violation.rule for item in folder.found] == ["silent"]
    assert follower.objections() == []  # it was late, and is there now
    later = follow(written, folder)
    later._clock_ns = lambda: written.at_ns + 2_000 * 10**9
    await later.reach(written.checkpoint())
    await later.reach(written.checkpoint())
    assert [item.rule for item in later.objections()] == ["silent"]
    folder.acknowledge("ann", "the log was moved", 1)
    assert later.objections() == []


async def test_it_stops_at_a_page(tmp_path):
    written = await LogVault(tmp_path, generate(2, 20, turns=False)).write()
    follower = follow(written)
    follower.stop()
    with pytest.raises(StoreBusy, match="stops"):
        await follower.reach(written.checkpoint())
    assert follower.rules.size == 0
