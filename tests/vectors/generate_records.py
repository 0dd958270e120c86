"""Writes records.json: an entry of the log of every kind.

Run `python -m tests.vectors.generate_records` from the repository's root. The JSON is put together
here, not by the code that it tests: names sorted, no white space, 64-bit numbers as strings.
"""

import base64
import hashlib
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FOLDER = Path(__file__).parent
LOG = "sealtape.example/log"
AT = "1795392020123456789"
SESSION = "101112131415161718191a1b1c1d1e1f"
OTHER = "303132333435363738393a3b3c3d3e3f"
CLASS = {"name": "standard", "retain_for_s": 7_776_000, "delete_after_s": 34_560_000}
ADMINS = {
    name: Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    for number, name in enumerate(("admin.example/ann", "admin.example/bob"), 7)
}
EMPTY = hashlib.sha256(b"").hexdigest()


def main():
    text = json.dumps(generate(), indent=2, ensure_ascii=False) + "\n"
    (FOLDER / "records.json").write_text(text, encoding="utf-8")


def generate():
    entries = {"log": log_start(), "log_second": log_second(), **sealed(), **found(), **decided()}
    lines = {name: line(value) for name, value in entries.items()}
    segments = json.loads((FOLDER / "segments.json").read_text(encoding="utf-8"))
    lines["segment"] = segments["manifest"].split("\n")[0]
    return {
        "entries": [
            {"name": name, "entry": text, "leaf": leaf(text).hex()} for name, text in lines.items()
        ],
        "admins": {name: vkey(name) for name in ADMINS},
        "heartbeat_lines": {"shards": SHARDS, "nodes": NODES},
    }


def log_start():
    return {"v": 1, "type": "log", "log": LOG, "number": 1, "at_ns": AT, "before": ""}


def log_second():
    before = json.loads((FOLDER / "log.json").read_text(encoding="utf-8"))["short_witnessed"]
    return {"v": 1, "type": "log", "log": LOG, "number": 2, "at_ns": AT, "before": before}


def sealed():
    common = {"v": 1, "at_ns": AT, "tenant": "main", "session": SESSION, "class": CLASS}
    node = {"node": "node-1", "boot": "20" * 16, "worker": 0, "number": "17"}
    first = {"epoch": 0, "of": "session", "anchor_ns": "1795392000123456789", "continues": None}
    before = {"epoch": 0, "size": "300", "root": "05" * 32}
    second = {"epoch": 1, "of": "session", "anchor_ns": "1795392005123456789", "continues": before}
    opening = {"type": "session-open", "opening_sha256": "06" * 32}
    seal = {
        "type": "session-seal", "epoch": 0, "frames": "300", "root": "05" * 32, "lost": "0",
        "attested": "300", "closed": "client", "first_ts_ns": "1795392000123456789",
        "last_ts_ns": "1795392009123456789", "opening_sha256": "06" * 32,
        "checkpoint_sha256": "07" * 32, "fragments": {"count": "2", "root": "08" * 32},
    }  # fmt: skip
    broken = {"epoch": 1, "frames": "9", "root": "", "lost": "2", "closed": "", "attested": "0"}
    return {
        "session_open": common | node | opening | first,
        "session_open_recovered": common | node | opening | second,
        "session_seal": common | seal,
        "session_seal_incomplete": common | seal | broken | {"checkpoint_sha256": "00" * 32},
    }


SHARDS = [
    '{"hash":"' + "09" * 32 + '","n":"12","shard":"bus/0"}',
    '{"hash":"' + "0a" * 32 + '","n":"3","shard":"bus/1"}',
]
NODES = ['{"boot":"' + "20" * 16 + '","node":"node-1","number":"17","worker":0}']


def found():
    bus = {"topic": "sealtape.frames", "partition": 3, "offset": "4096"}
    listed = {"count": "0", "root": EMPTY}
    return {
        "incident": {
            "v": 1, "type": "incident", "at_ns": AT, "reason": "gap", "bus": bus,
            "session": SESSION, "epoch": 0, "seq": "5",
        },
        "incident_of_no_session": {
            "v": 1, "type": "incident", "at_ns": AT, "reason": "bus_lost",
            "bus": bus | {"offset": "-1"}, "session": "", "epoch": None, "seq": None,
        },
        "heartbeat": {
            "v": 1, "type": "heartbeat", "at_ns": AT, "index": "41", "every_s": 600,
            "keys": listed, "shards": {"count": "2", "root": root(SHARDS)},
            "nodes": {"count": "1", "root": root(NODES)}, "open": "3",
        },
    }  # fmt: skip


def decided():
    node = "node-1+" + "00000000+AQ=="
    keys = {"role": "node", "key": node, "replaces": "", "since": None}
    matter = hashlib.sha256(b"salt, then: case 7").hexdigest()
    two = list(ADMINS)
    return {
        "key_introduce": statement("key", {"action": "introduce", **keys}, two[:1]),
        "key_rotate": statement(
            "key", {**keys, "action": "rotate", "key": node + "x", "replaces": node}, two[:1]
        ),
        "key_revoke": statement("key", {**keys, "action": "revoke", "since": "40"}, two[:1]),
        "policy": statement(
            "policy", {"tenant": "main", "class": CLASS, "policy_sha256": "0b" * 32}, two[:1]
        ),
        "hold": statement("hold", {"matter": matter, "sessions": [SESSION, OTHER]}, two[:1]),
        "release": statement("release", {"hold": "0c" * 16, "sessions": [OTHER]}, two),
        "tombstone_intent": statement(
            "tombstone-intent",
            {"basis": "expired", "matter": "00" * 32, "sessions": [OTHER]}, two[:1],
        ),
        "tombstone_intent_erasure": statement(
            "tombstone-intent", {"basis": "erasure", "matter": matter, "sessions": [OTHER]}, two
        ),
        "tombstone_done": statement(
            "tombstone-done",
            {
                "intent": "0c" * 16, "index": "52", "wraps": "4", "documents": "120",
                "objects": ["0d" * 32],
            },
            two[:1],
        ),
    }  # fmt: skip


def statement(kind, body, signers):
    text = line({"v": 1, "type": kind, "log": LOG, "id": "0c" * 16, "at_ns": AT, **body}) + "\n"
    note = text + "\n" + "".join(signature(name, text) for name in signers)
    return {"v": 1, "type": kind, "statement": note}


def line(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def leaf(text):
    return hashlib.sha256(b"\0" + text.encode()).digest()


def root(lines):
    hashes = [leaf(text) for text in lines]
    if len(hashes) == 1:
        return hashes[0].hex()
    return hashlib.sha256(b"\1" + b"".join(hashes)).hexdigest()


def key_bytes(name):
    return b"\x01" + ADMINS[name].public_key().public_bytes_raw()


def key_id(name):
    return hashlib.sha256(name.encode() + b"\n" + key_bytes(name)).digest()[:4]


def vkey(name):
    return f"{name}+{key_id(name).hex()}+{base64.b64encode(key_bytes(name)).decode()}"


def signature(name, text):
    value = key_id(name) + ADMINS[name].sign(text.encode())
    return f"— {name} {base64.b64encode(value).decode()}\n"


if __name__ == "__main__":
    main()
