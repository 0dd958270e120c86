"""Keycloak over TLS with one realm: who may reach the gateway, and some who may not.

    keycloak_server.agent_token()           client credentials of `agent-7`, or of another client
    keycloak_server.person_token()          `ada`, of the group dba
    keycloak_server.exchanged(token)        `agent-7` for the person whose token it is (RFC 8693)
    keycloak_server.confirm(uri)            what ada does in her browser in a device flow

`realm.json` has the realm; its secrets are drawn at each start.
"""

import contextlib
import html
import http.cookiejar
import json
import re
import secrets
import shutil
import ssl
import urllib.error
import urllib.parse
import urllib.request
from http import HTTPStatus
from pathlib import Path

import jwt
import pytest

from tests.servers import availability, cache, containers, jvm
from tests.servers.process import (
    LOOPBACK,
    Server,
    Spec,
    free_port,
    give,
    http_status,
    writable_copy,
)
from tests.servers.tls import write_certificate

JAVA = 17
_JVM = (
    "-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:MetaspaceSize=96M", "-Dfile.encoding=UTF-8",
    "-Djava.security.egd=file:/dev/urandom",
)  # fmt: skip
_REALM = Path(__file__).with_name("realm.json")
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


def _build(folder):
    version = cache.VERSIONS["keycloak"]
    archive = cache.maven_file(f"org.keycloak:keycloak-quarkus-dist:{version}:zip", folder)
    shutil.unpack_archive(archive, folder)
    archive.unlink()
    (folder / f"keycloak-{version}").rename(folder / "home")
    for script in (folder / "home/bin").glob("*.sh"):
        script.chmod(0o755)
    # Done once: at each start it would take longer than the start itself.
    try:
        program, home = folder / "home/bin/kc.sh", jvm.find(JAVA).parent.parent
    except jvm.NoJavaError as error:
        raise cache.FetchError(str(error)) from error
    cache.run("Keycloak", program, "build", "--db=dev-file", cwd=folder, JAVA_HOME=str(home))


cache.register(
    cache.Recipe(
        "keycloak", f"{cache.VERSIONS['keycloak']}-built", _build, needs=("mvn",), java=JAVA
    )
)


class KeycloakServer(Server):
    """See the module."""

    KIND, PARTS = "keycloak", ("keycloak",)
    START_S = 150.0

    @classmethod
    def plan(cls, place):
        write_certificate(place)
        secret = secrets.token_urlsafe(18)
        realms = place / "import"
        realms.mkdir()
        text = _REALM.read_text().replace("${SECRET}", secret)
        (realms / "sealtape-realm.json").write_text(text)
        return {"port": free_port(), "plain": free_port(), "secret": secret}

    def spec(self):
        return Spec(
            [
                *self._program(), "--import-realm", "--cache=local", "--http-enabled=true",
                f"--http-host={LOOPBACK}", f"--http-port={self.facts['plain']}",
                f"--https-port={self.facts['port']}", f"--hostname={self.base}",
                f"--https-certificate-file={self.place / 'tls.crt'}",
                f"--https-certificate-key-file={self.place / 'tls.key'}",
            ],
            env={
                **({} if containers.chosen() else {"JAVA_HOME": self.java(JAVA).parent.parent}),
                "JAVA_OPTS": " ".join([*_JVM, *jvm.compilers()]),
                "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
                "KC_BOOTSTRAP_ADMIN_PASSWORD": self.facts["secret"],
            },
        )  # fmt: skip

    def _program(self):
        if containers.chosen():
            home = self.at("keycloak", "home")
            start = f'cp -r {self.place}/import {home}/data/ && exec {home}/bin/kc.sh "$@"'
            return ["bash", "-c", start, "kc.sh", "start-dev"]
        home = self.place / "home"  # it writes into its own folders, the database among them
        if not home.exists():
            writable_copy(self.part("keycloak") / "home", home)
            shutil.copytree(self.place / "import", home / "data/import")
            give(home / "data")
        return [home / "bin/kc.sh", "start", "--optimized"]

    def healthy(self):
        address = f"{self.issuer}/.well-known/openid-configuration"
        return http_status(address, context=self._context) == HTTPStatus.OK

    # -- what a gateway is told ------------------------------------------------------------------

    @property
    def base(self):
        """The server's address."""
        return f"https://{LOOPBACK}:{self.facts['port']}"

    @property
    def issuer(self):
        """The realm."""
        return f"{self.base}/realms/sealtape"

    @property
    def jwks(self):
        """Where the realm's keys are."""
        return f"{self.issuer}/protocol/openid-connect/certs"

    @property
    def ca(self):
        """The certificate to trust (PEM)."""
        return self.place / "tls.crt"

    # -- tokens ----------------------------------------------------------------------------------

    def agent_token(self, client="agent-7"):
        """A token by client credentials."""
        return self._token(client, grant_type="client_credentials")

    def person_token(self, user="ada"):
        """A person's token, without a browser."""
        form = {"grant_type": "password", "username": user, "password": self.facts["secret"]}
        return self._token("sealtape-cli", public=True, **form)

    def exchanged(self, token):
        """A token of `agent-7` that acts for the person of `token`."""
        form = {"subject_token": token, "subject_token_type": _ACCESS_TOKEN}
        return self._token("agent-7", grant_type=_EXCHANGE, **form)

    def admin_token(self):
        """The administrator's: of another realm."""
        form = {"grant_type": "password", "username": "admin", "password": self.facts["secret"]}
        return self._token("admin-cli", public=True, realm="master", **form)

    def public_key(self, kid):
        """The realm's public key of that name."""
        keys = json.loads(self._ask(self.jwks))["keys"]
        return jwt.PyJWK(next(key for key in keys if key["kid"] == kid)).key

    def confirm(self, uri, user="ada"):
        """Open the address of a device flow, sign in, and say yes."""
        browser = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=self._context),
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
        )
        password = {"username": user, "password": self.facts["secret"]}
        page, at = _browse(browser, uri, None)
        page, at = _browse(browser, _action(page, at), password)
        code = re.search(r'name="code" value="([^"]+)"', page)
        page, at = _browse(browser, _action(page, at), {"accept": "Yes", "code": code[1]})
        assert at.endswith("/device/status"), page

    # -- administration --------------------------------------------------------------------------

    def rotate_keys(self):
        """Sign with a new key from now on; the old one stays listed."""
        realm = json.loads(self._admin("GET", ""))["id"]
        self._admin("POST", "/components", {
            "name": secrets.token_hex(4), "providerId": "rsa-generated", "parentId": realm,
            "providerType": "org.keycloak.keys.KeyProvider",
            "config": {"priority": [str(1000 + secrets.randbelow(1_000_000))]},
        })  # fmt: skip

    @contextlib.contextmanager
    def without_group(self, user, group):
        """Take a person out of a group meanwhile."""
        (person,) = json.loads(self._admin("GET", f"/users?exact=true&username={user}"))
        groups = json.loads(self._admin("GET", f"/users/{person['id']}/groups"))
        (left,) = [one["id"] for one in groups if one["name"] == group]
        path = f"/users/{person['id']}/groups/{left}"
        self._admin("DELETE", path)
        try:
            yield
        finally:
            self._admin("PUT", path)

    # -- inside ----------------------------------------------------------------------------------

    @property
    def _context(self):
        return ssl.create_default_context(cafile=str(self.ca))

    def _token(self, client, *, public=False, realm="sealtape", **form):
        form |= {"client_id": client}
        if not public:
            form |= {"client_secret": self.facts["secret"]}
        url = f"{self.base}/realms/{realm}/protocol/openid-connect/token"
        return json.loads(self._ask(url, data=urllib.parse.urlencode(form).encode()))[
            "access_token"
        ]

    def _admin(self, method, path, body=None):
        headers = {"Authorization": f"Bearer {self.admin_token()}"}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        url = f"{self.base}/admin/realms/sealtape{path}"
        return self._ask(url, method=method, data=data, headers=headers)

    def _ask(self, url, **more):
        request = urllib.request.Request(url, **more)
        try:
            with urllib.request.urlopen(request, timeout=20, context=self._context) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{url}: {error.code} {error.read()!r}") from None


def _browse(browser, url, form):
    data = None if form is None else urllib.parse.urlencode(form).encode()
    with browser.open(url, data=data, timeout=20) as response:
        return response.read().decode(), response.url


def _action(page, at):
    found = re.search(r'<form[^>]*action="([^"]+)"', page)
    return urllib.parse.urljoin(at, html.unescape(found[1]))


@pytest.fixture(scope="session")
def keycloak_server():
    """The run's Keycloak."""
    availability.need(KeycloakServer)
    return KeycloakServer.shared()


@pytest.fixture
def keycloak_alone():
    """A Keycloak of the test's own, which it may pause and change."""
    availability.need(KeycloakServer)
    with KeycloakServer.own() as server:
        yield server
