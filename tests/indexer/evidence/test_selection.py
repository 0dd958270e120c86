"""Which entries, checkpoints and time-stamps of a log go into a bundle."""

import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.indexer.cli.log_files import admin_key
from sealtape.indexer.evidence import selection
from sealtape.indexer.evidence.selection import select
from sealtape.ingest.ledger import open_ledger
from sealtape.ingest.tlog.store import LogStore
from sealtape.ingest.vault import open_vault
from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.errors import NotFound, StoreCorrupt
from sealtape.schemas.notes import Signer
from sealtape.schemas.tlog.records import LogIncident, SessionSeal, parse_entry
from sealtape.schemas.tlog.statements import (
    Heading,
    HoldStatement,
    IntentStatement,
    KeyStatement,
    PolicyStatement,
    ReleaseStatement,
    sign_statement,
)
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log, rotate
from tests.factories.sessions import STANDARD

OTHER = bytes(16)


@pytest.fixture
def site(tmp_path):
    return make_site(tmp_path / "lab")


class Opened:
    """Stores of a site, to look at; `chosen` is the selection of a session."""

    def __init__(self, site):
        self.site = site

    async def __aenter__(self):
        base = self.site.folder
        self.ledger = await open_ledger(self.site.settings.stores.ledger, base)
        self.vault = await open_vault(self.site.settings.stores.vault, base)
        return self

    async def __aexit__(self, *error):
        await self.ledger.close()
        await self.vault.close()

    async def chosen(self, session):
        return await select(self.ledger, self.vault, session)

    async def say(self, *bodies):
        """Submit statements of the deployment's administrator and another one."""
        key = admin_key(self.site.folder / "keys/admin.key")
        other = Signer("admin.test/bob", Ed25519PrivateKey.from_private_bytes(b"\x0b" * 32))
        second = KeyStatement(heading(self.site, 99), "introduce", "admin", other.vkey)
        await self.ledger.submit("statement", sign_statement(second, [key]).to_json())
        for body in bodies:
            await self.ledger.submit("statement", sign_statement(body, [key, other]).to_json())


def heading(site, number):
    return Heading(site.settings.deployment.log, number.to_bytes(16, "big"), time.time_ns())


def kinds(found):
    return [getattr(parse_entry(data), "kind", "segment") for data in found.entries.values()]


async def test_what_a_session_needs(site):
    built, stranger = site.session(commands=2), site.session(commands=1, seed=7)
    await seal(site, [built, stranger])
    await grow_log(site)
    async with Opened(site) as stores:
        found = await stores.chosen(built.session)
        sessions = {
            entry.session
            for entry in map(parse_entry, found.entries.values())
            if hasattr(entry, "session")
        }
    counted = kinds(found)
    assert counted[0] == "log"
    assert counted[-1] == "heartbeat"
    assert [counted.count(kind) for kind in ("session-open", "segment", "session-seal")] == [1] * 3
    assert counted.count("key") == 8
    assert sessions == {built.session}
    assert found.lacking == []
    assert list(found.entries) == sorted(found.entries)


async def test_decisions_about_the_session_and_its_class(site):
    built = site.session(commands=1)
    await seal(site, [built])
    async with Opened(site) as stores:
        ours = HoldStatement(heading(site, 1), bytes(32), (built.session,))
        theirs = HoldStatement(heading(site, 2), bytes(32), (OTHER,))
        await stores.say(
            ours,
            theirs,
            ReleaseStatement(heading(site, 3), ours.heading.id, (built.session,)),
            ReleaseStatement(heading(site, 4), theirs.heading.id, (OTHER,)),
            IntentStatement(heading(site, 5), "erasure", bytes([1]) * 32, (built.session,)),
            IntentStatement(heading(site, 6), "erasure", bytes([1]) * 32, (OTHER,)),
            PolicyStatement(heading(site, 7), "main", STANDARD, bytes(32)),
            PolicyStatement(heading(site, 8), "main", RetentionClass("other", 1, 2), bytes(32)),
        )
    await grow_log(site, 0.5)
    async with Opened(site) as stores:
        found = await stores.chosen(built.session)
    counted = kinds(found)
    wanted = ("hold", "release", "tombstone-intent", "policy")
    assert [counted.count(kind) for kind in wanted] == [1, 1, 1, 1]


@pytest.mark.parametrize("sealed", [True, False])
async def test_a_session_that_goes_on_in_the_next_shard_has_no_bundle(site, sealed):
    """It says so, instead of waiting for a seal that will never be in the first one."""
    built = site.session(commands=6, checkpoint_every=3)
    pairs = built.encoded()
    await seal(site, pairs=pairs[:8])
    await grow_log(site)
    async with Opened(site) as stores:
        assert "not sealed in the log yet" in (await stores.chosen(built.session)).lacking[0]
    rotate(site)
    await seal(site, pairs=pairs[8:] if sealed else pairs[8:12])
    await grow_log(site)
    async with Opened(site) as stores:
        with pytest.raises(NotFound, match="lies in shards 1 and 2 of the log"):
            await stores.chosen(built.session)


async def test_checkpoints_that_bound_it(site):
    built = site.session(commands=1)
    await seal(site, [built])
    await grow_log(site)
    await seal(site, [site.session(commands=1, seed=8)])
    await grow_log(site)
    async with Opened(site) as stores:
        found = await stores.chosen(built.session)
        store = LogStore(stores.vault, 1)
        sealed = max(
            index
            for index, data in found.entries.items()
            if isinstance(parse_entry(data), SessionSeal)
        )
        (first,) = [size for size in found.notes if size != found.size]
        assert sealed < first < found.size
        assert found.notes[first] == await store.get(f"checkpoints/{first:020d}")
        assert found.consistency[first] == await store.prove(first, found.size)


async def test_a_session_in_very_many_segments(site, monkeypatch):
    """Its seal is bounded exactly, its fragments by what is there for some of them."""
    built = site.session(commands=6, checkpoint_every=3)
    pairs = built.encoded()
    for part in (pairs[:8], pairs[8:12], pairs[12:]):
        await seal(site, pairs=part)
        await grow_log(site)
    async with Opened(site) as stores:
        all_ = await stores.chosen(built.session)
        monkeypatch.setattr(selection, "MAX_BOUNDS", 1)
        few = await stores.chosen(built.session)
    assert len(all_.fragments[0]) == len(few.fragments[0]) > 2
    assert set(few.notes) < set(all_.notes)


async def test_the_last_checkpoint_before_an_intent(site):
    built = site.session(commands=1)
    await seal(site, [built])
    await grow_log(site)
    async with Opened(site) as stores:
        before = (await stores.chosen(built.session)).size
        body = IntentStatement(heading(site, 5), "erasure", bytes([1]) * 32, (built.session,))
        await stores.say(body)
    await grow_log(site, 0.3)
    await seal(site, [site.session(commands=1, seed=8)])
    await grow_log(site)
    async with Opened(site) as stores:
        found = await stores.chosen(built.session)
    assert before in found.notes
    intent = next(index for index, data in found.entries.items() if b"tombstone-intent" in data)
    assert any(intent < size < found.size for size in found.notes)


async def test_time_stamps(site):
    built = site.session(commands=1)
    await seal(site, [built])
    await grow_log(site)
    async with Opened(site) as stores:
        size = (await stores.chosen(built.session)).size
        for name, data in (("one.tsr", b"t"), ("one.pem", b"p"), ("Bad.tsr", b"x")):
            key = f"log/v1/1/timestamps/{size:020d}/{name}"
            await stores.vault.put_new(key, data)
        await stores.vault.put_new(f"log/v1/1/timestamps/{size + 9:020d}/one.tsr", b"later")
        found = await stores.chosen(built.session)
    assert [(item.size, item.authority, item.tsr, item.pem) for item in found.stamps] == [
        (size, "one", b"t", b"p")
    ]


async def test_incidents_of_the_session(site):
    built = site.session(commands=4)
    pairs = built.encoded()
    await seal(site, pairs=[*pairs, (built.session, b"no message of ours")])
    await grow_log(site)
    async with Opened(site) as stores:
        rows = await stores.ledger.incidents(0, built.session)
        found = await stores.chosen(built.session)
    told = [entry for entry in map(parse_entry, found.entries.values())
            if isinstance(entry, LogIncident)]  # fmt: skip
    assert len(told) == len([row for row in rows if row.session == built.session])


async def test_what_is_not_there(site):
    async with Opened(site) as stores:
        with pytest.raises(NotFound, match="No frame"):
            await stores.chosen(OTHER)


async def test_a_ledger_that_has_lost_an_entry(site):
    built = site.session(commands=1)
    await seal(site, [built])
    await grow_log(site)
    async with Opened(site) as stores:
        real = stores.ledger.log_entries

        async def losing(number, first=0, limit=1000):
            return [entry for entry in await real(number, first, limit) if entry.index]

        stores.ledger.log_entries = losing
        with pytest.raises(StoreCorrupt, match="lacks entry 0"):
            await stores.chosen(built.session)
        stores.ledger.log_entries = real

        async def nothing(key):
            return None

        stores.ledger.segment = nothing
        with pytest.raises(StoreCorrupt, match="does not have"):
            await stores.chosen(built.session)
