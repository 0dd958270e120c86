"""TLS for tests: certificates, and a front that adds TLS to a PostgreSQL without it."""

import asyncio
import contextlib
import datetime as dt
import ipaddress
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SSL_REQUEST = bytes.fromhex("0000000804d2162f")


def certificate(*, names=("localhost",), addresses=("127.0.0.1", "::1")):
    """Return a new self-signed server certificate and its key, both as PEM bytes."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = dt.datetime.now(dt.UTC)
    alternatives = [x509.DNSName(name) for name in names]
    alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return signed.public_bytes(Encoding.PEM), private


def write_certificate(folder, **options):
    """Write a new certificate to `folder` and return the paths of chain and key."""
    chain, key = certificate(**options)
    paths = folder / "tls.crt", folder / "tls.key"
    for path, content in zip(paths, (chain, key), strict=True):
        path.write_bytes(content)
    return paths


class Authority:
    """A certificate authority for a server and its clients; `ca` is the file to trust.

    Each certificate is two files, NAME.crt and NAME.key, beside NAME.pem with both.
    """

    def __init__(self, folder):
        self.folder = folder
        self.ca = folder / "ca.crt"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name("test authority")
        limits = x509.BasicConstraints(ca=True, path_length=0)
        signed = self._sign(self._name, self._key.public_key(), (limits, True))
        self.ca.write_bytes(signed.public_bytes(Encoding.PEM))

    def server(self, name="server"):
        """A certificate for localhost and 127.0.0.1: the paths of chain and key."""
        alternatives = [x509.DNSName("localhost")]
        alternatives += [x509.IPAddress(ipaddress.ip_address(one)) for one in ("127.0.0.1", "::1")]
        extension = x509.SubjectAlternativeName(alternatives), False
        return self._issue(name, "localhost", ExtendedKeyUsageOID.SERVER_AUTH, extension)

    def client(self, name):
        """A certificate for the user `name` (its common name): the paths of chain and key."""
        return self._issue(name, name, ExtendedKeyUsageOID.CLIENT_AUTH)

    def _issue(self, name, common_name, usage, *extensions):
        key = ec.generate_private_key(ec.SECP256R1())
        more = (x509.ExtendedKeyUsage([usage]), False)
        signed = self._sign(_common_name(common_name), key.public_key(), more, *extensions)
        chain = signed.public_bytes(Encoding.PEM) + self.ca.read_bytes()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        paths = [self.folder / f"{name}.{end}" for end in ("crt", "key", "pem")]
        for path, content in zip(paths, (chain, private, private + chain), strict=True):
            path.touch(mode=0o600)
            path.write_bytes(content)
        return paths[0], paths[1]

    def _sign(self, subject, public_key, *extensions):
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(days=2))
        )
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        subject_identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
        for extension, critical in ((identifier, False), (subject_identifier, False), *extensions):
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self._key, hashes.SHA256())


def _common_name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class TlsFront:
    """Listens on 127.0.0.1, answers SSLRequest with S and passes the plaintext on to (host, port).

    `received` counts the bytes that came from clients before TLS, the SSLRequest included.
    """

    def __init__(self, host, port, chain, key):
        self._target = (host, port)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(chain, key)
        self._server = None
        self.port = 0

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self._server.close()

    async def _serve(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            if await reader.readexactly(8) != SSL_REQUEST:
                writer.close()
                return
            writer.write(b"S")
            await writer.start_tls(self._context)
            inner_reader, inner_writer = await asyncio.open_connection(*self._target)
            await asyncio.gather(_pass(reader, inner_writer), _pass(inner_reader, writer))
        writer.close()


async def _pass(reader, writer):
    with contextlib.suppress(OSError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
