import datetime as dt

import pytest
from cryptography import x509

from sealtape.capture.checks.certificate import (
    check_certificate,
    check_client_certificate,
    own_certificate,
)
from tests.capture.checks.found import levels, one
from tests.servers.tls import certificate

DAY = dt.timedelta(days=1)


def now():
    """The time of the test, not of its collection: long before it, in a whole run."""
    return dt.datetime.now(dt.UTC)


def put(deployment, **options):
    chain, key = certificate(**options)
    (deployment.keys / "tls.crt").write_bytes(chain)
    (deployment.keys / "tls.key").write_bytes(key)


def test_a_fresh_certificate(deployment, production):
    (check,) = check_certificate(deployment.settings(), now())
    assert check.level == "ok"
    assert "localhost, 127.0.0.1, ::1" in check.message
    one(check_certificate(production.settings(), now()), "warning", "self-signed")


@pytest.mark.parametrize(
    ("days", "level", "word"),
    [
        (-1, "error", "not valid yet"),
        (1, "ok", ""),
        (800, "warning", "soon"),
        (900, "error", "expired"),
    ],
)
def test_its_time(deployment, days, level, word):
    one(check_certificate(deployment.settings(), now() + days * DAY), level, word)


def test_a_key_of_another_certificate(deployment):
    (deployment.keys / "tls.key").write_bytes(certificate()[1])
    one(check_certificate(deployment.settings(), now()), "error", "tls_key")


@pytest.mark.parametrize("file", ["tls.crt", "tls.key"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense"])
def test_what_cannot_be_read(deployment, file, content):
    path = deployment.keys / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    one(check_certificate(deployment.settings(), now()), "error", "tls_certificate")


def test_a_certificate_without_names(deployment):
    put(deployment, names=("x",), addresses=())
    assert levels(check_certificate(deployment.settings(), now())) == {
        "listener: certificate": "warning"  # two days left
    }
    found = own_certificate(deployment.settings())
    assert found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    bare = nameless()
    (deployment.keys / "tls.crt").write_bytes(bare[0])
    (deployment.keys / "tls.key").write_bytes(bare[1])
    checks = check_certificate(deployment.settings(), now())
    assert any("verify-full" in check.message for check in checks)


@pytest.mark.parametrize(
    ("days", "level", "word"),
    [(-1, "error", "not valid yet"), (1, "warning", "soon"), (3, "error", "has expired")],
)
def test_the_certificate_that_logs_in_to_a_store(tmp_path, days, level, word):
    (tmp_path / "me.crt").write_bytes(certificate()[0])  # for two days
    url = "kafka://h:9093/t?cert=me.crt&key=me.key"
    (check,) = check_client_certificate("keys bus", url, tmp_path, now() + days * DAY)
    assert (check.name, check.level) == ("keys bus: certificate", level)
    assert word in check.message
    assert "me.crt: valid from" in check.message
    assert check.hint


@pytest.mark.parametrize(
    "url", ["dir:bus", "kafka://h/t", "kafka://h/t?cert=gone.crt", "kafka://h/t?cert=bad.crt", "?"]
)
def test_no_certificate_to_look_at(tmp_path, url):
    (tmp_path / "bad.crt").write_bytes(b"nonsense")
    assert check_client_certificate("bus", url, tmp_path, now()) == []


def nameless():
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now() - DAY)
        .not_valid_after(now() + 90 * DAY)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.public_bytes(Encoding.PEM), private
