"""Keys, packing and sealing: formulas by hand, vectors, and no key used twice."""

import copy
import hashlib
import hmac
import json
import pickle
import random
import struct
from itertools import count
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from sealtape.schemas import frames, keys
from sealtape.schemas.errors import (
    FormatError,
    KeyCommitmentError,
    KeyUnavailable,
    SealtapeError,
)
from sealtape.schemas.frames import Kind, Suite

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "keys.json").read_text(encoding="utf-8")
)
SESSION = bytes.fromhex(VECTORS["session"])
EPOCH = VECTORS["epoch"]
PACKER = keys.Packer()
bodies = st.binary(max_size=300) | st.integers(0, 5000).map(lambda size: b"row " * size)


def vector_keys():
    secret, salt = bytes.fromhex(VECTORS["secret"]), bytes.fromhex(VECTORS["salt"])
    return keys.derive_label_keys(secret, salt, SESSION, EPOCH)


def sealer(label_keys=None, *, session=SESSION, epoch=EPOCH):
    return keys.FrameSealer(session, epoch, label_keys, lambda: b"\7" * 32, PACKER)


def vector_frame(case):
    return frames.Frame(
        session=SESSION,
        epoch=EPOCH,
        seq=int(case["seq"]),
        ts_ns=int(case["ts_ns"]),
        kind=case["kind"],
        suite=case["suite"],
        flags=0,
        payload=bytes.fromhex(case["payload"]),
    )


# -------------------------------------------------------------------------------------- derivation


def test_label_keys_are_hkdf():
    secret, salt = bytes.fromhex(VECTORS["secret"]), bytes.fromhex(VECTORS["salt"])
    made = vector_keys()
    for label in ("data", "facts"):
        info = b"sealtape/1 " + label.encode() + b"\0" + SESSION + struct.pack(">I", EPOCH)
        by_library = HKDF(hashes.SHA256(), 32, salt, info).derive(secret)
        assert made.of(label) == by_library
        assert by_library.hex() == VECTORS["label_keys"][label]


@pytest.mark.parametrize("case", VECTORS["frame_keys"], ids=str)
def test_frame_key_vectors(case):
    label_key = bytes.fromhex(VECTORS["label_keys"][case["label"]])
    key = keys.frame_key(label_key, int(case["seq"]))
    assert key.hex() == case["key"]
    assert key == hmac.new(label_key, int(case["seq"]).to_bytes(8, "big"), "sha256").digest()
    assert keys.commitment(key).hex() == case["commitment"]
    assert keys.commitment(key) == hashlib.sha256(b"sealtape/1 commit" + key).digest()


@pytest.mark.parametrize(
    ("secret", "salt", "session", "epoch"),
    [
        (bytes(31), bytes(32), bytes(16), 0),
        (bytes(32), bytes(33), bytes(16), 0),
        (bytes(32), bytes(32), bytes(15), 0),
        (bytes(32), bytes(32), bytes(16), -1),
        (bytes(32), bytes(32), bytes(16), 2**32),
    ],
)
def test_derivation_refuses_other_sizes(secret, salt, session, epoch):
    with pytest.raises(FormatError):
        keys.derive_label_keys(secret, salt, session, epoch)


def test_every_input_changes_the_keys():
    base = (bytes(32), bytes(32), bytes(16), 0)
    changed = [
        base,
        (b"\1" * 32, *base[1:]),
        (base[0], b"\1" * 32, *base[2:]),
        (*base[:2], b"\1" * 16, 0),
        (*base[:3], 1),
    ]
    made = [keys.derive_label_keys(*item) for item in changed]
    assert len({item.of(label) for item in made for label in keys.LABELS}) == 10


def test_label_keys_show_nothing_and_are_never_copied():
    made = vector_keys()
    assert repr(made) == f"LabelKeys(session={SESSION.hex()}, epoch={EPOCH})"
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(SealtapeError, match="cannot be copied"):
            duplicate(made)
    with pytest.raises(FormatError, match="not a key label"):
        made.of("other")


def test_kinds_have_labels():
    assert {frames.KIND_NAMES[kind]: keys.label_of(kind) for kind in frames.KIND_NAMES} == {
        "OPEN": None,
        "IDENT": "facts",
        "DATA": "data",
        "FACTS": "facts",
        "GAP": None,
        "STATE": "data",
        "CLOCK": None,
        "CLOSE": None,
    }
    assert keys.label_of(200) is None


# ----------------------------------------------------------------------------------------- packing


@pytest.mark.parametrize("case", VECTORS["packed"], ids=lambda case: case["name"])
def test_packed_vectors(case):
    body = keys.unpack(bytes.fromhex(case["packed"]))
    assert len(body) == case["body_len"]
    assert hashlib.sha256(body).hexdigest() == case["body_sha256"]


@pytest.mark.parametrize("case", VECTORS["refused_packed"], ids=lambda case: case["name"])
def test_refused_packed_vectors(case):
    with pytest.raises(FormatError):
        keys.unpack(bytes.fromhex(case["packed"]))


@given(bodies)
def test_unpack_is_the_inverse_of_pack(body):
    packed = PACKER.pack(body)
    assert PACKER.unpack(packed) == body == keys.unpack(keys.pack(body))
    assert len(packed) <= len(body) + 1
    assert PACKER.unpack(packed, len(body)) == body
    if body:
        with pytest.raises(FormatError):
            PACKER.unpack(packed, len(body) - 1)


@given(st.binary(max_size=60))
def test_garbage_is_a_format_error_or_a_body(data):
    for packed in (data, b"\1" + data, b"\1\x28\xb5\x2f\xfd" + data):
        try:
            assert len(PACKER.unpack(packed)) <= frames.MAX_BODY
        except FormatError:
            pass


def test_raw_is_taken_where_zstd_is_not_smaller():
    noise = random.Random(1).randbytes(10_000)
    assert PACKER.pack(noise) == b"\0" + noise
    assert PACKER.pack(b"a" * 63)[:1] == b"\0"
    assert PACKER.pack(b"a" * 64)[:1] == b"\1"


def test_body_limit():
    largest = bytes(frames.MAX_BODY)
    assert keys.unpack(keys.pack(largest)) == largest
    with pytest.raises(FormatError, match="at most"):
        keys.pack(largest + b"\0")
    with pytest.raises(FormatError, match="longer than"):
        keys.unpack(b"\0" + largest + b"\0")
    worst = random.Random(2).randbytes(frames.MAX_BODY)
    made = sealer(vector_keys()).seal(0, 0, Kind.DATA, worst)
    assert len(made.payload) == 32 + 1 + frames.MAX_BODY + 16 < frames.MAX_PAYLOAD


# ----------------------------------------------------------------------------------------- sealing


@pytest.mark.parametrize("case", VECTORS["frames"], ids=lambda case: case["name"])
def test_sealed_vectors_open(case):
    frame = vector_frame(case)
    label_key = bytes.fromhex(VECTORS["label_keys"][case["label"]]) if case["label"] else None
    assert keys.open_payload(frame, label_key).hex() == case["body"]
    assert frame.leaf().hex() == case["leaf"]
    if "frame_key" in case:
        key = bytes.fromhex(case["frame_key"])
        assert keys.open_frame_with_key(frame, key).hex() == case["body"]


def test_the_sealer_makes_the_vectors():
    """Where nothing is compressed the bytes are fixed: frames 1 and 3 of the vectors."""
    wanted = {int(case["seq"]): case for case in VECTORS["frames"]}
    made = sealer(vector_keys())
    ts_ns = int(wanted[1]["ts_ns"])
    made.seal(0, ts_ns, Kind.OPEN, b"opening")
    for seq, kind in ((1, Kind.IDENT), (2, Kind.DATA), (3, Kind.FACTS)):
        frame, leaf = made.seal_with_leaf(seq, ts_ns, kind, bytes.fromhex(wanted[seq]["body"]))
        if seq != 2:
            assert frame == vector_frame(wanted[seq])
            assert leaf.hex() == wanted[seq]["leaf"]


@given(st.lists(st.tuples(st.sampled_from(sorted(frames.KIND_NAMES)), bodies), max_size=8))
def test_what_is_sealed_opens(items):
    for label_keys in (vector_keys(), None):
        made = sealer(label_keys)
        for seq, (kind, body) in enumerate(items):
            frame, leaf = made.seal_with_leaf(seq, seq, kind, body)
            assert leaf == frame.leaf()
            assert frame.suite == expected_suite(kind, encrypted=label_keys is not None)
            label = keys.label_of(kind)
            label_key = label_keys.of(label) if label_keys and label else None
            assert keys.open_payload(frame, label_key, PACKER) == body
            keys.check_suite(frame.kind, frame.suite)
        assert made.next_seq == len(items)


def expected_suite(kind, *, encrypted):
    if kind in (Kind.OPEN, Kind.GAP, Kind.CLOCK, Kind.CLOSE):
        return Suite.PUBLIC
    return Suite.AES256GCM if encrypted else Suite.SALTED


def test_salts_differ_so_equal_bodies_have_different_digests():
    numbers = count()
    made = keys.FrameSealer(SESSION, 0, None, lambda: next(numbers).to_bytes(32, "big"))
    first, second = made.seal(0, 0, Kind.DATA, b"x"), made.seal(1, 0, Kind.DATA, b"x")
    assert first.payload[:32] != second.payload[:32]
    assert first.payload[32:] == second.payload[32:]


def test_a_salt_of_another_size_is_refused_and_spends_nothing():
    made = keys.FrameSealer(SESSION, 0, None, lambda: b"short")
    with pytest.raises(SealtapeError, match="salt must be 32 bytes"):
        made.seal(0, 0, Kind.DATA, b"x")
    assert made.next_seq == 0


@pytest.mark.parametrize(
    ("seq", "ts_ns", "kind", "body"),
    [
        (0, 5, Kind.DATA, b""),
        (2, 5, Kind.DATA, b""),
        (-1, 5, Kind.DATA, b""),
        (1, 4, Kind.DATA, b""),
        (1, 2**63, Kind.DATA, b""),
        (1, 2**63, Kind.CLOCK, b""),
        (1, 5, 0, b""),
        (1, 5, 9, b""),
        (1, 5, Kind.DATA, bytes(frames.MAX_BODY + 1)),
        (1, 5, Kind.GAP, bytes(frames.MAX_BODY + 1)),
    ],
)
def test_the_sealer_refuses_and_stays_where_it_is(seq, ts_ns, kind, body):
    for label_keys in (vector_keys(), None):
        made = sealer(label_keys)
        made.seal(0, 5, Kind.OPEN, b"opening")
        with pytest.raises(SealtapeError):
            made.seal(seq, ts_ns, kind, body)
        assert made.next_seq == 1
        assert made.seal(1, 5, Kind.DATA, b"next").seq == 1


def test_the_sealer_refuses_a_bad_session_or_epoch():
    with pytest.raises(FormatError):
        sealer(session=bytes(15))
    with pytest.raises(FormatError):
        sealer(epoch=2**32)


def test_open_and_ident_are_made_together():
    for label_keys in (vector_keys(), None):
        made = sealer(label_keys)
        (opened, first), (ident, second) = made.seal_opening(
            5, b"who", lambda digest: b"ident is " + digest
        )
        assert opened.payload == b"ident is " + hashlib.sha256(ident.payload).digest()
        assert (opened.seq, opened.kind, opened.suite) == (0, Kind.OPEN, Suite.PUBLIC)
        assert (ident.seq, ident.kind) == (1, Kind.IDENT)
        assert (first, second) == (opened.leaf(), ident.leaf())
        assert keys.open_payload(ident, label_keys and label_keys.facts) == b"who"
        with pytest.raises(SealtapeError, match="first two frames only"):
            made.seal_opening(5, b"who", bytes)
        assert made.seal(2, 5, Kind.DATA, b"x").seq == 2


def test_an_opening_that_fails_spends_its_key():
    made = sealer(vector_keys())
    with pytest.raises(FormatError, match="at most"):
        made.seal_opening(0, b"who", lambda digest: bytes(frames.MAX_BODY + 1))
    assert made.next_seq == 2
    with pytest.raises(SealtapeError):
        made.seal_opening(0, b"who", bytes)


# ------------------------------------------------------------------------------ no key seals twice


@pytest.fixture
def used_keys(monkeypatch):
    """Every key that AES-GCM is given for sealing."""
    seen = []
    real = keys.AESGCM

    class Watched:
        def __init__(self, key):
            self.key, self.inner = key, real(key)

        def encrypt(self, nonce, data, aad):
            seen.append(self.key)
            return self.inner.encrypt(nonce, data, aad)

        def decrypt(self, nonce, data, aad):
            return self.inner.decrypt(nonce, data, aad)

    monkeypatch.setattr(keys, "AESGCM", Watched)
    return seen


def test_label_keys_have_one_sealer_for_their_own_epoch():
    made = vector_keys()
    with pytest.raises(SealtapeError, match="another session or epoch"):
        sealer(made, epoch=EPOCH + 1)
    with pytest.raises(SealtapeError, match="another session or epoch"):
        sealer(made, session=bytes(16))
    sealer(made)
    with pytest.raises(SealtapeError, match="already have a sealer"):
        sealer(made)


def test_no_key_is_used_twice_within_an_epoch(used_keys):
    made = sealer(vector_keys())
    kinds = [Kind.OPEN, Kind.IDENT, Kind.DATA, Kind.FACTS, Kind.STATE] * 40
    for seq, kind in enumerate(kinds):
        made.seal(seq, 0, kind, b"the same body")
        for again in (seq, seq - 1):
            with pytest.raises(SealtapeError):
                made.seal(again, 0, kind, b"another body")
    assert len(used_keys) == 160 == len(set(used_keys))


def test_a_failed_encryption_spends_its_key(monkeypatch):
    made = sealer(vector_keys())

    class Failing:
        def __init__(self, key):
            raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(keys, "AESGCM", Failing)
        with pytest.raises(MemoryError):
            made.seal(0, 0, Kind.DATA, b"x")
    with pytest.raises(SealtapeError, match="1 is next"):
        made.seal(0, 0, Kind.DATA, b"x")


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 20)),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 2**64),
)
def test_no_key_is_used_twice_across_crashes(runs, seed):
    """A run: a session is opened (again) by a fresh process, which dies after some frames.

    Even where two processes take the same epoch, the drawn secrets keep their keys apart.
    """
    rng = random.Random(seed)  # not hypothesis' own, which may give the same bytes twice
    seen = []
    for session_number, frames_before_crash in runs:
        session = bytes([session_number]) * 16
        salt, label_keys = keys.draw_label_keys(session, 0, rng.randbytes)
        assert len(salt) == 32
        made = sealer(label_keys, session=session, epoch=0)
        for seq in range(frames_before_crash):
            made.seal(seq, 0, Kind.DATA, b"body")
            seen.append(keys.frame_key(label_keys.data, seq))
            seen.append(keys.frame_key(label_keys.facts, seq))
    assert len(seen) == len(set(seen))


def test_even_one_secret_gives_other_keys_in_another_epoch_or_session():
    made = [
        keys.derive_label_keys(bytes(32), bytes(32), session, epoch)
        for session in (bytes(16), b"\1" * 16)
        for epoch in (0, 1)
    ]
    all_keys = [
        keys.frame_key(item.of(label), seq)
        for item in made
        for label in keys.LABELS
        for seq in range(50)
    ]
    assert len(all_keys) == len(set(all_keys))


# ----------------------------------------------------------------------------------------- opening


def test_every_bit_of_an_encrypted_payload_counts():
    label_keys = vector_keys()
    made = sealer(label_keys).seal(0, 0, Kind.DATA, b"SELECT 1")
    for bit in range(len(made.payload) * 8):
        payload = bytearray(made.payload)
        payload[bit // 8] ^= 1 << bit % 8
        error = KeyCommitmentError if bit < 256 else FormatError
        with pytest.raises(error):
            keys.open_payload(changed(made, payload=bytes(payload)), label_keys.data)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"session": bytes(16)}, FormatError),
        ({"epoch": EPOCH + 1}, FormatError),
        ({"seq": 1}, KeyCommitmentError),
        ({"ts_ns": 1}, FormatError),
        ({"kind": Kind.STATE}, FormatError),
        ({"kind": 200}, FormatError),
        ({"kind": Kind.GAP}, FormatError),
        ({"suite": 77}, FormatError),
        ({"flags": 1}, FormatError),
        ({"suite": Suite.PUBLIC}, FormatError),
    ],
)
def test_a_changed_header_does_not_open(changes, error):
    label_keys = vector_keys()
    made = sealer(label_keys).seal(0, 0, Kind.DATA, b"SELECT 1")
    with pytest.raises(error):
        keys.open_payload(changed(made, **changes), label_keys.data)


def changed(frame, **changes):
    fields = {name: getattr(frame, name) for name in frames.Frame.__slots__}
    return frames.Frame(**(fields | changes))


def test_opening_needs_the_right_key():
    label_keys = vector_keys()
    made = sealer(label_keys).seal(0, 0, Kind.DATA, b"SELECT 1")
    with pytest.raises(KeyUnavailable, match="no key was given"):
        keys.open_payload(made, None)
    with pytest.raises(KeyCommitmentError, match="not sealed under this key"):
        keys.open_payload(made, label_keys.facts)
    with pytest.raises(KeyCommitmentError):
        keys.open_frame_with_key(made, keys.frame_key(label_keys.data, 1))


def test_a_frame_says_which_of_several_keys_is_its_own():
    label_keys = vector_keys()
    made = sealer(label_keys).seal(0, 0, Kind.DATA, b"SELECT 1")
    assert keys.commits(made, label_keys.data)
    assert not keys.commits(made, label_keys.facts)
    assert not keys.commits(changed(made, seq=1), label_keys.data)
    assert not keys.commits(changed(made, payload=b""), label_keys.data)


def test_payloads_too_short_for_their_suite():
    short = changed(sealer(vector_keys()).seal(0, 0, Kind.DATA, b""), payload=bytes(47))
    with pytest.raises(FormatError, match="shorter than commitment and tag"):
        keys.open_payload(short, bytes(32))
    salted = changed(sealer().seal(0, 0, Kind.DATA, b""), payload=bytes(31))
    with pytest.raises(FormatError, match="shorter than its salt"):
        keys.open_payload(salted, None)


def test_undefined_flags_close_a_frame_to_every_key():
    label_keys = vector_keys()
    made = changed(sealer(label_keys).seal(0, 0, Kind.DATA, b"x"), flags=0x8000)
    with pytest.raises(FormatError, match="undefined flags 0x8000"):
        keys.open_payload(made, label_keys.data)
    with pytest.raises(FormatError, match="undefined flags 0x8000"):
        keys.open_frame_with_key(made, keys.frame_key(label_keys.data, 0))
    public = changed(sealer().seal(0, 0, Kind.OPEN, b"x"), flags=1)
    with pytest.raises(FormatError, match="undefined flags 0x0001"):
        keys.open_payload(public, None)


def test_a_disclosed_key_is_for_encrypted_frames():
    salted = sealer().seal(0, 0, Kind.DATA, b"x")
    with pytest.raises(FormatError, match="not encrypted"):
        keys.open_frame_with_key(salted, bytes(32))


@pytest.mark.parametrize("kind", sorted(frames.KIND_NAMES))
@pytest.mark.parametrize("suite", [0, 1, 2])
def test_a_kind_has_its_suites(kind, suite):
    if (kind in frames.PUBLIC_KINDS) == (suite == Suite.PUBLIC):
        keys.check_suite(kind, suite)
    else:
        with pytest.raises(FormatError, match="must not have suite"):
            keys.check_suite(kind, suite)


def test_unknown_kinds_may_have_any_known_suite():
    for suite in (0, 1, 2):
        keys.check_suite(200, suite)
    with pytest.raises(FormatError, match="unknown suite 3"):
        keys.check_suite(200, 3)
