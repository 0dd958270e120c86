"""Where the log has sessions: none of it, pending, witnessed."""

from dataclasses import replace

import pytest

from sealtape.indexer.cli import logged
from sealtape.indexer.cli.logged import Logged, logged_sessions
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.tlog.names import seal_name
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log

UNKNOWN = b"\xee" * 16


class Counting:
    """A ledger that counts what it is asked."""

    def __init__(self, ledger):
        self._ledger = ledger
        self.asked = []

    def __getattr__(self, name):
        self.asked.append(name)
        return getattr(self._ledger, name)


async def states(site, *sessions):
    ledger = await open_ledger(site.settings.stores.ledger, site.folder, read_only=True)
    try:
        counting = Counting(ledger)
        found = await logged_sessions(counting, sessions)
        return found, counting.asked
    finally:
        await ledger.close()


async def log_state(site):
    ledger = await open_ledger(site.settings.stores.ledger, site.folder, read_only=True)
    try:
        return await ledger.log_state()
    finally:
        await ledger.close()


@pytest.fixture
async def site(tmp_path):
    return make_site(tmp_path / "site")


async def test_none_then_witnessed(site):
    built = [site.session(commands=1) for _ in range(3)]
    live = site.session(commands=1, close=None)
    recovered = site.recovered(commands=1)
    await seal(site, [*built, live, *recovered])
    names = [each.session for each in (*built, live, recovered[0])]
    before, _ = await states(site, *names, UNKNOWN)
    assert {each.state for each in before.values()} == {"none"}
    await grow_log(site)
    after, asked = await states(site, *names, UNKNOWN)
    assert [after[each.session].state for each in built] == ["witnessed"] * 3
    assert after[live.session] == after[UNKNOWN] == Logged("none")
    assert [seal[0] for seal in after[recovered[0].session].seals] == [0, 1]
    assert after[recovered[0].session].state == "witnessed"
    assert asked == ["heads", "log_state", "log_find"], "not one of each session"


async def test_pending_while_no_quorum_covers_it(site):
    first, second = site.session(commands=1), site.session(commands=1)
    await seal(site, [first])
    await grow_log(site)
    early = await log_state(site)
    await seal(site, [second])
    await grow_log(site)
    found, _ = await states(site, second.session)
    ((_, *place),) = found[second.session].seals
    places = {seal_name(second.session, 0): tuple(place)}
    assert found[second.session].state == "witnessed"
    for note in (early.witnessed, b""):
        behind = replace(await log_state(site), witnessed=note)
        assert logged._logged(second.session, [0], places, behind).state == "pending"


async def test_a_session_of_many_epochs(site):
    chain = [site.session(commands=0, close=None, final_checkpoint=False)]
    for epoch in range(1, 6):
        last = epoch == 5
        chain.append(
            site.session(
                commands=0,
                session=chain[0].session,
                epoch=epoch,
                continues=chain[-1].continues,
                close="aborted" if last else None,
                final_checkpoint=last,
            )
        )
    await seal(site, chain)
    await grow_log(site)
    found, asked = await states(site, chain[0].session)
    assert [seal[0] for seal in found[chain[0].session].seals] == list(range(6))
    assert asked.count("heads") == 2


def test_an_older_shard_is_witnessed_and_a_missing_seal_is_none():
    session = bytes(16)
    note = b""
    state = logged.LogState(2, 5, b"", note, note)
    places = {f"seal/{session.hex()}/0": (1, 900)}
    assert logged._logged(session, [0], places, state).state == "witnessed"
    assert logged._logged(session, [0, 1], places, state).state == "none"
    places[f"seal/{session.hex()}/1"] = (2, 0)
    assert logged._logged(session, [0, 1], places, state).state == "pending"


async def test_a_ledger_that_is_away_is_said(site, capsys):
    assert await logged.read_logged(site.settings, [UNKNOWN]) == {}
    assert "The log's state is not known" in capsys.readouterr().err
    assert await logged.read_logged(site.settings, []) == {}


async def test_show_says_where_and_when(site, tmp_path):
    assert logged.logged_times(site.settings, None) == {}
    built = site.session(commands=1)
    await seal(site, [built])
    await grow_log(site)
    found = await logged.read_logged(site.settings, [built.session])
    told = logged.logged_times(site.settings, found[built.session])
    (entry,) = told["log_entries"]
    assert entry["index"] < told["log_witnessed_size"] <= told["log_size"]
    assert told["log_witnessed"].startswith("20")
    (site.folder / "log.policy").unlink()
    told = logged.logged_times(site.settings, found[built.session])
    assert told["log_witnessed"] is None
