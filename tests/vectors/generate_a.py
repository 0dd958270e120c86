"""Writes frame.json, tree.json, notes.json, keys.json and wraps.json.

Run `python -m tests.vectors.generate_a` from the repository's root. The output is the same on
every run and machine: all keys are fixed, zstd frames are made by hand, and X25519 wraps are
computed here from RFC 9180 with a fixed ephemeral key. Hybrid wraps cannot be made without
randomness; the one in the committed file is kept as long as it opens.
"""

import hashlib
import hmac
import json
import struct
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sealtape.schemas import canonical, frames, keys, notes, tree, wraps
from sealtape.schemas.errors import FormatError
from sealtape.schemas.frames import Kind, Suite

FOLDER = Path(__file__).parent
SESSION = bytes(range(0x10, 0x20))
EPOCH = 3
TS_NS = 1_795_392_000_123_456_789
SECRET = bytes(range(0x40, 0x60))
SALT = bytes(range(0x60, 0x80))
PAYLOAD_SALT = bytes(range(0x80, 0xA0))
ORDER = 2**252 + 27742317777372353535851937790883648493
FIELD = 2**255 - 19


def main():
    for name, value in generate().items():
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        (FOLDER / name).write_text(text, encoding="utf-8")


def generate():
    return {
        "frame.json": frame_vectors(),
        "tree.json": tree_vectors(),
        "notes.json": note_vectors(),
        "keys.json": key_vectors(),
        "wraps.json": wrap_vectors(),
    }


# ------------------------------------------------------------------------------------- frame.json


def frame_vectors():
    cases = [
        ("a public frame", SESSION, 0, 0, TS_NS, Kind.OPEN, Suite.PUBLIC, b"opening\n"),
        ("empty payload", SESSION, EPOCH, 7, TS_NS, Kind.CLOCK, Suite.PUBLIC, b""),
        ("an encrypted frame", SESSION, EPOCH, 258, TS_NS, Kind.DATA, Suite.AES256GCM, SECRET * 2),
        ("all fields at their end", b"\xff" * 16, 2**32 - 1, 2**63 - 1, 2**63 - 1, 255, 255, b"\0"),
        ("a time before 1970", bytes(16), 0, 1, -1, Kind.FACTS, Suite.SALTED, PAYLOAD_SALT + b"\0"),
        ("an unknown kind", SESSION, EPOCH, 9, TS_NS, 200, Suite.PUBLIC, b"from the future"),
        ("unknown flags", SESSION, EPOCH, 9, TS_NS, Kind.DATA, 77, b"from the future", 0x8001),
    ]
    return {
        "description": "The 84-byte frame header, its associated data and leaf. Bytes are hex.",
        "frames": [frame_case(*case) for case in cases],
        "refused_headers": refused_headers(),
    }


def frame_case(name, session, epoch, seq, ts_ns, kind, suite, payload, flags=0):
    frame = frames.Frame(session, epoch, seq, ts_ns, kind, suite, flags, payload)
    return {
        "name": name,
        "session": session.hex(),
        "epoch": epoch,
        "seq": str(seq),
        "ts_ns": str(ts_ns),
        "kind": kind,
        "suite": suite,
        "flags": flags,
        "payload": payload.hex(),
        "header": frame.header().hex(),
        "aad": frame.aad().hex(),
        "leaf": frame.leaf().hex(),
    }


def refused_headers():
    good = frames.Frame(SESSION, EPOCH, 7, TS_NS, Kind.DATA, Suite.PUBLIC, 0, b"x").header()
    cases = {
        "too short": good[:-1],
        "too long": good + b"\0",
        "empty": b"",
        "another magic": b"SEALFRM2" + good[8:],
        "seq of 2**63": good[:28] + (2**63).to_bytes(8, "big") + good[36:],
        "payload over 1 MiB": good[:48] + (2**20 + 1).to_bytes(4, "big") + good[52:],
    }
    return [{"name": name, "header": value.hex()} for name, value in cases.items()]


# -------------------------------------------------------------------------------------- tree.json

# The leaves of the Certificate Transparency test data that all RFC 6962 libraries share.
RFC6962_LEAVES = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]


def tree_vectors():
    data = [bytes.fromhex(item) for item in RFC6962_LEAVES]
    leaves = [tree.leaf_hash(item) for item in data]
    return {
        "description": "RFC 6962 trees over the leaves below. Hashes and leaves are hex.",
        "leaves": RFC6962_LEAVES,
        "leaf_hashes": hexes(leaves),
        "roots": [tree.root(leaves[:size]).hex() for size in range(len(leaves) + 1)],
        "inclusion": [
            {
                "index": index,
                "size": size,
                "proof": hexes(tree.inclusion_proof(leaves[:size], index)),
            }
            for size, index in [(1, 0), (2, 1), (5, 4), (7, 3), (8, 0), (8, 7)]
        ],
        "consistency": [
            {"old": old, "size": size, "proof": hexes(tree.consistency_proof(leaves[:size], old))}
            for old, size in [(0, 8), (1, 1), (1, 8), (2, 5), (3, 7), (4, 8), (6, 8), (8, 8)]
        ],
        "compact_ranges": [
            {"lo": lo, "hi": hi, "nodes": hexes(compact(leaves, lo, hi).nodes)}
            for lo, hi in [(0, 0), (0, 8), (0, 7), (1, 8), (3, 5), (3, 6), (5, 7), (4, 8), (6, 6)]
        ],
    }


def compact(leaves, lo, hi):
    result = tree.CompactRange(lo)
    for leaf in leaves[lo:hi]:
        result.append(leaf)
    return result


def hexes(items):
    return [item.hex() for item in items]


# ------------------------------------------------------------------------------------- notes.json


def note_vectors():
    origin = notes.session_origin("example.org/log", SESSION, EPOCH)
    private = Ed25519PrivateKey.from_private_bytes(SECRET)
    other = notes.Signer("node-1.example.org", Ed25519PrivateKey.from_private_bytes(SALT))
    signer = notes.Signer(origin, private)
    text = notes.Checkpoint(origin, 2, tree.leaf_hash(b"root")).text()
    note = signer.sign(text)
    return {
        "description": "Signed notes and checkpoints (C2SP). Keys are for tests only.",
        "private_seed": SECRET.hex(),
        "vkey": signer.vkey,
        "text": text,
        "note": note.decode(),
        "checkpoint": {"origin": origin, "size": "2", "root": tree.leaf_hash(b"root").hex()},
        "other_vkey": other.vkey,
        "two_signatures": notes.sign_note(text, [other, signer]).decode(),
        "refused_notes": refused_notes(note.decode(), other.sign(text).decode()),
        "refused_checkpoints": refused_checkpoints(text),
        "refused_signatures": refused_signatures(private, signer.verifier, text.encode()),
    }


def refused_notes(note, by_other):
    text, _, line = note.rpartition("\n\n")
    head, _, encoded = line[:-1].rpartition(" ")
    raw = canonical.base64_bytes(encoded, "signature")
    lax = encoded[:-2] + chr(ord(encoded[-2]) + 1) + encoded[-1]
    cases = {
        "signed by somebody else": by_other,
        "text changed": note.replace("\n2\n", "\n3\n"),
        "no signature": text + "\n\n",
        "no final newline": note[:-1],
        "carriage return in the text": note.replace("\n2\n", "\n2\r\n"),
        "delete character in the text": note.replace("\n2\n", "\n2\x7f\n"),
        "hyphen for the dash": note.replace("\n\n— ", "\n\n- "),
        "stray bits in base64": f"{text}\n\n{head} {lax}\n",
        "no base64 padding": f"{text}\n\n{head} {encoded.rstrip('=')}\n",
        "key id alone": f"{text}\n\n{head} {canonical.base64_text(raw[:4])}\n",
        "signature cut": f"{text}\n\n{head} {canonical.base64_text(raw[:-1])}\n",
        "another key id": f"{text}\n\n{head} {canonical.base64_text(bytes(4) + raw[4:])}\n",
        "the same signature twice": note + line,
        "line behind the signature": note + "more\n",
        "no name": f"{text}\n\n—  {encoded}\n",
    }
    return [{"name": name, "note": value} for name, value in cases.items()]


def refused_checkpoints(text):
    origin, size, root, _ = text.split("\n")
    cases = {
        "extension line": text + "more\n",
        "no final newline": text[:-1],
        "two lines": f"{origin}\n{size}\n",
        "leading zero": f"{origin}\n02\n{root}\n",
        "negative size": f"{origin}\n-2\n{root}\n",
        "size of 2**63": f"{origin}\n{2**63}\n{root}\n",
        "short root": f"{origin}\n{size}\n{canonical.base64_text(bytes(31))}\n",
        "empty origin": f"\n{size}\n{root}\n",
        "space in the origin": f"a b\n{size}\n{root}\n",
        "plus in the origin": f"a+b\n{size}\n{root}\n",
        "empty tree with a root": f"{origin}\n0\n{root}\n",
    }
    return [{"name": name, "text": value} for name, value in cases.items()]


def refused_signatures(private, verifier, message):
    signature = private.sign(message)
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    # S = 0 and R = A = the neutral element satisfies the group equation for every message.
    neutral = le(1)
    order_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
    own = verifier.public
    cases = [
        ("S plus the group order", own, r + le(s + ORDER)),
        ("another S", own, r + le(s ^ 1)),
        ("R neutral, S zero", own, neutral + le(0)),
        ("R of order 2", own, le(FIELD - 1) + le(0)),
        ("R of order 4", own, le(0) + le(0)),
        ("R of order 4, negative x", own, le(2**255) + le(0)),
        ("R of order 8", own, order_8 + le(0)),
        ("R of order 8, other y", own, le(FIELD - int.from_bytes(order_8, "little")) + le(0)),
        ("R neutral, second encoding", own, le(FIELD + 1) + le(0)),
        ("R not reduced", own, le(FIELD + 3) + le(0)),
        ("A neutral", neutral, neutral + le(0)),
        ("A neutral, negative x", le(1 + 2**255), neutral + le(0)),
        ("A of order 2", le(FIELD - 1), neutral + le(0)),
        ("A of order 4", le(0), neutral + le(0)),
        ("A of order 8", order_8, neutral + le(0)),
        ("A neutral, second encoding", le(FIELD + 1), neutral + le(0)),
        ("A not reduced", le(FIELD + 3), signature),
        ("signature of 63 bytes", own, signature[:-1]),
        ("signature of 65 bytes", own, signature + b"\0"),
    ]
    return [
        {"name": name, "public": public.hex(), "message": message.hex(), "signature": value.hex()}
        for name, public, value in cases
    ]


def le(number):
    return number.to_bytes(32, "little")


# -------------------------------------------------------------------------------------- keys.json


def key_vectors():
    labels = keys.derive_label_keys(SECRET, SALT, SESSION, EPOCH)
    return {
        "description": "Keys of one (session, epoch), and payloads in each suite. Bytes are hex.",
        "secret": SECRET.hex(),
        "salt": SALT.hex(),
        "session": SESSION.hex(),
        "epoch": EPOCH,
        "label_keys": {"data": labels.data.hex(), "facts": labels.facts.hex()},
        "frame_keys": [
            {
                "label": label,
                "seq": str(seq),
                "key": keys.frame_key(labels.of(label), seq).hex(),
                "commitment": keys.commitment(keys.frame_key(labels.of(label), seq)).hex(),
            }
            for label, seq in [("data", 2), ("data", 3), ("facts", 2), ("facts", 2**63 - 1)]
        ],
        "packed": packed_cases(),
        "refused_packed": refused_packed(),
        "frames": payload_cases(labels),
    }


def zstd_run(byte, count, *, declare=None):
    """A zstd frame of one run-length block, made by hand (RFC 8878, 3.1.1)."""
    size = count if declare is None else declare
    header = b"\xa0" + size.to_bytes(4, "little")  # single segment, content size in four bytes
    block = (1 | 1 << 1 | count << 3).to_bytes(3, "little") + byte
    return b"\x28\xb5\x2f\xfd" + header + block


def packed_cases():
    cases = [
        ("empty", b"", b"\0"),
        ("raw", b"SELECT 1", b"\0SELECT 1"),
        ("zstd", b"a" * 300, b"\1" + zstd_run(b"a", 300)),
        ("zstd at the limit", bytes(2**17), b"\1" + zstd_run(b"\0", 2**17)),
    ]
    return [
        {"name": name, "body_sha256": sha(body), "body_len": len(body), "packed": packed.hex()}
        for name, body, packed in cases
    ]


def refused_packed():
    good = zstd_run(b"a", 300)
    unsized = b"\x28\xb5\x2f\xfd" + b"\x00\x38" + good[9:]  # a window, no content size
    cases = {
        "no codec byte": b"",
        "unknown codec": b"\2abc",
        "no zstd frame": b"\1",
        "skippable frame": b"\1\x50\x2a\x4d\x18\0\0\0\0",
        "cut": b"\1" + good[:-1],
        "bytes behind the frame": b"\1" + good + b"\0",
        "two frames": b"\1" + good + good,
        "declares more than it has": b"\1" + zstd_run(b"a", 300, declare=301),
        "declares less than it has": b"\1" + zstd_run(b"a", 300, declare=299),
        "declares over 256 KiB": b"\1" + zstd_run(b"a", 300, declare=2**18 + 1),
        "declares no size": b"\1" + unsized,
        "declares nothing": b"\1" + zstd_run(b"a", 300, declare=0),
        "wants a dictionary": b"\1" + good[:4] + b"\xa1" + good[5:9] + b"\7" + good[9:],
    }
    return [{"name": name, "packed": value.hex()} for name, value in cases.items()]


def payload_cases(labels):
    ident, data = b'{"user":"ada"}', b"a" * 300
    return [
        sealed("IDENT, encrypted", labels.facts, 1, Kind.IDENT, ident, b"\0" + ident),
        sealed("DATA, encrypted", labels.data, 2, Kind.DATA, data, b"\1" + zstd_run(b"a", 300)),
        sealed("FACTS, encrypted", labels.facts, 3, Kind.FACTS, b"", b"\0"),
        stored("DATA, salted", 4, Kind.DATA, Suite.SALTED, ident, PAYLOAD_SALT + b"\0" + ident),
        stored("GAP, public", 5, Kind.GAP, Suite.PUBLIC, b'{"v":1}', b'{"v":1}'),
    ]


def sealed(name, label_key, seq, kind, body, packed):
    key = hmac.digest(label_key, struct.pack(">Q", seq), "sha256")
    length = 32 + len(packed) + 16
    aad = struct.pack(
        ">8s16sIQqBBHI", b"SEALFRM1", SESSION, EPOCH, seq, TS_NS, kind, Suite.AES256GCM, 0, length
    )
    commitment = hashlib.sha256(b"sealtape/1 commit" + key).digest()
    payload = commitment + AESGCM(key).encrypt(bytes(12), packed, aad)
    return stored(name, seq, kind, Suite.AES256GCM, body, payload) | {"frame_key": key.hex()}


def stored(name, seq, kind, suite, body, payload):
    frame = frames.Frame(SESSION, EPOCH, seq, TS_NS, kind, suite, 0, payload)
    return {
        "name": name,
        "seq": str(seq),
        "ts_ns": str(TS_NS),
        "kind": kind,
        "suite": suite,
        "label": keys.label_of(kind),
        "body": body.hex(),
        "payload": payload.hex(),
        "leaf": frame.leaf().hex(),
    }


def sha(data):
    return hashlib.sha256(data).hexdigest()


# ------------------------------------------------------------------------------------- wraps.json


def wrap_vectors():
    auditor = wraps.private_key("auditor", wraps.X25519, SECRET)
    indexer = wraps.private_key("indexer", wraps.X25519, SALT)
    hybrid = wraps.private_key("auditor", wraps.HYBRID, PAYLOAD_SALT)
    labels = keys.derive_label_keys(SECRET, SALT, SESSION, EPOCH)
    return {
        "description": "Label keys wrapped to readers by HPKE. Bytes are hex. Keys for tests only.",
        "session": SESSION.hex(),
        "epoch": EPOCH,
        "keys": [
            {
                "id": private.id,
                "suite": private.suite,
                "private_text": private.text(),
                "public_text": private.public.text(),
            }
            for private in (auditor, indexer, hybrid)
        ],
        "wraps": [
            wrap_case(auditor, "data", labels.data, x25519_wrap(auditor, "data", labels.data)),
            wrap_case(indexer, "facts", labels.facts, x25519_wrap(indexer, "facts", labels.facts)),
            wrap_case(hybrid, "data", labels.data, hybrid_wrap(hybrid, labels.data)),
        ],
    }


def wrap_case(private, label, key, sealed):
    return {
        "recipient": private.id,
        "suite": private.suite,
        "label": label,
        "key": key.hex(),
        "sealed": sealed.hex(),
    }


def hybrid_wrap(private, key):
    path = FOLDER / "wraps.json"
    if path.exists():
        for case in json.loads(path.read_text(encoding="utf-8"))["wraps"]:
            if case["suite"] == wraps.HYBRID:
                sealed = bytes.fromhex(case["sealed"])
                try:
                    wrapped = wraps.Wrap(SESSION, EPOCH, "data", private.id, wraps.HYBRID, sealed)
                    if wraps.unwrap(private, wrapped) == key:
                        return sealed
                except FormatError:
                    break
    return wraps.wrap(private.public, key, SESSION, EPOCH, "data").sealed


def x25519_wrap(private, label, key):
    """HPKE base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM (RFC 9180)."""
    ephemeral = X25519PrivateKey.from_private_bytes(hashlib.sha256(label.encode()).digest())
    enc, recipient = ephemeral.public_key().public_bytes_raw(), private.public.raw
    info = b"sealtape/1 wrap\0" + label.encode() + b"\0" + SESSION + struct.pack(">I", EPOCH)
    kem = b"KEM" + struct.pack(">H", 0x0020)
    dh = ephemeral.exchange(X25519PublicKey.from_public_bytes(recipient))
    eae_prk = extract(kem, b"", b"eae_prk", dh)
    shared = expand(kem, eae_prk, b"shared_secret", enc + recipient, 32)
    suite = b"HPKE" + struct.pack(">HHH", 0x0020, 0x0001, 0x0002)
    context = (
        b"\0" + extract(suite, b"", b"psk_id_hash", b"") + extract(suite, b"", b"info_hash", info)
    )
    secret = extract(suite, shared, b"secret", b"")
    aead = AESGCM(expand(suite, secret, b"key", context, 32))
    nonce = expand(suite, secret, b"base_nonce", context, 12)
    return enc + aead.encrypt(nonce, key, b"")


def extract(suite, salt, label, material):
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, "sha256")


def expand(suite, prk, label, info, length):
    labeled = struct.pack(">H", length) + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, labeled + b"\1", "sha256")[:length]


if __name__ == "__main__":
    main()
