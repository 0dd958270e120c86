"""Proof files: one form, and an entry that they lead to."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import notes, tree
from sealtape.schemas.errors import FormatError
from sealtape.schemas.tlog.proof import HEADER, LogProof, parse_proof

ENTRIES = [b"entry %d" % number for number in range(13)]
LEAVES = [tree.leaf_hash(entry) for entry in ENTRIES]
LOG = notes.Signer("example.org/log", Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
CHECKPOINT = notes.Checkpoint(LOG.name, len(LEAVES), tree.root(LEAVES))
NOTE = LOG.sign(CHECKPOINT.text())


def proof_of(index, extra=None):
    return LogProof(index, tuple(tree.inclusion_proof(LEAVES, index)), NOTE, extra)


@given(st.integers(0, 12), st.none() | st.binary(max_size=80))
def test_round_trip(index, extra):
    proof = proof_of(index, extra)
    again = parse_proof(proof.encode())
    assert again == proof
    assert notes.open_checkpoint(again.note, LOG.verifier) == CHECKPOINT
    again.check(ENTRIES[index], CHECKPOINT)
    with pytest.raises(FormatError, match="does not lead"):
        again.check(b"another", CHECKPOINT)


def test_the_text():
    lines = proof_of(12, b"hello").encode().decode().split("\n")
    assert lines[:3] == ["c2sp.org/tlog-proof@v1", "extra aGVsbG8=", "index 12"]
    assert lines[5:7] == ["", LOG.name]


def test_a_tree_of_one_has_an_empty_path():
    note = LOG.sign(notes.Checkpoint(LOG.name, 1, LEAVES[0]).text())
    data = f"{HEADER}\nindex 0\n\n".encode() + note
    proof = parse_proof(data)
    assert proof.encode() == data
    proof.check(ENTRIES[0], notes.open_checkpoint(note, LOG.verifier))


GOOD = proof_of(3).encode()


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        (b"@v1", b"@v2", "begins with"),
        (b"index 3", b"index 03", "decimal"),
        (b"index 3", b"index -3", "within"),
        (b"index 3", b"Index 3", "names the entry"),
        (b"index 3\n", b"", "names the entry"),
        (b"index 3", b"extra aGk\nindex 3", "base64"),
        (b"index 3", b"index 3\nextra aGk=", "base64"),
        (b"index 3", b"index 3\naGk=", "32 bytes"),
        (b"index 3", b"index 3\n" + b"\n".join([b"A" * 43 + b"="] * 63), "at most 63"),
        (b"index 3", b"index \xff", "ASCII"),
        (b"\n\n", b"\n", "empty line"),
        (b"\xe2\x80\x94 ", b"", "signature line"),
    ],
)
def test_other_forms_are_refused(old, new, word):
    data = GOOD if old != b"\n\n" else GOOD.replace(b"\n\n", b"\n")
    assert old in GOOD
    with pytest.raises(FormatError, match=word):
        parse_proof(data.replace(old, new, 1))


@pytest.mark.parametrize("at", range(0, len(GOOD), 7))
def test_a_proof_that_ends_early(at):
    with pytest.raises(FormatError):
        parse_proof(GOOD[:at])


def test_sizes():
    with pytest.raises(FormatError, match="extra data has at most"):
        proof_of(3, bytes(65_537)).encode()
    with pytest.raises(FormatError, match="at most"):
        parse_proof(GOOD + b"\n" * (2 << 20))
    with pytest.raises(FormatError, match="begins with"):
        parse_proof(b"\n\n" + GOOD)
    with pytest.raises(FormatError, match="names the entry"):
        parse_proof(HEADER.encode() + b"\n\n" + NOTE)
