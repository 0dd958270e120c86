import hashlib
import hmac
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealtape.capture.postgres.codec import scram
from sealtape.capture.postgres.codec.scram import AuthenticationFailed, ScramClient

NONCE = bytes(range(24))
SALT = b"0123456789abcdef"


class Server:
    """The server's half, as RFC 5802 writes it."""

    def __init__(self, password, iterations=4096):
        self.salted = hashlib.pbkdf2_hmac("sha256", password.encode(), SALT, iterations)
        self.iterations = iterations

    def first(self, client_first):
        self.bare = client_first.removeprefix(b"n,,")
        self.nonce = self.bare.partition(b"r=")[2] + b"server"
        salt = b64encode(SALT)
        self.sent = b"r=%s,s=%s,i=%d" % (self.nonce, salt, self.iterations)
        return self.sent

    def final(self, client_final):
        without, _, proof = client_final.rpartition(b",p=")
        assert without == b"c=biws,r=" + self.nonce
        signed = b",".join((self.bare, self.sent, without))
        key = hmac.digest(self.salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
        assert proof == b64encode(bytes(a ^ b for a, b in zip(key, signature, strict=True)))
        server_key = hmac.digest(self.salted, b"Server Key", "sha256")
        return b"v=" + b64encode(hmac.digest(server_key, signed, "sha256"))


def test_both_sides_prove_themselves():
    server, client = Server("pencil"), ScramClient("pencil", NONCE)
    final = server.final(client.final(server.first(client.first())))
    client.verify(final)
    client.verify(final + b",x=extension")


def test_the_vector_of_rfc_7677():
    client = ScramClient("pencil", NONCE)
    client._nonce = b"rOprNGfwEbeRWgbNEkqO"
    client._bare = b"n=user,r=" + client._nonce
    server_first = (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    assert client.final(server_first) == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    client.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


def test_an_impostor_is_found_out():
    server, client = Server("other"), ScramClient("pencil", NONCE)
    client.final(server.first(client.first()))
    with pytest.raises(AuthenticationFailed, match="does not know"):
        client.verify(b"v=" + b64encode(bytes(32)))


@pytest.mark.parametrize("final", [b"", b"e=invalid-proof", b"v=?", b"v=" + b"A" * 5000, b"x"])
def test_finals_that_prove_nothing(final):
    server, client = Server("pencil"), ScramClient("pencil", NONCE)
    client.final(server.first(client.first()))
    with pytest.raises(AuthenticationFailed):
        client.verify(final)


def test_a_final_before_its_turn():
    with pytest.raises(AuthenticationFailed, match="out of turn"):
        ScramClient("pencil", NONCE).verify(b"v=")


def nonce():
    return b64encode(NONCE)


@pytest.mark.parametrize(
    "server_first",
    [
        b"",
        b"r=x",
        b"m=ext,r=%(n)s1,s=QQ==,i=4096",
        b"r=other,s=QQ==,i=4096",
        b"r=%(n)s,s=QQ==,i=4096",
        b"r=%(n)s1,s=QQ==,i=x",
        b"r=%(n)s1,s=QQ==,i=-5",
        b"r=%(n)s1,s=QQ==,i=4095",
        b"r=%(n)s1,s=QQ==,i=1000001",
        b"r=%(n)s1,s=QQ==,i=9999999999",
        b"r=%(n)s1,s=Q,i=4096",
        b"r=%(n)s1,s=Q Q=,i=4096",
        b"r=%(n)s1,s=,i=4096",
        b"r=%(n)s1,s=QQ==,i=4096," + b"x" * 5000,
    ],
)
def test_first_messages_that_are_refused(server_first):
    with pytest.raises(AuthenticationFailed):
        ScramClient("p", NONCE).final(server_first.replace(b"%(n)s", nonce()))


@given(st.binary(max_size=80))
def test_garbage_raises_nothing_else(data):
    client = ScramClient("p", NONCE)
    for call in (client.final, client.verify):
        with pytest.raises(AuthenticationFailed):
            call(data)


def test_short_nonces_are_refused_and_secrets_not_shown():
    with pytest.raises(AuthenticationFailed):
        ScramClient("p", b"short")
    assert "pencil" not in repr(ScramClient("pencil", NONCE))


def test_mechanisms():
    assert scram.mechanism(b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0") == "SCRAM-SHA-256"
    with pytest.raises(AuthenticationFailed):
        scram.mechanism(b"SCRAM-SHA-256-PLUS\0\0")


def test_md5():
    inner = hashlib.md5(b"pwu").hexdigest()
    expected = "md5" + hashlib.md5(inner.encode() + b"salt").hexdigest()
    assert scram.md5_password("u", "pw", b"salt") == expected
    with pytest.raises(AuthenticationFailed):
        scram.md5_password("u", "pw", b"sal")


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("a\u0007b", "a\u0007b"),
        ("\u0627\u0031", "\u0627\u0031"),
        ("\u0627\u0031\u0628", "\u0627\u0031\u0628"),
        ("\u0627a\u0628", "\u0627a\u0628"),
        ("\u00ad", "\u00ad"),
        ("", ""),
    ],
)
def test_saslprep(password, prepared):
    assert scram.saslprep(password) == prepared.encode()
