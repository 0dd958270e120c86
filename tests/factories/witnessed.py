"""A log in memory that gives receipts and beacons, with a witness; honest unless told otherwise.

log = WitnessedLog()
log.seal(ended)                         the seal of an epoch as its node made it; changes as options
log.beacon(), log.receipt(ended)        under the newest checkpoint
parse_policy(log.policy.encode())       what a node needs to verify both
"""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealtape.schemas import notes, tree
from sealtape.schemas.bodies import RetentionClass
from sealtape.schemas.cosignatures import Cosigner, cosign
from sealtape.schemas.tlog.proof import LogProof
from sealtape.schemas.tlog.records import Listed, SessionSeal, encode_entry, parse_entry

WITNESS = "office.example/witness"


class WitnessedLog:
    """Entries and keys; `witnessed` false leaves the witness's signature away."""

    def __init__(self, log="sealtape.example/log", number=1, seed=1):
        self.origin = f"{log}/{number}"
        self.entries = [b'{"n":0}']
        self.witnessed = True
        self._signer = notes.Signer(self.origin, private(seed))
        self._witness = private(seed + 1)

    @property
    def policy(self):
        public = self._witness.public_key().public_bytes_raw()
        vkey = Cosigner(WITNESS, public).vkey
        return f"log {self._signer.vkey}\nwitness office {vkey}\nquorum office\n"

    def seal(self, ended, **changes):
        """Append the seal of an epoch, and something behind it; returns its entry."""
        self.entries += [seal_of(ended, **changes), b'{"n":%d}' % len(self.entries)]
        return self.entries[-2]

    def beacon(self, size=None):
        leaves = [tree.leaf_hash(entry) for entry in self.entries[:size]]
        text = notes.Checkpoint(self.origin, len(leaves), tree.root(leaves)).text()
        note = self._signer.sign(text)
        if self.witnessed:
            note += cosign(WITNESS, self._witness, text, 1_795_392_000).encode()
        return note

    def receipt(self, ended, **changes):
        """The proof of the entry of this epoch; `changes` are of the `LogProof`."""
        for index, entry in enumerate(self.entries):
            if is_seal_of(entry, ended):
                leaves = [tree.leaf_hash(entry) for entry in self.entries]
                path = tuple(tree.inclusion_proof(leaves, index))
                parts = {"index": index, "path": path, "note": self.beacon(), "extra": entry}
                return LogProof(**(parts | changes)).encode()
        raise LookupError(ended)


def is_seal_of(entry, ended):
    if not entry.startswith(b'{"at_ns"'):
        return False
    found = parse_entry(entry)
    name = (ended.session, ended.epoch)
    return isinstance(found, SessionSeal) and (found.session, found.epoch) == name


def seal_of(ended, **changes):
    parts = {
        "at_ns": 1_795_392_000_000_000_000,
        "tenant": "main",
        "session": ended.session,
        "epoch": ended.epoch,
        "retention": RetentionClass("standard", 7_776_000, 34_560_000),
        "frames": ended.size,
        "root": ended.root,
        "lost": 0,
        "attested": ended.size if ended.closed else ended.size - 1,
        "closed": "client" if ended.closed else "",
        "first_ts_ns": 1,
        "last_ts_ns": 2,
        "opening_sha256": b"\x05" * 32,
        "checkpoint_sha256": b"\x07" * 32,
        "fragments": Listed.of([b"one"]),
    }
    return encode_entry(SessionSeal(**(parts | changes)))


def private(seed):
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
