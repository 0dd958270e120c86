"""Who has the log's keys signs whatever history he likes; two outside witnesses refuse it."""

from contextlib import AsyncExitStack

import pytest

from sealtape.ingest.tlog.signer_file import read_key
from sealtape.ingest.tlog.store import CHECKPOINT, LogStore, noted_key
from sealtape.ingest.tlog.witnesses import Witnesses
from sealtape.ingest.vault import open_vault
from sealtape.ingest.witness import open_witness
from sealtape.schemas import tree
from sealtape.schemas.notes import Checkpoint, parse_checkpoint, parse_note
from sealtape.schemas.tlog.policy import parse_policy
from sealtape.schemas.tlog.tiles import Tile, encode_entries, grown
from tests.factories.growing import witness_key
from tests.indexer.harm import overwrite, tampered
from tests.stories.deployed import judged, log_file

KEYS = {
    name: witness_key(f"{name}.example/witness", bytes([number]) * 32)
    for number, name in enumerate(("north", "south"), 30)
}


class Thief:
    """Reads the vault and signs with what he stole."""

    def __init__(self, site, entries, note):
        self.site = site
        self.entries = list(entries)
        self.note = note
        self.signer = read_key(site.folder / "keys/log.key").signer()

    def leaves(self):
        return [tree.leaf_hash(entry) for entry in self.entries]

    def sign(self, size=None):
        leaves = self.leaves()[:size]
        origin = self.signer.verifier.name
        return self.signer.sign(Checkpoint(origin, len(leaves), tree.root(leaves)).text())

    async def prove(self, old, new):
        return tree.consistency_proof(self.leaves()[:new], old)


@pytest.fixture
async def thief(site):
    vault = await open_vault(site.settings.stores.vault, site.folder)
    store = LogStore(vault, 1)
    note = await store.get(CHECKPOINT)
    entries = await store.entries(0, parse_checkpoint(parse_note(note).text).size)
    await vault.close()
    return Thief(site, entries, note)


@pytest.fixture
async def outside(thief, tmp_path):
    """Two witnesses of other parties, which have seen the log as it is; who asks them."""
    async with AsyncExitStack() as stack:
        lines = [f"log {thief.signer.verifier.vkey}"]
        servers = []
        for name, key in KEYS.items():
            server = await open_witness(
                state=tmp_path / name,
                listen="127.0.0.1:0",
                keys=[key],
                logs=[thief.signer.verifier],
            )
            stack.push_async_callback(server.close)
            servers.append(server)
            lines.append(f"witness {name} {key.vkey} {server.url}")
        lines += [f"group both all {' '.join(KEYS)}", "quorum both"]
        asking = Witnesses(parse_policy(("\n".join(lines) + "\n").encode()))
        stack.push_async_callback(asking.close)
        assert len(await asking.cosign(thief.sign(), thief.prove)) == 2
        yield asking


async def test_a_fork_of_the_same_size(thief, outside):
    thief.entries[-1] = thief.entries[-1].replace(b'"v":1', b'"v":2')
    assert await outside.cosign(thief.sign(), thief.prove) == []


async def test_a_longer_log_with_another_past(thief, outside):
    thief.entries[3] = thief.entries[3].replace(b'"v":1', b'"v":2')
    thief.entries += [thief.entries[-1]] * 3
    assert await outside.cosign(thief.sign(), thief.prove) == []


async def test_a_shorter_log(thief, outside):
    del thief.entries[-2:]
    assert await outside.cosign(thief.sign(), thief.prove) == []


async def test_what_only_goes_on_is_cosigned(thief, outside):
    thief.entries += [thief.entries[-1]]
    assert len(await outside.cosign(thief.sign(), thief.prove)) == 2


async def test_he_puts_his_fork_into_the_vault(thief, site):
    """All objects of the log agree with each other, and nobody outside has signed them."""
    thief.entries[-1] = thief.entries[-1].replace(b'"v":1', b'"v":2')
    leaves = thief.leaves()
    for path in log_file(site, "tile").rglob("*"):
        if path.is_file():
            path.unlink()
    for tile in grown(0, len(leaves)):
        data = (
            encode_entries(thief.entries)
            if tile.level == Tile.from_path("tile/entries/000.p/1").level
            else b"".join(leaves)
        )
        path = log_file(site, tile.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    overwrite(log_file(site, CHECKPOINT), thief.sign())
    overwrite(log_file(site, "checkpoint.pending"), thief.sign())
    (log_file(site, noted_key(len(leaves)))).unlink()
    tampered(await judged(site), layer="ledger", reason="not the entry that was logged")
