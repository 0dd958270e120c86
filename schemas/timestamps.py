"""Time-stamps of RFC 3161: what an authority states, and whether to believe it.

An authority signs that it has seen a SHA-256 at a time. What it answers is read here, strictly and
once; the signature and the chain of certificates are then checked by `rfc3161-client`, which is
loaded only when something is to be verified.

Bits of a token that no signature covers may change and leave it valid: SHA-256 of the answer's
bytes names the bytes, never the statement.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import new
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from sealtape.schemas import der
from sealtape.schemas.der import Der
from sealtape.schemas.errors import FormatError, SettingsError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_TOKEN: Final = 1 << 16
MAX_PEM: Final = 1 << 18
MAX_CERTIFICATES: Final = 32
MAX_NONCE: Final = 2**159 - 1

_SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
_TST_INFO: Final = "1.2.840.113549.1.9.16.1.4"
_CONTENT_TYPE: Final = "1.2.840.113549.1.9.3"
_SIGNING_CERTIFICATE: Final = "1.2.840.113549.1.9.16.2.12"
_SIGNING_CERTIFICATE_V2: Final = "1.2.840.113549.1.9.16.2.47"
_SHA256: Final = "2.16.840.1.101.3.4.2.1"
_DIGESTS: Final = {
    _SHA256: "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_SHA256_ID: Final = bytes.fromhex("300d06096086480165030402010500")  # as an AlgorithmIdentifier
_SIGNATURES: Final = {  # and the digest that each takes; None: any
    "1.2.840.113549.1.1.1": None,  # rsaEncryption
    "1.2.840.113549.1.1.11": "sha256",  # RSA, PKCS#1 v1.5
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
    "1.2.840.10045.4.3.2": "sha256",  # ECDSA
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
}
_STATUS: Final = ("granted", "granted with modifications", "rejected", "waiting",
                  "revocation warning", "revoked")  # fmt: skip
_UTF8: Final = 0x0C
# What reading a hostile certificate raises; TypeError for a name of an odd string type.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_TIME: Final = re.compile(rb"([0-9]{14})(?:\.([0-9]{0,8}[1-9]))?Z")
_END_NS: Final = 253_402_300_799 * 10**9
"""The last second of the year 9999: GeneralizedTime has four digits for a year, and so have we."""
_PEM: Final = re.compile(
    rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", re.ASCII
)


@dataclass(frozen=True, slots=True)
class TimestampInfo:
    """What an authority states of a digest.

    Attributes:
        time_ns: when it had it, in nanoseconds since 1970, UTC.
        accuracy_ns: how far off the time may be, as it states; 0 when it states nothing.
        authority: the subject of the certificate that signed (RFC 4514).
        serial: the number that it gave to this time-stamp.
        policy: the policy under which it was given, an object identifier.
    """

    time_ns: int
    accuracy_ns: int
    authority: str
    serial: int
    policy: str

    @property
    def latest_ns(self) -> int:
        """When the authority had the digest at the latest: the time and how far off it may be."""
        return self.time_ns + self.accuracy_ns


@dataclass(frozen=True, slots=True)
class Timestamp:
    """An answer, taken apart without any trust.

    Attributes:
        info: what it states.
        digest: the SHA-256 of what was stamped.
        nonce: the request's own, where it had one.
        certificates: those inside, in DER: the signer's first, the others in order of their bytes.
        sorted_bytes: the answer with its certificates in the order that DER demands. Some
            authorities write them in another; they are not signed.
    """

    info: TimestampInfo
    digest: bytes
    nonce: int | None
    certificates: tuple[bytes, ...]
    sorted_bytes: bytes

    def chain_pem(self) -> bytes:
        """The certificates inside as PEM, for who checks with other tools."""
        return b"".join(_load(item).public_bytes(Encoding.PEM) for item in self.certificates)


def make_request(digest: bytes, nonce: int) -> bytes:
    """A request to stamp a SHA-256, and to send the certificates along."""
    if len(digest) != 32:
        raise FormatError(f"a time-stamp is asked for a digest of 32 bytes, not {len(digest)}")
    if not 0 <= nonce <= MAX_NONCE:
        raise FormatError("a time-stamp's nonce has at most 159 bits")
    imprint = der.element(der.SEQUENCE, _SHA256_ID, der.element(der.OCTET_STRING, digest))
    wanted = der.element(der.BOOLEAN, b"\xff")
    return der.element(der.SEQUENCE, der.integer(1), imprint, der.integer(nonce), wanted)


def read_timestamp(tsr: bytes) -> Timestamp:
    """Take an answer apart; FormatError when it is malformed, or not granted (with `status`).

    It looks at all that makes the answer the time-stamp of its signer, but for the signature:
    nothing in it is to be trusted yet.
    """
    if len(tsr) > MAX_TOKEN:
        raise FormatError(f"a time-stamp has at most {MAX_TOKEN} bytes, not {len(tsr)}")
    outer = Der(tsr, "time-stamp")
    answer = outer.inside(der.SEQUENCE)
    outer.end()
    _granted(answer.inside(der.SEQUENCE))
    token = answer.inside(der.SEQUENCE)
    answer.end()
    _expect(token.oid(), _SIGNED_DATA, "content type")
    wrapped = token.inside(der.CONTEXT | der.CONSTRUCTED)
    token.end()
    signed = wrapped.inside(der.SEQUENCE)
    wrapped.end()
    _expect(signed.integer(), 3, "CMS version")
    digests = signed.inside(der.SET)
    content = signed.inside(der.SEQUENCE)
    certificates = signed.optional(der.CONTEXT | der.CONSTRUCTED)
    if certificates is None:
        raise FormatError("the time-stamp does not have its signer's certificate")
    signers = signed.inside(der.SET)
    signed.end()
    items = _certificates(certificates)
    signer = _signer(signers, _digest(digests), items)
    signers.end()
    digests.end()
    begin, end = certificates.start, certificates.stop
    return _stated(content, signer, items, tsr[:begin] + b"".join(sorted(items)) + tsr[end:])


def verify_timestamp(
    tsr: bytes, digest: bytes, roots_pem: bytes, chain_pem: bytes = b""
) -> TimestampInfo:
    """What an authority that `roots_pem` vouches for states of `digest`, a SHA-256.

    `chain_pem` are certificates between, for answers without them; they are not trusted. The
    certificates must have been valid at the stated time; whether one was revoked is not asked.
    Raises `SignatureError` when the signature or the chain does not verify, `FormatError` for
    whatever else is wrong, and `SettingsError` where `rfc3161-client` is not installed.
    """
    found = read_timestamp(tsr)
    if found.digest != digest:
        raise FormatError("the time-stamp is of something else: its digest differs")
    roots = read_certificates(roots_pem, "roots of a time-stamp authority")
    if not roots:
        raise FormatError("there are no roots to check a time-stamp with")
    # A root among what is not trusted would be taken for one that is.
    chain = read_certificates(chain_pem, "chain of a time-stamp")
    between = [one for one in chain if one.subject != one.issuer]
    _check_signature(found, roots, [one for one in between if one not in roots])
    return found.info


def check_verifiable() -> None:
    """Raise `SettingsError` where `rfc3161-client` is not installed: nothing can be verified."""
    try:
        import rfc3161_client  # noqa: F401 - loading it is the question
    except ImportError as exc:
        raise SettingsError(
            "Time-stamps cannot be verified: rfc3161-client is not installed.",
            hint="Install sealtape[evidence].",
        ) from exc


def _check_signature(
    found: Timestamp, roots: Iterable[x509.Certificate], between: Iterable[x509.Certificate]
) -> None:
    check_verifiable()
    import rfc3161_client

    verifier = rfc3161_client.VerifierBuilder(
        roots=list(dict.fromkeys(roots)), intermediates=list(dict.fromkeys(between))
    ).build()
    try:
        response = rfc3161_client.decode_timestamp_response(found.sorted_bytes)
    except ValueError as exc:
        raise FormatError(f"the time-stamp is malformed: {exc}") from exc
    try:
        verifier.verify(response, found.digest)
    except (rfc3161_client.VerificationError, ValueError) as exc:
        raise SignatureError(f"the time-stamp by {found.info.authority} does not verify") from exc


# -- the parts of an answer ------------------------------------------------------------------------


def _granted(status: Der) -> None:
    number = status.integer()
    if number != 0:
        what = _STATUS[number] if 0 < number < len(_STATUS) else f"status {number}"
        raise FormatError(f"the time-stamp is not granted but {what}", status=number)
    if (texts := status.optional(der.SEQUENCE)) is not None:
        while texts.tag != -1:
            texts.value(_UTF8)
    status.end()


def _digest(algorithms: Der) -> str:
    """The name of the digest algorithm that comes next."""
    algorithm = algorithms.inside(der.SEQUENCE)
    name = _DIGESTS.get(algorithm.oid())
    if name is None:
        raise FormatError("the time-stamp uses a digest that is not SHA-256, -384 or -512")
    if (nothing := algorithm.optional(der.NULL)) is not None:
        nothing.end()
    algorithm.end()
    return name


def _certificates(inside: Der) -> list[bytes]:
    items: list[bytes] = []
    while inside.tag != -1:
        items.append(inside.whole(der.SEQUENCE))
        if len(items) > MAX_CERTIFICATES:
            raise FormatError(f"the time-stamp has more than {MAX_CERTIFICATES} certificates")
    return items


def _signer(signers: Der, digest: str, certificates: list[bytes]) -> bytes:
    """The certificate of the one signer, which its signed attributes must name."""
    signer = signers.inside(der.SEQUENCE)
    _expect(signer.integer(), 1, "signer's version")
    identity = signer.inside(der.SEQUENCE)
    issuer, serial = identity.whole(der.SEQUENCE), identity.integer()
    identity.end()
    _expect(_digest(signer), digest, "signer's digest")
    attributes = signer.inside(der.CONTEXT | der.CONSTRUCTED)
    algorithm = signer.inside(der.SEQUENCE)
    oid = algorithm.oid()
    if _SIGNATURES.get(oid, "none") not in (None, digest):
        raise FormatError(f"the time-stamp is signed in a way that is not known here: {oid}")
    if (nothing := algorithm.optional(der.NULL)) is not None:
        nothing.end()
    algorithm.end()
    signer.value(der.OCTET_STRING)
    signer.end()
    for item in certificates:
        certificate = _load(item)
        if certificate.issuer.public_bytes() == issuer and certificate.serial_number == serial:
            _check_usage(certificate)
            _check_attributes(attributes, item)
            return item
    raise FormatError("the time-stamp does not have its signer's certificate")


def _check_usage(certificate: x509.Certificate) -> None:
    """The certificate must be for time-stamping, for nothing else, and say so critically."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound as exc:
        raise FormatError("the time-stamp's signer is not an authority for time-stamps") from exc
    if not usage.critical or list(usage.value) != [ExtendedKeyUsageOID.TIME_STAMPING]:
        raise FormatError("the time-stamp's signer is not only an authority for time-stamps")


def _check_attributes(attributes: Der, certificate: bytes) -> None:
    values: dict[str, Der] = {}
    while attributes.tag != -1:
        attribute = attributes.inside(der.SEQUENCE)
        name = attribute.oid()
        if name in values:
            raise FormatError(f"the time-stamp has the signed attribute {name} twice")
        values[name] = attribute.inside(der.SET)
        attribute.end()
    if _CONTENT_TYPE not in values:
        raise FormatError("the time-stamp's signature does not cover what kind of content it is")
    _expect(values[_CONTENT_TYPE].oid(), _TST_INFO, "signed content type")
    named = [
        _names(values[kind], certificate, version)
        for kind, version in ((_SIGNING_CERTIFICATE, 1), (_SIGNING_CERTIFICATE_V2, 2))
        if kind in values
    ]
    if not named or not all(named):
        raise FormatError("the time-stamp's signature does not name its signer's certificate")


def _names(value: Der, certificate: bytes, version: int) -> bool:
    """Whether a SigningCertificate or SigningCertificateV2 begins with this certificate."""
    first = value.inside(der.SEQUENCE).inside(der.SEQUENCE).inside(der.SEQUENCE)
    name = "sha1"  # all that version 1 has; nobody can make a second certificate with its hash
    if version == 2:
        name = _digest(first) if first.tag == der.SEQUENCE else "sha256"
    return first.value(der.OCTET_STRING) == new(name, certificate, usedforsecurity=False).digest()


def _stated(
    content: Der, signer: bytes, certificates: list[bytes], sorted_bytes: bytes
) -> Timestamp:
    """The TSTInfo: what the signature covers."""
    _expect(content.oid(), _TST_INFO, "content type")
    wrapped = content.inside(der.CONTEXT | der.CONSTRUCTED)
    content.end()
    outer = Der(wrapped.value(der.OCTET_STRING), "time-stamp's statement")
    wrapped.end()
    info = outer.inside(der.SEQUENCE)
    outer.end()
    _expect(info.integer(), 1, "version")
    policy = info.oid()
    digest = _imprint(info.inside(der.SEQUENCE))
    serial = info.integer()
    time_ns = _time_ns(info.value(der.GENERALIZED_TIME))
    accuracy = info.optional(der.SEQUENCE)
    accuracy_ns = 0 if accuracy is None else _accuracy_ns(accuracy)
    if info.tag == der.BOOLEAN and not info.boolean():  # ordering: says nothing of one stamp
        raise FormatError("the time-stamp states what DER leaves out: ordering, false")
    nonce = info.integer() if info.tag == der.INTEGER else None
    info.optional(der.CONTEXT | der.CONSTRUCTED)  # its name, which the certificate has
    if (extensions := info.optional(der.CONTEXT | der.CONSTRUCTED | 1)) is not None:
        _refuse_critical(extensions)
    info.end()
    authority = _load(signer).subject.rfc4514_string()
    others = sorted(item for item in certificates if item != signer)
    stated = TimestampInfo(time_ns, accuracy_ns, authority, serial, policy)
    if stated.latest_ns > _END_NS:
        raise FormatError("the time-stamp's accuracy leads beyond the year 9999")
    return Timestamp(stated, digest, nonce, (signer, *others), sorted_bytes)


def _imprint(imprint: Der) -> bytes:
    _expect(_digest(imprint), "sha256", "digest of what is stamped")
    digest = imprint.value(der.OCTET_STRING)
    imprint.end()
    if len(digest) != 32:
        raise FormatError(f"the time-stamp's digest has {len(digest)} bytes, not 32")
    return digest


def _time_ns(text: bytes) -> int:
    match = _TIME.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        moment = datetime.strptime(match[1].decode(), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError as exc:
        raise FormatError("the time-stamp's time is not one") from exc
    days = moment - datetime(1970, 1, 1, tzinfo=UTC)
    fraction = int((match[2] or b"").ljust(9, b"0"))
    return (days.days * 86_400 + days.seconds) * 10**9 + fraction


def _accuracy_ns(accuracy: Der) -> int:
    seconds = accuracy.integer() if accuracy.tag == der.INTEGER else 0
    parts = [accuracy.integer(tag) if accuracy.tag == tag else 0
             for tag in (der.CONTEXT, der.CONTEXT | 1)]  # fmt: skip
    accuracy.end()
    if not 0 <= seconds < 2**32 or not all(0 <= part <= 999 for part in parts):
        raise FormatError("the time-stamp's accuracy is not one")
    return seconds * 10**9 + parts[0] * 10**6 + parts[1] * 10**3


def _refuse_critical(extensions: Der) -> None:
    while extensions.tag != -1:
        extension = extensions.inside(der.SEQUENCE)
        name = extension.oid()
        if extension.tag == der.BOOLEAN and extension.boolean():
            raise FormatError(f"the time-stamp has an extension that must be known: {name}")
        extension.value(der.OCTET_STRING)
        extension.end()


def _expect(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise FormatError(f"the time-stamp's {what} is {found}, not {wanted}")


# -- certificates ----------------------------------------------------------------------------------


def _load(item: bytes) -> x509.Certificate:
    try:
        return _whole(x509.load_der_x509_certificate(item))
    except _UNREADABLE as exc:
        raise FormatError("the time-stamp has a certificate that cannot be read") from exc


def _whole(certificate: x509.Certificate) -> x509.Certificate:
    """The same, after a look at the parts that are otherwise read, and refused, only when asked."""
    _ = certificate.subject, certificate.issuer, certificate.extensions
    return certificate


def read_certificates(text: bytes, what: str) -> list[x509.Certificate]:
    """All certificates of a PEM file, whatever else is written around them.

    FormatError, in which `what` names the file, when one cannot be read or the file is too long.
    """
    if len(text) > MAX_PEM:
        raise FormatError(f"{what}: a file of at most {MAX_PEM} bytes is read")
    try:
        return [_whole(x509.load_pem_x509_certificate(item)) for item in _PEM.findall(text)]
    except _UNREADABLE as exc:
        raise FormatError(f"{what}: a certificate cannot be read") from exc
