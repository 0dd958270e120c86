"""Making a deployment folder: settings, keys, trust; and what a running one leaves in it."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import secrets
import shutil
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from sealtape.capture.identity.issuer import DevelopmentIssuer
from sealtape.indexer.cli import output
from sealtape.indexer.cli.log_files import make_log_files, private_file
from sealtape.indexer.cli.options import CONFIG_NAME
from sealtape.schemas.errors import DeploymentExists, StoreError, UsageError
from sealtape.schemas.settings.values import name as checked_name
from sealtape.schemas.trust import format_node_key, format_trust, parse_node_key
from sealtape.schemas.wraps import generate

WRAP_SUITE: Final = "x25519-sha256-aes256gcm"
RUNTIME: Final = "run/listeners.json"
_CERTIFICATE_DAYS: Final = 825
_DEFAULT_PORT: Final = 5432

DEVELOPMENT_TOML: Final = """\
# A development deployment: everything in this folder, nothing but Python needed.
# Every setting is in docs/config.md; what is not written here has its default.

[deployment]
mode = "dev"
node = "dev-1"
log = "sealtape.dev/log"

[capture]
spool = "spool"

[capture.postgres]
listen = "127.0.0.1:0"          # 0: a free port, printed at start
plaintext = "loopback"

[identity]
issuer = "https://issuer.sealtape.dev"
audience = "sealtape"
jwks = "file:keys/jwks.json"

[identity.development]          # `sealtape token` signs with this key; refused in production
key = "keys/issuer.key"

[ingest]
segment_s = 2                   # seal soon, so that there is something to look at

[log]                           # sign and say soon that all is well, too
checkpoint_s = 1
heartbeat_s = 10

[retention.standard]
retain_for = "90d"
delete_after = "400d"
encryption = true
"""

PRODUCTION_TOML: Final = """\
# Every setting is in docs/config.md; what is not written here has its default.

[deployment]
mode = "production"
node = "node-1"
log = "sealtape.example/log"    # checkpoints are signed under it: `sealtape init --log` names it
log_format = "json"

# Metrics and health checks of each room (docs/metrics.md): an address that your monitoring reaches.
[capture]
metrics = "127.0.0.1:9464"

[ingest]
metrics = "127.0.0.1:9465"

[indexer]
metrics = "127.0.0.1:9466"

[capture.postgres]
listen = "0.0.0.0:6432"
tls_certificate = "keys/tls.crt"
tls_key = "keys/tls.key"

[identity]
issuer = "https://login.example"
audience = "sealtape"
jwks = "https://login.example/keys"

[retention.standard]
retain_for = "90d"
delete_after = "400d"
encryption = true

# [targets.orders]
# address = "db.internal:5432"
# database = "orders"
# user = "sealtape"
# password = { file = "secrets/orders.password" }
# tls = "verify-full"
# groups = ["dba"]
"""


def create(folder: Path, *, development: bool, log: str = "") -> None:
    """Make a deployment in a folder that has none; `log` is the name of its log.

    Raises:
        DeploymentExists: the folder holds a deployment already; nothing is touched.
        StoreError: the folder cannot be written.
    """
    taken = [path for path in (CONFIG_NAME, "keys", "trust.toml") if (folder / path).exists()]
    if taken:
        msg = f"{folder} already holds a deployment ({', '.join(taken)})."
        raise DeploymentExists(msg, hint="Choose another folder; keys are never overwritten.")
    text = DEVELOPMENT_TOML if development else PRODUCTION_TOML
    usual = tomllib.loads(text)["deployment"]["log"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        keys = folder / "keys"
        keys.mkdir(mode=0o700)
        _write_node_key(folder, "dev-1" if development else "node-1")
        private_file(keys / "spool.key", secrets.token_hex(32) + "\n")
        for purpose in ("auditor", "indexer"):
            private, public = generate(purpose, WRAP_SUITE, secrets.token_bytes)
            private_file(keys / f"{purpose}.key", private.text())
            (keys / f"{purpose}.pub").write_text(public.text(), encoding="ascii")
        _write_certificate(keys)
        if development:
            _write_issuer(keys)
        make_log_files(folder, log or usual, development=development)
        text = text.replace(f'log = "{usual}"', f'log = "{log or usual}"')
        (folder / CONFIG_NAME).write_text(text, encoding="utf-8")
    except OSError as exc:
        msg = f"The deployment cannot be written to {folder}: {exc.strerror or exc}."
        raise StoreError(
            msg, hint="Choose a folder you may write to, on a disk with room."
        ) from exc


def _write_node_key(folder: Path, node: str) -> None:
    signer_name = f"sealtape/{node}"
    text = format_node_key(signer_name, Ed25519PrivateKey.generate())
    private_file(folder / "keys/node.key", text)
    vkey = parse_node_key(text).vkey
    (folder / "trust.toml").write_text(format_trust([vkey]), encoding="utf-8")


def _write_issuer(keys: Path) -> None:
    issuer = DevelopmentIssuer.generate()
    private_file(keys / "issuer.key", issuer.to_pem())
    (keys / "jwks.json").write_text(json.dumps(issuer.jwks(), indent=1) + "\n", encoding="ascii")


def _write_certificate(keys: Path) -> None:
    """A self-signed certificate for localhost, so that TLS works from the first minute."""
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=_CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(private, hashes.SHA256())
    )
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
    private_file(keys / "tls.key", pem)
    (keys / "tls.crt").write_bytes(certificate.public_bytes(Encoding.PEM))


_TARGET_HINT: Final = (
    "Write it as NAME=postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=disable; "
    "in a password write / as %2F, # as %23, ? as %3F, @ as %40."
)


def parse_target(argument: str) -> tuple[str, dict[str, Any], str]:
    """Return name, settings and password of `NAME=postgresql://user:password@host:port/database?sslmode=…`.

    Raises:
        UsageError: it is not of that form.
    """
    name, _, url = argument.partition("=")
    try:
        checked_name(name)
    except ValueError as exc:
        msg = f"{output.printable(name)[:80]!r} cannot name a target: {exc}."
        raise UsageError(msg, hint=_TARGET_HINT) from exc
    parts, port = _address(name, url)
    query = {key: found[-1] for key, found in parse_qs(parts.query).items()}
    mode = query.pop("sslmode", "disable")
    if query or mode not in {"disable", "require", "verify-full"}:
        msg = f"--target {name}=…: after '?' only sslmode=disable, require or verify-full."
        raise UsageError(msg, hint=_TARGET_HINT)
    host, user = parts.hostname or "", unquote(parts.username or "")
    target = {
        "address": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        "database": unquote(parts.path.lstrip("/")) or user,
        "databases": ["*"],
        "user": user,
        "tls": mode,
        "groups": ["*"],
    }
    return name, target, unquote(parts.password or "")


def _address(name: str, url: str) -> tuple[SplitResult, int]:
    """The parts of a target's URL, and its port."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORT
    except ValueError:
        # What urllib says shows a piece of the address, which may be one of the password.
        msg = f"--target {name}=…: the address cannot be read."
        raise UsageError(msg, hint=_TARGET_HINT) from None
    known = parts.scheme in {"postgresql", "postgres"} and not parts.fragment
    if not (known and parts.hostname and parts.username):
        msg = f"--target {name}=…: the address is not a PostgreSQL URL with a user and a host."
        raise UsageError(msg, hint=_TARGET_HINT)
    return parts, port


def put_target(folder: Path, argument: str) -> str:
    """Write a target given on the command line into the deployment's settings, and return its name.

    It stands between two marker lines, so that another address replaces just it.

    Raises:
        UsageError: the argument is malformed, or the settings have the target outside of these
            lines; nothing is written.
        StoreError: the settings cannot be read or written.
    """
    name, target, password = parse_target(argument)
    path = folder / CONFIG_NAME
    try:
        text = path.read_text(encoding="utf-8")
        written = _with_block(text, name, _block(name, target, password=bool(password)))
        if password:
            secret = folder / "secrets" / f"{name}.password"
            secret.parent.mkdir(mode=0o700, exist_ok=True)
            secret.unlink(missing_ok=True)
            private_file(secret, password + "\n")
        _replace_text(path, written)
    except (OSError, UnicodeDecodeError) as exc:
        msg = f"The target cannot be written into {path}: {exc}."
        raise StoreError(msg, hint="The settings must be a UTF-8 file you may write.") from exc
    return name


def _begin(name: str) -> str:
    return f"# target {name}, from the command line\n"


def _end(name: str) -> str:
    return f"# end of target {name}\n"


def _block(name: str, target: dict[str, Any], *, password: bool) -> str:
    lines = [_begin(name), f"[targets.{name}]\n"]
    lines += [f"{key} = {json.dumps(value)}\n" for key, value in target.items()]
    if password:
        lines.append(f'password = {{ file = "secrets/{name}.password" }}\n')
    lines.append(_end(name))
    return "".join(lines)


def _with_block(text: str, name: str, block: str) -> str:
    """The settings with a target's block in the place of the one before, or at the end."""
    head, found, rest = text.partition(_begin(name))
    _, closed, rest = rest.partition(_end(name))
    if found and not closed:
        msg = f"The settings have lost the line that ends the target {name}."
        raise UsageError(msg, hint=f"Put `{_end(name).strip()}` back after its last key.")
    written = head + block + rest if found else text.rstrip("\n") + "\n\n" + block
    try:
        tomllib.loads(written)
    except tomllib.TOMLDecodeError as exc:
        msg = f"The target {name} does not fit into the settings: {exc}."
        raise UsageError(
            msg, hint=f"If they have a [targets.{name}] of your own, change it there."
        ) from exc
    return written


def _replace_text(path: Path, text: str) -> None:
    """Write a file so that it is always whole: the old text or the new one."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    shutil.copymode(path, fresh)
    fresh.replace(path)


def write_runtime(folder: Path, listeners: dict[str, str]) -> Path:
    """Leave the addresses of a running node where `sealtape connect` finds them."""
    path = folder / RUNTIME
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        json.dumps({"pid": os.getpid(), "listeners": listeners}) + "\n", encoding="ascii"
    )
    return path


def read_runtime(folder: Path) -> dict[str, str]:
    """Return the addresses that a running node left; empty when none runs from this folder."""
    try:
        found = json.loads((folder / RUNTIME).read_text(encoding="ascii"))
        listeners, process = dict(found["listeners"]), int(found["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    with suppress(PermissionError):  # it runs, as another user
        try:
            os.kill(process, 0)  # nothing is sent: this only asks whether it runs
        except (ProcessLookupError, OverflowError):
            return {}
    return listeners
