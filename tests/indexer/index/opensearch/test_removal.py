import asyncio
import random
from pathlib import Path

import pytest

from sealtape.indexer.index import open_index
from sealtape.indexer.index.base import Page, Update
from sealtape.indexer.index.opensearch import removal
from sealtape.indexer.index.opensearch.removal import joined
from sealtape.indexer.query import Query
from sealtape.schemas.errors import NotFound, StoreBusy, StoreError
from tests.conformance.index import MANY, command, session
from tests.servers.http_faults import fault_proxy

HERE = Path("/")


def word(number, n):
    """A word that nothing else has, and that no compression shortens."""
    dice = random.Random(number * 1000 + n)
    return "".join(dice.choices("bcdfghjklmnpqrstvwxz0123456789", k=24))


def files(server):
    """All bytes of the server's data."""
    found = b""
    for path in sorted((server.place / "data").rglob("*")):
        if path.is_file():
            found += path.read_bytes()
    return found


def recording(number, count):
    owner = session(number, user=f"{word(number, 900)}@example.com", client=word(number, 901))
    commands = []
    for n in range(count):
        one = command(owner, n, text=f"select {word(number, n)}", tables=(word(number, 500 + n),))
        commands += [one, command(owner, n, text="select ?", version=1, message=word(number, n))]
    return owner, commands


def test_names_fit_into_an_address():
    names = [f"index-{number:04d}" for number in range(1000)]
    parts = list(joined(names))
    assert ",".join(parts).split(",") == names
    assert len(parts) > 1
    assert all(len(part) <= 3100 for part in parts)
    assert list(joined([])) == []


@pytest.fixture
def legible(prepared):
    """Stored fields that are compressed by whole bytes, so that words can be read in the files."""
    name = f"{prepared.layout.prefix}-settings"
    body = prepared.layout.component_templates()[name]
    body["template"]["settings"]["index"]["codec"] = "default"
    prepared.server.ask("PUT", f"/_component_template/{name}", body)


async def test_no_byte_of_a_dropped_session_remains(legible, index, prepared):
    recordings = {number: recording(number, 12) for number in range(1, 9)}
    for owner, commands in recordings.values():
        for at in range(0, len(commands), 5):
            await index.put(Update((owner,), tuple(commands[at : at + 5])))
    prepared.server.ask("POST", f"/{prepared.layout.prefix}-*/_flush")
    gone = (2, 5, 6)
    before = await asyncio.to_thread(files, prepared.server)
    assert all(word(number, 500).encode() in before for number in recordings)
    writing = asyncio.create_task(keep_writing(index))
    try:
        await index.drop(*(session(number).id for number in gone))
        after = await asyncio.to_thread(files, prepared.server)
    finally:
        writing.cancel()
    for number in gone:
        for n in (*range(12), *range(500, 512), 900, 901):
            secret = word(number, n).encode()
            # Terms are kept by their difference from the one before.
            assert secret[:16] not in after, (number, n)
            assert secret[8:] not in after, (number, n)
    for number in set(recordings) - set(gone):
        assert all(word(number, n)[8:].encode() in after for n in range(12))
    hits = await index.search_sessions(Query(), Page())
    left = {int(hit.id, 16) for hit in hits.documents} - {99}
    assert left == set(recordings) - set(gone)


async def keep_writing(index):
    """An indexer that goes on with another session in the same indices."""
    owner, turn = session(99), 0
    while True:
        turn += 1
        await index.put(Update((session(99, revision=turn),), (command(owner, turn % 50),)))
        await asyncio.sleep(0.2)


async def test_a_removal_that_was_interrupted_is_finished_by_the_next(index, prepared, monkeypatch):
    owner, commands = recording(1, 3)
    other = session(2)
    await index.put(Update((owner, other), (*commands, command(other, 0))))

    async def died(self, indices):
        raise StoreError("the process died here")

    with monkeypatch.context() as patched:
        patched.setattr(removal.Removal, "_purge", died)
        with pytest.raises(StoreError, match="died"):
            await index.drop(owner.id)
    assert (await index.search_sessions(Query(), Page())).documents == (other,)
    again = await open_index(prepared.url, HERE)
    await again.drop(owner.id)
    after = await asyncio.to_thread(files, prepared.server)
    assert other.id.encode() in after
    assert word(1, 500)[8:].encode() not in after
    assert word(1, 900)[8:].encode() not in after
    await again.close()


async def test_a_history_that_is_kept_for_somebody_is_told(index, monkeypatch):
    monkeypatch.setattr(removal, "LEASES_S", 0.1)
    owner = session(1)
    await index.put(Update((owner,), (command(owner, 0),)))
    with pytest.raises(StoreBusy, match="keeps the history"):
        await index.drop(owner.id)
    assert (await index.search_commands(Query(), MANY)).documents == ()
    with pytest.raises(NotFound):
        await index.session(owner.id)
    monkeypatch.undo()
    await index.drop(owner.id)


async def test_a_writer_that_is_late_leaves_nothing(prepared):
    """It has looked for tombstones already, and writes after the drop has ended."""
    owner, kept = session(1), session(2)
    update = Update((owner, kept), (command(owner, 0), command(kept, 0)), {}, {owner.id: b"p"})
    dropper = await open_index(prepared.url, HERE)
    await dropper.put(Update((kept,)))
    async with fault_proxy(prepared.server.url) as proxy:
        url = prepared.url.replace(prepared.server.address, f"127.0.0.1:{proxy.port}")
        writer = await open_index(url, HERE)
        seen = len(proxy.seen)
        proxy.delay(lambda request: request.path.endswith("/_bulk"), 3.0)
        late = asyncio.create_task(writer.put(update))
        while not any(one.path.endswith("/_bulk") for one in proxy.seen[seen:]):
            await asyncio.sleep(0.01)
        await dropper.drop(owner.id)
        await late
        for index in (writer, dropper):
            hits = await index.search_sessions(Query(), Page())
            assert hits.documents == (kept,)
            hits = await index.search_commands(Query(), Page())
            assert [hit.session for hit in hits.documents] == [kept.session]
            assert await index.progress(owner.id) is None
        await writer.close()
    await dropper.close()


async def test_what_a_dead_writer_left_goes_with_the_next_write(index, prepared):
    """The writer died between its documents and its second look: the next one finds them."""
    owner, kept = session(1), session(2)
    update = Update((owner, kept), (command(owner, 0),))
    await index.put(update)
    path = f"/{prepared.layout.state}/_doc/dropped:{owner.id}?refresh=true"
    prepared.server.ask("PUT", path, {"kind": "dropped", "name": owner.id})
    other = await open_index(prepared.url, HERE)
    await other.put(update)
    assert (await other.search_sessions(Query(), Page())).documents == (kept,)
    assert (await other.search_commands(Query(), Page())).documents == ()
    await other.close()


async def test_many_at_once(index):
    owners = [session(number) for number in range(1, 2300)]
    await index.put(Update(tuple(owners), tuple(command(owner, 0) for owner in owners)))
    await index.drop(*(owner.id for owner in owners[:2200]))
    assert len((await index.search_commands(Query(), MANY)).documents) == 99
    assert len((await index.search_sessions(Query(), MANY)).documents) == 99
