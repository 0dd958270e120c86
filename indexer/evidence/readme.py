"""README.txt of a bundle: how to check it by hand, with tools that nobody here wrote."""

from __future__ import annotations

from typing import Final

VERIFIER_SHA256: Final = "a9cb014b416d056474ca42e5388c04d763a41556ea83a4217f11ba6cf16eab8e"
"""SHA-256 of deploy/verifier/sealtape_verify.py, the second verifier."""

_TEXT: Final = """\
EVIDENCE OF ONE RECORDED SESSION
================================

session {session}
log     {origin}, {size} entries

This file holds what was recorded and what proves it, and nobody's word that it is true. Bring your
own policy: the keys of the log, of its witnesses and administrators, from where you trust them. It
is never in a bundle.

  sealtape verify BUNDLE.zip --policy POLICY.toml

A second verifier, one file that needs nothing but Python 3.11, was written from the description of
the format alone:

  python3 sealtape_verify.py BUNDLE.zip --policy POLICY.toml
{second}
Both exit with 0 (complete and verified), 1 (tampered), 2 (incomplete), 3 (deleted by policy).


BY HAND
-------

1. Nothing was changed since it was packed (this alone proves nothing to others):

     unzip BUNDLE.zip -d bundle && cd bundle && sha256sum -c SHA256SUMS

2. The log's signature on the checkpoint. checkpoints/{size} is a C2SP signed note: three lines, an
   empty line, signatures. With KEY the log's Ed25519 key of your policy (32 bytes behind the first
   byte of the base64) as PEM in log.pem:

     head -3 checkpoints/{size} > text
     grep -F -- "— {origin} " checkpoints/{size} | head -1 | cut -d' ' -f3 | base64 -d \\
       | tail -c 64 > signature
     openssl pkeyutl -verify -pubin -inkey log.pem -rawin -in text -sigfile signature

   With Go, golang.org/x/mod/sumdb/note opens it; witnesses sign
   "cosignature/v1\\ntime SECONDS\\n" and the text (https://c2sp.org/tlog-cosignature).

3. An entry is in the log. Its leaf hash is

     (printf '\\0'; cat entries/0.json) | sha256sum

   `inclusion` has the roots of the parts of the log without any entry of this bundle, from left to
   right; with them and the leaf hashes, golang.org/x/mod/sumdb/tlog's NodeHash gives the
   checkpoint's root as docs/spec/bundle.md has it in eight lines.

4. Time. If there is one, a time-stamp is over the whole note:

     openssl ts -reply -in timestamps/SIZE/NAME.tsr -text
     openssl ts -verify -in timestamps/SIZE/NAME.tsr -data note -CAfile roots.pem \\
       -untrusted timestamps/SIZE/NAME.pem

   where `note` is checkpoints/SIZE with the lines of checkpoints/SIZE.mldsa put back at the places
   that they begin with.

5. A frame. frames/EPOCH.bin has, for each, a header of 84 bytes, a length of four bytes, and the
   payload. Bytes 52 to 84 of the header are SHA-256 of the payload; (0x00 || header) hashes to the
   leaf of the session's tree. The first:

     head -c 84 frames/0.bin | tail -c 32 | od -An -tx1
     n=$((16#$(dd if=frames/0.bin bs=1 skip=84 count=4 status=none | od -An -tx1 | tr -d ' ')))
     tail -c +89 frames/0.bin | head -c $n | sha256sum

   With DuckDB, of the fragment records:

     select epoch, lo, hi, bytes from read_json('fragments/*.jsonl', format='newline_delimited');

6. What was done and typed is encrypted; whoever has the auditors' key can disclose single frames,
   whose keys are then in keys/EPOCH.jsonl.
"""


def readme(session: bytes, origin: str, size: int) -> bytes:
    """The text for one bundle."""
    second = f"  SHA-256 {VERIFIER_SHA256}\n" if VERIFIER_SHA256 else ""
    return _TEXT.format(session=session.hex(), origin=origin, size=size, second=second).encode()
