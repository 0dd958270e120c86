"""How many seals are under no witnessed checkpoint, and how old the oldest is."""

from sealtape.ingest.ledger.sqlite import SqliteLedger
from sealtape.ingest.tlog import pending as module
from sealtape.ingest.tlog.pending import PendingSeals, Seals, read_seals, seals_among
from tests.factories.deployments import make_site, seal
from tests.factories.logs import grow_log, kinds, read_log


def test_a_checkpoint_takes_what_it_covers_and_no_more():
    pending = PendingSeals()
    for size, seals in ((5, Seals(2, 100)), (6, Seals()), (9, Seals(1, 200)), (12, Seals(3, 300))):
        pending.add(size, seals)
    assert pending.left(0) == Seals(6, 100)
    assert pending.left(4) == Seals(6, 100)
    assert pending.left(5) == Seals(4, 200)
    assert pending.left(11) == Seals(3, 300)
    assert pending.left(12) == Seals()
    pending.add(20, Seals(1, 400))
    assert pending.left(12) == Seals(1, 400)


def test_it_stays_small_without_a_quorum(monkeypatch):
    monkeypatch.setattr(module, "STRETCHES", 3)
    pending = PendingSeals()
    for size in range(1, 11):
        pending.add(size, Seals(1, size))
    assert len(pending._stretches) == 3
    assert pending.left(0) == Seals(10, 1)
    assert pending.left(5) == Seals(10, 1), "what is not certain is pending"
    assert pending.left(9) == Seals(1, 10)
    assert pending.left(10) == Seals()


class Bare(SqliteLedger):
    """A ledger that hands out no pages of entries."""

    async def log_entries(self, number, first=0, limit=1000):
        raise AssertionError("they may be a million")


async def test_they_are_counted_in_the_ledger(tmp_path):
    site = make_site(tmp_path / "lab")
    await seal(site, [site.session() for _ in range(3)])
    await grow_log(site)
    entries, _ = await read_log(site)
    places = [at for at, kind in enumerate(kinds(entries)) if kind == "session-seal"]
    ledger = await Bare.open(site.settings.stores.ledger, site.folder, read_only=True)
    times = [entries[at].at_ns for at in places]
    assert await read_seals(ledger, 1, 0, len(entries)) == Seals(3, times[0])
    assert await read_seals(ledger, 1, places[0] + 1, len(entries)) == Seals(2, times[1])
    assert await read_seals(ledger, 1, 0, places[0]) == Seals()
    assert await read_seals(ledger, 1, places[2], len(entries) + 10) == Seals(1, times[2])
    assert seals_among(entries) == Seals(3, times[0])
    await ledger.close()
