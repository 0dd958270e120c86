"""Cosignatures of both types: what they cover, and that every byte of them counts."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from sealtape.schemas import cosignatures, notes
from sealtape.schemas.canonical import base64_text
from sealtape.schemas.cosignatures import Cosigner, MlDsaCosigner, cosign, cosigned_at, verifier_of
from sealtape.schemas.errors import FormatError, SignatureError

TEXT = notes.Checkpoint("example.org/log", 7, hashlib.sha256(b"root").digest()).text()
AT = 1_795_392_000
ED25519 = Ed25519PrivateKey.from_private_bytes(b"\x05" * 32)
ML_DSA = MLDSA44PrivateKey.from_seed_bytes(b"\x06" * 32)
NAME = "witness.example.org/w1"
KEYS = {
    "ed25519": (ED25519, Cosigner(NAME, ED25519.public_key().public_bytes_raw())),
    "ml-dsa-44": (ML_DSA, MlDsaCosigner(NAME, ML_DSA.public_key().public_bytes_raw())),
}


@pytest.fixture(params=KEYS)
def keys(request):
    return KEYS[request.param]


def cosigned(private, text=TEXT, name=NAME):
    """The log's own signature, and the cosignature behind it."""
    log = notes.Signer("example.org/log", Ed25519PrivateKey.from_private_bytes(b"\x01" * 32))
    return log, log.sign(text) + cosign(name, private, text, AT).encode()


def value_of(private):
    (signature,) = notes.parse_note(
        f"{TEXT}\n{cosign(NAME, private, TEXT, AT)}".encode()
    ).unverified
    return signature.value


def test_a_cosigned_checkpoint_opens(keys):
    private, verifier = keys
    log, note = cosigned(private)
    opened = notes.open_note(note, [log.verifier, verifier])
    assert opened.signers == ("example.org/log", NAME)
    assert cosigned_at(opened.verified[1]) == AT
    assert opened.text == TEXT


def test_the_messages_are_those_of_the_specification():
    """Built here by hand, from its text."""
    value = value_of(ED25519)
    assert value[:8] == AT.to_bytes(8, "big")
    message = b"cosignature/v1\ntime 1795392000\n" + TEXT.encode()
    ED25519.public_key().verify(value[8:], message)
    value = value_of(ML_DSA)
    root = hashlib.sha256(b"root").digest()
    message = (
        b"subtree/v1\n\0\x16witness.example.org/w1" + AT.to_bytes(8, "big") + b"\x0fexample.org/log"
        + bytes(8) + (7).to_bytes(8, "big") + root
    )  # fmt: skip
    ML_DSA.public_key().verify(value[8:], message)


def test_vkeys_come_back(keys):
    _, verifier = keys
    again = verifier_of(verifier.vkey)
    assert (again.name, again.public, again.vkey) == (NAME, verifier.public, verifier.vkey)
    assert type(again) is type(verifier)


def test_a_log_key_is_a_vkey_too():
    log, _ = cosigned(ED25519)
    assert verifier_of(log.vkey).vkey == log.vkey


def test_types_have_different_key_ids():
    log = notes.Verifier(NAME, ED25519.public_key().public_bytes_raw())
    assert len({log.key_id, *(verifier.key_id for _, verifier in KEYS.values())}) == 3


@pytest.mark.parametrize(
    ("vkey", "word"),
    [
        ("w+00000000+Ag==", "not known here"),
        ("w+00000000+" + base64_text(b"\x06" + bytes(1311)), "1312"),
        ("w+00000000+" + base64_text(b"\x06" + bytes(1312)), "does not belong"),
        ("w+00000000+" + base64_text(b"\x04" + b"\x05" * 31), "32 bytes"),
        ("w w+00000000+" + base64_text(b"\x06" + bytes(1312)), "not a key name"),
        ("\xe9" * 128 + "+00000000+" + base64_text(b"\x06" + bytes(1312)), "255 bytes"),
    ],
)
def test_other_vkeys_are_refused(vkey, word):
    with pytest.raises(FormatError, match=word):
        verifier_of(vkey)


def test_a_weak_key_is_refused():
    with pytest.raises(SignatureError, match="small order"):
        Cosigner(NAME, bytes(32))


def test_every_byte_counts(keys):
    private, verifier = keys
    value = value_of(private)
    verifier.verify(TEXT.encode(), value)
    step = 1 if len(value) < 100 else 37
    for at in range(0, len(value), step):
        changed = bytearray(value)
        changed[at] ^= 1
        with pytest.raises(SignatureError):
            verifier.verify(TEXT.encode(), bytes(changed))
    for other in (b"", value[:8], value[:-1], value + b"\0"):
        with pytest.raises(SignatureError):
            verifier.verify(TEXT.encode(), other)


@pytest.mark.parametrize("change", [("log", "lot"), ("7", "8"), ("\n7\n", "\n7\n\n")])
def test_the_checkpoint_counts(keys, change):
    private, verifier = keys
    with pytest.raises(SignatureError):
        verifier.verify(TEXT.replace(*change, 1).encode(), value_of(private))
    with pytest.raises(SignatureError):
        verifier.verify(b"\xff" + TEXT.encode(), value_of(private))


def test_an_ml_dsa_signature_is_of_its_name():
    other = MlDsaCosigner("witness.example.org/w2", ML_DSA.public_key().public_bytes_raw())
    with pytest.raises(SignatureError, match="does not verify"):
        other.verify(TEXT.encode(), value_of(ML_DSA))


def test_a_time_has_a_largest_value(keys):
    private, verifier = keys
    value = value_of(private)
    with pytest.raises(SignatureError, match="beyond"):
        verifier.verify(TEXT.encode(), b"\xff" * 8 + value[8:])
    for seconds in (-1, 2**63):
        with pytest.raises(FormatError, match="seconds"):
            cosign(NAME, private, TEXT, seconds)


def test_only_checkpoints_are_cosigned(keys):
    private, _ = keys
    with pytest.raises(FormatError):
        cosign(NAME, private, "hello\n", AT)


def test_an_origin_that_ml_dsa_cannot_name():
    text = notes.Checkpoint("\xe9" * 128, 0, hashlib.sha256(b"").digest()).text()
    cosign(NAME, ED25519, text, AT)
    with pytest.raises(FormatError, match="255 bytes"):
        cosign(NAME, ML_DSA, text, AT)
    assert cosignatures.ED25519 == b"\x04"


def test_lengths_are_checked_before_any_arithmetic():
    value = value_of(ML_DSA)
    for other in (value[:-1], value + b"\0"):
        with pytest.raises(SignatureError, match="has 2420 bytes"):
            KEYS["ml-dsa-44"][1].verify(TEXT.encode(), other)
    for cut in (b"", value[:8]):
        with pytest.raises(SignatureError, match="too short"):
            cosigned_at(notes.Signature(NAME, b"1234", cut))
