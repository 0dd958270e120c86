"""Writes timestamps.json: a request, and answers of RFC 3161 to be accepted and to be refused.

Run `python -m tests.vectors.generate_timestamps` from the repository's root. The answers are
written by `tests/factories/timestamps.py`, not by the code that they test.
"""

import hashlib
import json
from pathlib import Path

from tests.factories import timestamps as tsa

FOLDER = Path(__file__).parent


def main():
    text = json.dumps(generate(), indent=2, ensure_ascii=False) + "\n"
    (FOLDER / "timestamps.json").write_text(text, encoding="utf-8")


def generate():
    log = json.loads((FOLDER / "log.json").read_text(encoding="utf-8"))
    note = log["short_witnessed"]
    digest = hashlib.sha256(note.encode()).digest()
    root = tsa.Party("Root 1", 10, ca=True)
    signer = tsa.Party("Authority 1", 11, root)
    between = tsa.Party("Between", 12, root, ca=True)
    deep = tsa.Party("Authority 2", 13, between)
    other = tsa.Party("Root 9", 90, ca=True)
    nonce = 0x0102030405060708
    info = tsa.statement(digest, nonce=tsa.integer(nonce))
    precise = tsa.statement(
        digest,
        time=tsa.element(0x18, b"20261123000000.25Z"),
        accuracy=tsa.sequence(tsa.integer(500, 0x80)),
    )
    plain = tsa.answer(signer, digest, info=info)
    states = {
        "time_ns": "1795392000000000000",
        "accuracy_ns": "1000000000",
        "authority": "CN=Authority 1",
        "serial": "77",
        "policy": "1.3.6.1.4.1.32473.1",
    }
    below = {
        **states,
        "time_ns": "1795392000250000000",
        "accuracy_ns": "500000000",
        "authority": "CN=Authority 2",
    }

    def case(name, answer, *, roots=root.pem, chain=b"", stamped=note, **more):
        return {
            "name": name,
            "stamped": stamped,
            "answer": answer.hex(),
            "roots": roots.decode(),
            "chain": chain.decode(),
            **more,
        }

    apart = [deep.der, between.der]
    return {
        "request": {
            "digest": digest.hex(),
            "nonce": str(nonce),
            "request": tsa.sequence(
                tsa.integer(1), tsa.imprint(digest), tsa.integer(nonce), tsa.element(1, b"\xff")
            ).hex(),
        },
        "accepted": [
            case("plain", plain, states=states),
            case(
                "chain beside",
                tsa.answer(deep, digest, info=precise),
                chain=between.pem,
                states=below,
            ),
            case(
                "chain inside, unsorted",
                tsa.answer(deep, digest, info=precise, inside=sorted(apart)[::-1]),
                states=below,
            ),
        ],
        "refused": [
            case("of something else", plain, stamped=note[:-1], error="format"),
            case("roots of others", plain, roots=other.pem, error="signature"),
            case(
                "its root only among what is not trusted",
                plain,
                roots=other.pem,
                chain=root.pem,
                error="signature",
            ),
            case("rejected", tsa.refused(), error="format"),
            case(
                "certificate of another",
                tsa.answer(signer, digest, signed=tsa.attributes(tsa.statement(digest), root.der)),
                error="format",
            ),
            case(
                "over before the stated time",
                tsa.answer(tsa.Party("Past", 14, root, end=tsa.BEGIN.replace(month=2)), digest),
                error="signature",
            ),
            case(
                "not for time-stamps alone",
                tsa.answer(
                    tsa.Party(
                        "Both",
                        16,
                        root,
                        usage=[*tsa.STAMPING, tsa.ExtendedKeyUsageOID.CODE_SIGNING],
                    ),
                    digest,
                ),
                error="format",
            ),
            case("a byte behind", plain + b"\0", error="format"),
        ],
    }


if __name__ == "__main__":
    main()
