"""What the vectors of bundles are put together from, by hand: a small log, sessions, ZIP files.

Nothing here is the code that the vectors test. Hashes follow RFC 6962's recursion; JSON is written
with sorted names; signatures are the library's over messages made here.
"""

import base64
import hashlib
import hmac
import json
import struct
import zlib
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

LOG = "sealtape.example/log"
ORIGIN = f"{LOG}/1"
SESSION = bytes(range(16, 32))
CLASS = {"name": "standard", "retain_for_s": 7_776_000, "delete_after_s": 34_560_000}
START_S = 1_795_392_000
SECOND = 1_000_000_000
NAMES = (
    "log", "office.example/witness", "monitor.example/monitor", "admin.example/ann",
    "admin.example/bob", "node-1", "reaper", "auditor.example/witness",
)  # fmt: skip
SEEDS = {name: bytes([number]) * 32 for number, name in enumerate(NAMES, 1)}


def b64(data):
    return base64.b64encode(data).decode()


def line(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha(data):
    return hashlib.sha256(data).digest()


def leaf(data):
    return sha(b"\0" + data)


def split(count):
    half = 1
    while half * 2 < count:
        half *= 2
    return half


def root(leaves):
    if not leaves:
        return sha(b"")
    if len(leaves) == 1:
        return leaves[0]
    half = split(len(leaves))
    return sha(b"\1" + root(leaves[:half]) + root(leaves[half:]))


def inclusion(leaves, index):
    if len(leaves) == 1:
        return []
    half = split(len(leaves))
    if index < half:
        return [*inclusion(leaves[:half], index), root(leaves[half:])]
    return [*inclusion(leaves[half:], index - half), root(leaves[:half])]


def consistency(leaves, old, known=True):
    """RFC 6962, 2.1.2: SUBPROOF(old, leaves, known)."""
    if old == len(leaves):
        return [] if known else [root(leaves)]
    half = split(len(leaves))
    if old <= half:
        return [*consistency(leaves[:half], old, known), root(leaves[half:])]
    return [*consistency(leaves[half:], old - half, known=False), root(leaves[:half])]


def apart(leaves, wanted, lo=0):
    """The roots of the subtrees without a wanted leaf, from left to right; None: it has one."""
    if not any(lo <= index < lo + len(leaves) for index in wanted):
        return [root(leaves)]
    if len(leaves) == 1:
        return []
    half = split(len(leaves))
    return [*apart(leaves[:half], wanted, lo), *apart(leaves[half:], wanted, lo + half)]


def compact(leaves, lo):
    """The nodes of the range of `leaves` that begins at `lo`."""
    nodes = []
    while leaves:
        size = 1
        while size * 2 <= len(leaves) and lo % (size * 2) == 0:
            size *= 2
        nodes.append(root(leaves[:size]))
        leaves, lo = leaves[size:], lo + size
    return nodes


# -- keys and notes --------------------------------------------------------------------------------


def ed25519(name, seed=None):
    return Ed25519PrivateKey.from_private_bytes(seed or SEEDS[name])


def ml_dsa(name):
    return MLDSA44PrivateKey.from_seed_bytes(SEEDS[name])


def public(key):
    return key.public_key().public_bytes_raw()


def key_id(name, algorithm, key):
    return sha(name.encode() + b"\n" + algorithm + public(key))[:4]


def vkey(name, algorithm=b"\1", key=None):
    key = key or ed25519(name)
    return f"{name}+{key_id(name, algorithm, key).hex()}+{b64(algorithm + public(key))}"


def signed(name, algorithm, key, value):
    return f"— {name} {b64(key_id(name, algorithm, key) + value)}\n"


def note(text, *signers):
    """A note by the Ed25519 keys of these names, or (name, key)."""
    pairs = [item if isinstance(item, tuple) else (item, ed25519(item)) for item in signers]
    return (
        text
        + "\n"
        + "".join(signed(name, b"\1", key, key.sign(text.encode())) for name, key in pairs)
    )


def cosigned(name, text, seconds):
    key = ed25519(name)
    message = f"cosignature/v1\ntime {seconds}\n{text}".encode()
    return signed(name, b"\4", key, seconds.to_bytes(8, "big") + key.sign(message))


def ml_dsa_message(name, text, seconds):
    origin, size, top = text.splitlines()
    return (
        b"subtree/v1\n\0" + bytes([len(name)]) + name.encode() + seconds.to_bytes(8, "big")
        + bytes([len(origin)]) + origin.encode() + bytes(8) + int(size).to_bytes(8, "big")
        + base64.b64decode(top)
    )  # fmt: skip


# -- the log ---------------------------------------------------------------------------------------


@dataclass
class Log:
    """Entries, and the checkpoints that were witnessed on the way."""

    entries: list = field(default_factory=list)
    notes: dict = field(default_factory=dict)
    ids: int = 0
    hidden: int = -1
    """An entry that is no bundle's business."""

    def add(self, value):
        self.entries.append(value.encode() if isinstance(value, str) else line(value).encode())
        return len(self.entries) - 1

    def leaves(self):
        return [leaf(entry) for entry in self.entries]

    def start(self):
        return self.add({**self.common("log"), "log": LOG, "number": 1, "before": ""})

    def common(self, kind):
        return {"v": 1, "type": kind, "at_ns": str((START_S + len(self.entries)) * SECOND)}

    def statement(self, kind, body, *signers):
        self.ids += 1
        inner = {**self.common(kind), "log": LOG, "id": f"{self.ids:032x}", **body}
        self.add({"v": 1, "type": kind, "statement": note(line(inner) + "\n", *signers)})
        return f"{self.ids:032x}"

    def key(self, action, role, name, *signers, since=None):
        body = {
            "action": action, "role": role, "key": vkey(name), "replaces": "",
            "since": None if since is None else str(since),
        }  # fmt: skip
        return self.statement("key", body, *(signers or ("admin.example/ann",)))

    def heartbeat(self):
        keys = [leaf(entry) for entry in self.entries if b'"type":"key","v":1}' in entry[-24:]]
        nothing = {"count": "0", "root": sha(b"").hex()}
        value = {
            **self.common("heartbeat"), "index": str(len(self.entries)), "every_s": 600,
            "keys": {"count": str(len(keys)), "root": root(keys).hex()},
            "shards": nothing, "nodes": nothing, "open": "0",
        }  # fmt: skip
        return self.add(value)

    def checkpoint(self, seconds, witnesses=("office.example/witness", "monitor.example/monitor")):
        """The log as it is, witnessed at this time (from the start)."""
        size = len(self.entries)
        text = f"{ORIGIN}\n{size}\n{b64(root(self.leaves()))}\n"
        key = ed25519("log")
        lines = [signed(ORIGIN, b"\1", key, key.sign(text.encode()))]
        lines += [cosigned(name, text, START_S + seconds) for name in witnesses]
        self.notes[size] = (text, lines)
        return size


# -- sessions --------------------------------------------------------------------------------------


@dataclass
class Epoch:
    """One epoch: its frames as (header, payload), and what its records say."""

    number: int
    continues: dict | None = None
    class_: dict = field(default_factory=lambda: dict(CLASS))
    beacon: dict | None = None
    frames: list = field(default_factory=list)
    bodies: dict = field(default_factory=dict)
    start_s: int = START_S

    def __post_init__(self):
        self.ephemeral = ed25519("", bytes([0x40 + self.number]) * 32)
        self.origin = f"{LOG}/session/{SESSION.hex()}/{self.number}"
        self.salt = bytes([0x60 + self.number]) * 32
        secret = bytes([0x70 + self.number]) * 32
        prk = hmac.digest(self.salt, secret, "sha256")
        tail = b"\0" + SESSION + self.number.to_bytes(4, "big") + b"\1"
        self.labels = {
            name: hmac.digest(prk, b"sealtape/1 " + name.encode() + tail, "sha256")
            for name in ("data", "facts")
        }

    def key(self, seq):
        kind = self.frames[seq][0][44]
        label = "facts" if kind in (2, 4) else "data"
        return hmac.digest(self.labels[label], seq.to_bytes(8, "big"), "sha256")

    def begin(self, *signers, **changes):
        """OPEN and IDENT; OPEN names the digest of IDENT, which is therefore made first."""
        ident = {
            "v": 1, "user": "ann@example.org", "subject": "", "groups": [], "issuer": "",
            "token_id": "", "agent": None, "source": {"ip": "192.0.2.7", "port": 50312},
            "client": {"software": "psql", "application": ""}, "target": "shop",
            "protocol": "postgres", "database": "shop", "node": "node-1", "expires_ns": None,
        }  # fmt: skip
        self.frames.append((bytes(84), b""))
        self.add(2, line(ident).encode())
        self.opening = {
            "v": 1, "type": "session", "log": LOG, "tenant": "main", "session": SESSION.hex(),
            "epoch": self.number, "node": "node-1", "boot": "20" * 16, "worker": 0,
            "number": "17", "key": vkey(self.origin, key=self.ephemeral),
            "suite": 2, "salt": b64(self.salt), "ident_sha256": sha(self.frames[1][1]).hex(),
            "class": self.class_, "policy_sha256": "00" * 32, "beacon": self.beacon,
            "anchor_ns": str(self.start_s * SECOND), "continues": self.continues,
        }  # fmt: skip
        self.opening |= changes
        payload = note(line(self.opening) + "\n", *(signers or ("node-1",))).encode()
        self.frames[0] = self._frame(0, 1, 0, payload)
        return self

    def add(self, kind, body):
        seq = len(self.frames)
        if kind in (1, 5, 7, 8):
            self.frames.append(self._frame(seq, kind, 0, body))
            return self
        packed = b"\0" + body
        self.frames.append((self._prefix(seq, kind, 2, 48 + len(packed)), b""))
        key = self.key(seq)
        sealed = AESGCM(key).encrypt(bytes(12), packed, self.frames[seq][0])
        self.frames[seq] = self._frame(seq, kind, 2, sha(b"sealtape/1 commit" + key) + sealed)
        return self

    def close(self, reason, attested=None):
        body = {
            "v": 1, "reason": reason, "detail": "", "totals": ["5", "5", "9", "9"],
            "commands": "1", "errors": "0", "attested": attested,
        }  # fmt: skip
        return self.add(8, line(body).encode())

    def _prefix(self, seq, kind, suite, length):
        when = self.start_s * SECOND + seq * 1_000_000
        return struct.pack(
            ">8s16sIQqBBHI", b"SEALFRM1", SESSION, self.number, seq, when, kind, suite, 0, length
        )

    def _frame(self, seq, kind, suite, payload):
        return self._prefix(seq, kind, suite, len(payload)) + sha(payload), payload

    def leaves(self):
        return [leaf(header) for header, _ in self.frames]

    def signed(self, size):
        text = f"{self.origin}\n{size}\n{b64(root(self.leaves()[:size]))}\n"
        return note(text, (self.origin, self.ephemeral))

    def fragment(self, lo, hi, /, signed=None, missing=(), **changes):
        """The record of frames [lo, hi); `signed` is a size that its key signed."""
        times = [struct.unpack(">q", self.frames[seq][0][36:44])[0] for seq in (lo, hi - 1)]
        value = {
            "v": 1, "type": "fragment", "tenant": "main", "class": self.class_["name"],
            "session": SESSION.hex(), "epoch": self.number, "lo": str(lo), "hi": str(hi),
            "nodes": [item.hex() for item in compact(self.leaves()[lo:hi], lo)],
            "rows": ["0", str(hi - lo)], "first_ts_ns": str(times[0]), "last_ts_ns": str(times[1]),
            "bytes": str(sum(len(payload) for _, payload in self.frames[lo:hi])),
            "checkpoint": None
            if signed is None
            else {"size": str(signed), "note": self.signed(signed)},
            "gaps": [
                {"lo": str(first), "hi": str(last), "reason": "lost"} for first, last in missing
            ],
        }  # fmt: skip
        return line(value | changes).encode()

    def open_entry(self, log, **changes):
        names = (
            "tenant", "session", "epoch", "node", "boot", "worker", "number", "class", "anchor_ns",
            "continues",
        )  # fmt: skip
        same = {name: self.opening[name] for name in names}
        digest = sha(self.frames[0][1]).hex()
        return log.add(
            {**log.common("session-open"), "of": "session", "opening_sha256": digest, **same}
            | changes
        )

    def seal_entry(self, log, records, closed, attested, lost=0, /, **changes):
        times = [struct.unpack(">q", self.frames[seq][0][36:44])[0] for seq in (0, -1)]
        signed_sha = sha(self.signed(attested).encode()).hex() if attested else "00" * 32
        value = {
            **log.common("session-seal"), "tenant": "main", "session": SESSION.hex(),
            "epoch": self.number, "class": self.class_, "frames": str(len(self.frames)),
            "root": "" if lost else root(self.leaves()).hex(), "lost": str(lost),
            "attested": str(attested), "closed": closed, "first_ts_ns": str(times[0]),
            "last_ts_ns": str(times[1]), "opening_sha256": sha(self.frames[0][1]).hex(),
            "checkpoint_sha256": signed_sha,
            "fragments": {
                "count": str(len(records)), "root": root([leaf(item) for item in records]).hex(),
            },
        }  # fmt: skip
        return log.add(value | changes)


STRANGER = b'{"a":"fragment record of another session"}'


def segment_entry(log, n, prev, record, rows, class_=CLASS, **changes):
    """A segment with one fragment of a stranger, then `record`; its place is 1."""
    leaves = [leaf(STRANGER), leaf(record)]
    name = f"019aac8f5c007e1ea6d10000000000{n:02x}-1"
    value = {
        "v": 1, "type": "segment", "shard": "bus/0", "n": str(n), "prev": prev.hex(),
        "tenant": "main", "class": class_, "bytes": "9876", "rows": str(rows + 1),
        "object": f"seg/v1/tenant=main/class=standard/dt=2026-11-23/{name}.parquet",
        "sha256": "04" * 32, "fragments": {"count": 2, "root": root(leaves).hex()},
        "bus": {"topic": "bus", "partition": 0, "first": str(n * 10), "next": str(n * 10 + 10)},
        "replaces": [], "sealed_at_ns": str((START_S + 20) * SECOND), "writer": "ingest-1",
    }  # fmt: skip
    data = line(value | changes)
    return log.add(data), sha(data.encode()), b64(inclusion(leaves, 1)[0])


# -- files and the ZIP file ------------------------------------------------------------------------


def frames_file(epoch, spans, withheld=()):
    parts = []
    for lo, hi in spans:
        for seq in range(lo, hi):
            header, payload = epoch.frames[seq]
            hidden = seq in withheld
            size = 0xFFFFFFFF if hidden else len(payload)
            parts.append(header + size.to_bytes(4, "big") + (b"" if hidden else payload))
    return b"".join(parts)


def zipped(files):
    """The one ZIP file of these names and contents; no file here is so large as to need ZIP64."""
    body = ends = b""
    for name in sorted(files):
        data, raw = files[name], name.encode()
        common = struct.pack(
            "<HHHHHIIIHH", 20, 0, 0, 0, 33, zlib.crc32(data), len(data), len(data), len(raw), 0
        )
        ends += (
            b"PK\1\2"
            + struct.pack("<H", 20)
            + common
            + struct.pack("<HHHII", 0, 0, 0, 0, len(body))
            + raw
        )
        body += b"PK\3\4" + common + raw + data
    count = len(files)
    return (
        body
        + ends
        + b"PK\5\6"
        + struct.pack("<HHHHIIH", 0, 0, count, count, len(ends), len(body), 0)
    )


def packed(files):
    """With SHA256SUMS, zipped."""
    sums = "".join(f"{sha(files[name]).hex()}  {name}\n" for name in sorted(files))
    return zipped({**files, "SHA256SUMS": sums.encode()})
