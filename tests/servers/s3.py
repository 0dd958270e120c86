"""An S3 store: versitygw on a folder, with versions, object lock and users.

    bucket = s3_server.bucket(versioning=True)      a new one, its name
    s3_server.call("GET", f"/{bucket}", "versions")  any request, signed by the owner

`s3_alone` is the same for one test file: .stop() .start() .kill() .pause() .resume()
"""

import contextlib
import datetime as dt
import hashlib
import hmac
import http.client
import json
import secrets
import urllib.parse

import pytest

from tests.servers import availability, cache
from tests.servers.process import Server, Spec, free_port, http_status

REGION = "us-east-1"
_PACKAGE = "github.com/versity/versitygw/cmd/versitygw"
_VERSIONING = (
    '<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Status>Enabled</Status></VersioningConfiguration>"
)


def _build(folder):
    cache.go_program(_PACKAGE, cache.VERSIONS["versitygw"], folder)


cache.register(cache.Recipe("versitygw", cache.VERSIONS["versitygw"], _build, needs=("go",)))


class S3Error(RuntimeError):
    """The store refused a request of the harness; `status` and `body` have its answer."""

    def __init__(self, what, status, body):
        super().__init__(f"{what}: {status} {body[:500]!r}")
        self.status = status
        self.body = body


class S3Server(Server):
    """One versitygw; `access_key` and `secret_key` are its owner's."""

    KIND, PARTS = "s3", ("versitygw",)

    @classmethod
    def plan(cls, place):
        for folder in ("objects", "versions", "iam"):
            (place / folder).mkdir()
        return {"port": free_port(), "access": "owner", "secret": secrets.token_urlsafe(18)}

    def spec(self):
        argv = [self.at("versitygw", "versitygw"), "--port", self.address, "--region", REGION,
                "--quiet", "--health", "/health", "--iam-dir", self.place / "iam",
                "posix", "--versioning-dir", self.place / "versions",
                self.place / "objects"]  # fmt: skip
        env = {"ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key}
        return Spec(argv, env=env)

    def healthy(self):
        return http_status(f"{self.endpoint}/health") == 200

    @property
    def endpoint(self) -> str:
        """The URL that clients are told."""
        return f"http://{self.address}"

    @property
    def access_key(self) -> str:
        """The owner's."""
        return self.facts["access"]

    @property
    def secret_key(self) -> str:
        """The owner's."""
        return self.facts["secret"]

    def bucket(self, *, versioning=False, lock=False) -> str:
        """Make a bucket and return its name. `lock` (object lock) brings versioning with it."""
        name = f"b-{secrets.token_hex(6)}"
        headers = {"x-amz-bucket-object-lock-enabled": "true"} if lock else {}
        self.call("PUT", f"/{name}", headers=headers)
        if versioning or lock:
            self.call("PUT", f"/{name}", "versioning", body=_VERSIONING.encode())
        return name

    def user(self, role="user") -> tuple[str, str]:
        """Make a user, who may do nothing yet, and return access and secret key."""
        access, secret = f"u{secrets.token_hex(5)}", secrets.token_urlsafe(18)
        body = (
            f"<Account><Access>{access}</Access><Secret>{secret}</Secret><Role>{role}</Role>"
            "<UserID>0</UserID><GroupID>0</GroupID></Account>"
        )
        self.call("PATCH", "/create-user", body=body.encode())
        return access, secret

    def allow(self, bucket, *statements) -> None:
        """Set the bucket's policy: (access key, actions, resource pattern below the bucket)."""
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"AWS": [who]},
                    "Action": [f"s3:{action}" for action in actions],
                    "Resource": f"arn:aws:s3:::{bucket}{pattern}",
                }
                for who, actions, pattern in statements
            ],
        }
        self.call("PUT", f"/{bucket}", "policy", body=json.dumps(policy).encode())

    def call(self, method, path, query="", *, body=b"", headers=None, key=None):
        """One signed request, by the owner or `key` = (access, secret): (headers, body)."""
        access, secret = key or (self.access_key, self.secret_key)
        signed = _signed(method, self.address, path, query, body, headers or {}, access, secret)
        connection = http.client.HTTPConnection(self.address, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path + (f"?{query}" if query else ""), body, signed)
            response = connection.getresponse()
            answer = response.read()
        if response.status >= 300:
            raise S3Error(f"{method} {path}?{query}", response.status, answer)
        return response.headers, answer


def _signed(method, host, path, query, body, headers, access, secret):
    """Headers with an AWS signature, version 4 (docs: "Create a signed AWS API request")."""
    now = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    wanted = {
        "host": host,
        "x-amz-date": now,
        "x-amz-content-sha256": digest,
        **{name.lower(): value for name, value in headers.items()},
    }
    names = ";".join(sorted(wanted))
    pairs = sorted(urllib.parse.parse_qsl(query, keep_blank_values=True))
    canonical = "\n".join(
        [
            method,
            urllib.parse.quote(path),
            urllib.parse.urlencode(pairs, quote_via=urllib.parse.quote),
            *(f"{name}:{wanted[name]}" for name in sorted(wanted)),
            "",
            names,
            digest,
        ]
    )
    scope = f"{now[:8]}/{REGION}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"Credential={access}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**wanted, "authorization": f"AWS4-HMAC-SHA256 {credential}"}


@pytest.fixture(scope="session")
def s3_server():
    """The S3 store that all tests of the run share; ask it for a `bucket()`."""
    availability.need(S3Server)
    return S3Server.shared()


@pytest.fixture(scope="module")
def s3_alone():
    """An S3 store for this test file alone, to stop, kill and pause."""
    availability.need(S3Server)
    with S3Server.own() as server:
        yield server
