"""Writes spool.json and bus-dir.json: the bytes of files that a node keeps on its own disk.

Run `python -m tests.vectors.generate_files` from the repository's root. The output is the same on
every run and machine, and is put together from the tables of the pages, not by our own encoders.
"""

import hashlib
import hmac
import json
import zlib
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FOLDER = Path(__file__).parent
SPOOL_KEY = bytes(range(32))
SALT = bytes(range(0x20, 0x40))
START_NS = 1_795_392_000_000_000_000
TS_MS = 1_763_842_099_712
SESSION, SLICES, FRAMES = 1, 2, 3


def main():
    for name, value in generate().items():
        (FOLDER / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def generate():
    return {"spool.json": spool(), "bus-dir.json": bus()}


def u32(value):
    return value.to_bytes(4, "big")


def u64(value):
    return value.to_bytes(8, "big")


def crc(data):
    return u32(zlib.crc32(data))


# -- the spool -------------------------------------------------------------------------------------


def expand(key, salt, info, length):
    """HKDF-SHA256 (RFC 5869)."""
    secret = hmac.digest(salt, key, hashlib.sha256)
    found, block = b"", b""
    while len(found) < length:
        block = hmac.digest(secret, block + info + bytes([len(found) // 32 + 1]), hashlib.sha256)
        found += block
    return found[:length]


DERIVED = expand(SPOOL_KEY, SALT, b"sealtape/1 spool file", 40)


def file_header():
    head = b"SEALSPL1" + SALT + DERIVED[32:]
    return head + crc(head)


def record(counter, kind, body):
    """A record, and its body as it is stored."""
    if kind != FRAMES:
        body = AESGCM(DERIVED[:32]).encrypt(bytes(4) + u64(counter), body, bytes([kind]))
    rest = u64(counter) + bytes([kind]) + body
    return b"SSR1" + u32(12 + len(rest)) + crc(rest) + rest


def pieces(number, base_ns, slices, facts):
    """An entry of SLICES, and the end of SESSION."""
    data, meant = b"".join(slices), b"".join(facts)
    head = u64(number) + base_ns.to_bytes(8, "big", signed=True)
    sizes = u32(len(slices)) + u32(len(data)) + u32(len(facts)) + u32(len(meant))
    return head + sizes + data + meant


def session_body(about, state, entry):
    text = json.dumps(state, separators=(",", ":")).encode()
    return u32(len(about)) + u32(len(text)) + about + text + entry


def frames_body(first, acked, cuts):
    body = u64(first) + u64(acked)
    for cut in cuts:
        body += u64(cut["number"]) + bytes([cut["flags"]]) + u32(len(cut["messages"]))
        counts = (*cut["offsets"], cut["facts"], cut["commands"], cut["errors"])
        body += b"".join(map(u64, counts))
        for message in cut["messages"]:
            body += u32(len(message) // 2) + bytes.fromhex(message)
    return body


def spool():
    about = {"session": "00112233445566778899aabbccddeeff", "number": 7}
    state = {
        "epoch": 0,
        "size": 2,
        "nodes": ["ab" * 32],
        "offsets": [10, 0, 20, 0],
        "facts": 1,
        "commands": 1,
        "errors": 0,
        "last_ns": START_NS,
        "signed": 2,
    }
    about_text = json.dumps(about, separators=(",", ":")).encode()
    slices, facts = [b"one slice", b"another"], [b"a fact"]
    entry = pieces(7, START_NS, slices, facts)
    cuts = [
        {
            "number": 7,
            "flags": 1,
            "offsets": [10, 0, 20, 0],
            "facts": 1,
            "commands": 1,
            "errors": 0,
            "messages": [b"message".hex()],
        }
    ]
    whole = session_body(about_text, state, pieces(7, START_NS, [], []))
    closing = [cuts[0] | {"flags": 3, "messages": []}]
    numbers = [3, 7]
    settled = b"SEALSET1" + b"".join(map(u64, numbers))
    slot = u64(7)
    return {
        "spool_key": SPOOL_KEY.hex(),
        "salt": SALT.hex(),
        "header": file_header().hex(),
        "records": [
            {
                "counter": 1,
                "kind": SESSION,
                "about": about_text.decode(),
                "state": state,
                "body": whole.hex(),
                "record": record(1, SESSION, whole).hex(),
            },
            {
                "counter": 2,
                "kind": FRAMES,
                "first": 5,
                "acked": 4,
                "cuts": cuts,
                "body": frames_body(5, 4, cuts).hex(),
                "record": record(2, FRAMES, frames_body(5, 4, cuts)).hex(),
            },
            {
                "counter": 3,
                "kind": SLICES,
                "number": 7,
                "base_ns": str(START_NS),
                "slices": [each.hex() for each in slices],
                "facts": [each.hex() for each in facts],
                "body": entry.hex(),
                "record": record(3, SLICES, entry).hex(),
            },
            {
                "counter": 4,
                "kind": FRAMES,
                "first": 6,
                "acked": 6,
                "cuts": closing,
                "body": frames_body(6, 6, closing).hex(),
                "record": record(4, FRAMES, frames_body(6, 6, closing)).hex(),
            },
        ],
        "counter": {"number": 7, "slot": (slot + crc(slot)).hex()},
        "settled": {"numbers": numbers, "file": (settled + crc(settled)).hex()},
    }


# -- the bus ---------------------------------------------------------------------------------------


def bus_header(partition, base, previous_end):
    head = b"SEALBUS1" + u32(partition) + u64(base) + u64(previous_end)
    return head + crc(head)


def bus_record(offset, synced, ts_ms, key, value):
    rest = u64(offset) + u64(synced) + ts_ms.to_bytes(8, "big", signed=True)
    rest += len(key).to_bytes(2, "big") + key + value
    return b"SBR1" + u32(12 + len(rest)) + crc(rest) + rest


def bus():
    headers = [(0, 0, 0), (1, 67_114_201, 67_114_201), (2**32 - 1, 2**63 - 1, 2**63 - 2)]
    records = [
        (100, 100, TS_MS, b"k", b"hello"),
        (0, 0, 0, b"", b""),
        (2**62, 2**62 - 1, -1, b"key", bytes(range(256))),
    ]
    return {
        "headers": [
            {
                "partition": partition,
                "base": str(base),
                "previous_end": str(previous_end),
                "header": bus_header(partition, base, previous_end).hex(),
            }
            for partition, base, previous_end in headers
        ],
        "records": [
            {
                "offset": str(offset),
                "synced": str(synced),
                "ts_ms": ts_ms,
                "key": key.hex(),
                "value": value.hex(),
                "record": bus_record(offset, synced, ts_ms, key, value).hex(),
            }
            for offset, synced, ts_ms, key, value in records
        ],
    }


if __name__ == "__main__":
    main()
