"""Kafka behind TLS: users by password, by certificate and by token, and ACLs.

    kafka_tls_server.scram        "host:port" of SASL_SSL with SCRAM-SHA-512, users in `.passwords`
    kafka_tls_server.mtls         "host:port" where the certificate says who it is
    kafka_tls_server.oauth        "host:port" of SASL_SSL with OAUTHBEARER, `.token("ingest")`
    kafka_tls_server.allow("capture", "WRITE", topic)

`admin` may do everything. A resource with no ACL is open to everybody who has logged in; the first
`allow` closes it to all others.
"""

import asyncio
import json
import secrets
import threading
import time

import jwt
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.servers import availability
from tests.servers.kafka import ONE, KafkaServer
from tests.servers.process import LOOPBACK, Spec, free_port
from tests.servers.tls import Authority

USERS = ("admin", "capture", "ingest", "indexer", "stranger")
ISSUER = "https://issuer.test"
AUDIENCE = "kafka"
_KEY = "k1"
_DOORS = ("PLAINTEXT", "CONTROLLER", "SCRAM", "MTLS", "OAUTH")
_SCRAM = "org.apache.kafka.common.security.scram"
_OAUTH = "org.apache.kafka.common.security.oauthbearer"
_OPERATIONS = {"ALL": 2, "READ": 3, "WRITE": 4, "CREATE": 5, "DELETE": 6, "ALTER": 7,
               "DESCRIBE": 8, "DESCRIBE_CONFIGS": 10, "ALTER_CONFIGS": 11,
               "IDEMPOTENT_WRITE": 12}  # fmt: skip
_RESOURCES = {"topic": 2, "group": 3, "cluster": 4}
_PROPERTIES = f"""\
process.roles=broker,controller
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SCRAM:SASL_SSL,MTLS:SSL,OAUTH:SASL_SSL
inter.broker.listener.name=PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location={{tls}}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={{tls}}/ca.crt
ssl.client.auth=none
listener.name.mtls.ssl.client.auth=required
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.scram.scram-sha-512.sasl.jaas.config={_SCRAM}.ScramLoginModule required;
listener.name.oauth.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.oauth.oauthbearer.sasl.jaas.config={_OAUTH}.OAuthBearerLoginModule required;
listener.name.oauth.oauthbearer.sasl.server.callback.handler.class={_OAUTH}.OAuthBearerValidatorCallbackHandler
listener.name.oauth.sasl.oauthbearer.jwks.endpoint.url={{jwks}}
listener.name.oauth.sasl.oauthbearer.expected.audience={AUDIENCE}
listener.name.oauth.sasl.oauthbearer.expected.issuer={ISSUER}
ssl.principal.mapping.rules=RULE:^CN=([a-z]+)$/$1/,DEFAULT
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
super.users=User:admin;User:ANONYMOUS
"""


class KafkaTlsServer(KafkaServer):
    """One broker; `bootstrap` is a door without TLS for the harness alone, with all rights."""

    KIND = "kafka-tls"

    @classmethod
    def plan(cls, place):
        tls = place / "tls"
        tls.mkdir()
        authority = Authority(tls)
        authority.server()
        for user in USERS:
            authority.client(user)
        jwks = tls / "jwks.json"
        private = _write_jwks(jwks)
        ports = {name: free_port() for name in _DOORS}
        passwords = {user: secrets.token_urlsafe(18) for user in USERS}
        for user, password in passwords.items():
            (tls / f"{user}.password").write_text(password)
        facts = cls.written(
            place, ONE + _PROPERTIES.format(tls=tls, jwks=jwks.as_uri()),
            port=ports["PLAINTEXT"], controller=f"1@{LOOPBACK}:{ports['CONTROLLER']}",
            listeners=",".join(f"{name}://{LOOPBACK}:{port}" for name, port in ports.items()),
            scram=list(passwords.items()),
        )  # fmt: skip
        return {**facts, "ports": ports, "passwords": passwords, "private": private}

    def spec(self):
        spec = super().spec()
        keys = self._file("jwks.json").as_uri()
        allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys}"
        return Spec([spec.argv[0], allowed, *spec.argv[1:]])

    @property
    def scram(self) -> str:
        """ "host:port" for users by password."""
        return f"{LOOPBACK}:{self.facts['ports']['SCRAM']}"

    @property
    def mtls(self) -> str:
        """ "host:port" for users by certificate."""
        return f"{LOOPBACK}:{self.facts['ports']['MTLS']}"

    @property
    def oauth(self) -> str:
        """ "host:port" for users by token."""
        return f"{LOOPBACK}:{self.facts['ports']['OAUTH']}"

    @property
    def ca(self):
        """The file of the authority to trust."""
        return self._file("ca.crt")

    @property
    def passwords(self) -> dict[str, str]:
        """The password of each user."""
        return self.facts["passwords"]

    def password_file(self, user):
        """The file with a user's password."""
        return self._file(f"{user}.password")

    def certificate(self, user):
        """Paths of a user's chain and key."""
        return self._file(f"{user}.crt"), self._file(f"{user}.key")

    def token(self, user, **claims) -> str:
        """An access token for a user; claims given as None are left out."""
        now = int(time.time())
        usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": user, "iat": now - 5, "exp": now + 300}
        kept = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        private = jwt.PyJWK(self.facts["private"])
        return jwt.encode(kept, private, algorithm="RS256", headers={"kid": _KEY})

    def allow(self, user, operation, name, *, resource="topic", prefixed=False) -> None:
        """Add an ACL; `name` is a topic or group, `kafka-cluster` for the resource `cluster`."""
        answer = []
        request = CreateAclsRequest(_RESOURCES[resource], name, 4 if prefixed else 3,
                                    f"User:{user}", "*", _OPERATIONS[operation], 3)  # fmt: skip

        async def ask():
            admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
            await admin.start()
            try:
                answer.append(await admin._send_to_controller(request))
            finally:
                await admin.close()

        thread = threading.Thread(target=lambda: asyncio.run(ask()))  # the caller may be on a loop
        thread.start()
        thread.join()
        failed = [one for one in answer[0].creation_responses if one[0]]
        assert not failed, failed

    def _file(self, name):
        return self.place / "tls" / name


def _write_jwks(path):
    """Write the public key set and return the private key as a JWK."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    algorithm = jwt.algorithms.RSAAlgorithm
    public = {**algorithm.to_jwk(private.public_key(), as_dict=True), "kid": _KEY, "use": "sig",
              "alg": "RS256"}  # fmt: skip
    path.write_text(json.dumps({"keys": [public]}))
    return algorithm.to_jwk(private, as_dict=True)


@pytest.fixture(scope="session")
def kafka_tls_server():
    """The broker behind TLS that all tests of the run share; choose topic names of your own."""
    availability.need(KafkaTlsServer)
    return KafkaTlsServer.shared()


@pytest.fixture(scope="module")
def kafka_tls_alone():
    """A broker behind TLS for this test file alone, to stop, kill and pause."""
    availability.need(KafkaTlsServer)
    with KafkaTlsServer.own() as server:
        yield server
