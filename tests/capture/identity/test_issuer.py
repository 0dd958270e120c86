import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sealtape.capture.identity import DevelopmentIssuer
from sealtape.schemas.errors import FormatError


def pem_of(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def test_the_key_survives_its_file():
    issuer = DevelopmentIssuer.generate()
    again = DevelopmentIssuer.from_pem(issuer.to_pem())
    assert again.jwks() == issuer.jwks()


def test_the_key_set_holds_no_private_part():
    (key,) = DevelopmentIssuer.generate().jwks()["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "use", "alg", "kid"}


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "nonsense",
        pem_of(ed25519.Ed25519PrivateKey.generate()),
        pem_of(ec.generate_private_key(ec.SECP384R1())),
    ],
)
def test_another_kind_of_key_is_refused_without_showing_it(pem):
    with pytest.raises(FormatError) as caught:
        DevelopmentIssuer.from_pem(pem)
    assert "BEGIN" not in str(caught.value)
