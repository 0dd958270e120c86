"""Histories (see `histories`) written into a vault, as the log's worker would have left them there.

vault = LogVault(folder, history)
await vault.write()                    # all of it; or the events up to a witnessed checkpoint
vault.policy()                         # the evidence policy of whoever reads it
body = vault.request(old=0)            # what a witness is asked for the last checkpoint
"""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.ingest.tlog.store import CHECKPOINT, PENDING, LogStore, noted_key
from sealtape.ingest.vault.file import FileVault
from sealtape.schemas import tree
from sealtape.schemas.cosignatures import ED25519, Cosigner, cosign
from sealtape.schemas.evidence import parse_evidence_policy
from sealtape.schemas.layout import manifest_key
from sealtape.schemas.notes import Checkpoint
from sealtape.schemas.segments import SegmentRecord
from sealtape.schemas.tlog.keyfiles import format_key, parse_key
from sealtape.schemas.tlog.tiles import Growth
from sealtape.schemas.tlog.witnessing import encode_request
from tests.factories.histories import LOG, NS, Begin, Witness

OFFICE = "office.example/witness"
MONITOR = "monitor.example/monitor"


def monitor_key(number=0x33):
    return parse_key(format_key(MONITOR, ED25519, bytes([number]) * 32))


class LogVault:
    """What is written so far: `number`, `leaves` of the last shard, `notes` by shard and size."""

    def __init__(self, folder, history):
        self.folder = folder
        self.history = history
        self.vault = FileVault(folder)
        self.events = history.write()
        self.number = 0
        self.leaves = []
        self.notes = {}
        self.at_ns = 0
        self._office = Ed25519PrivateKey.from_private_bytes(b"\x44" * 32)
        self._growth = None
        self._fresh = []
        self._shown = {}

    @property
    def url(self):
        return f"file:{self.folder}"

    @property
    def store(self):
        return LogStore(self.vault, self.number)

    @property
    def size(self):
        return len(self.leaves)

    @property
    def origin(self):
        return f"{LOG}/{self.number}"

    @property
    def checkpoints(self):
        """How many witnessed checkpoints there are still to be written."""
        return sum(isinstance(event.step, Witness) for event in self.events)

    def policy_text(self, monitors=()):
        office = Cosigner(OFFICE, self._office.public_key().public_bytes_raw())
        lines = [f"log {key.verifier.vkey}" for key in self.history.log_keys.values()]
        lines += [f"witness office {office.vkey}", f"witness monitor {monitor_key().vkey}"]
        lines.append("quorum office")
        admins = ", ".join(f'"{admin.vkey}"' for admin in self.history.admins)
        named = ", ".join(f'"{name}"' for name in monitors)
        text = "".join(line + "\n" for line in lines)
        return (
            f'v = 1\nlog = "{LOG}"\ntlog_policy = """\n{text}"""\nmonitors = [{named}]\n'
            f"admins = [{admins}]\nadmin_threshold = {self.history.threshold}\n"
        )

    def policy(self):
        return parse_evidence_policy(self.policy_text().encode())

    async def write(self, checkpoints=None, *, noted=True):
        """Write up to so many witnessed checkpoints, or everything; `noted`: they are kept."""
        while self.events and checkpoints != 0:
            event = self.events.pop(0)
            if isinstance(event.step, Witness):
                await self.sign(event.step.at_ns, noted=noted)
                checkpoints = None if checkpoints is None else checkpoints - 1
            else:
                await self._add(event)
        return self

    async def _add(self, event):
        if isinstance(event.step, Begin):
            await self.flush()
            self.number, self.leaves = event.number, []
            self._growth, self._shown = Growth(0, {}), {}
        if event.manifest:
            key = manifest_key(SegmentRecord.from_json(event.entry).object)
            await self.vault.put_new(key, event.manifest)
        self.leaves.append(tree.leaf_hash(event.entry))
        self._fresh.append(event.entry)

    async def flush(self):
        """Write the tiles of what was added."""
        if self._fresh:
            await self.store.put(self._growth.append(self._fresh))
            self._fresh = []

    def checkpoint(self, size=None):
        size = self.size if size is None else size
        return Checkpoint(self.origin, size, tree.root(self.leaves[:size]))

    def note(self, size=None):
        """Signed by the log alone."""
        return self.history.log_keys[self.number].sign(self.checkpoint(size).text())

    async def sign(self, at_ns, *, noted=True):
        """A checkpoint over all that was added, witnessed at that time."""
        await self.flush()
        note = self.note()
        self.at_ns = at_ns
        await self._swap(PENDING, note)
        if noted:
            text = self.checkpoint().text()
            note += cosign(OFFICE, self._office, text, at_ns // NS).encode()
            await self.store.create(noted_key(self.size), note)
            await self._swap(CHECKPOINT, note)
        self.notes[self.number, self.size] = note

    async def _swap(self, name, note):
        if self._shown.get(name) != note:
            await self.store.swap(name, note, self._shown.get(name, b""))
            self._shown[name] = note

    def request(self, old=0, size=None):
        """What a witness that has seen `old` entries is asked."""
        size = self.size if size is None else size
        proof = tree.consistency_proof(self.leaves[:size], old)
        return encode_request(old, proof, self.note(size))
