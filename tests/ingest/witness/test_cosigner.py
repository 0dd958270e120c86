"""The witness itself: what it cosigns, that it keeps it first, and that its requests take turns."""

import asyncio
import contextlib
import logging

import pytest

from sealtape.ingest.witness.cosigner import MAX_BACK_S, Witness
from sealtape.ingest.witness.memory import Memory
from sealtape.schemas import notes
from sealtape.schemas.errors import SettingsError, StoreError
from sealtape.schemas.tlog import witnessing
from sealtape.schemas.tlog.witnessing import Seen, parse_cosignatures
from tests.factories.growing import NAME, ORIGIN, GrowingLog, witness_key, witness_keys

AT = 1_795_392_000


class Place:
    """A folder, a clock, and the witnesses opened on them."""

    def __init__(self, folder):
        self.folder = folder
        self.now = AT
        self.open = []

    def witness(self, *, keys=None, logs=None, admit=None):
        memory = Memory(self.folder)
        logs = [GrowingLog().verifier] if logs is None else logs
        keys = keys or [witness_key()]
        try:
            witness = Witness(memory, keys, logs, admit=admit, clock_s=lambda: self.now)
        except BaseException:
            memory.close()
            raise
        self.open.append(witness)
        return witness

    async def close(self):
        for witness in self.open:
            await witness.close()


@pytest.fixture
async def place(tmp_path):
    place = Place(tmp_path / "state")
    yield place
    await place.close()


@pytest.fixture
def log():
    return GrowingLog().grow(20)


def cosigned(lines, log, size, keys=None):
    verifiers = [key.verifier for key in keys or [witness_key()]]
    return parse_cosignatures(lines, log.checkpoint(size).text(), verifiers)


async def test_it_cosigns_what_grows(place, log):
    witness = place.witness()
    assert (witness.name, witness.vkeys) == (NAME, (witness_key().vkey,))
    assert witness.seen(ORIGIN) is None
    for old, size in ((0, 3), (3, 3), (3, 20)):
        (found,) = cosigned(await witness.cosign(log.request(old, size)), log, size)
        assert (found.name, found.at) == (NAME, AT)
        assert witness.seen(ORIGIN) == Seen(size, log.checkpoint(size).root)
    assert witness.seen("example.org/other") is None
    snapshot = witness.snapshot()
    assert snapshot.seen == {ORIGIN: 20}
    assert snapshot.cosigned == {ORIGIN: 3}
    assert snapshot.last == {ORIGIN: AT}
    assert snapshot.refused == {}


async def test_it_cosigns_with_each_of_its_keys(place, log):
    keys = witness_keys()
    witness = place.witness(keys=keys)
    lines = await witness.cosign(log.request())
    assert [item.key_id for item in cosigned(lines, log, 20, keys)] == [
        key.verifier.key_id for key in keys
    ]


async def test_it_remembers_when_it_is_opened_anew(place, log):
    witness = place.witness()
    await witness.cosign(log.request(0, 7))
    await witness.close()
    place.now = AT - 5
    witness = place.witness()
    assert witness.seen(ORIGIN) == Seen(7, log.checkpoint(7).root)
    assert witness.snapshot().last == {ORIGIN: AT}
    with pytest.raises(witnessing.Behind) as caught:
        await witness.cosign(log.request(0, 20))
    assert caught.value.size == 7
    await witness.cosign(log.request(7, 20))


async def test_it_remembers_with_another_key_of_its_own(place, log):
    await place.witness().cosign(log.request(0, 7))
    await place.close()
    witness = place.witness(keys=[witness_key("new.example/w", b"\x07" * 32)])
    assert witness.seen(ORIGIN).size == 7
    assert witness.snapshot().last == {}


async def test_a_fork_is_refused_and_kept(place, log, caplog):
    witness = place.witness()
    await witness.cosign(log.request(0, 10))
    fork = log.fork(5)
    for body, error in (
        (fork.request(10, 10), witnessing.Conflict),
        (fork.request(10, 20), witnessing.Inconsistent),
    ):
        with pytest.raises(error):
            await witness.cosign(body)
        kept = [path.read_bytes() for path in place.folder.glob("refused/*/*")]
        assert body in kept
    assert "contradicts what was seen" in caplog.text
    assert witness.seen(ORIGIN).size == 10
    assert witness.snapshot().refused == {"conflict": 1, "inconsistent": 1}
    await witness.cosign(log.request(10, 20))


async def test_what_it_does_not_follow_or_trust(place, log):
    witness = place.witness()
    other = GrowingLog("example.org/other").grow(3)
    stranger = GrowingLog(seed=b"\x09" * 32).grow(3)
    for body, error in (
        (other.request(), witnessing.UnknownLog),
        (stranger.request(), witnessing.Untrusted),
        (b"old 0\n", witnessing.Malformed),
    ):
        with pytest.raises(error):
            await witness.cosign(body)
    assert witness.snapshot().refused == {"unknown-log": 1, "untrusted": 1, "malformed": 1}
    assert not list(place.folder.glob("refused/*/*"))


async def test_logs_are_apart(place, log):
    other = GrowingLog("example.org/other", seed=b"\x08" * 32).grow(5)
    witness = place.witness(logs=[log.verifier, log.ml_dsa_verifier, other.verifier])
    await witness.cosign(log.request(0, 7))
    await witness.cosign(other.request(0, 5))
    assert witness.snapshot().seen == {ORIGIN: 7, "example.org/other": 5}


async def test_only_known_signatures_are_kept(place, log):
    ninety = "".join(
        notes.signature_line(ORIGIN, bytes([1, 2, 3, number]) + b"x" * 70) for number in range(99)
    )
    body = log.request(0, 7) + ninety.encode()
    witness = place.witness()
    await witness.cosign(body)
    await witness.close()
    assert place.witness().seen(ORIGIN).size == 7


async def test_the_clock_never_goes_back_in_what_it_states(place, log):
    witness = place.witness()
    await witness.cosign(log.request(0, 7))
    place.now = AT - MAX_BACK_S
    (found,) = cosigned(await witness.cosign(log.request(7, 8)), log, 8)
    assert found.at == AT
    place.now = AT - MAX_BACK_S - 1
    with pytest.raises(StoreError, match="61 seconds behind"):
        await witness.cosign(log.request(8, 9))
    assert witness.seen(ORIGIN).size == 8
    place.now = AT + 9
    (found,) = cosigned(await witness.cosign(log.request(8, 9)), log, 9)
    assert found.at == AT + 9


async def test_what_it_cannot_keep_it_does_not_cosign(place, log, monkeypatch):
    witness = place.witness()
    await witness.cosign(log.request(0, 7))

    def broken(*_):
        raise StoreError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Memory, "keep", broken)
        with pytest.raises(StoreError, match="the disk is gone"):
            await witness.cosign(log.request(7, 9))
    assert witness.seen(ORIGIN).size == 7
    assert witness.snapshot().cosigned == {ORIGIN: 1}
    await witness.cosign(log.request(7, 20))


async def test_it_keeps_before_it_answers(place, log, monkeypatch):
    witness = place.witness()
    kept = []
    keep = Memory.keep
    monkeypatch.setattr(
        Memory, "keep", lambda self, origin, note: (keep(self, origin, note), kept.append(note))
    )
    lines = await witness.cosign(log.request(0, 7))
    assert len(kept) == 1
    (path,) = place.folder.glob("seen/*")
    assert path.read_bytes() == kept[0] == log.note(7) + lines


async def test_two_requests_race_and_one_of_them_is_behind(place, log):
    witness = place.witness()
    await witness.cosign(log.request(0, 5))
    fork = log.fork(8)
    results = await asyncio.gather(
        *(witness.cosign(body) for body in (log.request(5, 9), fork.request(5, 9)) * 8),
        return_exceptions=True,
    )
    granted = [result for result in results if isinstance(result, bytes)]
    assert len(granted) == 1
    assert all(
        isinstance(result, witnessing.Behind) and result.size == 9
        for result in results
        if not isinstance(result, bytes)
    )


async def test_a_request_that_nobody_waits_for_is_carried_through(place, log, monkeypatch):
    loop = asyncio.get_running_loop()
    reached, leave = asyncio.Event(), asyncio.Event()
    keep = Memory.keep

    def slow(self, origin, note):
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(leave.wait(), loop).result()
        keep(self, origin, note)

    monkeypatch.setattr(Memory, "keep", slow)
    witness = place.witness()
    asking = asyncio.create_task(witness.cosign(log.request(0, 5)))
    await reached.wait()
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    # The next of this log waits for it, and then is behind.
    following = asyncio.create_task(witness.cosign(log.request(0, 9)))
    await asyncio.sleep(0)
    leave.set()
    with pytest.raises(witnessing.Behind) as caught:
        await following
    assert caught.value.size == 5


async def test_one_who_leaves_the_queue_is_not_served(place, log):
    admitted, leave = asyncio.Event(), asyncio.Event()

    async def admit(checkpoint):
        admitted.set()
        await leave.wait()

    witness = place.witness(admit=admit)
    first = asyncio.create_task(witness.cosign(log.request(0, 5)))
    await admitted.wait()
    second = asyncio.create_task(witness.cosign(log.request(5, 9)))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    leave.set()
    await first
    assert witness.seen(ORIGIN).size == 5
    await witness.cosign(log.request(5, 9))


async def test_closing_waits_for_what_was_begun(place, log):
    admitted, leave = asyncio.Event(), asyncio.Event()

    async def admit(checkpoint):
        admitted.set()
        await leave.wait()

    witness = place.witness(admit=admit)
    asking = asyncio.create_task(witness.cosign(log.request(0, 5)))
    await admitted.wait()
    closing = asyncio.create_task(witness.close())
    await asyncio.sleep(0)
    assert not closing.done()
    leave.set()
    await closing
    await asking
    place.open.clear()
    again = place.witness()
    assert again.seen(ORIGIN).size == 5


async def test_what_is_not_admitted_is_neither_kept_nor_cosigned(place, log, caplog):
    asked = []
    caplog.set_level(logging.INFO)

    async def admit(checkpoint):
        asked.append(checkpoint)
        if checkpoint.size == 9:
            raise witnessing.NotAdmitted("entry 8 is a second seal")

    witness = place.witness(admit=admit)
    await witness.cosign(log.request(0, 5))
    with pytest.raises(witnessing.NotAdmitted):
        await witness.cosign(log.request(5, 9))
    assert witness.seen(ORIGIN).size == 5
    assert [checkpoint.size for checkpoint in asked] == [5, 9]
    # What is inconsistent is not even looked at.
    with pytest.raises(witnessing.Inconsistent):
        await witness.cosign(log.fork(2).request(5, 20))
    assert len(asked) == 2
    assert witness.snapshot().refused == {"not-admitted": 1, "inconsistent": 1}
    assert "entry 8 is a second seal" in caplog.text


@pytest.mark.parametrize(
    "keys",
    [
        [witness_key(algorithm=b"\x01")],
        [witness_key(), witness_key(seed=b"\x03" * 32)],
        [witness_key(), witness_key("other.example/w", algorithm=b"\x06")],
        [witness_key(ORIGIN)],
    ],
)
def test_keys_that_cannot_cosign(place, keys):
    with pytest.raises(SettingsError):
        place.witness(keys=keys)


def test_it_needs_a_key(tmp_path):
    memory = Memory(tmp_path)
    with pytest.raises(SettingsError, match="sealtape witness init"):
        Witness(memory, [], [])
    memory.close()
