"""Signed notes and checkpoints: foreign and own vectors, strict Ed25519, every bit counts."""

import json
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from sealtape.schemas import notes
from sealtape.schemas.canonical import base64_text
from sealtape.schemas.errors import FormatError, SignatureError

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "notes.json").read_text(encoding="utf-8")
)
VERIFIER = notes.Verifier.from_vkey(VECTORS["vkey"])
OTHER = notes.Verifier.from_vkey(VECTORS["other_vkey"])
NOTE = VECTORS["note"].encode()

# From the documentation of Go's sumdb/note package.
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = """\
If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FF\
YC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""

lines = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
texts = st.lists(lines, min_size=1, max_size=5).map(lambda items: "\n".join(items) + "\n")


def signer(name="example.org/log", seed=b"\1" * 32):
    return notes.Signer(name, Ed25519PrivateKey.from_private_bytes(seed))


def test_a_note_of_go_verifies():
    opened = notes.open_note(GO_NOTE.encode(), [notes.Verifier.from_vkey(GO_VKEY)])
    assert opened.signers == ("PeterNeumann",)
    assert opened.text.startswith("If you think cryptography")
    assert notes.Verifier.from_vkey(GO_VKEY).vkey == GO_VKEY


def test_own_vector():
    own = signer(VERIFIER.name, bytes.fromhex(VECTORS["private_seed"]))
    assert own.vkey == VECTORS["vkey"]
    assert own.name == VERIFIER.name
    assert own.sign(VECTORS["text"]) == NOTE
    checkpoint = notes.open_checkpoint(NOTE, VERIFIER)
    assert checkpoint.origin == VECTORS["checkpoint"]["origin"]
    assert str(checkpoint.size) == VECTORS["checkpoint"]["size"]
    assert checkpoint.root.hex() == VECTORS["checkpoint"]["root"]
    assert checkpoint.text() == VECTORS["text"]


def test_several_signatures():
    note = VECTORS["two_signatures"].encode()
    both = notes.open_note(note, [VERIFIER, OTHER])
    assert both.signers == (OTHER.name, VERIFIER.name)
    assert both.unverified == ()
    one = notes.open_note(note, [VERIFIER])
    assert one.signers == (VERIFIER.name,)
    assert [item.name for item in one.unverified] == [OTHER.name]


def test_a_bad_signature_by_a_known_key_is_never_outvoted():
    note = VECTORS["two_signatures"]
    lines_ = note.rstrip("\n").split("\n")
    own = signer(VERIFIER.name, bytes.fromhex(VECTORS["private_seed"]))
    lines_[-1] = own.line(b"another text\n").rstrip("\n")
    with pytest.raises(SignatureError, match="does not verify"):
        notes.open_note(("\n".join(lines_) + "\n").encode(), [VERIFIER, OTHER])


def test_parsing_without_keys_trusts_nobody():
    parsed = notes.parse_note(NOTE)
    assert parsed.signers == ()
    assert [item.name for item in parsed.unverified] == [VERIFIER.name]
    with pytest.raises(SignatureError, match="trusted: nobody"):
        notes.open_note(NOTE, [])


@pytest.mark.parametrize("case", VECTORS["refused_notes"], ids=lambda case: case["name"])
def test_refused_notes(case):
    with pytest.raises(FormatError):
        notes.open_note(case["note"].encode(), [VERIFIER])


@pytest.mark.parametrize("case", VECTORS["refused_checkpoints"], ids=lambda case: case["name"])
def test_refused_checkpoints(case):
    with pytest.raises(FormatError):
        notes.parse_checkpoint(case["text"])


@pytest.mark.parametrize("case", VECTORS["refused_signatures"], ids=lambda case: case["name"])
def test_refused_signatures(case):
    public, message, signature = (
        bytes.fromhex(case[name]) for name in ("public", "message", "signature")
    )
    with pytest.raises(SignatureError):
        notes.Verifier("example.org", public).verify(message, signature)


def test_the_strictness_is_ours():
    """The library alone takes the weak key that signs everything."""
    case = next(item for item in VECTORS["refused_signatures"] if item["name"] == "A neutral")
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(case["public"]))
    try:
        key.verify(bytes.fromhex(case["signature"]), b"any message at all")
    except InvalidSignature:
        pytest.skip("the library has become strict itself")


def test_every_bit_of_a_note_counts():
    for bit in range(len(NOTE) * 8):
        changed = bytearray(NOTE)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            notes.open_note(bytes(changed), [VERIFIER])


def test_every_truncation_and_extension_is_refused():
    for end in range(len(NOTE)):
        with pytest.raises(FormatError):
            notes.open_note(NOTE[:end], [VERIFIER])
    for extra in (b"\n", b" ", b"\0", b"x\n"):
        with pytest.raises(FormatError):
            notes.open_note(NOTE + extra, [VERIFIER])


@given(texts)
def test_any_text_without_control_characters_can_be_signed(text):
    own = signer()
    opened = notes.open_note(own.sign(text), [own.verifier])
    assert opened.text == text
    assert opened.signers == (own.name,)


@given(st.binary(max_size=200))
def test_garbage_is_a_format_error(data):
    with pytest.raises(FormatError):
        notes.parse_note(data)


def test_a_text_may_have_empty_lines():
    own = signer()
    assert notes.open_note(own.sign("a\n\nb\n"), [own.verifier]).text == "a\n\nb\n"


@pytest.mark.parametrize("text", ["", "no newline", "tab\t\n", "cr\r\n", "nul\0\n", "\ud800\n"])
def test_texts_that_cannot_be_signed(text):
    with pytest.raises(FormatError, match="text must"):
        signer().sign(text)


def test_a_note_needs_a_signature_and_different_keys():
    with pytest.raises(FormatError, match="at least one"):
        notes.sign_note("a\n", [])
    with pytest.raises(FormatError, match="same key"):
        notes.sign_note("a\n", [signer(), signer()])


def test_limits():
    own = signer()
    with pytest.raises(FormatError, match="longer than"):
        notes.parse_note(b"x" * (notes.MAX_NOTE + 1))
    many = [signer(f"node-{index}") for index in range(101)]
    assert len(notes.open_note(notes.sign_note("a\n", many[:100]), [many[0].verifier]).signers) == 1
    with pytest.raises(FormatError, match="more than 100"):
        notes.sign_note("a\n", many)
    assert own.verifier.name


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u00a0b", "a\u2028b", "a" * 256])
def test_names_that_cannot_stand_in_a_line(name):
    with pytest.raises(FormatError, match="not a key name"):
        signer(name)


def test_vkeys_are_read_strictly():
    name, ident, encoded = VECTORS["other_vkey"].split("+", 2)
    bad = [
        "",
        name,
        f"{name}+{ident}",
        f"{name}+{ident.upper()}+{encoded}",
        f"{name}+00000000+{encoded}",
        f"{name}+{ident}00+{encoded}",
        f"x{name}+{ident}+{encoded}",
        f"{name}+{ident}+{encoded[:-1]}",
        f"{name}+{ident}+{base64_text(bytes([2]) + OTHER.public)}",
        f"{name}+{ident}+{base64_text(bytes([1]) + OTHER.public[:-1])}",
        f"{name}+{ident}+{base64_text(bytes([1, 1]) + bytes(31))}",
        f"{VECTORS['other_vkey']}\n",
    ]
    for vkey in bad:
        with pytest.raises(FormatError):
            notes.Verifier.from_vkey(vkey)
    with pytest.raises(FormatError, match="must be 32 bytes"):
        notes.Verifier(name, bytes(31))


def test_a_checkpoint_belongs_to_the_key_of_its_origin():
    own = signer("example.org/another")
    with pytest.raises(FormatError, match="checkpoint is of"):
        notes.open_checkpoint(own.sign(VECTORS["text"]), own.verifier)


def test_a_checkpoint_that_could_not_be_read_is_not_written():
    with pytest.raises(FormatError):
        notes.Checkpoint("a b", 1, bytes(32)).text()
    with pytest.raises(FormatError):
        notes.Checkpoint("a", -1, bytes(32)).text()


def test_session_origin():
    assert notes.session_origin("example.org/log", bytes(15) + b"\1", 4) == (
        "example.org/log/session/00000000000000000000000000000001/4"
    )


def test_a_signer_does_not_show_its_key():
    assert "01" * 4 not in repr(signer())


def test_signature_lines_need_dash_and_signature():
    with pytest.raises(FormatError, match="without its dash"):
        notes.parse_note(NOTE.replace("\N{EM DASH} ".encode(), b""))
    with pytest.raises(FormatError, match="too short"):
        notes.parse_note(f"a\n\n{notes.signature_line('example.org', b'1234')}".encode())


def test_signatures_are_strict_before_any_arithmetic():
    """The library would refuse these too; what it refuses may change."""
    point, order = VERIFIER.public, 2**252 + 27742317777372353535851937790883648493
    notes.check_signature(point + (order - 1).to_bytes(32, "little"))
    with pytest.raises(SignatureError, match="not below the group order"):
        notes.check_signature(point + order.to_bytes(32, "little"))
    for size in (31, 33):
        with pytest.raises(SignatureError, match="must be 64 bytes"):
            notes.check_signature(point + bytes(size))


def test_points_are_strict():
    notes.check_point(VERIFIER.public, "point")
    for other in (b"", VERIFIER.public[:-1], VERIFIER.public + b"\0"):
        with pytest.raises(FormatError, match="point must be 32 bytes"):
            notes.check_point(other, "point")
    for y in (2**255 - 19 + 3, 2**255 - 1):
        for sign in (0, 2**255):
            with pytest.raises(SignatureError, match="not in its only encoding"):
                notes.check_point((y | sign).to_bytes(32, "little"), "point")
