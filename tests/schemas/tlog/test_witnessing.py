"""Witnessing: the golden requests, the rule for every pair of sizes, and what is no request."""

import base64
import hashlib
import json
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import notes, tree
from sealtape.schemas.cosignatures import Cosigner, MlDsaCosigner, cosign, verifier_of
from sealtape.schemas.errors import FormatError, SignatureError
from sealtape.schemas.tlog import witnessing
from sealtape.schemas.tlog.witnessing import Seen

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "witness.json").read_text(encoding="utf-8")
)
LOG = verifier_of(VECTORS["log"])
WITNESS = verifier_of(VECTORS["witness"])
REQUEST = VECTORS["request"].encode()
LEAVES = [tree.leaf_hash(b"%d" % number) for number in range(40)]
OTHER = [*LEAVES[:-1], tree.leaf_hash(b"other")]
ORIGIN = "example.org/log"
AT = 1_795_392_000
KEY = Ed25519PrivateKey.from_private_bytes(b"\x05" * 32)
SIGNER = notes.Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"\x04" * 32))
ML_DSA = MLDSA44PrivateKey.from_seed_bytes(b"\x06" * 32)
COSIGNER = Cosigner("office.example/w", KEY.public_key().public_bytes_raw())
ML_DSA_COSIGNER = MlDsaCosigner("office.example/w", ML_DSA.public_key().public_bytes_raw())
TEXT = notes.Checkpoint(ORIGIN, 7, tree.root(LEAVES[:7])).text()
LINE = cosign(COSIGNER.name, KEY, TEXT, AT)
ML_DSA_LINE = cosign(COSIGNER.name, ML_DSA, TEXT, AT + 1)


def seen_of(value):
    return value and Seen(value["size"], base64.b64decode(value["root"]))


def checkpoint(size, leaves=LEAVES):
    return notes.Checkpoint(ORIGIN, size, tree.root(leaves[:size]))


def test_the_golden_request_is_granted():
    request = witnessing.parse_request(REQUEST)
    assert witnessing.encode_request(request.old_size, request.proof, request.note) == REQUEST
    seen = witnessing.decide(seen_of(VECTORS["seen"]), request, [LOG])
    assert (seen.size, seen.root) == (request.checkpoint.size, request.checkpoint.root)
    # The same again asks for another cosignature of the same tree.
    again = witnessing.encode_request(300, (), request.note)
    assert witnessing.decide(seen, witnessing.parse_request(again), [LOG]) == seen


def test_the_golden_first_request_is_granted():
    request = witnessing.parse_request(VECTORS["first_request"].encode())
    for seen in (None, Seen()):
        assert witnessing.decide(seen, request, [LOG]).size == 300
    assert (request.old_size, request.proof) == (0, ())


def test_the_golden_answer():
    note = witnessing.parse_request(REQUEST).note
    text = notes.parse_note(note).text
    found = witnessing.parse_cosignatures(VECTORS["answer"].encode(), text, [WITNESS])
    assert [(item.name, item.key_id, item.at, item.line) for item in found] == [
        (WITNESS.name, WITNESS.key_id, VECTORS["time"], VECTORS["answer"])
    ]
    assert witnessing.parse_size(VECTORS["told_size"].encode()) == 264


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["why"])
def test_the_golden_refusals(case):
    with pytest.raises(witnessing.Refusal) as caught:
        request = witnessing.parse_request(case["request"].encode())
        witnessing.decide(seen_of(case["seen"]), request, [LOG])
    refusal = caught.value
    assert refusal.status == case["status"]
    assert refusal.protocol_code == str(case["status"])
    assert refusal.reason == refusal.word
    if case["body"] is None:
        assert refusal.kind == witnessing.TEXT
        assert refusal.body == f"{refusal.word}: {refusal.message}\n".encode()
    else:
        assert refusal.kind == witnessing.SIZE
        assert refusal.body == case["body"].encode()


@pytest.mark.parametrize(
    ("kind", "status", "word"),
    [
        (witnessing.Malformed, 400, "malformed"),
        (witnessing.Untrusted, 403, "untrusted"),
        (witnessing.NotAdmitted, 403, "not-admitted"),
        (witnessing.UnknownLog, 404, "unknown-log"),
        (witnessing.Inconsistent, 422, "inconsistent"),
    ],
)
def test_refusals_say_why(kind, status, word):
    refusal = kind("two seals of one session", hint="Look at entry 7.")
    assert (refusal.status, refusal.reason) == (status, word)
    assert refusal.body == f"{word}: two seals of one session\n".encode()
    assert "entry 7" in str(refusal)


def test_a_fork_is_told_from_a_witness_that_has_seen_another_size():
    with pytest.raises(witnessing.Behind, match="seen at 3, not at 2") as caught:
        witnessing.grown(Seen(3, tree.root(LEAVES[:3])), 2, (), checkpoint(7))
    assert (caught.value.reason, caught.value.size) == ("old-size", 3)
    with pytest.raises(witnessing.Conflict) as caught:
        witnessing.grown(Seen(40, tree.root(LEAVES)), 40, (), checkpoint(40, OTHER))
    assert (caught.value.reason, caught.value.size) == ("conflict", 40)


def test_a_smaller_tree_than_was_seen_is_never_granted():
    seen = Seen(7, tree.root(LEAVES[:7]))
    with pytest.raises(witnessing.Malformed, match="above the checkpoint's"):
        witnessing.grown(seen, 7, (), checkpoint(6))
    with pytest.raises(witnessing.Behind):
        witnessing.grown(seen, 6, (), checkpoint(6))
    with pytest.raises(witnessing.Malformed):  # and over the wire
        body = witnessing.encode_request(7, (), SIGNER.sign(checkpoint(6).text()))
        witnessing.decide(seen, witnessing.parse_request(body), [SIGNER.verifier])


@given(st.data())
def test_what_is_granted_is_exactly_what_grows(data):
    size = data.draw(st.integers(0, len(LEAVES)))
    old = data.draw(st.integers(0, size))
    seen = Seen(old, tree.root(LEAVES[:old]))
    proof = tree.consistency_proof(LEAVES[:size], old)
    granted = witnessing.grown(seen, old, proof, checkpoint(size))
    assert granted == Seen(size, tree.root(LEAVES[:size]))
    forked = [tree.leaf_hash(b"forked"), *LEAVES[1:size]]
    if old:
        # A history of its own, with its own right proof, is refused from any size on.
        with pytest.raises((witnessing.Conflict, witnessing.Inconsistent)):
            proof = tree.consistency_proof(forked, old)
            witnessing.grown(seen, old, proof, checkpoint(size, forked))


def test_a_key_counts_only_for_the_log_that_it_is_named_after():
    note = SIGNER.sign(TEXT)
    request = witnessing.parse_request(witnessing.encode_request(0, (), note))
    other = notes.Signer("example.org/other", Ed25519PrivateKey.from_private_bytes(b"\x04" * 32))
    with pytest.raises(witnessing.UnknownLog):
        witnessing.decide(None, request, [other.verifier])
    assert witnessing.decide(None, request, [other.verifier, SIGNER.verifier]).size == 7
    # Somebody whose key is trusted for another log has signed here.
    swapped = note.decode().replace(f"— {ORIGIN}", f"— {other.name}").encode()
    request = witnessing.parse_request(witnessing.encode_request(0, (), swapped))
    with pytest.raises(witnessing.Untrusted):
        witnessing.decide(None, request, [other.verifier, SIGNER.verifier])


def test_unknown_signatures_are_ignored_and_known_ones_must_hold():
    ml_dsa = MlDsaCosigner(ORIGIN, ML_DSA.public_key().public_bytes_raw())
    good = SIGNER.sign(TEXT).decode()
    both = good + cosign(ORIGIN, ML_DSA, TEXT, AT) + LINE
    bad = good + cosign(ORIGIN, ML_DSA, checkpoint(8).text(), AT)
    for keys in ([SIGNER.verifier], [ml_dsa], [SIGNER.verifier, ml_dsa]):
        request = witnessing.parse_request(witnessing.encode_request(0, (), both.encode()))
        assert witnessing.decide(None, request, keys).size == 7
    request = witnessing.parse_request(witnessing.encode_request(0, (), bad.encode()))
    assert witnessing.decide(None, request, [SIGNER.verifier]).size == 7
    with pytest.raises(witnessing.Untrusted, match="does not verify"):
        witnessing.decide(None, request, [SIGNER.verifier, ml_dsa])


def test_a_request_cut_anywhere_or_with_more_behind_it_is_another_or_none():
    for end in range(len(REQUEST)):
        with pytest.raises(witnessing.Refusal):
            cut = witnessing.parse_request(REQUEST[:end])
            witnessing.decide(seen_of(VECTORS["seen"]), cut, [LOG])
    for more in (b"\n", b"x", b"\0", b"\n\n", REQUEST):
        with pytest.raises(witnessing.Malformed):
            witnessing.parse_request(REQUEST + more)


def test_no_flipped_bit_is_granted():
    for index in range(len(REQUEST)):
        for bit in range(8):
            changed = bytearray(REQUEST)
            changed[index] ^= 1 << bit
            with pytest.raises(witnessing.Refusal):
                request = witnessing.parse_request(bytes(changed))
                witnessing.decide(seen_of(VECTORS["seen"]), request, [LOG])


@pytest.mark.parametrize(
    "change",
    [
        (b"old ", b"Old "),
        (b"old ", b""),
        (b"old 264", b"old  264"),
        (b"old 264", b"old -1"),
        (b"old 264", b"old 9223372036854775808"),
        (b"old 264", b"old 264\r"),
        (b"old 264", "old \N{EM DASH}".encode()),
        (b"=\n", b"\n"),
        (b"\n\n", b"\n"),
    ],
)
def test_what_is_no_request(change):
    with pytest.raises(witnessing.Malformed):
        witnessing.parse_request(REQUEST.replace(*change, 1))


def test_a_request_without_a_checkpoint_is_told_so():
    with pytest.raises(witnessing.Malformed, match="no empty line before its checkpoint"):
        witnessing.parse_request(b"old 0\n")


def test_the_largest_request():
    note = SIGNER.sign(TEXT)
    proof = [hashlib.sha256(bytes([number])).digest() for number in range(63)]
    assert witnessing.parse_request(witnessing.encode_request(1, proof, note)).proof == tuple(proof)
    with pytest.raises(FormatError, match="at most 63"):
        witnessing.encode_request(1, [*proof, proof[0]], note)
    lines = "".join(cosign(f"w{n}", KEY, TEXT, AT) for n in range(99))
    whole = witnessing.encode_request(0, (), note + lines.encode())
    assert len(whole) < witnessing.MAX_REQUEST
    with pytest.raises(witnessing.Malformed, match="65536 bytes"):
        witnessing.parse_request(whole + b"\n" * witnessing.MAX_REQUEST)


def test_only_the_logs_own_signatures_are_submitted():
    log = SIGNER.sign(TEXT).decode() + cosign(ORIGIN, ML_DSA, TEXT, AT)
    assert witnessing.submitted((log + LINE + ML_DSA_LINE).encode()) == log.encode()
    with pytest.raises(FormatError, match="no signature by the log"):
        witnessing.submitted(f"{TEXT}\n{LINE}".encode())
    with pytest.raises(FormatError, match="three lines"):
        witnessing.submitted(SIGNER.sign("a\nb\n"))


def test_the_lines_of_an_answer():
    body = (LINE + ML_DSA_LINE + cosign("x.example/w", KEY, TEXT, AT)).encode()
    found = witnessing.parse_cosignatures(body, TEXT, [COSIGNER, ML_DSA_COSIGNER])
    assert [(item.key_id, item.at, item.line) for item in found] == [
        (COSIGNER.key_id, AT, LINE),
        (ML_DSA_COSIGNER.key_id, AT + 1, ML_DSA_LINE),
    ]
    (only,) = witnessing.parse_cosignatures(body, TEXT, [ML_DSA_COSIGNER])
    assert only.line == ML_DSA_LINE


def test_what_is_no_answer():
    for end in range(len(LINE.encode())):
        with pytest.raises(FormatError):
            witnessing.parse_cosignatures(LINE.encode()[:end], TEXT, [COSIGNER])
    for body in (b"\n", b"x" + LINE.encode(), LINE.encode() * 2, LINE.encode() + b"\n", b"\xff"):
        with pytest.raises(FormatError):
            witnessing.parse_cosignatures(body, TEXT, [COSIGNER])
    with pytest.raises(FormatError, match="at most 65536"):
        witnessing.parse_cosignatures(b"x" * 65_537, TEXT, [COSIGNER])
    with pytest.raises(SignatureError, match="no signature by a trusted key"):
        witnessing.parse_cosignatures(cosign("x", KEY, TEXT, AT).encode(), TEXT, [COSIGNER])


def test_an_answer_that_cosigns_something_else_does_not_count():
    for other in (checkpoint(8), notes.Checkpoint("example.org/x", 7, tree.root(LEAVES[:7]))):
        line = cosign(COSIGNER.name, KEY, other.text(), AT)
        with pytest.raises(SignatureError, match="does not verify"):
            witnessing.parse_cosignatures(line.encode(), TEXT, [COSIGNER])


def test_an_answer_cannot_bring_a_text_of_its_own():
    # The key signs a longer text that begins with the checkpoint: no statement about that.
    longer = f"{TEXT}\nand more\n"
    value = AT.to_bytes(8, "big") + KEY.sign(f"cosignature/v1\ntime {AT}\n{longer}".encode())
    line = notes.signature_line(COSIGNER.name, COSIGNER.key_id + value)
    assert notes.open_note(f"{longer}\n{line}".encode(), [COSIGNER]).text == longer
    with pytest.raises(FormatError, match="more than signature lines"):
        witnessing.parse_cosignatures(f"and more\n\n{line}".encode(), TEXT, [COSIGNER])


@pytest.mark.parametrize(
    "body", [b"", b"\n", b"7", b"70", b"07\n", b"7\n\n", b"-1\n", b"7 \n", b"\xff\n"]
)
def test_what_is_no_size(body):
    with pytest.raises(FormatError):
        witnessing.parse_size(body)


def test_the_sizes_of_a_log_are_granted_in_their_order():
    sizes = [0, 1, 1, 2, 7, 8, 31, 40]
    seen = None
    for old, size in pairwise([0, *sizes]):
        proof = tree.consistency_proof(LEAVES[:size], old)
        body = witnessing.encode_request(old, proof, SIGNER.sign(checkpoint(size).text()))
        request = witnessing.parse_request(body)
        seen = witnessing.decide(seen, request, [SIGNER.verifier])
    assert seen == Seen(40, tree.root(LEAVES))
