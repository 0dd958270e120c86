"""The client half of authentication towards a target: SCRAM-SHA-256, md5 and cleartext.

RFC 5802 and 7677 with PostgreSQL's two particulars: the user name inside the SASL messages is
empty (the StartupMessage has it), and a password that SASLprep refuses is used as its raw bytes.
There is no channel binding: TLS ends at the gateway, so `-PLUS` cannot be honest here.

No randomness of its own: the caller passes the nonce. Nothing that is raised or represented holds
the password or anything computed from it.
"""

from __future__ import annotations

import hashlib
import hmac
import stringprep
import unicodedata
from base64 import b64decode, b64encode
from binascii import Error

from sealtape.capture.postgres.codec.messages import ProtocolViolation

MECHANISM = "SCRAM-SHA-256"
MAX_ITERATIONS = 1_000_000
"""About a quarter of a second; a target asking for more is trying to stall us."""
MIN_ITERATIONS = 4096
"""RFC 7677; fewer would help who wants to guess the password from the exchange."""
MAX_SERVER_MESSAGE = 4096
NONCE_BYTES = 18


class AuthenticationFailed(ProtocolViolation):
    """The target could not prove that it knows the credential too, or broke the exchange."""

    code = "postgres-authentication"


class ScramClient:
    """One exchange: `first()`, then `final(server_first)`, then `verify(server_final)`."""

    __slots__ = ("_bare", "_nonce", "_password", "_server_signature")

    def __init__(self, password: str, nonce: bytes) -> None:
        """Take the secret and at least 18 random bytes."""
        if len(nonce) < NONCE_BYTES:
            raise AuthenticationFailed(f"A nonce of {len(nonce)} bytes is too short.")
        self._password = saslprep(password)
        self._nonce = b64encode(nonce)
        self._bare = b"n=,r=" + self._nonce
        self._server_signature = b""

    def first(self) -> bytes:
        """The client-first-message."""
        return b"n,," + self._bare

    def final(self, server_first: bytes) -> bytes:
        """The client-final-message in answer to the server-first-message."""
        nonce, salt, iterations = self._read_first(server_first)
        salted = hashlib.pbkdf2_hmac("sha256", self._password, salt, iterations)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        stored_key = hashlib.sha256(client_key).digest()
        without_proof = b"c=biws,r=" + nonce
        signed = b",".join((self._bare, server_first, without_proof))
        signature = hmac.digest(stored_key, signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        server_key = hmac.digest(salted, b"Server Key", "sha256")
        self._server_signature = hmac.digest(server_key, signed, "sha256")
        return without_proof + b",p=" + b64encode(proof)

    def _read_first(self, server_first: bytes) -> tuple[bytes, bytes, int]:
        if len(server_first) > MAX_SERVER_MESSAGE:
            raise AuthenticationFailed("The target's SCRAM message is too long.")
        parts = server_first.split(b",")
        if len(parts) < 3 or [part[:2] for part in parts[:3]] != [b"r=", b"s=", b"i="]:
            raise AuthenticationFailed("The target's first SCRAM message is malformed.")
        nonce, count = parts[0][2:], parts[2][2:]
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise AuthenticationFailed("The target's SCRAM nonce does not continue ours.")
        if not count.isdigit() or len(count) > 9:
            raise AuthenticationFailed("The target's SCRAM iteration count is not a number.")
        iterations = int(count)
        if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:
            raise AuthenticationFailed(
                f"The target asks for {iterations} SCRAM iterations; "
                f"{MIN_ITERATIONS} to {MAX_ITERATIONS} are taken."
            )
        salt = _decode(parts[1][2:])
        if not salt:
            raise AuthenticationFailed("The target's SCRAM salt is empty.")
        return nonce, salt, iterations

    def verify(self, server_final: bytes) -> None:
        """Check the server-final-message; the target is who it says only if this returns."""
        if not self._server_signature or len(server_final) > MAX_SERVER_MESSAGE:
            raise AuthenticationFailed("The target's final SCRAM message came out of turn.")
        verifier, _, _ = server_final.partition(b",")
        if not verifier.startswith(b"v="):
            raise AuthenticationFailed("The target refused the SCRAM exchange.")
        if not hmac.compare_digest(_decode(verifier[2:]), self._server_signature):
            raise AuthenticationFailed("The target does not know the credential it asked for.")


def _decode(text: bytes) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (Error, ValueError) as cause:
        raise AuthenticationFailed("The target sent base64 that is not base64.") from cause


def mechanism(offered: bytes) -> str:
    """Choose from the list in an AuthenticationSASL message (what follows its code)."""
    names = [name for name in offered.split(b"\0") if name]
    if MECHANISM.encode() not in names:
        raise AuthenticationFailed("The target offers no SASL mechanism we speak.")
    return MECHANISM


def md5_password(user: str, password: str, salt: bytes) -> str:
    """Answer to AuthenticationMD5Password; `salt` is the message's four bytes."""
    if len(salt) != 4:
        raise AuthenticationFailed(f"An md5 salt has 4 bytes, not {len(salt)}.")
    inner = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest()
    outer = hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest()
    return "md5" + outer


_PROHIBITED = (
    stringprep.in_table_a1,
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(password: str) -> bytes:
    """The password as SCRAM hashes it: RFC 4013, or as it is where RFC 4013 refuses it."""
    mapped = "".join(
        " " if stringprep.in_table_c12(char) else char
        for char in password
        if not stringprep.in_table_b1(char)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    if not prepared or _prohibited(prepared):
        return password.encode()
    return prepared.encode()


def _prohibited(text: str) -> bool:
    if any(check(char) for char in text for check in _PROHIBITED):
        return True
    if not any(stringprep.in_table_d1(char) for char in text):
        return False
    edges = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return not edges or any(stringprep.in_table_d2(char) for char in text)
