"""`gs:` and `az:` as far as it goes without these clouds: what is built, and what is refused.

What they share with S3 (creation, reading, listing, retries) is tried in test_bucket.
"""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sealtape.ingest.vault import check_vault, open_vault
from sealtape.ingest.vault.bucket import BucketVault
from sealtape.schemas.errors import SettingsError, StoreBusy
from tests.servers.http_faults import fault_proxy

ACCOUNT_KEY = base64.b64encode(b"an account key of the tests").decode()


@pytest.fixture
def key_file(tmp_path):
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {
        "type": "service_account",
        "private_key": pem,
        "private_key_id": "1",
        "client_email": "a@b.example",
        "token_uri": "https://127.0.0.1:1/token",
    }
    (tmp_path / "gcp.json").write_text(json.dumps(account))
    return "gcp.json"


async def test_a_bucket_of_google(tmp_path, key_file):
    vault = await open_vault(f"gs://bucket/a/b?credentials_file={key_file}&timeout=3s", tmp_path)
    assert isinstance(vault, BucketVault)
    assert vault._name == "gs://bucket/a/b"
    assert vault._writing.prefix == "a/b"
    assert vault._writing.config["bucket"] == "bucket"
    assert vault._writing.retry_config["max_retries"] == 0
    assert not await vault.tidy()
    await vault.close()


async def test_a_container_of_azure(tmp_path):
    (tmp_path / "key").write_text(ACCOUNT_KEY)
    vault = await open_vault("az://account@container/a?password_file=key", tmp_path)
    assert vault._writing.config["account_name"] == "account"
    assert vault._writing.config["container_name"] == "container"
    await vault.close()


async def test_a_cloud_that_is_down(tmp_path, monkeypatch):
    monkeypatch.setenv("KEY", ACCOUNT_KEY)
    monkeypatch.setattr("sealtape.ingest.vault.bucket.PATIENCE_S", 0.1)
    url = "az://account@container?password_env=KEY&endpoint=http://127.0.0.1:1&allow_http=1"
    vault = await open_vault(url, tmp_path)
    with pytest.raises(StoreBusy, match="az://container") as caught:
        await vault.put_new("a", b"1")
    assert ACCOUNT_KEY not in str(caught.value)
    found = {check.name: check for check in await check_vault(url, tmp_path)}
    assert found["vault: access"].level == "error"
    assert "versioning" in found["vault: bucket settings"].message


async def test_creation_is_conditional_there_too(tmp_path, monkeypatch):
    """The request as it leaves us; nobody here could act on it."""
    monkeypatch.setenv("KEY", ACCOUNT_KEY)
    async with fault_proxy("http://127.0.0.1:1") as proxy:
        url = f"az://account@container/p?password_env=KEY&endpoint={proxy.url}&allow_http=1"
        vault = await open_vault(url, tmp_path)
        proxy.answer(lambda r: r.method == "PUT", "201 Created", headers=['ETag: "1"'])
        await vault.put_new("a", b"1")
        (put,) = proxy.seen
        assert put.path == "/container/p/a"
        assert put.headers["if-none-match"] == "*"
        assert put.headers["x-ms-meta-sealtapeput"]
        await vault.close()


async def test_a_swap_is_conditional_there_too(tmp_path, monkeypatch, key_file):
    """As above: Azure is told the ETag, Google the generation."""
    monkeypatch.setenv("KEY", ACCOUNT_KEY)
    found = [
        'ETag: "7"',
        "x-goog-generation: 42",
        "Last-Modified: Sun, 22 Nov 2026 00:00:00 GMT",
        "Content-Type: text/plain",
    ]
    async with fault_proxy("http://127.0.0.1:1") as proxy:
        token = b'{"access_token":"t","expires_in":3600,"token_type":"Bearer"}'
        account = json.loads((tmp_path / key_file).read_text())
        account["token_uri"] = f"{proxy.url}/token"
        (tmp_path / key_file).write_text(json.dumps(account))
        proxy.answer(
            lambda r: r.method == "POST",
            "200 OK",
            token,
            headers=["Content-Type: application/json"],
        )
        for url in (
            f"az://account@container/p?password_env=KEY&endpoint={proxy.url}&allow_http=1",
            f"gs://bucket/p?credentials_file={key_file}&endpoint={proxy.url}&allow_http=1",
        ):
            vault = await open_vault(url, tmp_path)
            proxy.answer(lambda r: r.method == "GET", "200 OK", b"old", headers=found)
            proxy.answer(lambda r: r.method == "PUT", "201 Created", headers=found)
            await vault.swap("log/v1/1/checkpoint", b"new", b"old")
            await vault.close()
    azure, google = [request for request in proxy.seen if request.method == "PUT"]
    assert azure.headers["if-match"] == '"7"'
    assert google.headers["x-goog-if-generation-match"] == "42"


async def test_what_these_adapters_do_not_have(tmp_path, monkeypatch):
    monkeypatch.setenv("KEY", ACCOUNT_KEY)
    async with fault_proxy("http://127.0.0.1:1") as proxy:
        url = f"az://account@container/p?password_env=KEY&endpoint={proxy.url}&allow_http=1"
        vault = await open_vault(url, tmp_path)
        head = ['ETag: "1"', "Last-Modified: Sun, 22 Nov 2026 00:00:00 GMT"]
        proxy.answer(lambda r: r.method == "HEAD", "200 OK", headers=head, times=2)
        assert not await vault.retain("a", 1)
        assert not await vault.hold("a", on=True)
        assert await vault.tidy() == 0
        await vault.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("gs://a,b/x", "one bucket"),
        ("gs://bucket/x//y", "prefix"),
        ("gs://bucket?region=x", "region"),
        ("gs://bucket?credentials_file=none.json", "refused"),
        ("gs://bucket?ca=none.pem", "none.pem"),
        ("az://account@container?password_file=none", "none"),
        ("az://container", "refused"),
        ("az://account@container?password_env=BAD", "refused"),
    ],
)
async def test_what_is_wrong_in_a_url_is_said(tmp_path, monkeypatch, url, said):
    monkeypatch.setenv("BAD", "not base64: hunter2")
    with pytest.raises(SettingsError, match=said) as caught:
        await open_vault(url, tmp_path)
    assert "hunter2" not in str(caught.value)
    (check,) = await check_vault(url, tmp_path)
    assert check.level == "error"
