"""Draws what the composed services need, once: keys, certificates, passwords, settings.

    python3 prepare.py /out

Each folder below /out is one service's volume and gets that service's secrets alone. Runs in the
Sealtape image (it uses `sealtape init` and `cryptography`); a second run changes nothing.
"""

from __future__ import annotations

import datetime as dt
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sealtape.ingest.tlog.signer_file import read_key

HERE = Path(__file__).parent
DAYS = 825
OWNERS = {  # the user that each image runs as
    "kafka": 1000,
    "postgres": 999,
    "shop": 999,
    "s3": 0,
    "opensearch": 1000,
    "dashboards": 1000,
    "keycloak": 1000,
}
SEALTAPE = 10001
ROOMS = ("capture", "ingest", "indexer")
WITNESSES = {"witness": "http://witness:7380", "monitor": "http://monitor:7381"}


class Authority:
    """A CA of this composition's own."""

    def __init__(self) -> None:
        """Draw it."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("sealtape compose CA")
        basic = x509.BasicConstraints(ca=True, path_length=0)
        self.certificate = self._sign(self._name, self._key.public_key(), [(basic, True)])

    def issue(self, common_name: str, *hosts: str) -> tuple[bytes, bytes]:
        """Return certificate and key (PEM): a server of these names, and a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH]
        extensions: list[tuple[x509.ExtensionType, bool]] = []
        if hosts:
            usage.append(ExtendedKeyUsageOID.SERVER_AUTH)
            names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
            extensions.append((names, False))
        extensions.append((x509.ExtendedKeyUsage(usage), False))
        certificate = self._sign(_name(common_name), key.public_key(), extensions)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate, private

    def _sign(
        self,
        subject: x509.Name,
        public: ec.EllipticCurvePublicKey,
        extensions: list[tuple[x509.ExtensionType, bool]],
    ) -> bytes:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(days=DAYS))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class Prepared:
    """The output folder, filled service by service."""

    def __init__(self, out: Path) -> None:
        """Draw the CA and all passwords."""
        self.out = out
        self.ca = Authority()
        self.passwords: dict[str, str] = {}

    def password(self, name: str) -> str:
        """Return the password of that name; the same each time."""
        return self.passwords.setdefault(name, secrets.token_urlsafe(24))

    def write(self, place: str, content: str | bytes) -> None:
        """Write a file that only its service's user may read."""
        path = self.out / place
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)

    def template(self, source: str, place: str, **values: str) -> None:
        """Write a file of `templates/` with `@word@` replaced."""
        text = (HERE / "templates" / source).read_text()
        for word, value in values.items():
            text = text.replace(f"@{word}@", value)
        self.write(place, text)

    def certificate(self, folder: str, *hosts: str, stem: str = "tls") -> tuple[bytes, bytes]:
        """Put a certificate, its key and the CA into a service's folder."""
        certificate, key = self.ca.issue(hosts[0] if hosts else stem, *hosts)
        self.write(f"{folder}/{stem}.crt", certificate)
        self.write(f"{folder}/{stem}.key", key)
        self.write(f"{folder}/ca.crt", self.ca.certificate)
        return certificate, key


def servers(made: Prepared) -> None:
    """Kafka, PostgreSQL, S3, OpenSearch with Dashboards, Keycloak, and the shop."""
    certificate, key = made.ca.issue("kafka", "kafka", "localhost")
    made.write("kafka/kafka.pem", key + certificate)
    made.write("kafka/ca.crt", made.ca.certificate)
    certificate, key = made.ca.issue("admin")
    made.write("kafka/admin.pem", key + certificate)
    for name in ("server.properties", "admin.properties", "acls.sh"):
        made.template(f"kafka-{name}", f"kafka/{name}")
    for name in ("postgres", "shop"):
        made.certificate(name, name)
        made.write(f"{name}/password", made.password(name))
    users = {
        room: made.password(f"database-{room}")
        for room in ("ingest", "indexer", "auditor", "verify")
    }
    made.template("users.sql", "postgres/users.sql", **users)
    made.write("shop/shop.sql", "".join(_without_roles((HERE / "shop.sql").read_text())))
    made.certificate("s3", "s3")
    made.template("s3-run.sh", "s3/run.sh", secret=made.password("s3"))
    made.certificate("opensearch", "opensearch")
    made.certificate("opensearch", stem="admin")
    made.write("opensearch/admin.password", made.password("opensearch-admin"))
    made.write("opensearch/indexer.password", made.password("opensearch-indexer"))
    made.write("opensearch/dashboards.password", made.password("opensearch-dashboards"))
    for name in ("run.sh", "opensearch.yml"):
        made.template(f"opensearch-{name}", f"opensearch/{name}")
    made.write("dashboards/ca.crt", made.ca.certificate)
    password = made.password("opensearch-dashboards")
    made.template("dashboards-run.sh", "dashboards/run.sh", password=password)
    made.certificate("keycloak", "keycloak", "localhost")
    made.template("keycloak-run.sh", "keycloak/run.sh", password=made.password("keycloak"))
    realm = (HERE / "realm.json").read_text().replace("${SECRET}", made.password("people"))
    made.write("keycloak/realm.json", realm)


def _without_roles(text: str) -> list[str]:
    """The demo's tables; its roles have passwords that everybody knows."""
    lines = text.splitlines(keepends=True)
    return [line for line in lines if not line.startswith(("create role", "grant "))]


def rooms(made: Prepared) -> None:
    """Keys and settings of the rooms; each gets what it reads."""
    with tempfile.TemporaryDirectory() as scratch:
        site = Path(scratch, "site")
        _sealtape("init", site, "--log", "sealtape.compose/log")
        _witnessed(site)
        _keys(made, site)
    made.certificate("capture", "localhost", "capture")
    made.write("capture/secrets/shop.password", made.password("shop"))
    for room in ("setup", *ROOMS, "auditor"):
        made.certificate(room, stem="admin" if room == "setup" else room)
    made.write("verify/ca.crt", made.ca.certificate)
    for room in ("setup", "ingest", "indexer", "auditor", "verify"):
        user = "postgres" if room == "setup" else f"database-{room}"
        made.write(f"{room}/secrets/database", made.password(user))
        made.write(f"{room}/secrets/s3", made.password("s3"))
    made.write("setup/secrets/opensearch", made.password("opensearch-admin"))
    for room in ("indexer", "auditor"):
        made.write(f"{room}/secrets/opensearch", made.password("opensearch-indexer"))
    for room in ("setup", *ROOMS, "auditor", "signer", "verify"):
        made.template(f"{room}.toml", f"{room}/sealtape.toml")


def _sealtape(*words: str | Path) -> None:
    subprocess.run(["sealtape", *words], check=True, stdout=subprocess.DEVNULL)


def _keys(made: Prepared, site: Path) -> None:
    """Who gets which key, and whose policy: none of the verifying ones has a payload's key."""
    keys = {
        "capture": ("node.key", "spool.key", "auditor.pub", "indexer.pub"),
        "indexer": ("indexer.key",),
        "auditor": ("auditor.key", "admin.key"),
        "signer": ("log.key", "log.mldsa.key"),
        "witness": ("witness.key",),
        "monitor": ("monitor.key",),
    }
    files = {
        "trust.toml": ("capture", "ingest", "indexer", "auditor", "verify"),
        "log.policy": ("ingest", "auditor"),
        "policy.toml": ("auditor", "verify", "monitor"),
        "keys.statement": ("auditor",),
    }
    for room, names in keys.items():
        for name in names:
            made.write(f"{room}/keys/{name}", (site / "keys" / name).read_bytes())
    for name, readers in files.items():
        for room in readers:
            made.write(f"{room}/{name}", (site / name).read_bytes())
    # A witness follows the log's keys, and asks nobody else.
    lines = (site / "log.policy").read_text().splitlines(keepends=True)
    followed = [line for line in lines if line.startswith("log ")]
    made.write("witness/log.policy", "".join(followed) + "quorum none\n")


def _witnessed(site: Path) -> None:
    """Let the policies ask for witness and monitor, both; the administrator introduces all keys."""
    log, evidence = site / "log.policy", site / "policy.toml"
    log.write_text(log.read_text().replace("quorum none\n", _quorum(site, WITNESSES)))
    text = evidence.read_text().replace(
        "quorum none\n", _quorum(site, dict.fromkeys(WITNESSES, ""))
    )
    evidence.write_text(
        text.replace("monitors = []", 'monitors = ["monitor"]\nrequire = ["monitor"]')
    )
    settings, admin = site / "sealtape.toml", site / "keys/admin.key"
    statement = ("statement", "deployment", "--sign", admin, "-o", site / "keys.statement")
    _sealtape("-c", settings, *statement)


def _quorum(site: Path, urls: dict[str, str]) -> str:
    """The lines of a policy that name them; who only verifies asks nobody and needs no URL."""
    lines = []
    for name, url in urls.items():
        half = read_key(site / f"keys/{name}.key")
        assert half is not None
        lines.append(f"witness {name} {half.vkey} {url}".rstrip())
    lines += [f"group both {len(urls)} {' '.join(urls)}", "quorum both"]
    return "".join(line + "\n" for line in lines)


def hand_over(made: Prepared) -> None:
    """Give every folder to the user of its service."""
    for folder in made.out.iterdir():
        owner = OWNERS.get(folder.name, SEALTAPE)
        folder.chmod(0o700)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner, owner)
            if path.is_dir():
                path.chmod(0o700)
            elif path.suffix == ".sh":
                path.chmod(0o500)


def main() -> int:
    """Prepare unless that was done before."""
    out = Path(sys.argv[1])
    done = out / "setup" / "prepared"
    if done.exists():
        print("prepare: done before; nothing was changed")
        return 0
    for folder in out.iterdir():
        for left in folder.iterdir():  # of a run that was interrupted
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    made = Prepared(out)
    servers(made)
    rooms(made)
    made.write("setup/prepared", "")
    if os.geteuid() == 0:
        hand_over(made)
    print("prepare: keys, certificates, passwords and settings are drawn")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
