"""Policies: the specification's own example, what counts, and every line that is refused."""

import hashlib
import json
from itertools import product
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from sealtape.schemas import notes
from sealtape.schemas.cosignatures import Cosigner, MlDsaCosigner, cosign
from sealtape.schemas.errors import FormatError, SignatureError
from sealtape.schemas.tlog.policy import Group, parse_policy
from sealtape.schemas.tlog.proof import parse_proof

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "log.json").read_text(encoding="utf-8")
)
ORIGIN = "example.org/log"
TEXT = notes.Checkpoint(ORIGIN, 7, hashlib.sha256(b"root").digest()).text()
AT = 1_795_392_000
LOG = notes.Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
LOG_ML_DSA = MLDSA44PrivateKey.from_seed_bytes(b"\x02" * 32)
LOG_ML_DSA_VKEY = MlDsaCosigner(ORIGIN, LOG_ML_DSA.public_key().public_bytes_raw()).vkey
PRIVATE = {
    name: Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
    for name in ("X1", "X2", "X3", "Y1", "Y2", "Y3")
}
VKEYS = {
    name: Cosigner(f"{name}.example", key.public_key().public_bytes_raw()).vkey
    for name, key in PRIVATE.items()
}
WITNESSES = "".join(f"witness {name} {vkey}\n" for name, vkey in VKEYS.items())
EXAMPLE = f"""\
# The example of C2SP tlog-policy.
log {LOG.vkey}

{WITNESSES}
\tgroup X-witnesses  2 X1 X2 X3
group Y-witnesses any Y1 Y2 Y3 \t

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def line(name, at=AT):
    return cosign(f"{name}.example", PRIVATE[name], TEXT, at)


def policy(text):
    return parse_policy(text.encode())


def test_the_example():
    found = policy(EXAMPLE)
    assert [log.verifier.vkey for log in found.logs] == [LOG.vkey]
    assert {item.name: item.verifier.vkey for item in found.witnesses} == VKEYS
    assert found.groups[0] == Group("X-witnesses", 2, ("X1", "X2", "X3"))
    assert [group.threshold for group in found.groups] == [2, 1, 2]
    for chosen in product([False, True], repeat=6):
        names = [name for name, taken in zip(PRIVATE, chosen, strict=True) if taken]
        enough = sum(chosen[:3]) >= 2 and sum(chosen[3:]) >= 1
        assert found.enough(names) is enough
    assert not found.enough(["X-and-Y"])


def test_a_checkpoint_with_and_without_its_quorum():
    found = policy(EXAMPLE)
    note = LOG.sign(TEXT).decode()
    pending = found.open(note.encode())
    assert (pending.times, pending.quorum) == ({}, False)
    note += line("X1") + line("X2", AT + 5)
    assert not found.open(note.encode()).quorum
    note += line("Y3")
    opened = found.open(note.encode())
    assert opened.checkpoint == notes.parse_checkpoint(TEXT)
    assert opened.times == {"X1": AT, "X2": AT + 5, "Y3": AT}
    assert opened.quorum
    assert opened.algorithms == {b"\x01"}


def test_both_signatures_of_the_log():
    found = policy(f"log {LOG.vkey}\nlog {LOG_ML_DSA_VKEY}\nquorum none\n")
    both = LOG.sign(TEXT) + cosign(ORIGIN, LOG_ML_DSA, TEXT, AT).encode()
    assert found.open(both).algorithms == {b"\x01", b"\x06"}
    assert found.open(both).quorum
    assert found.open(LOG.sign(TEXT)).algorithms == {b"\x01"}
    alone = f"{TEXT}\n{cosign(ORIGIN, LOG_ML_DSA, TEXT, AT)}".encode()
    assert found.open(alone).algorithms == {b"\x06"}


@pytest.mark.parametrize("which", ["", "short_"])
def test_vectors(which):
    found = parse_policy(VECTORS[f"{which}policy"].encode())
    note = VECTORS[f"{which}witnessed"].encode()
    opened = found.open(note)
    assert opened.quorum
    assert set(opened.times.values()) == {VECTORS["time"]}
    assert opened.algorithms == ({b"\x01"} if which else {b"\x01", b"\x06"})
    proof = parse_proof(VECTORS[f"{which}proof"].encode())
    assert proof.note == note
    proof.check(VECTORS["entry"].encode(), opened.checkpoint)
    assert not found.open(VECTORS["checkpoint"].encode()).quorum


def test_a_single_witness_is_a_quorum():
    found = policy(f"log {LOG.vkey} https://log.example\n{WITNESSES}quorum Y2\n")
    assert found.logs[0].url == "https://log.example"
    assert found.enough(["Y2"])
    assert not found.enough(["Y1"])


def test_a_witness_with_ml_dsa():
    vkey = MlDsaCosigner("w.example", LOG_ML_DSA.public_key().public_bytes_raw()).vkey
    found = policy(f"log {LOG.vkey}\nwitness pq {vkey} https://w.example\nquorum pq\n")
    assert found.witnesses[0].url == "https://w.example"
    note = LOG.sign(TEXT) + cosign("w.example", LOG_ML_DSA, TEXT, AT).encode()
    assert found.open(note).times == {"pq": AT}


def test_signatures_that_do_not_count():
    found = policy(EXAMPLE)
    with pytest.raises(SignatureError, match="no signature by a trusted key"):
        stranger = notes.Signer("example.com/other", PRIVATE["X1"])
        found.open(stranger.sign(TEXT))
    with pytest.raises(SignatureError, match="no known key of"):
        found.open(f"{TEXT}\n{line('X1')}".encode())
    other = notes.Signer("example.com/other", PRIVATE["X1"])
    two = policy(f"log {LOG.vkey}\nlog {other.vkey}\nquorum none\n")
    with pytest.raises(SignatureError, match="no known key of"):
        two.open(other.sign(TEXT))
    with pytest.raises(SignatureError, match="does not verify"):
        found.open(LOG.sign(TEXT) + line("X1").replace("A", "B", 1).encode())
    with pytest.raises(FormatError, match="three lines"):
        found.open(LOG.sign("hello\n"))


def test_names_are_octets():
    data = f"log {LOG.vkey}\nwitness ".encode() + b"\xff\xe9 " + VKEYS["X1"].encode()
    found = parse_policy(data + b" \nquorum \xff\xe9\n")
    assert found.quorum == found.witnesses[0].name
    with pytest.raises(FormatError, match="is no witness"):
        parse_policy(data + b"\nquorum \xff\xea\n")


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ("", "one line `quorum"),
        ("log\nquorum none", "a line is"),
        ("log a b c", "a line is"),
        ("log x\nquorum none", "line 1: "),
        (f"log {VKEYS['X1']}", "a log's key"),
        (f"log {LOG.vkey}\nlog {LOG.vkey}", "line 2: the key of example.org/log is there"),
        (f"witness w {LOG.vkey}", "a witness's key"),
        (f"witness none {VKEYS['X1']}", "is taken"),
        (f"witness w {VKEYS['X1']}\nwitness w {VKEYS['X2']}", "is taken"),
        (f"witness w {VKEYS['X1']}\nwitness v {VKEYS['X1']}", "there already"),
        (f"witness w {VKEYS['X1']}\ngroup w any w", "is taken"),
        (f"witness w {VKEYS['X1']}\ngroup g any", "a line is"),
        (f"witness w {VKEYS['X1']}\ngroup g 0 w", "within"),
        (f"witness w {VKEYS['X1']}\ngroup g 2 w", "within"),
        (f"witness w {VKEYS['X1']}\ngroup g 01 w", "decimal"),
        (f"witness w {VKEYS['X1']}\ngroup g some w", "decimal"),
        (f"witness w {VKEYS['X1']}\ngroup g any w w", "only once"),
        (f"witness w {VKEYS['X1']}\ngroup g any w\ngroup h any w", "only once"),
        (f"witness w {VKEYS['X1']}\ngroup g any none", "is no witness"),
        (f"group g any w\nwitness w {VKEYS['X1']}", "line 1: w is no witness"),
        ("quorum w", "is no witness"),
        ("quorum none\nquorum none", "a quorum already"),
        ("quorum a b", "a line is"),
        ("hello", "a line is"),
        ("quorum\u00a0none", "a line is"),
        ("quorum none\r", "control"),
        ("witness w w+00000000+BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "small order"),
    ],
)
def test_lines_that_are_refused(lines, word):
    with pytest.raises(FormatError, match=word):
        policy(lines + "\n")


def test_sizes():
    with pytest.raises(FormatError, match="newline"):
        policy("quorum none")
    with pytest.raises(FormatError, match="at most"):
        policy("#" * (1 << 20) + "\n")
    vkeys = [
        Cosigner("w", Ed25519PrivateKey.from_private_bytes(bytes([n, 1] * 16)).public_key()
                 .public_bytes_raw()).vkey
        for n in range(256)
    ]  # fmt: skip
    text = "".join(f"witness w{n} {vkey}\n" for n, vkey in enumerate(vkeys))
    assert len(policy(text + "quorum none\n").witnesses) == 256
    text += f"witness more {VKEYS['X1']}\n"
    with pytest.raises(FormatError, match="at most 256"):
        policy(text + "quorum none\n")
