"""Time-stamps made field by field; those by OpenSSL and sigstore's server are elsewhere."""

import hashlib
import json
import sys
import warnings

import pytest
from cryptography.hazmat.primitives.asymmetric import utils
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from sealtape.schemas import der
from sealtape.schemas.errors import FormatError, SettingsError, SignatureError
from sealtape.schemas.timestamps import (
    MAX_CERTIFICATES,
    MAX_NONCE,
    MAX_PEM,
    MAX_TOKEN,
    TimestampInfo,
    make_request,
    read_timestamp,
    verify_timestamp,
)
from tests.factories import timestamps as tsa
from tests.factories.timestamps import (
    NULL,
    SHA1,
    SHA384,
    Party,
    algorithm,
    answer,
    attribute,
    attributes,
    element,
    integer,
    named,
    octets,
    oid,
    sequence,
    set_of,
    statement,
)
from tests.vectors.generate_b import FOLDER

DIGEST = hashlib.sha256(b"note").digest()
ROOT = Party("Root 1", 10, ca=True)
SIGNER = Party("Authority 1", 11, ROOT)
STRANGER = Party("Root 9", 90, ca=True)
TIME_NS = 1_795_392_000 * 10**9
BETWEEN = Party("Between", 12, ROOT, ca=True)
DEEP = Party("Authority 2", 13, BETWEEN)


def stamped(**given):
    """An answer with other fields in what is signed."""
    return answer(SIGNER, DIGEST, info=statement(DIGEST, **given))


def signed_over(**given):
    """An answer with other signed attributes."""
    info = statement(DIGEST)
    return answer(SIGNER, DIGEST, info=info, signed=attributes(info, SIGNER.der, **given))


# -- what is believed ------------------------------------------------------------------------------


def test_what_an_authority_states():
    tsr = stamped(nonce=integer(2**100))
    assert verify_timestamp(tsr, DIGEST, ROOT.pem) == TimestampInfo(
        TIME_NS, 10**9, "CN=Authority 1", 77, "1.3.6.1.4.1.32473.1"
    )
    found = read_timestamp(tsr)
    assert (found.digest, found.nonce) == (DIGEST, 2**100)
    assert found.certificates == (SIGNER.der,)
    assert found.chain_pem() == SIGNER.pem


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"accuracy": b""}, {"accuracy_ns": 0}),
        (
            {"accuracy": sequence(integer(2), integer(999, 0x80), integer(7, 0x81))},
            {"accuracy_ns": 2_999_007_000},
        ),
        ({"accuracy": sequence(integer(7, 0x81))}, {"accuracy_ns": 7000}),
        ({"time": element(0x18, b"20261123000000.5Z")}, {"time_ns": TIME_NS + 5 * 10**8}),
        ({"accuracy": sequence(integer(2))}, {"latest_ns": TIME_NS + 2 * 10**9}),
        ({"time": element(0x18, b"20261123000000.000000001Z")}, {"time_ns": TIME_NS + 1}),
        ({"ordering": element(0x01, b"\xff")}, {}),
        ({"tsa": element(0xA0, element(0xA4, sequence()))}, {}),
        ({"extensions": element(0xA1, sequence(oid("1.2.3"), octets(b"")))}, {}),
        ({"serial": integer(2**159)}, {"serial": 2**159}),
    ],
)
def test_fields_of_each_kind(given, expected):
    info = read_timestamp(stamped(**given)).info
    for name, value in expected.items():
        assert getattr(info, name) == value


def test_certificates_between_come_inside_or_beside():
    inside = answer(DEEP, DIGEST, inside=[BETWEEN.der, DEEP.der])
    assert verify_timestamp(inside, DIGEST, ROOT.pem).authority == "CN=Authority 2"
    beside = answer(DEEP, DIGEST)
    with pytest.raises(SignatureError, match="Authority 2"):
        verify_timestamp(beside, DIGEST, ROOT.pem)
    chain = b"a word before\n" + BETWEEN.pem + ROOT.pem
    assert verify_timestamp(beside, DIGEST, STRANGER.pem + ROOT.pem, chain)


def test_certificates_in_any_order():
    # OpenSSL with `certs =` writes them as they come; a strict reader of DER refuses that.
    items = [DEEP.der, BETWEEN.der, ROOT.der]
    for order in (items, items[::-1], sorted(items), sorted(items)[::-1]):
        tsr = answer(DEEP, DIGEST, inside=order)
        found = read_timestamp(tsr)
        assert found.certificates[0] == DEEP.der
        assert found.chain_pem().startswith(DEEP.pem)
        assert len(found.sorted_bytes) == len(tsr)
        assert verify_timestamp(tsr, DIGEST, ROOT.pem)


def test_texts_of_the_status_say_nothing():
    status = sequence(integer(0), sequence(element(0x0C, b"fine"), element(0x0C, b"very")))
    assert verify_timestamp(answer(SIGNER, DIGEST, status=status), DIGEST, ROOT.pem)


@pytest.mark.parametrize(
    "given",
    [
        {"certificate_v1": named(hashlib.sha1(SIGNER.der).digest())},
        {"certificate_v1": named(hashlib.sha1(SIGNER.der).digest()), "certificate_v2": None},
        {"certificate_v2": named(hashlib.sha384(SIGNER.der).digest(), algorithm(SHA384))},
    ],
)
def test_ways_to_name_the_signer(given):
    assert verify_timestamp(signed_over(**given), DIGEST, ROOT.pem)


def test_a_certificate_need_only_be_valid_at_the_stated_time():
    brief = {"begin": tsa.BEGIN, "end": tsa.BEGIN.replace(month=12)}
    past = Party("Past", 14, ROOT, **brief)
    assert verify_timestamp(answer(past, DIGEST), DIGEST, ROOT.pem)
    after = element(0x18, b"20261201000001Z")
    tsr = answer(past, DIGEST, info=statement(DIGEST, time=after))
    with pytest.raises(SignatureError):
        verify_timestamp(tsr, DIGEST, ROOT.pem)


# -- what is not -----------------------------------------------------------------------------------


def test_another_digest():
    with pytest.raises(FormatError, match="its digest differs"):
        verify_timestamp(stamped(), hashlib.sha256(b"other").digest(), ROOT.pem)


def test_foreign_roots_and_none():
    with pytest.raises(SignatureError, match="Authority 1"):
        verify_timestamp(stamped(), DIGEST, STRANGER.pem)
    with pytest.raises(FormatError, match="no roots"):
        verify_timestamp(stamped(), DIGEST, b"")


def test_a_root_among_what_is_not_trusted_is_not_trusted():
    # rfc3161-client alone puts both into one store, and believes this.
    with pytest.raises(SignatureError):
        verify_timestamp(stamped(), DIGEST, STRANGER.pem, ROOT.pem)
    inside = answer(SIGNER, DIGEST, inside=[SIGNER.der, ROOT.der])
    with pytest.raises(SignatureError):
        verify_timestamp(inside, DIGEST, STRANGER.pem)
    with pytest.raises(SignatureError):
        verify_timestamp(answer(DEEP, DIGEST), DIGEST, BETWEEN.pem)  # not a root


def test_a_signature_by_another_key():
    other = Party("Authority 1", 15, ROOT, serial=SIGNER.serial)
    tsr = answer(other, DIGEST, inside=[SIGNER.der])
    with pytest.raises(FormatError, match="name its signer's certificate"):
        verify_timestamp(tsr, DIGEST, ROOT.pem)
    info = statement(DIGEST)
    tsr = answer(other, DIGEST, signed=attributes(info, SIGNER.der), inside=[SIGNER.der])
    with pytest.raises(SignatureError):
        verify_timestamp(tsr, DIGEST, ROOT.pem)


def test_the_signed_digest_is_of_another_statement():
    tsr = signed_over(message_digest=octets(hashlib.sha256(b"other").digest()))
    with pytest.raises(SignatureError):
        verify_timestamp(tsr, DIGEST, ROOT.pem)


def test_what_only_the_library_refuses():
    unsorted = sorted(attributes(statement(DIGEST), SIGNER.der))[::-1]
    tsr = answer(SIGNER, DIGEST, attributes=element(0xA0, *unsorted))
    assert read_timestamp(tsr)
    with pytest.raises(FormatError, match="malformed"):
        verify_timestamp(tsr, DIGEST, ROOT.pem)
    tsr = answer(SIGNER, DIGEST, info=statement(DIGEST, nonce=integer(-1)))
    assert read_timestamp(tsr).nonce == -1
    with pytest.raises(SignatureError):
        verify_timestamp(tsr, DIGEST, ROOT.pem)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (1, "with modifications"),
        (2, "rejected"),
        (3, "waiting"),
        (6, "status 6"),
        (-1, "status -1"),
    ],
)
def test_what_was_not_granted(status, word):
    with pytest.raises(FormatError, match=word):
        read_timestamp(tsa.refused(status))
    with pytest.raises(FormatError, match=word):
        read_timestamp(answer(SIGNER, DIGEST, status=sequence(integer(status))))


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"version": integer(2)}, "version is 2"),
        ({"imprint": tsa.imprint(DIGEST[:20], SHA1)}, "not SHA-256"),
        ({"imprint": tsa.imprint(DIGEST + DIGEST[:16], SHA384)}, "is sha384"),
        ({"imprint": tsa.imprint(DIGEST[:31])}, "31 bytes"),
        ({"imprint": sequence(algorithm(tsa.SHA256, NULL), octets(DIGEST), NULL)}, "too many"),
        ({"time": element(0x18, b"20261123000000")}, "time is not one"),
        ({"time": element(0x18, b"20261123000000.Z")}, "time is not one"),
        ({"time": element(0x18, b"20261123000000.10Z")}, "time is not one"),
        ({"time": element(0x18, b"20261123000000+0100")}, "time is not one"),
        ({"time": element(0x18, b"20261323000000Z")}, "time is not one"),
        ({"time": element(0x18, b"20261123000060Z")}, "time is not one"),
        ({"time": element(0x18, b"99991231235959.1Z")}, "beyond the year"),
        ({"accuracy": sequence(integer(-1))}, "accuracy"),
        ({"accuracy": sequence(integer(2**32))}, "accuracy"),
        ({"accuracy": sequence(integer(1000, 0x80))}, "accuracy"),
        ({"accuracy": sequence(integer(-1, 0x81))}, "accuracy"),
        ({"accuracy": sequence(integer(1, 0x81), integer(1, 0x80))}, "too many"),
        ({"ordering": element(0x01, b"\0")}, "ordering"),
        (
            {
                "extensions": element(
                    0xA1, sequence(oid("1.2.3"), element(0x01, b"\xff"), octets(b""))
                )
            },
            "must be known: 1.2.3",
        ),
        ({"extensions": element(0xA1, sequence(oid("1.2.3"), octets(b""), NULL))}, "too many"),
        ({"extensions": NULL}, "too many"),
    ],
)
def test_statements_that_are_refused(given, word):
    with pytest.raises(FormatError, match=word):
        read_timestamp(stamped(**given))


def test_an_extension_that_says_it_may_be_passed_over():
    optional = sequence(oid("1.2.3"), element(0x01, b"\0"), octets(b""))
    assert read_timestamp(stamped(extensions=element(0xA1, optional)))


MANY = [SIGNER.der] * (MAX_CERTIFICATES + 1)
TWICE = attribute("content_type", oid(tsa.TST_INFO))


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"content_type": oid("1.2.840.113549.1.7.1")}, "content type is"),
        ({"cms_version": integer(1)}, "CMS version is 1"),
        ({"digests": set_of(algorithm(SHA1, NULL))}, "not SHA-256"),
        ({"digests": set_of(algorithm(SHA384, NULL))}, "signer's digest is sha256"),
        ({"digests": set_of(algorithm(tsa.SHA256), algorithm(SHA384))}, "too many"),
        ({"digests": set_of(algorithm(tsa.SHA256, octets(b"")))}, "too many"),
        ({"digests": set_of(algorithm(tsa.SHA256, element(5, b"x")))}, "too many"),
        ({"info_type": oid("1.2.840.113549.1.7.1")}, "content type is"),
        ({"certificates": b""}, "does not have its signer's certificate"),
        ({"certificates": element(0xA0)}, "does not have its signer's certificate"),
        ({"certificates": element(0xA0, ROOT.der)}, "does not have its signer's certificate"),
        ({"certificates": element(0xA0, *MANY)}, "more than 32 certificates"),
        ({"certificates": element(0xA0, sequence())}, "cannot be read"),
        ({"crls": element(0xA1)}, "tag 0xa1"),
        ({"signer_version": integer(3)}, "signer's version is 3"),
        ({"identity": sequence(NULL)}, "tag"),
        (
            {"identity": sequence(ROOT.name.public_bytes(), integer(5))},
            "does not have its signer's",
        ),
        (
            {"identity": sequence(SIGNER.name.public_bytes(), integer(SIGNER.serial))},
            "does not have its signer's",
        ),
        ({"signer_digest": algorithm(SHA384, NULL)}, "signer's digest is sha384"),
        ({"attributes": b""}, "tag"),
        ({"signature_algorithm": algorithm("1.2.840.10045.4.3.3")}, "not known here"),
        ({"signature_algorithm": algorithm("1.2.840.10045.4.1")}, "not known here"),
        ({"signature_algorithm": algorithm(tsa.ECDSA_SHA256, octets(b""))}, "too many"),
        ({"signature_algorithm": algorithm(tsa.ECDSA_SHA256, element(5, b"x"))}, "too many"),
        ({"unsigned": element(0xA1)}, "too many"),
        ({"more_signers": sequence()}, "too many"),
        ({"signed": [*attributes(statement(DIGEST), SIGNER.der), TWICE]}, "twice"),
        ({"status": sequence(integer(0), sequence(NULL))}, "tag 0x05"),
        ({"status": sequence(integer(0), NULL)}, "too many"),
    ],
)
def test_structures_that_are_refused(given, word):
    with pytest.raises(FormatError, match=word):
        read_timestamp(answer(SIGNER, DIGEST, **given))


def test_a_key_type_without_a_digest_of_its_own():
    # rsaEncryption fits any digest; that the key is of another type shows in the signature.
    tsr = answer(SIGNER, DIGEST, signature_algorithm=algorithm("1.2.840.113549.1.1.1", NULL))
    assert read_timestamp(tsr)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"content_type": None}, "what kind of content"),
        ({"content_type": oid("1.2.840.113549.1.7.1")}, "signed content type"),
        ({"certificate_v2": None}, "name its signer's"),
        ({"certificate_v2": named(hashlib.sha256(ROOT.der).digest())}, "name its signer's"),
        ({"certificate_v1": named(hashlib.sha1(ROOT.der).digest())}, "name its signer's"),
        ({"certificate_v2": sequence()}, "its end"),
    ],
)
def test_signed_attributes_that_are_refused(given, word):
    with pytest.raises(FormatError, match=word):
        read_timestamp(signed_over(**given))


@pytest.mark.parametrize(
    "options",
    [
        {"usage": None},
        {"critical": False},
        {"usage": [ExtendedKeyUsageOID.CODE_SIGNING]},
        {"usage": [ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.CODE_SIGNING]},
    ],
)
def test_a_signer_must_be_for_time_stamps_and_nothing_else(options):
    other = Party("Other", 16, ROOT, **options)
    with pytest.raises(FormatError, match="authority for time-stamps"):
        read_timestamp(answer(other, DIGEST))


def test_sizes():
    with pytest.raises(FormatError, match=str(MAX_TOKEN)):
        read_timestamp(bytes(MAX_TOKEN + 1))
    with pytest.raises(FormatError, match=str(MAX_PEM)):
        verify_timestamp(stamped(), DIGEST, ROOT.pem, bytes(MAX_PEM + 1))


def test_roots_that_cannot_be_read():
    broken = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
    with pytest.raises(FormatError, match="roots"):
        verify_timestamp(stamped(), DIGEST, broken)


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    with pytest.raises(SettingsError, match=r"sealtape\[evidence\]"):
        verify_timestamp(stamped(), DIGEST, ROOT.pem)


# -- damage ----------------------------------------------------------------------------------------


def outcome(tsr):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cryptography's, about odd certificates
        try:
            return verify_timestamp(tsr, DIGEST, ROOT.pem)
        except (FormatError, SignatureError):
            return None


def test_every_bit_counts():
    tsr = stamped(nonce=integer(5))
    assert outcome(tsr) is not None
    for bit in range(len(tsr) * 8):
        harmed = bytearray(tsr)
        harmed[bit // 8] ^= 1 << bit % 8
        assert outcome(bytes(harmed)) is None, (bit // 8, bit % 8)


def test_every_cut_and_every_byte_more():
    tsr = stamped()
    for end in range(len(tsr)):
        assert outcome(tsr[:end]) is None
    assert outcome(tsr + b"\0") is None


# What a token may hold and nothing signs: spec/timestamps.md names these, and why the bytes of a
# token name only themselves.
NEUTRAL = {
    "texts of the status": {"status": sequence(integer(0), sequence(element(0x0C, b"x")))},
    "certificates that are not needed": {"certificates": element(0xA0, SIGNER.der, STRANGER.der)},
    "order of the certificates": {"certificates": element(0xA0, STRANGER.der, SIGNER.der)},
    "NULL of the digests": {"digests": set_of(algorithm(tsa.SHA256))},
    "NULL of the signer's digest": {"signer_digest": algorithm(tsa.SHA256)},
}


def test_the_second_form_of_a_signature_verifies_too():
    tsr = stamped()
    first = tsr[tsr.rindex(algorithm(tsa.ECDSA_SHA256)) + 14 :]  # behind that and its own head
    r, s = utils.decode_dss_signature(first)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    other = utils.encode_dss_signature(r, order - s)
    assert other != first
    assert outcome(answer(SIGNER, DIGEST, signature=octets(other))) == outcome(tsr) is not None


@pytest.mark.parametrize("name", NEUTRAL)
def test_what_may_change_unnoticed(name):
    plain, changed = stamped(), answer(SIGNER, DIGEST, **NEUTRAL[name])
    assert plain != changed
    assert outcome(changed) == outcome(plain) is not None


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_what_is_harmed_at_several_places(data):
    tsr = bytearray(answer(DEEP, DIGEST, inside=[DEEP.der, BETWEEN.der]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(tsr) - 1))
        kind = data.draw(st.sampled_from("sid"))
        if kind == "s":
            tsr[at] = data.draw(st.integers(0, 255))
        elif kind == "i":
            tsr[at:at] = data.draw(st.binary(max_size=4))
        else:
            del tsr[at : at + data.draw(st.integers(1, 4))]
    found = outcome(bytes(tsr))
    assert found is None or found == outcome(answer(DEEP, DIGEST, inside=[DEEP.der, BETWEEN.der]))


@given(st.binary(max_size=300))
def test_garbage(data):
    for tsr in (data, sequence(sequence(integer(0)), data)):
        with pytest.raises(FormatError):
            read_timestamp(tsr)


# -- asking ----------------------------------------------------------------------------------------


def test_a_request():
    assert make_request(DIGEST, 2**64) == sequence(
        integer(1), tsa.imprint(DIGEST), integer(2**64), element(0x01, b"\xff")
    )
    for digest, nonce in [(DIGEST[:31], 1), (DIGEST, -1), (DIGEST, MAX_NONCE + 1)]:
        with pytest.raises(FormatError):
            make_request(digest, nonce)
    assert der.Der(make_request(DIGEST, MAX_NONCE), "request").inside(der.SEQUENCE).integer() == 1


# -- vectors ---------------------------------------------------------------------------------------


def test_vectors():
    vectors = json.loads((FOLDER / "timestamps.json").read_text(encoding="utf-8"))
    for one in vectors["accepted"]:
        digest = hashlib.sha256(one["stamped"].encode()).digest()
        found = verify_timestamp(
            bytes.fromhex(one["answer"]), digest, one["roots"].encode(), one["chain"].encode()
        )
        assert {
            "time_ns": str(found.time_ns),
            "accuracy_ns": str(found.accuracy_ns),
            "authority": found.authority,
            "serial": str(found.serial),
            "policy": found.policy,
        } == one["states"]
    request = vectors["request"]
    made = make_request(bytes.fromhex(request["digest"]), int(request["nonce"]))
    assert made.hex() == request["request"]
    for one in vectors["refused"]:
        digest = hashlib.sha256(one["stamped"].encode()).digest()
        with pytest.raises((FormatError, SignatureError)) as refused:
            verify_timestamp(
                bytes.fromhex(one["answer"]), digest, one["roots"].encode(), one["chain"].encode()
            )
        assert refused.value.code == one["error"], one["name"]
