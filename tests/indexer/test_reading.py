from dataclasses import replace

import pytest

from sealtape.capture.bus.dir import DirBus
from sealtape.indexer.reading import Keys, Recording, Segments
from sealtape.schemas import messages
from sealtape.schemas.errors import (
    FormatError,
    KeyCommitmentError,
    KeyUnavailable,
    Missing,
    NotFound,
)
from sealtape.schemas.frames import Kind, Suite
from sealtape.schemas.keys import open_frame_with_key
from sealtape.schemas.messages import KeyMessage
from tests.factories.sessions import build_session, reader


def recording(deployment, built, *, bus=True, keys=None):
    return Recording(
        session=built.session,
        ledger=deployment.ledger,
        vault=deployment.vault,
        bus=deployment.bus if bus else None,
        keys=keys,
    )


async def frames(found, start=(0, 0)):
    return tuple([frame async for frame in found.frames(start)])


async def test_live_then_half_sealed_then_sealed(deployment):
    built = build_session(commands=8, checkpoint_every=2)
    other = build_session(seed=99)
    half = len(built.messages) // 2
    await deployment.send(other)
    await deployment.append(built.messages[:half])
    live = await frames(recording(deployment, built))
    assert live == built.frames[: len(live)]
    assert len(live) > 3
    await deployment.seal()
    await deployment.append(built.messages[half:])
    assert await frames(recording(deployment, built)) == built.frames
    sealed = await frames(recording(deployment, built, bus=False))
    assert sealed == built.frames[: len(sealed)]
    assert len(sealed) < len(built.frames)
    await deployment.seal()
    for bus in (True, False):
        assert await frames(recording(deployment, built, bus=bus)) == built.frames
    for start in range(len(built.frames) + 2):
        found = await frames(recording(deployment, built), (0, start))
        assert found == built.frames[start:]


async def test_epochs_in_order_and_each_frame_once(deployment):
    first = build_session(seed=1, commands=2, close=None)
    second = build_session(
        session=first.session, epoch=1, continues=first.continues, seed=2, close="aborted"
    )
    await deployment.send(first, first, second, second)
    whole = first.frames + second.frames
    assert await frames(recording(deployment, first)) == whole
    await deployment.seal()
    assert await frames(recording(deployment, first)) == whole
    assert await frames(recording(deployment, first), (1, 2)) == second.frames[2:]


@pytest.fixture
async def small(deployment):
    bus = DirBus(deployment.folder / "small", partitions=2, file_bytes=1000)
    yield deployment.with_bus(bus)
    await bus.close()


async def test_while_ingest_publishes_and_the_bus_is_trimmed(small, monkeypatch):
    monkeypatch.setattr("sealtape.indexer.reading.READ_BYTES", 3000)
    built = build_session(seed=3, commands=30, row_bytes=500, checkpoint_every=3)
    partition = small.bus.partition_of(built.session)
    for message in built.messages:
        await small.append([message])
    found = []
    async for frame in recording(small, built).frames():
        found.append(frame)
        if len(found) == 10:
            await small.seal()
            await small.trim(partition)
            assert (await small.bus.bounds(partition))[0] > 0
    assert tuple(found) == built.frames


async def test_the_latest_of_a_kind(small, monkeypatch):
    monkeypatch.setattr("sealtape.indexer.reading.READ_BYTES", 3000)
    built = build_session(seed=4, commands=12, row_bytes=500, checkpoint_every=3)
    partition = small.bus.partition_of(built.session)
    half = len(built.messages) // 2
    for message in built.messages[:half]:
        await small.append([message])
    await small.seal()
    for message in built.messages[half:]:
        await small.append([message])
    reading = recording(small, built)
    for seq in range(len(built.frames) + 1):
        expected = [f for f in reversed(built.frames) if f.kind == Kind.FACTS and f.seq <= seq]
        assert [frame async for frame in reading.latest(Kind.FACTS, (0, seq))] == expected
    alone = recording(small, built, bus=False)
    sealed = [frame async for frame in alone.latest(Kind.FACTS, (9, 0))]
    assert 0 < len(sealed) < len(expected)

    position, read = small.bus.bounds, small.bus.read
    trimmed = []

    async def sealed_just_now(*args, **options):
        if not trimmed:
            trimmed.append(True)
            await small.seal()
            await small.trim(partition)
        return await read(*args, **options)

    monkeypatch.setattr(small.bus, "read", sealed_just_now)
    assert [frame async for frame in reading.latest(Kind.FACTS, (0, 99))] == expected
    assert (await position(partition))[0] > 0


async def test_nothing_anywhere(deployment):
    for bus in (True, False):
        with pytest.raises(NotFound):
            await frames(recording(deployment, build_session(), bus=bus))


async def test_rubbish_under_the_session_is_not_a_frame(deployment):
    built = build_session(commands=1)
    partition = deployment.bus.partition_of(built.session)
    await deployment.bus.append(partition, [(built.session, b"\xc3\x01rubbish")])
    await deployment.send(built)
    assert await frames(recording(deployment, built)) == built.frames


@pytest.mark.parametrize("forged", [{"seq": 10**9}, {"seq": 7}, {"epoch": 1, "seq": 0}])
async def test_a_frame_behind_a_hole_hides_none(deployment, forged):
    built = build_session(seed=17, commands=5)
    sent = list(built.messages)
    sent.insert(sent.index(built.frames[4]), replace(built.frames[4], **forged))
    await deployment.append(sent)
    assert await frames(recording(deployment, built)) == built.frames


async def test_segments_that_are_not_what_was_sealed(deployment):
    built, other = build_session(seed=5), build_session(seed=6, commands=9)
    await deployment.send(built, other)
    await deployment.seal()
    [fragment] = await deployment.ledger.fragments(built.session)
    path = next((deployment.folder / "vault").rglob("*.parquet"))
    others = await deployment.ledger.fragments(other.session)
    assert fragment.segment_key in str(path) or others[0].segment_key in str(path)
    segments = Segments(deployment.vault)
    assert [frame async for frame in segments.frames(fragment, 9, 9)] == []
    assert len([frame async for frame in segments.frames(fragment, 2, 5)]) == 3
    object_path = deployment.folder / "vault" / fragment.segment_key
    whole = object_path.read_bytes()
    object_path.chmod(0o600)
    object_path.write_bytes(whole[:-40])
    with pytest.raises(FormatError):
        await frames(recording(deployment, built))
    object_path.unlink()
    with pytest.raises(Missing):
        await frames(recording(deployment, built))


async def test_keys(deployment):
    built = build_session(seed=7)
    await deployment.send(built)
    auditor, indexer = Keys(deployment.keyring, built.auditor), Keys(deployment.keyring, None)
    data = next(frame for frame in built.frames if frame.kind == Kind.DATA)
    with pytest.raises(KeyUnavailable, match="nobody"):
        await auditor.open(data)
    for message in built.messages:
        if isinstance(message, KeyMessage):
            auditor.learn(message)
            indexer.learn(message)
    assert await auditor.open(data)
    with pytest.raises(KeyUnavailable, match="no private key"):
        await indexer.open(data)
    assert await indexer.open(built.frames[0]) == built.frames[0].payload

    await deployment.seal()
    assert await Keys(deployment.keyring, built.auditor).open(data) == await auditor.open(data)
    with pytest.raises(KeyUnavailable, match=f"wrapped for {built.auditor.id}, not for"):
        await Keys(deployment.keyring, built.indexer).open(data)
    assert await Keys(deployment.keyring, built.indexer).open(built.frames[1])
    await deployment.keyring.destroy(built.session)
    with pytest.raises(KeyUnavailable, match="destroyed"):
        await Keys(deployment.keyring, built.auditor).open(data)


async def test_reading_learns_keys_from_the_bus(deployment):
    built = build_session(seed=8)
    await deployment.send(built)
    keys = Keys(deployment.keyring, built.auditor)
    async for frame in recording(deployment, built, keys=keys).frames():
        await keys.open(frame)


async def test_a_forged_wrap_is_no_key(deployment):
    built = build_session(seed=9)
    message = next(each for each in built.messages if isinstance(each, KeyMessage))
    forged = KeyMessage(
        session=message.session,
        epoch=message.epoch,
        label=message.label,
        recipient=message.recipient,
        suite=message.suite,
        sealed=bytes(len(message.sealed)),
        tenant=message.tenant,
        retention=message.retention,
    )
    keys = Keys(deployment.keyring, built.auditor)
    with pytest.raises(FormatError):
        keys.learn(forged)
    partition = deployment.bus.partition_of(built.session)
    await deployment.bus.append(partition, [(built.session, messages.encode(forged))])
    await deployment.send(built)
    async for frame in recording(deployment, built, keys=keys).frames():
        await keys.open(frame)


async def test_few_keys_are_kept(deployment, monkeypatch):
    monkeypatch.setattr("sealtape.indexer.reading.MAX_KEYS", 2)
    keys = Keys(deployment.keyring, reader("auditor"))
    for seed in range(3):
        built = build_session(seed=seed)
        await deployment.send(built)
        async for frame in recording(deployment, built, keys=keys).frames():
            await keys.open(frame)
    assert len(keys._known) == 2


def with_planted_keys():
    """A session that was recovered; somebody had sent keys of his own for its second epoch."""
    first = build_session(seed=1, commands=2, close=None)
    again = {"session": first.session, "epoch": 1, "continues": first.continues}
    second = build_session(**again, seed=2, commands=2, close="aborted")
    other = build_session(**again, seed=3)
    planted = [each for each in other.messages if isinstance(each, KeyMessage)]
    return first, planted, second


async def test_keys_that_were_sent_before_the_true_ones_shadow_none(deployment):
    first, planted, second = with_planted_keys()
    await deployment.append([*first.messages, *planted, *second.messages])
    live = Keys(deployment.keyring, first.auditor)
    async for frame in recording(deployment, first, keys=live).frames():
        await live.open(frame)
    lately = Keys(deployment.keyring, first.auditor)
    for message in planted:
        lately.learn(message)
    await deployment.seal()
    assert await deployment.keyring.disputed(first.session)
    for keys in (Keys(deployment.keyring, first.auditor), lately):
        async for frame in recording(deployment, first).frames():
            await keys.open(frame)
            if frame.suite == Suite.AES256GCM:
                assert open_frame_with_key(frame, await keys.of_frame(frame))


async def test_a_frame_under_no_key_of_ours_is_damaged(deployment):
    first, planted, second = with_planted_keys()
    await deployment.append([*first.messages, *planted])
    await deployment.seal()
    keys = Keys(deployment.keyring, first.auditor)
    with pytest.raises(KeyCommitmentError):
        await keys.open(second.frames[2])
    with pytest.raises(KeyUnavailable, match="kind 1"):
        await keys.of_frame(replace(second.frames[2], kind=Kind.OPEN, suite=Suite.PUBLIC))
