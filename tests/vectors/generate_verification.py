"""Writes verification.json: a record of scheduled verification, an alarm, and its signature.

Run `python -m tests.vectors.generate_verification` from the repository's root. The bytes are put
together by hand, not by the code they test.
"""

import hashlib
import hmac
import json
from pathlib import Path

FILE = Path(__file__).parent / "verification.json"
OBJECT = (
    "seg/v1/tenant=main/class=standard/dt=2026-11-22/01a2000000007000800000000000000a-1.parquet"
)
AT_NS = 1_795_392_123_000_000_000
SENT_S = 1_795_392_124
SECRET = "correct horse battery staple"


def main():
    FILE.write_text(json.dumps(generate(), indent=2) + "\n", encoding="utf-8")


def plain(value):
    """RFC 8785 of what has neither floats nor letters beyond ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def record(**changes):
    return plain(
        {
            "v": 1, "type": "verification", "object": OBJECT, "at_ns": str(AT_NS),
            "by": "sealtape 0.1.0", "bytes": "67108912", "frames": "1412", "sessions": "12",
            "findings": "1", "verdict": "tampered",
            "log": {"origin": "sealtape.example/log/1", "size": "300"},
        }
        | changes
    )  # fmt: skip


def alarm(**changes):
    finding = {
        "verdict": "tampered", "layer": "frame", "object": OBJECT,
        "session": "101112131415161718191a1b1c1d1e1f", "epoch": 0, "seq": "2",
        "reason": "the payload is not the one that was sealed",
    } | changes  # fmt: skip
    name = hashlib.sha256(plain(finding).encode()).hexdigest()
    return plain(
        {
            "v": 1, "type": "alarm", "id": name, "at_ns": str(AT_NS), "log": "sealtape.example/log",
            "node": "node-1", "finding": finding,
        }
    )  # fmt: skip


def generate():
    body = alarm()
    signed = hmac.new(SECRET.encode(), f"{SENT_S}.{body}".encode(), hashlib.sha256).hexdigest()
    return {
        "record": record(),
        "pass": record(object="", bytes="0", findings="0", verdict="verified", log=None),
        "alarm": body,
        "alarm_of_the_log": alarm(
            layer="log", object="log/v1/1/checkpoint", session=None, epoch=None, seq=None,
            reason="it is of 7 entries, and 300 were witnessed: rolled back",
        ),
        "secret": SECRET,
        "sent_s": SENT_S,
        "signature": f"t={SENT_S},v1={signed}",
        "refused": {
            "a finding, and verified": record(verdict="verified"),
            "no finding, and tampered": record(findings="0"),
            "an unknown verdict": record(verdict="deleted"),
            "another type": record(type="seen"),
            "another version": record(v=2),
            "a number for a text": record(bytes=1),
            "a member too many": record(more="1"),
            "an open log": record(log={"origin": "x"}),
        },
    }  # fmt: skip


if __name__ == "__main__":
    main()
