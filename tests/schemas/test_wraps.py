"""HPKE wraps: vectors made by an independent RFC 9180, binding of every field, key files."""

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from sealtape.schemas import wraps
from sealtape.schemas.canonical import base64_text
from sealtape.schemas.errors import FormatError, KeyUnavailable

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "wraps.json").read_text(encoding="utf-8")
)
SESSION = bytes.fromhex(VECTORS["session"])
EPOCH = VECTORS["epoch"]
KEY = bytes(range(32))
suites = pytest.mark.parametrize("suite", sorted(wraps.SUITES))


def private_keys():
    made = [wraps.PrivateKey.from_text(item["private_text"]) for item in VECTORS["keys"]]
    return {private.id: private for private in made}


def pair(suite, purpose="auditor", seed=1):
    return wraps.generate(purpose, suite, Random(seed).randbytes)


@pytest.mark.parametrize("case", VECTORS["keys"], ids=lambda case: case["id"])
def test_key_vectors(case):
    private = wraps.PrivateKey.from_text(case["private_text"])
    public = wraps.PublicKey.from_text(case["public_text"])
    assert private.public == public
    assert (private.id, private.suite) == (case["id"], case["suite"]) == (public.id, public.suite)
    assert private.text() == case["private_text"]
    assert public.text() == case["public_text"]


@pytest.mark.parametrize("case", VECTORS["wraps"], ids=lambda case: case["recipient"])
def test_wrap_vectors(case):
    wrapped = wraps.Wrap(
        session=SESSION,
        epoch=EPOCH,
        label=case["label"],
        recipient=case["recipient"],
        suite=case["suite"],
        sealed=bytes.fromhex(case["sealed"]),
    )
    assert wraps.unwrap(private_keys()[case["recipient"]], wrapped).hex() == case["key"]


def test_the_hybrid_key_is_the_one_of_x_wing():
    """The first published vector of the X-Wing draft: seed, and how the public key begins."""
    seed = bytes.fromhex("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26")
    public = wraps.private_key("auditor", wraps.HYBRID, seed).public.raw
    assert public.hex().startswith(
        "e2236b35a8c24b39b10aa1323a96a919a2ced88400633a7b07131713fc14b2b5b19cfc3d"
    )


@suites
def test_what_is_wrapped_is_unwrapped(suite):
    private, public = pair(suite)
    wrapped = wraps.wrap(public, KEY, SESSION, EPOCH, "data")
    assert wraps.unwrap(private, wrapped) == KEY
    assert (wrapped.recipient, wrapped.suite) == (public.id, suite)
    assert wraps.wrap(public, KEY, SESSION, EPOCH, "data").sealed != wrapped.sealed


@suites
@pytest.mark.parametrize(
    "change",
    [{"session": bytes(16)}, {"epoch": EPOCH + 1}, {"label": "facts"}],
    ids=["session", "epoch", "label"],
)
def test_a_wrap_opens_as_nothing_else(suite, change):
    private, public = pair(suite)
    wrapped = wraps.wrap(public, KEY, SESSION, EPOCH, "data")
    with pytest.raises(FormatError, match="changed or mixed up"):
        wraps.unwrap(private, replace(wrapped, **change))


@suites
def test_every_byte_of_a_wrap_counts(suite):
    private, public = pair(suite)
    wrapped = wraps.wrap(public, KEY, SESSION, EPOCH, "data")
    for at in range(len(wrapped.sealed)):
        sealed = bytearray(wrapped.sealed)
        sealed[at] ^= 1
        with pytest.raises(FormatError):
            wraps.unwrap(private, replace(wrapped, sealed=bytes(sealed)))


def test_a_point_of_small_order_is_a_format_error():
    private, public = pair(wraps.X25519)
    wrapped = wraps.wrap(public, KEY, SESSION, EPOCH, "data")
    with pytest.raises(FormatError):
        wraps.unwrap(private, replace(wrapped, sealed=bytes(32) + wrapped.sealed[32:]))


def test_a_wrap_for_somebody_else():
    private, _ = pair(wraps.X25519, seed=1)
    _, public = pair(wraps.X25519, seed=2)
    wrapped = wraps.wrap(public, KEY, SESSION, EPOCH, "data")
    with pytest.raises(KeyUnavailable, match=f"wrapped for {public.id}, not for {private.id}"):
        wraps.unwrap(private, wrapped)
    with pytest.raises(FormatError, match="changed or mixed up"):
        wraps.unwrap(private, replace(wrapped, recipient=private.id))


def test_a_wrap_of_another_suite():
    private, _ = pair(wraps.X25519)
    _, public = pair(wraps.HYBRID)
    wrapped = replace(wraps.wrap(public, KEY, SESSION, EPOCH, "data"), recipient=private.id)
    with pytest.raises(FormatError, match="has suite"):
        wraps.unwrap(private, wrapped)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"session": bytes(15)}, "session of 16 bytes"),
        ({"epoch": -1}, "epoch below"),
        ({"epoch": 2**32}, "epoch below"),
        ({"label": "other"}, "unknown label"),
        ({"recipient": "somebody"}, "not a key id"),
        ({"recipient": "auditor-0123456789ABCDEF"}, "not a key id"),
        ({"recipient": "auditor-0123456789abcdef\n"}, "not a key id"),
        ({"suite": "rot13"}, "unknown wrap suite"),
        ({"suite": wraps.HYBRID}, "wrong length"),
        ({"sealed": bytes(79)}, "wrong length"),
    ],
)
def test_wraps_no_writer_makes(change, message):
    _, public = pair(wraps.X25519)
    wrapped = wraps.wrap(public, KEY, SESSION, EPOCH, "data")
    with pytest.raises(FormatError, match=message):
        replace(wrapped, **change)


@pytest.mark.parametrize(
    ("session", "epoch", "label"),
    [(bytes(15), 0, "data"), (SESSION, -1, "data"), (SESSION, 2**32, "data"), (SESSION, 0, "x")],
)
def test_wrapping_checks_before_it_seals(session, epoch, label):
    _, public = pair(wraps.X25519)
    with pytest.raises(FormatError):
        wraps.wrap(public, KEY, session, epoch, label)


def test_only_label_keys_are_wrapped():
    _, public = pair(wraps.X25519)
    with pytest.raises(FormatError, match="32 bytes, not 31"):
        wraps.wrap(public, KEY[:-1], SESSION, EPOCH, "data")


def test_generate_refuses_other_purposes_and_suites():
    with pytest.raises(FormatError, match="not a key purpose"):
        pair(wraps.X25519, purpose="thief")
    with pytest.raises(FormatError, match="unknown wrap suite"):
        pair("rot13")
    with pytest.raises(FormatError, match="wrong length"):
        wraps.private_key("auditor", wraps.X25519, bytes(31))


@suites
def test_the_id_is_of_the_purpose_and_the_key(suite):
    auditor, indexer = pair(suite)[1], pair(suite, purpose="indexer")[1]
    assert auditor.raw == indexer.raw
    assert auditor.id.removeprefix("auditor-") == indexer.id.removeprefix("indexer-")
    assert len(auditor.id.removeprefix("auditor-")) == 16


def test_keys_of_other_ids_or_sizes_are_refused():
    private, public = pair(wraps.X25519)
    for ident in ("auditor-0000000000000000", "thief-" + public.id[8:], public.id + "\n"):
        with pytest.raises(FormatError, match="not its own"):
            wraps.PublicKey(ident, public.suite, public.raw)
        with pytest.raises(FormatError, match="not its own"):
            wraps.PrivateKey(ident, private.suite, private.raw)
    with pytest.raises(FormatError, match="wrong length"):
        wraps.PublicKey(public.id, public.suite, public.raw + b"\0")
    with pytest.raises(FormatError, match="wrong length"):
        wraps.PrivateKey(private.id, private.suite, private.raw + b"\0")


def test_a_public_key_that_is_none_is_a_format_error():
    raw = b"\xff" * 1216
    public = wraps.PublicKey(f"auditor-{wraps.key_fingerprint(raw)}", wraps.HYBRID, raw)
    with pytest.raises(FormatError):
        wraps.wrap(public, KEY, SESSION, EPOCH, "data")
    raw = bytes(32)
    public = wraps.PublicKey(f"auditor-{wraps.key_fingerprint(raw)}", wraps.X25519, raw)
    with pytest.raises(FormatError):
        wraps.wrap(public, KEY, SESSION, EPOCH, "data")


def test_a_private_key_is_not_shown():
    private, _ = pair(wraps.X25519)
    assert private.raw.hex() not in repr(private)
    assert repr(private.raw) not in repr(private)


def test_key_files_are_one_line():
    private, public = pair(wraps.X25519)
    bad = [
        "",
        public.text() + "\n",
        public.text() + "x",
        public.text().replace(" ", "  "),
        public.text().replace("public-key-1", "public-key-2"),
        private.text(),
        f"{wraps.PUBLIC_TAG} {public.suite} {public.id} {base64_text(public.raw)[:-1]}\n",
        f"{wraps.PUBLIC_TAG} rot13 {public.id} {base64_text(public.raw)}\n",
    ]
    for text in bad:
        with pytest.raises(FormatError):
            wraps.PublicKey.from_text(text)
    with pytest.raises(FormatError, match="not one line"):
        wraps.PrivateKey.from_text(public.text())
    assert wraps.PublicKey.from_text(public.text().rstrip("\n")) == public
