"""A log judged once, out of its vault."""

import pytest

from sealtape.indexer.monitor import read_once
from sealtape.indexer.monitor.folder import MonitorFolder
from sealtape.ingest.tlog.store import noted_key
from sealtape.schemas.errors import Missing
from sealtape.schemas.layout import manifest_key
from sealtape.schemas.segments import SegmentRecord
from sealtape.schemas.tlog.tiles import ENTRIES, Tile
from sealtape.schemas.verify.violations import Limits
from tests.factories.breaches import cases
from tests.factories.breaches_of_segments import heartbeat_left_out, number_left_out
from tests.factories.breaches_of_sessions import sealed_twice
from tests.factories.happenings import generate
from tests.factories.histories import Begin, Cut, Done
from tests.factories.judging import judge
from tests.factories.log_vaults import LogVault


async def judged(vault, **options):
    last = vault.history.steps[-1].at_ns
    return await read_once(vault.vault, vault.policy(), clock_ns=lambda: last, **options)


def same(found, rules):
    """A judgement says what the rules by themselves say."""
    assert list(found.violations) == rules.violations
    assert (found.number, found.size) == (rules.number, rules.size)
    assert (found.sessions, found.open) == (rules.sessions, rules.open)


@pytest.mark.parametrize("seed", range(3))
async def test_a_valid_log(tmp_path, seed):
    history = generate(seed, 40)
    vault = await LogVault(tmp_path, history).write()
    found = await judged(vault)
    same(found, judge(history))
    assert (found.verdict, found.exit_code, found.broken) == ("verified", 0, "")
    (line,) = found.lines()
    assert line == (
        f"VERIFIED: sealtape.example/log, shard {found.number}, {found.size} entries,"
        f" {found.sessions} sessions, {found.open} epochs open"
    )


async def test_a_log_of_many_shards_with_deletions_and_merges(tmp_path):
    for seed in range(200):
        history = generate(seed, 60)
        done = [step for step in history.of(Done) if step.objects]
        if done and len(history.of(Begin)) > 2 and any(cut.replaces for cut in history.of(Cut)):
            break
    vault = await LogVault(tmp_path, history).write()
    found = await judged(vault)
    same(found, judge(history))
    assert found.violations == ()
    assert found.number > 2


@pytest.mark.parametrize(
    ("breach", "verdict"),
    [
        (number_left_out, "tampered"),
        (sealed_twice, "tampered"),
        (heartbeat_left_out, "incomplete"),
    ],
)
async def test_broken_rules(tmp_path, breach, verdict):
    history = generate(3, 30)
    assert breach(history)
    vault = await LogVault(tmp_path, history).write()
    found = await judged(vault)
    same(found, judge(history))
    assert found.verdict == verdict
    assert found.exit_code == {"tampered": 1, "incomplete": 2}[verdict]
    (violation,) = found.violations
    grade = "BREACH" if verdict == "tampered" else "LATE  "
    assert found.lines()[0] == f"{grade}  {violation}"
    member = found.to_json()
    assert member["verdict"] == verdict
    assert member["violations"] == [{**violation.to_json(), "acknowledged": None}]


async def test_what_was_acknowledged_is_said_and_counts_no_more(tmp_path):
    history = generate(3, 30)
    sealed_twice(history)
    vault = await LogVault(tmp_path / "vault", history).write()
    folder = MonitorFolder(tmp_path / "state")
    folder.add_found((await judged(vault)).violations, 5)
    folder.acknowledge("ann", "the writer was killed", 6)
    found = await judged(vault, folder=folder)
    assert (found.verdict, found.exit_code) == ("verified", 0)
    assert found.lines()[1] == "        acknowledged by ann: the writer was killed"
    (member,) = found.to_json()["violations"]
    assert member["acknowledged"] == {"by": "ann", "reason": "the writer was killed"}


async def test_an_empty_vault_is_not_verified(tmp_path):
    vault = LogVault(tmp_path, generate(1, 5))
    found = await judged(vault)
    assert (found.verdict, found.size) == ("incomplete", 0)


async def test_times_are_those_of_the_quorum(tmp_path):
    """Without kept checkpoints all is witnessed now: nothing was old enough to be deleted."""
    for seed in range(100):
        history = generate(seed, 40, turns=False)
        if history.of(Done):
            break
    kept = await LogVault(tmp_path / "kept", history).write()
    lost = await LogVault(tmp_path / "lost", history).write(noted=False)
    assert (await judged(kept)).violations == ()
    assert {item.rule for item in (await judged(lost)).violations} >= {"done"}


async def test_checkpoints_that_count_for_nobody(tmp_path):
    history = generate(4, 30, turns=False)
    vault = await LogVault(tmp_path, history).write()
    store = vault.store
    sizes = sorted(size for _, size in vault.notes)
    assert len(sizes) > 3
    good = vault.notes[1, sizes[0]]
    await vault.vault.put_new(store.prefix + noted_key(sizes[0] + 1), good)
    await vault.vault.put_new(store.prefix + noted_key(sizes[0] + 2), b"poem")
    await vault.vault.put_new(store.prefix + noted_key(sizes[0] + 3), vault.note(sizes[0]))
    assert (await judged(vault)).violations == ()


@pytest.mark.parametrize("what", ["entry", "bundle", "checkpoint"])
async def test_entries_that_are_not_what_was_signed(tmp_path, what):
    history = generate(4, 30, turns=False)
    vault = await LogVault(tmp_path, history).write()
    store, size = vault.store, vault.size
    path = tmp_path / store.prefix / Tile(ENTRIES, 0, min(size, 256)).path
    data = path.read_bytes()
    if what == "bundle":
        path.unlink()
    elif what == "entry":
        path.chmod(0o600)
        path.write_bytes(data.replace(b'"session":"', b'"session":"0', 1))
    else:
        path = tmp_path / store.prefix / "checkpoint"
        path.write_bytes(path.read_bytes().replace(b"sealtape", b"sealtapf"))
    found = await judged(vault)
    assert (found.verdict, found.exit_code) == ("tampered", 1)
    assert found.broken
    assert found.lines()[0] == f"BREACH  {found.broken}"


async def test_another_history_under_a_kept_checkpoint(tmp_path):
    """The log signed two trees: one that was witnessed, and one that is there."""
    history = generate(4, 30, turns=False)
    vault = await LogVault(tmp_path / "one", history).write(2)
    other = await LogVault(tmp_path / "two", generate(4, 30, turns=False)).write()
    size = vault.size
    first = vault.leaves[0]
    vault.leaves[0] = b"\x01" * 32
    note = vault.note()
    vault.leaves[0] = first
    from sealtape.schemas.cosignatures import cosign
    from sealtape.schemas.notes import parse_note

    text = parse_note(note).text
    note += cosign("office.example/witness", vault._office, text, 1_795_392_001).encode()
    path = tmp_path / "two" / other.store.prefix / noted_key(size)
    path.chmod(0o600)
    path.write_bytes(note)
    found = await judged(other)
    assert found.verdict == "tampered"
    assert f"first {size} entries" in found.broken


async def test_a_manifest_that_is_gone(tmp_path):
    history = generate(4, 30, turns=False)
    vault = LogVault(tmp_path, history)
    events = list(vault.events)
    await vault.write()
    event = next(event for event in reversed(events) if event.manifest)
    await vault.vault.erase(manifest_key(SegmentRecord.from_json(event.entry).object))
    found = await judged(vault)
    assert [(item.rule, item.index) for item in found.violations] == [("manifest", event.index)]


async def test_a_store_that_fails_is_no_verdict(tmp_path):
    vault = await LogVault(tmp_path, generate(4, 10, turns=False)).write()

    async def gone(key, start=0, end=None):
        raise OSError(key)

    vault.vault.get = gone
    with pytest.raises((OSError, Missing)):
        await judged(vault)


async def test_limits_are_taken(tmp_path):
    vault = await LogVault(tmp_path, generate(4, 30)).write()
    found = await judged(vault, limits=Limits(session_s=0, journal_s=0))
    assert {item.rule for item in found.violations} == {"unsealed"}
    assert cases("unsealed")
