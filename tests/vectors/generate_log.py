"""Writes log.json: tiles, checkpoints, cosignatures, proofs and a policy of a small log.

Run `python -m tests.vectors.generate_log` from the repository's root. Trees are hashed here by RFC
6962's recursion and messages are put together by hand, not by the code they test. ML-DSA-44
signatures are drawn anew by the library each time: those in the file are kept while they verify.
"""

import base64
import hashlib
import json
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

FILE = Path(__file__).parent / "log.json"
ORIGIN = "sealtape.example/log/1"
AT = 1_795_392_000
ENTRIES = [b'{"n":%d}' % number for number in range(300)]
SEEDS = {"log": b"\x01" * 32, "office": b"\x02" * 32, "auditor": b"\x03" * 32}


def main():
    text = json.dumps(generate(), indent=2, ensure_ascii=False) + "\n"
    FILE.write_text(text, encoding="utf-8")


def generate():
    size, index = len(ENTRIES), 258
    leaves = [leaf(entry) for entry in ENTRIES]
    body = f"{ORIGIN}\n{size}\n{b64(root(leaves))}\n"
    log = ed25519("log")
    signed = [
        signature(ORIGIN, b"\x01", log, log.sign(body.encode())),
        signature(ORIGIN, b"\x06", ml_dsa("log"), kept("log", ORIGIN, body)),
    ]
    witnesses = {name: f"{name}.example/witness" for name in ("office", "auditor")}
    stamp = AT.to_bytes(8, "big")
    message = f"cosignature/v1\ntime {AT}\n{body}".encode()
    office = ed25519("office")
    cosigned = [
        signature(witnesses["office"], b"\x04", office, stamp + office.sign(message)),
        signature(
            witnesses["auditor"], b"\x06", ml_dsa("auditor"),
            kept("auditor", witnesses["auditor"], body),
        ),
    ]  # fmt: skip
    note = body + "\n" + "".join(signed + cosigned)
    path = [b64(item) for item in inclusion(leaves, index)]
    proof = "\n".join(["c2sp.org/tlog-proof@v1", f"index {index}", *path]) + f"\n\n{note}"
    vkeys = {
        "log": vkey(ORIGIN, b"\x01", log),
        "log_ml_dsa": vkey(ORIGIN, b"\x06", ml_dsa("log")),
        "office": vkey(witnesses["office"], b"\x04", office),
        "auditor": vkey(witnesses["auditor"], b"\x06", ml_dsa("auditor")),
    }
    policy = (
        f"log {vkeys['log']}\nlog {vkeys['log_ml_dsa']}\n\n"
        f"witness office {vkeys['office']}\nwitness auditor {vkeys['auditor']}\n"
        "group outside any auditor\ngroup both all office outside\nquorum both\n"
    )
    short = body + "\n" + signed[0] + cosigned[0]
    return {
        "origin": ORIGIN,
        "entries": {"count": size, "form": '{"n":N} for N from 0'},
        "tiles": tiles(leaves),
        "first_bytes_of_bundle": bundle(ENTRIES[:3]).hex(),
        "vkeys": vkeys,
        "checkpoint": body + "\n" + "".join(signed),
        "witnessed": note,
        "time": AT,
        "index": index,
        "entry": ENTRIES[index].decode(),
        "proof": proof,
        "policy": policy,
        "short_policy": (f"log {vkeys['log']}\nwitness office {vkeys['office']}\nquorum office\n"),
        "short_witnessed": short,
        "short_proof": proof.replace(note, short),
    }


def tiles(leaves):
    """SHA-256 of each of the log's objects, by its path."""
    full = root(leaves[:256])
    parts = {
        "tile/entries/000": bundle(ENTRIES[:256]),
        "tile/entries/001.p/44": bundle(ENTRIES[256:]),
        "tile/0/000": b"".join(leaves[:256]),
        "tile/0/001.p/44": b"".join(leaves[256:]),
        "tile/1/000.p/1": full,
    }
    return {path: hashlib.sha256(data).hexdigest() for path, data in parts.items()}


def bundle(entries):
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def b64(data):
    return base64.b64encode(data).decode()


def leaf(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def split(count):
    half = 1
    while half * 2 < count:
        half *= 2
    return half


def root(leaves):
    if len(leaves) == 1:
        return leaves[0]
    half = split(len(leaves))
    return hashlib.sha256(b"\1" + root(leaves[:half]) + root(leaves[half:])).digest()


def inclusion(leaves, index):
    if len(leaves) == 1:
        return []
    half = split(len(leaves))
    if index < half:
        return [*inclusion(leaves[:half], index), root(leaves[half:])]
    return [*inclusion(leaves[half:], index - half), root(leaves[:half])]


def ed25519(name):
    return Ed25519PrivateKey.from_private_bytes(SEEDS[name])


def ml_dsa(name):
    return MLDSA44PrivateKey.from_seed_bytes(SEEDS[name])


def key_id(name, algorithm, key):
    public = key.public_key().public_bytes_raw()
    return hashlib.sha256(name.encode() + b"\n" + algorithm + public).digest()[:4]


def vkey(name, algorithm, key):
    public = b64(algorithm + key.public_key().public_bytes_raw())
    return f"{name}+{key_id(name, algorithm, key).hex()}+{public}"


def signature(name, algorithm, key, value):
    return f"— {name} {b64(key_id(name, algorithm, key) + value)}\n"


def kept(who, name, body):
    """Time and ML-DSA-44 signature: the file's own while it holds, else a new one."""
    origin, size, top = body.splitlines()
    message = (
        b"subtree/v1\n\0" + bytes([len(name)]) + name.encode() + AT.to_bytes(8, "big")
        + bytes([len(origin)]) + origin.encode() + bytes(8) + int(size).to_bytes(8, "big")
        + base64.b64decode(top)
    )  # fmt: skip
    key = ml_dsa(who)
    for line in json.loads(FILE.read_text())["witnessed"].splitlines() if FILE.exists() else []:
        if line.startswith(f"— {name} ") and len(line) > 2420:
            value = base64.b64decode(line.split(" ")[2])[4:]
            try:
                key.public_key().verify(value[8:], message)
            except InvalidSignature:
                continue
            return value
    return AT.to_bytes(8, "big") + key.sign(message)


if __name__ == "__main__":
    main()
