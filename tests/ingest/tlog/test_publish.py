"""Signing and witnessing one shard, step by step; whole logs are in test_worker.py."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.ingest.tlog.kept import recall
from sealtape.ingest.tlog.publish import Publisher, checkpoint_of
from sealtape.ingest.tlog.store import CHECKPOINT, PENDING, noted_key
from sealtape.ingest.tlog.writer import LOG, Writer
from sealtape.schemas import notes
from sealtape.schemas.errors import Fenced, Missing, SignatureError, StoreCorrupt
from sealtape.schemas.notes import Checkpoint
from tests.factories.deployments import make_site
from tests.factories.logs import grow_log, log_of


@pytest.fixture
async def opened(tmp_path):
    """A log of some entries that nothing was signed of, and what it is made with."""
    site = make_site(tmp_path / "lab")
    async with log_of(site) as (stores, parts):
        lease = await stores.ledger.claim(LOG, 0, "a", 600.0)
        summary, cursor = await recall(stores.ledger, stores.vault, await stores.ledger.log_state())
        await Writer(parts, lease, summary, cursor).begin()
        yield stores, parts, lease


async def publisher(opened, **changes):
    stores, parts, lease = opened
    return await Publisher.open(replace(parts, **changes), lease, await stores.ledger.log_state())


async def test_pending_then_witnessed(opened):
    stores, _, _ = opened
    found = await publisher(opened)
    assert (found.size, found.witnessed_size, found.witnessed_at) == (0, 0, None)
    assert await found.sign(9)
    assert not await found.sign(9)
    assert (found.size, found.witnessed_size) == (9, 0)
    assert await found.store.get(PENDING) == found.note
    assert await found.store.get(CHECKPOINT) == b""
    assert await found.witness(found.note)
    assert found.witnessed_size == 9
    for name in (CHECKPOINT, noted_key(9)):
        assert await found.store.get(name) == found.witnessed
    state = await stores.ledger.log_state()
    assert (state.note, state.witnessed) == (found.note, found.witnessed)


async def test_what_is_not_in_the_ledger_is_not_signed(opened):
    found = await publisher(opened)
    with pytest.raises(StoreCorrupt, match="lacks entries"):
        await found.sign(100)
    assert found.note == b""


class Signing:
    """A signer that was changed in one way."""

    def __init__(self, signer, **answers):
        self.signer = signer
        self.answers = answers

    async def signed(self, origin):
        return self.answers.get("signed", await self.signer.signed(origin))

    async def sign(self, old_size, proof, text):
        if "sign" in self.answers:
            return self.answers["sign"](text)
        return await self.signer.sign(old_size, proof, text)


def by_another(text):
    return notes.Signer(text.split("\n")[0], Ed25519PrivateKey.generate()).sign(text)


def refuse(_):
    raise SignatureError("no")


@pytest.mark.parametrize(
    ("answers", "error", "match"),
    [
        ({"signed": None}, Missing, "no key"),
        ({"signed": 12}, StoreCorrupt, "has signed 12"),
        ({"sign": by_another}, StoreCorrupt, "does not name"),
        ({"sign": refuse}, StoreCorrupt, "would fork"),
    ],
)
async def test_a_signer_that_does_not_sign(opened, answers, error, match):
    found = await publisher(opened)
    found._parts = replace(found._parts, signer=Signing(found._parts.signer, **answers))
    with pytest.raises(error, match=match):
        await found.sign(9)
    assert await found.store.get(PENDING) == b""


async def test_a_signer_that_signs_something_else(opened):
    _, parts, _ = opened
    found = await publisher(opened)
    other = Checkpoint(f"{parts.log}/1", 3, bytes(32)).text()
    note = await parts.signer.sign(0, [], other)
    found._parts = replace(parts, signer=Signing(parts.signer, signed=0, sign=lambda _: note))
    with pytest.raises(StoreCorrupt, match="another checkpoint"):
        await found.sign(9)


async def test_it_stops_when_the_lease_is_lost(opened):
    stores, _, _ = opened
    found = await publisher(opened)
    await stores.ledger.claim(LOG, 0, "a", 600.0)
    with pytest.raises(Fenced):
        await found.sign(9)
    assert await found.store.get(PENDING) == b""


async def test_it_does_not_replace_what_another_showed(opened):
    found = await publisher(opened)
    await found.sign(5)
    late = await publisher(opened)
    await found.sign(7)
    with pytest.raises(Fenced, match="another has swapped it"):
        await late.sign(8)
    assert not await late.sign(7)


async def test_killed_between_signing_and_telling_it_goes_on(opened):
    """The signer has signed, the ledger does not know."""
    _, parts, _ = opened
    found = await publisher(opened)
    await found._grow(5)
    text = Checkpoint(f"{parts.log}/1", 5, await found.store.root(5)).text()
    await parts.signer.sign(0, [], text)
    again = await publisher(opened)
    assert await again.sign(9)
    assert await again.witness(again.note)


async def test_killed_between_showing_and_telling_it_goes_on(opened):
    """`checkpoint` is shown, the ledger does not know; and the other way with `pending`."""
    stores, _, lease = opened
    found = await publisher(opened)
    await found.sign(5)
    await found.witness(found.note)
    whole = found.witnessed
    await found.sign(9)
    await stores.vault.erase(found.store.prefix + PENDING)
    again = await publisher(opened)
    assert await again.store.get(PENDING) == found.note
    assert again.witnessed == whole
    lines = await again._parts.cosigners.cosign(again.note, again.store.prove)
    shown = again.note + "".join(lines).encode()
    await again.store.swap(CHECKPOINT, shown, whole)
    third = await publisher(opened)
    assert third.witnessed_size == 9
    assert (await stores.ledger.log_state()).witnessed == shown
    assert lease.term


async def test_another_writers_note_of_the_same_tree_is_as_good(opened):
    found = await publisher(opened)
    await found.sign(5)
    lines = await found._parts.cosigners.cosign(found.note, found.store.prove)
    kept = found.note + "".join(lines).encode()
    await found.store.create(noted_key(5), kept)
    await found.sign(9)
    assert await found.witness(found.note)
    found.witnessed = b""
    assert checkpoint_of(found.note).size == 9


async def test_a_witnessed_checkpoint_of_another_tree_is_a_fork(opened):
    found = await publisher(opened)
    await found.store.create(noted_key(5), b"nonsense")
    await found.sign(5)
    with pytest.raises(StoreCorrupt, match="would fork"):
        await found.witness(found.note)


async def test_a_checkpoint_that_nobody_signed_is_not_gone_on_from(opened):
    found = await publisher(opened)
    await found.store.swap(CHECKPOINT, b"nonsense", b"")
    with pytest.raises(StoreCorrupt, match="not signed by the log"):
        await publisher(opened)


def test_no_note_states_nothing():
    assert checkpoint_of(b"") is None


async def test_the_log_of_another_deployment_is_not_gone_on_from(tmp_path, opened):
    stores, parts, lease = opened
    other = make_site(tmp_path / "other")
    await grow_log(other)
    state = await stores.ledger.log_state()
    async with log_of(other, witnesses=False) as (foreign, _):
        note = (await foreign.ledger.log_state()).note
    with pytest.raises(StoreCorrupt, match="not signed by the log"):
        await Publisher.open(parts, lease, replace(state, note=note))
