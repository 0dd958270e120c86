"""Writes witness.json: requests to a witness, its answers, and what it refuses.

Run `python -m tests.vectors.generate_witness` from the repository's root. The log and the keys are
those of log.json; proofs and messages are put together by hand, not by the code they test.
"""

import json
from pathlib import Path

from tests.vectors.generate_log import (
    AT,
    ENTRIES,
    ORIGIN,
    b64,
    ed25519,
    leaf,
    root,
    signature,
    split,
    vkey,
)

FILE = Path(__file__).parent / "witness.json"
WITNESS = "office.example/witness"
LEAVES = [leaf(entry) for entry in ENTRIES]
OLD, SIZE = 264, len(ENTRIES)
FORKED = [*LEAVES[:299], leaf(b"{}")]


def main():
    text = json.dumps(generate(), indent=2, ensure_ascii=False) + "\n"
    FILE.write_text(text, encoding="utf-8")


def generate():
    seen = {"size": OLD, "root": b64(root(LEAVES[:OLD]))}
    proof = [b64(item) for item in consistency(LEAVES, OLD)]
    office = ed25519("office")
    stamp = AT.to_bytes(8, "big")
    message = f"cosignature/v1\ntime {AT}\n{body(ORIGIN, SIZE, LEAVES)}".encode()
    answer = signature(WITNESS, b"\x04", office, stamp + office.sign(message))
    return {
        "origin": ORIGIN,
        "log": vkey(ORIGIN, b"\x01", ed25519("log")),
        "witness": vkey(WITNESS, b"\x04", office),
        "time": AT,
        "seen": seen,
        "first_request": request(0, [], note()),
        "request": request(OLD, proof, note()),
        "answer": answer,
        "told_size": f"{OLD}\n",
        "refused": refused(seen, proof),
    }


def refused(seen, proof):
    """What is answered with which status, and why."""
    forked = note(leaves=FORKED)
    whole = {"size": SIZE, "root": b64(root(LEAVES))}
    stranger = note(signer="auditor")
    return [
        case("the old size is another", seen, request(256, proof, note()), 409, "264\n"),
        case("nothing was seen", None, request(OLD, proof, note()), 409, "0\n"),
        case("another root of the same size", whole, request(SIZE, [], forked), 409, "300\n"),
        case("the proof is of another tree", seen, request(OLD, proof[::-1], note()), 422),
        case("a hash is missing", seen, request(OLD, proof[:-1], note()), 422),
        case("a hash too much", seen, request(OLD, [*proof, proof[0]], note()), 422),
        case("a proof from nothing", None, request(0, proof, note()), 422),
        case("another log", seen, request(OLD, proof, note("example.org/log")), 404),
        case("signed by a stranger", seen, request(OLD, proof, stranger), 403),
        case(
            "a signature that does not verify",
            seen,
            request(OLD, proof, body(ORIGIN, SIZE, FORKED) + note().split("\n", 3)[3]),
            403,
        ),
        case("old size above the checkpoint's", seen, request(SIZE + 1, [], note()), 400),
        case("no old size", seen, note(), 400),
        case("a leading zero", seen, request("0264", proof, note()), 400),
        case("a hash of 31 bytes", seen, request(OLD, [b64(bytes(31))], note()), 400),
        case("64 hashes", seen, request(OLD, [proof[0]] * 64, note()), 400),
        case("extension line", seen, request(OLD, proof, note(extension="x\n")), 400),
    ]


def case(why, seen, asked, status, told=None):
    return {"why": why, "seen": seen, "request": asked, "status": status, "body": told}


def request(old, proof, checkpoint):
    return "\n".join([f"old {old}", *proof]) + "\n\n" + checkpoint


def note(origin=ORIGIN, *, leaves=None, signer="log", extension=""):
    text = body(origin, SIZE, leaves or LEAVES) + extension
    key = ed25519(signer)
    return text + "\n" + signature(origin, b"\x01", key, key.sign(text.encode()))


def body(origin, size, leaves):
    return f"{origin}\n{size}\n{b64(root(leaves))}\n"


def consistency(leaves, old, *, whole=True):
    """RFC 6962, 2.1.2: SUBPROOF(old, leaves, whole)."""
    if old == len(leaves):
        return [] if whole else [root(leaves)]
    half = split(len(leaves))
    if old <= half:
        return [*consistency(leaves[:half], old, whole=whole), root(leaves[half:])]
    return [*consistency(leaves[half:], old - half, whole=False), root(leaves[:half])]


if __name__ == "__main__":
    main()
