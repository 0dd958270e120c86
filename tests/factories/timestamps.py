"""A time-stamp authority whose every field a test can set. Keys, and so bytes, are always the same.

It writes DER by itself: what reads it is what is tested.
"""

import datetime as dt
import hashlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SHA1 = "1.3.14.3.2.26"
SHA256 = "2.16.840.1.101.3.4.2.1"
SHA384 = "2.16.840.1.101.3.4.2.2"
ECDSA_SHA256 = "1.2.840.10045.4.3.2"
TST_INFO = "1.2.840.113549.1.9.16.1.4"
ATTRIBUTES = {
    "content_type": "1.2.840.113549.1.9.3",
    "message_digest": "1.2.840.113549.1.9.4",
    "certificate_v1": "1.2.840.113549.1.9.16.2.12",
    "certificate_v2": "1.2.840.113549.1.9.16.2.47",
}
BEGIN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
END = dt.datetime(2096, 1, 1, tzinfo=dt.UTC)
TIME = "20261123000000Z"
STAMPING = [ExtendedKeyUsageOID.TIME_STAMPING]


# -- DER -------------------------------------------------------------------------------------------


def element(tag, *contents):
    content = b"".join(contents)
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    size = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 128 + len(size)]) + size + content


def sequence(*contents):
    return element(0x30, *contents)


def set_of(*contents, tag=0x31):
    return element(tag, *sorted(contents))


def integer(number, tag=0x02):
    size = (number if number >= 0 else -number - 1).bit_length() // 8 + 1
    return element(tag, number.to_bytes(size, "big", signed=True))


def octets(data):
    return element(0x04, data)


def oid(dotted):
    first, second, *rest = map(int, dotted.split("."))
    out = b""
    for number in (40 * first + second, *rest):
        digits = [number & 127]
        while number := number >> 7:
            digits.insert(0, 128 | number & 127)
        out += bytes(digits)
    return element(0x06, out)


def algorithm(dotted, *parameters):
    return sequence(oid(dotted), *parameters)


NULL = element(0x05)


# -- certificates ----------------------------------------------------------------------------------


class Party:
    """A key with its certificate; the issuer is another party, or itself."""

    def __init__(
        self, name, number, issuer=None, *, begin=BEGIN, end=END, ca=False,
        usage=STAMPING, critical=True, serial=None,
    ):  # fmt: skip
        self.key = ec.derive_private_key(number, ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.issuer = issuer or self
        self.serial = serial or 1000 + number
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(self.issuer.name)
            .public_key(self.key.public_key())
            .serial_number(self.serial)
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if not ca and usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=critical)
        self.certificate = builder.sign(self.issuer.key, hashes.SHA256(), ecdsa_deterministic=True)
        self.der = self.certificate.public_bytes(Encoding.DER)
        self.pem = self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self):
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def authority(number=1, **options):
    """A root and an authority under it."""
    root = Party(f"Root {number}", 10 * number, ca=True)
    return Party(f"Authority {number}", 10 * number + 1, root, **options)


# -- answers ---------------------------------------------------------------------------------------


def refused(status=2, *more):
    """An answer without a token."""
    return sequence(sequence(integer(status), *more))


def imprint(digest, digest_oid=SHA256):
    return sequence(algorithm(digest_oid, NULL), octets(digest))


def statement(digest, **given):
    """The TSTInfo; each part is DER, and b"" leaves it out."""
    parts = {
        "version": integer(1),
        "policy": oid("1.3.6.1.4.1.32473.1"),
        "imprint": imprint(digest),
        "serial": integer(77),
        "time": element(0x18, TIME.encode()),
        "accuracy": sequence(integer(1)),
        "ordering": b"",
        "nonce": b"",
        "tsa": b"",
        "extensions": b"",
    }
    assert set(given) <= set(parts)
    return sequence(*(parts | given).values())


def named(hashed, *before):
    """A SigningCertificate, or one of version 2 with its hash algorithm `before`."""
    return sequence(sequence(sequence(*before, octets(hashed))))


def attribute(kind, value):
    return sequence(oid(ATTRIBUTES[kind]), set_of(value))


def attributes(info, certificate, **given):
    """The signed attributes, by their kind; None leaves one out."""
    parts = {
        "content_type": oid(TST_INFO),
        "message_digest": octets(hashlib.sha256(info).digest()),
        "certificate_v1": None,
        "certificate_v2": sequence(
            sequence(sequence(octets(hashlib.sha256(certificate).digest())))
        ),
    }
    assert set(given) <= set(parts)
    return [attribute(kind, value) for kind, value in (parts | given).items() if value is not None]


def answer(signer, digest, *, info=None, signed=None, inside=None, **given):
    """A TimeStampResp by a `Party`.

    `info` is the TSTInfo, `signed` the list of signed attributes, `inside` the certificates in this
    order; other names are parts of the CMS structure.
    """
    info = statement(digest) if info is None else info
    signed = attributes(info, signer.der) if signed is None else signed
    covered = set_of(*signed)
    signature = signer.key.sign(covered, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    parts = {
        "status": sequence(integer(0)),
        "content_type": oid("1.2.840.113549.1.7.2"),
        "cms_version": integer(3),
        "digests": set_of(algorithm(SHA256, NULL)),
        "info_type": oid(TST_INFO),
        "certificates": element(0xA0, *(inside or [signer.der])),
        "crls": b"",
        "signer_version": integer(1),
        "identity": sequence(signer.issuer.name.public_bytes(), integer(signer.serial)),
        "signer_digest": algorithm(SHA256, NULL),
        "attributes": set_of(*signed, tag=0xA0),
        "signature_algorithm": algorithm(ECDSA_SHA256),
        "signature": octets(signature),
        "unsigned": b"",
        "more_signers": b"",
    }
    assert set(given) <= set(parts)
    p = parts | given
    signer_info = sequence(
        p["signer_version"], p["identity"], p["signer_digest"], p["attributes"],
        p["signature_algorithm"], p["signature"], p["unsigned"],
    )  # fmt: skip
    content = sequence(p["info_type"], element(0xA0, octets(info)))
    signers = element(0x31, signer_info, p["more_signers"])
    signed_data = sequence(
        p["cms_version"], p["digests"], content, p["certificates"], p["crls"], signers
    )
    return sequence(p["status"], sequence(p["content_type"], element(0xA0, signed_data)))
