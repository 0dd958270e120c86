"""`openssl` as a time-stamp authority and as a verifier: what nobody here wrote."""

import shutil
import subprocess

import pytest

from tests.servers import availability

EXTENSIONS = """\
extendedKeyUsage = critical,timeStamping
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
"""
KEYS = {"ec": ["EC", "ec_paramgen_curve:P-256"], "rsa": ["RSA", "rsa_keygen_bits:2048"]}


def need():
    """Skip, or fail where servers are demanded, without the program."""
    if shutil.which("openssl") is None:
        reason = f"{availability.SKIPPED}openssl is not on the PATH"
        (pytest.fail if availability.mode() == "local" else pytest.skip)(reason)


def openssl(*arguments, cwd=None, check=True):
    """Run it; the output."""
    done = subprocess.run(
        ["openssl", *map(str, arguments)], cwd=cwd, check=False, timeout=60,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stdout
    return done.stdout if check else (done.returncode, done.stdout)


class OpensslAuthority:
    """A root and an authority under it in a folder; `settings` are lines of its configuration."""

    def __init__(self, folder, *, kind="ec", days=3650, **settings):
        folder.mkdir(exist_ok=True)
        self.folder = folder
        algorithm, option = KEYS[kind]
        for name in ("root", "tsa"):
            openssl("genpkey", "-algorithm", algorithm, "-pkeyopt", option, "-out", f"{name}.key",
                    cwd=folder)  # fmt: skip
        openssl(
            "req", "-x509", "-new", "-key", "root.key", "-subj", "/CN=OpenSSL root", "-days", 3650,
            "-out", "root.pem", "-addext", "basicConstraints=critical,CA:TRUE",
            "-addext", "keyUsage=critical,keyCertSign", cwd=folder,
        )  # fmt: skip
        openssl("req", "-new", "-key", "tsa.key", "-subj", "/CN=OpenSSL authority",
                "-out", "tsa.csr", cwd=folder)  # fmt: skip
        (folder / "extensions").write_text(EXTENSIONS)
        openssl(
            "x509", "-req", "-in", "tsa.csr", "-CA", "root.pem", "-CAkey", "root.key",
            "-CAcreateserial", "-days", days, "-extfile", "extensions", "-out", "tsa.pem",
            cwd=folder,
        )  # fmt: skip
        (folder / "serial").write_text("01")
        lines = {
            "serial": "serial",
            "crypto_device": "builtin",
            "signer_cert": "tsa.pem",
            "signer_key": "tsa.key",
            "signer_digest": "sha256",
            "default_policy": "1.3.6.1.4.1.32473.2",
            "digests": "sha256,sha384",
            "accuracy": "secs:1,millisecs:500,microsecs:100",
            "ess_cert_id_alg": "sha256",
            **settings,
        }
        text = "[tsa]\ndefault_tsa = one\n[one]\n"
        text += "".join(f"{name} = {value}\n" for name, value in lines.items() if value)
        (folder / "tsa.cnf").write_text(text)

    @property
    def root(self) -> bytes:
        return (self.folder / "root.pem").read_bytes()

    def reply(self, request: bytes) -> bytes:
        """The answer to a TimeStampReq."""
        (self.folder / "request.tsq").write_bytes(request)
        openssl("ts", "-reply", "-config", "tsa.cnf", "-queryfile", "request.tsq",
                "-out", "reply.tsr", cwd=self.folder)  # fmt: skip
        return (self.folder / "reply.tsr").read_bytes()


def verifies(folder, tsr, data, roots, chain=b"") -> bool:
    """Whether `openssl ts -verify` believes that `data` was stamped; the page's own command."""
    folder.mkdir(exist_ok=True)
    files = {"timestamp.tsr": tsr, "checkpoint": data, "roots.pem": roots, "chain.pem": chain}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    code, said = openssl(
        "ts", "-verify", "-in", "timestamp.tsr", "-data", "checkpoint", "-CAfile", "roots.pem",
        *(["-untrusted", "chain.pem"] if chain else []), cwd=folder, check=False,
    )  # fmt: skip
    assert ("Verification: OK" in said) == (code == 0), said
    return code == 0
