"""A log in memory for tests of whoever watches one: it grows, and forks when it is told to.

log = GrowingLog()
log.grow(5)
note = log.note()                       signed, at its present size
body = log.request(old=0)               what a witness is asked
other = log.fork(3)                     the same key, another history from entry 3 on
"""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from sealtape.schemas import notes, tree
from sealtape.schemas.cosignatures import ED25519, ML_DSA_44, MlDsaCosigner, cosign
from sealtape.schemas.tlog.keyfiles import format_key, parse_key
from sealtape.schemas.tlog.witnessing import encode_request

ORIGIN = "sealtape.example/log/1"
NAME = "office.example/witness"


class GrowingLog:
    """Leaves, and the keys that sign them."""

    def __init__(self, origin=ORIGIN, seed=b"\x01" * 32, leaves=()):
        self.origin = origin
        self.seed = seed
        self.leaves = list(leaves)
        self.signer = notes.Signer(origin, Ed25519PrivateKey.from_private_bytes(seed))
        self.ml_dsa = MLDSA44PrivateKey.from_seed_bytes(seed)

    @property
    def verifier(self):
        return self.signer.verifier

    @property
    def ml_dsa_verifier(self):
        return MlDsaCosigner(self.origin, self.ml_dsa.public_key().public_bytes_raw())

    def grow(self, count=1, what=b"entry"):
        self.leaves += [
            tree.leaf_hash(b"%s %d" % (what, number))
            for number in range(len(self.leaves), len(self.leaves) + count)
        ]
        return self

    def fork(self, size):
        """Another history behind the first `size` entries, as long as this one."""
        other = GrowingLog(self.origin, self.seed, self.leaves[:size])
        return other.grow(len(self.leaves) - size, b"forged")

    def checkpoint(self, size=None):
        size = len(self.leaves) if size is None else size
        return notes.Checkpoint(self.origin, size, tree.root(self.leaves[:size]))

    def note(self, size=None, *, ml_dsa=False):
        text = self.checkpoint(size).text()
        note = self.signer.sign(text)
        return note + cosign(self.origin, self.ml_dsa, text, 1).encode() if ml_dsa else note

    def proof(self, old, size=None):
        size = len(self.leaves) if size is None else size
        return tree.consistency_proof(self.leaves[:size], old)

    def request(self, old=0, size=None):
        return encode_request(old, self.proof(old, size), self.note(size))

    async def prove(self, old, new):
        return self.proof(old, new)


def witness_key(name=NAME, seed=b"\x02" * 32, algorithm=ED25519):
    """A witness's key, as its file has it."""
    return parse_key(format_key(name, algorithm, seed))


def witness_keys(name=NAME, seed=b"\x02" * 32):
    """One of each type."""
    return [witness_key(name, seed), witness_key(name, seed, ML_DSA_44)]
