"""Which entries the ledger's rows make, and when an epoch is final."""

import asyncio
import time
from dataclasses import replace
from hashlib import sha256

import pytest

from sealtape.indexer.cli.log_files import admin_key, key_statement
from sealtape.ingest.ledger.rows import Publish
from sealtape.ingest.node import open_stores
from sealtape.ingest.tlog.gate import INCIDENT, STATEMENT
from sealtape.ingest.tlog.kept import Cursor, recall
from sealtape.ingest.tlog.names import seal_name
from sealtape.ingest.tlog.parts import Pace
from sealtape.ingest.tlog.watch import WATCH
from sealtape.ingest.tlog.writer import LOG, Writer
from sealtape.ingest.vault import open_vault
from sealtape.schemas import notes, tree
from sealtape.schemas.bodies import Close
from sealtape.schemas.messages import CheckpointMessage
from sealtape.schemas.tlog.keyfiles import format_key, parse_key
from sealtape.schemas.tlog.records import BusPlace, LogIncident, encode_entry, parse_entry
from sealtape.schemas.verify.monitor import LogRules
from tests.factories.deployments import make_site, seal
from tests.factories.logs import QUICK_PACE, grow_log, kinds, log_of, read_log, writing

OF_LATER = Close("client", (0,) * 4).to_json().replace(b'"client"', b'"bored"')
PATIENT = replace(QUICK_PACE, final_s=60.0)


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "lab")


async def seals(site):
    """The seals in the log, by epoch."""
    entries, _ = await read_log(site)
    return {entry.epoch: entry for entry in entries if kinds([entry]) == ["session-seal"]}


async def judged(site):
    """What the monitor's rules say of all entries and manifests."""
    entries, checkpoint = await read_log(site)
    vault = await open_vault(site.settings.stores.vault, site.folder)
    manifests = {}
    async for key in vault.keys("seg/v1/"):
        if key.endswith(".manifest.jsonl"):
            data = await vault.get(key)
            manifests[sha256(data.partition(b"\n")[0]).digest()] = data
    await vault.close()
    admins = [entry.body.key for entry in entries if getattr(entry, "kind", "") == "key"]
    rules = LogRules(log=site.settings.deployment.log, admins=[notes.Verifier.from_vkey(admins[0])])
    stores = await open_stores(site.settings)
    for row in await stores.ledger.log_entries(1, limit=checkpoint.size):
        wanted = rules.wanted(row.entry)
        rules.take(row.index, row.entry, {digest: manifests.get(digest) for digest in wanted})
    await stores.close()
    rules.witnessed(checkpoint.size, time.time_ns())
    return rules


# -- times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ahead_s", "wrong"), [(300, []), (86_400, ["clock", "clock"])])
async def test_a_clock_that_was_ahead(site, ahead_s, wrong):
    """By a little, its time is waited for; by a day, not all entries of a day are tomorrow's."""
    ahead_ns = [0]

    def clock_ns():
        return time.time_ns() + ahead_ns[0]

    for ahead in (0, ahead_s, 0, 0):
        ahead_ns[0] = ahead * 10**9
        await seal(site, [site.session()])
        await grow_log(site, clock_ns=clock_ns, witnesses=False)
    entries, _ = await read_log(site)
    times = [entry.at_ns for entry in entries if kinds([entry]) == ["session-seal"]]
    assert len(times) == 4
    assert (times == sorted(times)) == (not wrong)
    assert max(times[2:]) < time.time_ns() + 600 * 10**9
    found = [item.rule for item in (await judged(site)).violations]
    assert [rule for rule in found if rule == "clock"] == wrong


# -- when an epoch is final ------------------------------------------------------------------------


async def test_a_complete_epoch_is_sealed_at_once(site):
    await seal(site, [site.session()])
    await grow_log(site, pace=PATIENT)
    assert (await seals(site))[0].complete


async def test_a_live_one_is_not(site):
    await seal(site, [site.session(close=None)])
    await grow_log(site, 0.6)
    assert await seals(site) == {}


@pytest.mark.parametrize(("body", "closed"), [(OF_LATER, "bored"), (b"{}", "unreadable")])
async def test_one_whose_end_is_not_known_here_is_sealed(site, body, closed):
    """Else one odd session would be late for ever, and no monitor would cosign any more."""
    await seal(site, [site.session(close=body)])
    await grow_log(site, pace=PATIENT)
    sealed = (await seals(site))[0]
    assert (sealed.closed, sealed.complete) == (closed, True)
    assert not (await judged(site)).violations


@pytest.mark.parametrize("how", ["lost", "unsigned"])
async def test_one_that_misses_something_is_waited_for(site, how):
    built = site.session(commands=8, checkpoint_every=4, final_checkpoint=how == "lost")
    pairs = built.encoded()
    if how == "lost":
        frames = [at for at, item in enumerate(built.messages) if getattr(item, "seq", 0) == 9]
        del pairs[frames[0]]
    await seal(site, pairs=pairs)
    await grow_log(site, 0.5, pace=PATIENT)
    assert await seals(site) == {}
    await grow_log(site, 0.6)
    sealed = (await seals(site))[0]
    assert not sealed.complete
    assert sealed.closed == "client"
    assert (sealed.lost, sealed.root == b"") == ((1, True) if how == "lost" else (0, False))
    assert sealed.frames == len(built.frames)
    last = max(
        (item for item in built.messages if isinstance(item, CheckpointMessage)),
        key=lambda item: item.size,
    )
    assert sealed.attested == last.size
    assert sealed.checkpoint_sha256 == sha256(last.note).digest()
    assert not (await judged(site)).violations


async def test_one_that_is_continued_is_sealed_with_it(site):
    first, second = site.recovered(commands=3)
    await seal(site, [first, second])
    await grow_log(site, pace=PATIENT)
    found = await seals(site)
    assert sorted(found) == [0, 1]
    assert (found[0].closed, found[1].closed) == ("", "aborted")
    assert found[0].root == first.tree.root()
    assert not (await judged(site)).violations


async def test_one_that_goes_on_where_nothing_came(site):
    """As when all of an epoch was deleted from the bus; the log says so, and goes on."""
    _, second = site.recovered(commands=3)
    await seal(site, [second])
    await grow_log(site)
    assert sorted(await seals(site)) == [1]
    entries, _ = await read_log(site)
    told = [entry.reason for entry in entries if kinds([entry]) == ["incident"]]
    assert told == ["continuation"]
    assert not (await judged(site)).violations


async def test_one_of_a_silent_node_is_sealed_as_it_is(site):
    built = site.session(close=None)
    await seal(site, [built])
    await declare_silent(site, built.session)
    await grow_log(site, 0.5, pace=PATIENT)
    assert await seals(site) == {}
    await grow_log(site, 0.6)
    sealed = (await seals(site))[0]
    assert (sealed.closed, sealed.frames) == ("", len(built.frames))


async def declare_silent(site, session):
    """What the watch publishes."""
    stores = await open_stores(site.settings)
    lease = await stores.ledger.claim(WATCH, 0, "watch", 5.0)
    first = lease.next_offset
    await stores.ledger.publish(Publish(lease, first, first + 1, WATCH, 1, silent=(session,)))
    await stores.ledger.release(lease)
    await stores.close()


async def test_what_comes_after_a_seal_is_an_incident(site):
    """The node comes back: its frames are kept, and the seal stays the only one."""
    built = site.session(close="client", commands=6, checkpoint_every=4)
    pairs = built.encoded()
    cut = next(at for at, item in enumerate(built.messages) if getattr(item, "seq", 0) == 8)
    await seal(site, pairs=pairs[:cut])
    await declare_silent(site, built.session)
    await grow_log(site, 0.6)
    assert (await seals(site))[0].closed == ""
    await seal(site, pairs=pairs[cut:])
    await grow_log(site, 0.6)
    entries, _ = await read_log(site)
    assert kinds(entries).count("session-seal") == 1
    (incident,) = [entry for entry in entries if kinds([entry]) == ["incident"]]
    assert (incident.reason, incident.session, incident.epoch) == ("after_seal", built.session, 0)
    assert incident.seq == 8
    stores = await open_stores(site.settings)
    (row,) = await stores.ledger.incidents()
    assert (row.topic, row.reason) == (LOG, "after_seal")
    assert (await stores.ledger.session(built.session)).incidents == 1
    await stores.close()
    assert not (await judged(site)).violations


async def test_an_epoch_is_sealed_with_all_its_segments(site):
    """A session in many segments: its seal names every fragment, and comes after their entries."""
    built = site.session(commands=40, checkpoint_every=8)
    pairs = built.encoded()
    for at in range(0, len(pairs), 30):
        await seal(site, pairs=pairs[at : at + 30])
    await grow_log(site)
    entries, _ = await read_log(site)
    sealed = (await seals(site))[0]
    stores = await open_stores(site.settings)
    rows = await stores.ledger.fragments(built.session)
    await stores.close()
    assert len(rows) > 3
    assert sealed.fragments.count == len(rows)
    leaves = [tree.leaf_hash(row.record.to_json()) for row in rows]
    assert sealed.fragments.root == tree.root(leaves)
    found = kinds(entries)
    assert found.index("session-seal") > max(
        at for at, kind in enumerate(found) if kind == "segment"
    )
    assert found.index("session-open") < found.index("segment")


# -- the whole -------------------------------------------------------------------------------------


async def test_a_monitor_finds_nothing_wrong(site):
    live = site.session(close=None, number=5)
    everything = [site.session(number=number) for number in (2, 3, 4)]
    await seal(site, [*site.recovered(), *everything, live, site.journal()])
    await grow_log(site)
    await seal(site, [site.session(number=6)])
    await grow_log(site)
    rules = await judged(site)
    assert rules.violations == []
    assert rules.open == 2


async def test_a_writer_may_begin_anew_at_any_cursor(site):
    """A ledger that was made anew has no cursor: nothing is in the log twice for that."""
    await seal(site, [site.session(number=number) for number in (1, 2)])
    await grow_log(site)
    entries, _ = await read_log(site)
    async with log_of(site) as (stores, parts):
        lease = await stores.ledger.claim(LOG, 0, "a", 5.0)
        summary, _ = await recall(stores.ledger, stores.vault, await stores.ledger.log_state())
        writer = Writer(parts, lease, summary, Cursor())
        while await writer.step():
            pass
        added = await stores.ledger.log_entries(1, len(entries))
        assert set(kinds([parse_entry(row.entry) for row in added])) <= {"heartbeat"}
        await stores.ledger.release(lease)


async def test_more_than_a_batch_at_once(site):
    """Hundreds of sessions in one segment, faster than is asked for."""
    await seal(site, [site.session(commands=0, number=number) for number in range(1, 701)])
    began = time.monotonic()
    await grow_log(site)
    seconds = time.monotonic() - began
    entries, _ = await read_log(site)
    assert kinds(entries).count("session-open") == kinds(entries).count("session-seal") == 700
    assert len(entries) / seconds > 100  # 500 a second on a machine with nothing else to do
    assert not (await judged(site)).violations


async def test_an_incident_found_elsewhere_is_submitted(site):
    incident = LogIncident(7, "verification", BusPlace("verify", 0, -1), bytes(16), 0, 3)
    stores = await open_stores(site.settings)
    for _ in range(2):
        await stores.ledger.submit(INCIDENT, encode_entry(incident))
    await stores.ledger.submit(INCIDENT, b"garbage")
    await stores.ledger.submit("verification", b"{}")
    await stores.close()
    await grow_log(site)
    entries, _ = await read_log(site)
    assert entries.count(incident) == 1
    stores = await open_stores(site.settings)
    assert [row.kind for row in await stores.ledger.inbox()] == ["verification"]
    await stores.close()


async def test_statements_of_one_batch_may_build_on_each_other(site):
    await grow_log(site)
    log = site.settings.deployment.log
    ann = admin_key(site.folder / "keys/admin.key")
    bob = parse_key(format_key("bob", notes.ALGORITHM, bytes(31) + b"\1")).signer()
    eve = parse_key(format_key("eve", notes.ALGORITHM, bytes(31) + b"\2")).signer()
    stores = await open_stores(site.settings)
    for entry in (
        key_statement(log, "node", eve.vkey, [bob]),  # too early
        key_statement(log, "admin", bob.vkey, [ann]),
        key_statement(log, "node", eve.vkey, [bob]),
        key_statement("another/log", "node", eve.vkey, [ann]),
    ):
        await stores.ledger.submit(STATEMENT, entry)
    await stores.close()
    await grow_log(site)
    entries, _ = await read_log(site)
    added = [e.body for e in entries if kinds([e]) == ["key"]][-2:]
    assert [(body.role, body.key) for body in added] == [("admin", bob.vkey), ("node", eve.vkey)]


async def test_a_summary_is_kept_and_taken_up(site, monkeypatch):
    """Who takes over reads what came behind the summary, not the whole log."""
    monkeypatch.setattr("sealtape.ingest.tlog.writer.KEEP_EVERY", 5)
    pace = Pace(checkpoint_s=0.05, heartbeat_s=0.2, final_s=0.2, idle_s=0.02)
    await seal(site, [site.session(number=number) for number in range(1, 9)])
    async with writing(site, pace=pace):
        await asyncio.sleep(1.0)
        await seal(site, [site.session(number=number) for number in range(9, 14)])
        await asyncio.sleep(1.0)
    stores = await open_stores(site.settings)
    state = await stores.ledger.log_state()
    cursor = Cursor.from_json(state.cursor)
    assert cursor.size > 20
    kept = [path.name for path in (site.folder / "vault/log/v1/1/state").iterdir()]
    assert kept == [f"{cursor.size:020d}"]
    found, _ = await recall(stores.ledger, stores.vault, state)
    anew, _ = await recall(stores.ledger, stores.vault, replace(state, cursor=b""))
    assert found.to_json() == anew.to_json()
    (site.folder / "vault/log/v1/1/state" / kept[0]).chmod(0o600)
    (site.folder / "vault/log/v1/1/state" / kept[0]).write_bytes(b"{}")
    again, _ = await recall(stores.ledger, stores.vault, state)
    assert again.to_json() == anew.to_json()
    await stores.close()
    assert not (await judged(site)).violations


def test_names_of_seals_are_those_that_the_ledger_knows():
    assert seal_name(bytes(16), 3) == f"seal/{bytes(16).hex()}/3"
