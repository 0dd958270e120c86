import datetime
import ipaddress
import ssl

import botocore.session
import pytest
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.factories.s3_vaults import SECRET_VARIABLE
from tests.servers.http_faults import fault_proxy


@pytest.fixture
def s3(s3_server, monkeypatch):
    """The server, with the secret where the URLs of these tests look for it."""
    monkeypatch.setenv(SECRET_VARIABLE, s3_server.secret_key)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return s3_server


@pytest.fixture
def raw(s3):
    """A client of the server, to look and to act behind the vault's back."""
    client = botocore.session.Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=s3.endpoint,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        config=Config(s3={"addressing_style": "path"}),
    )
    yield client
    client.close()


@pytest.fixture
async def tls_front(s3, tmp_path):
    """A TLS end before the server; `ca` is the file of the CA that signed its certificate."""
    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a CA of the tests")])
    ca = signed(authority, name, authority, is_ca=True)
    leaf = signed(server, name, authority, is_ca=False)
    (tmp_path / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    (tmp_path / "tls.crt").write_bytes(leaf.public_bytes(Encoding.PEM))
    private = server.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "tls.key").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    async with fault_proxy(s3.endpoint, tls=context) as front:
        yield front, tmp_path / "ca.pem"


def signed(key, issuer, authority, *, is_ca):
    now = datetime.datetime.now(datetime.UTC)
    subject = issuer if is_ca else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "s3")])
    addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .sign(authority, hashes.SHA256())
    )
