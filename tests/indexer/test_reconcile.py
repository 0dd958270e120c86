"""The ledger's rows of a session against what was verified, also while the ledger grows."""

import sqlite3
from dataclasses import replace

import pytest

from sealtape.indexer.reconcile import Ending, differences
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.sealer import Limits
from tests.factories.deployments import make_site, seal, sealing
from tests.factories.sessions import build_session

PATIENT = Limits(segment_ns=2 * 10**8, idle_ns=10**8)


class Grown:
    """A ledger into which somebody publishes between two questions."""

    def __init__(self, early, late, switch_at):
        self.early, self.late, self.left = early, late, switch_at

    def __getattr__(self, name):
        self.left -= 1
        return getattr(self.early if self.left >= 0 else self.late, name)


@pytest.fixture
async def grown(tmp_path):
    """A ledger with half a session, the same ledger with all of it, the session, its fragments."""
    site = make_site(tmp_path / "site")
    built = site.session(commands=6, checkpoint_every=4)
    pairs = built.encoded()
    await seal(site, pairs=pairs[: len(pairs) // 2], limits=replace(PATIENT, hold_ns=1))
    early = tmp_path / "early.db"
    with sqlite3.connect(site.folder / "ledger.db") as source, sqlite3.connect(early) as copy:
        source.backup(copy)
    source.close()
    copy.close()
    await seal(site, pairs=pairs[len(pairs) // 2 :], limits=PATIENT)
    ledgers = [
        await open_ledger(f"sqlite:{p}", tmp_path) for p in (early, site.folder / "ledger.db")
    ]
    try:
        yield (*ledgers, built, [row.record for row in await ledgers[1].fragments(built.session)])
    finally:
        for ledger in ledgers:
            await ledger.close()


def ending(built):
    return {0: Ending(built.frames[0].payload, "client")}


async def test_no_difference(grown):
    early, late, built, fragments = grown
    name = built.session
    assert len(fragments) > 1
    found = await differences(late, name, sealed=fragments, endings=ending(built), last=99)
    assert found == []
    last = (await early.fragments(name))[-1].segment_id
    half = [row.record for row in await early.fragments(name)]
    endings = {0: Ending(built.frames[0].payload, "")}
    assert await differences(early, name, sealed=half, endings=endings, last=last) == []


async def test_what_was_published_since_is_no_difference(grown):
    early, late, built, _ = grown
    name = built.session
    rows = await early.fragments(name)
    half, last = [row.record for row in rows], rows[-1].segment_id
    endings = {0: Ending(built.frames[0].payload, "")}
    assert await differences(late, name, sealed=half, endings=endings, last=last) == []


@pytest.mark.parametrize("switch_at", range(6))
async def test_a_publication_between_two_questions_is_no_difference(grown, switch_at):
    early, late, built, _ = grown
    name = built.session
    rows = await early.fragments(name)
    half, last = [row.record for row in rows], rows[-1].segment_id
    found = await differences(
        Grown(early, late, switch_at), name, sealed=half, endings={}, last=last
    )
    assert found == []


async def test_a_difference_that_stays_is_told_once(grown):
    _, late, built, fragments = grown
    endings = {0: Ending(b"another OPEN", "killed")}
    found = await differences(late, built.session, sealed=fragments, endings=endings, last=99)
    assert found == [
        (0, "the OPEN of the ledger's head is not that of the sealed frames"),
        (0, "the CLOSE of the ledger's head is not that of the sealed frames"),
    ]


async def test_a_fragment_more_or_less(grown):
    _, late, built, fragments = grown
    for sealed in (fragments[:-1], [*fragments, replace(fragments[-1], epoch=1)]):
        found = await differences(late, built.session, sealed=sealed, endings={}, last=99)
        assert (None, "the ledger's fragments of the session are not those sealed") in found


async def test_of_what_is_not_known_nothing_is_said(grown):
    _, late, built, fragments = grown
    for unknown in ({}, {0: Ending(None, None)}):
        found = await differences(late, built.session, sealed=fragments, endings=unknown, last=99)
        assert found == []


async def test_a_session_that_the_ledger_never_heard_of(grown):
    _, late, _, fragments = grown
    other = build_session(seed="another").session
    sealed = [replace(fragment, session=other) for fragment in fragments]
    reasons = [r for _, r in await differences(late, other, sealed=sealed, endings={}, last=99)]
    assert any("no head of it" in reason for reason in reasons)
    assert "the ledger has lost the session's row" in reasons


async def test_a_session_with_a_gap_agrees_with_its_head(tmp_path):
    site = make_site(tmp_path / "site")
    built = site.session(commands=6, checkpoint_every=2)
    lost = built.frames[4]
    pairs = [pair for pair, m in zip(built.encoded(), built.messages, strict=True) if m is not lost]
    await seal(site, pairs=pairs, limits=Limits(segment_ns=3 * 10**8, hold_ns=10**8))
    async with sealing(site) as (stores, _):
        fragments = await stores.ledger.fragments(built.session)
        records = [row.record for row in fragments]
        assert any(record.gaps for record in records)
        found = await differences(
            stores.ledger, built.session, sealed=records, endings=ending(built), last=99
        )
        assert found == []
