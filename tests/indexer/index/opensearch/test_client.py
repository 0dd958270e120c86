import logging
import ssl
from pathlib import Path

import pytest

from sealtape.indexer.index import open_index
from sealtape.indexer.index.opensearch.adapter import store_url
from sealtape.indexer.index.opensearch.client import Cluster, _host, cause_of
from sealtape.schemas.errors import SettingsError, StoreBusy, StoreError
from tests.servers.http_faults import fault_proxy
from tests.servers.process import free_port
from tests.servers.tls import write_certificate

HERE = Path("/")
SECRET = "a-secret-that-must-not-show"


MADE = []


def cluster(url, base=HERE):
    MADE.append(Cluster(store_url(url), base))
    return MADE[-1]


@pytest.fixture(autouse=True)
async def closed():
    yield
    while MADE:
        await MADE.pop().close()


def told(error):
    """Everything that a log or a person could see of an error."""
    seen = []
    while error is not None:
        seen += [str(error), repr(getattr(error, "context", ""))]
        error = error.__cause__
    return " ".join(seen)


async def test_it_asks_and_answers(opensearch_server):
    found = cluster(opensearch_server.index_url("t"))
    assert (await found.request("GET", "/"))["version"]["number"].startswith("3.")
    assert await found.request("GET", "/nothing-here/_doc/1", missing_ok=True) is None
    with pytest.raises(StoreError, match="404 index_not_found_exception"):
        await found.request("GET", "/nothing-here/_doc/1")
    await found.close()
    await found.close()
    with pytest.raises(StoreError, match="closed"):
        await found.request("GET", "/")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("search", {"host": "search", "port": 9200}),
        ("search:1", {"host": "search", "port": 1}),
        ("[::1]", {"host": "::1", "port": 9200}),
        ("[::1]:92", {"host": "::1", "port": 92}),
    ],
)
def test_hosts(text, expected):
    assert _host(text) == expected


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        ({"error": {"type": "x_exception", "reason": SECRET}}, "x_exception"),
        ({"error": "no handler found for uri [/" + SECRET}, ""),
        ({"error": "x_exception"}, "x_exception"),
        ({}, ""),
        (None, ""),
        ("text", ""),
    ],
)
def test_only_the_kind_of_an_error_is_told(answer, cause):
    assert cause_of(answer) == cause


@pytest.mark.parametrize(
    "url",
    [
        "opensearch:///t",
        "opensearch://h:1/",
        "opensearch://h:1/A",
        "opensearch://h:1/t?shard=1",
        "opensearch://h:1/t?shards=0",
        "opensearch://h:1/t?replicas=x",
        "opensearch://h:1/t?password_env=NOT_SET_ANYWHERE",
        "opensearch://u:p@h:1/t",
        "opensearch://h:1/t?ca=/not/there.pem",
        "opensearch:h",
    ],
)
async def test_a_url_is_read_with_care(url):
    with pytest.raises(SettingsError):
        await open_index(url, HERE)


async def test_a_password_needs_a_user(monkeypatch):
    monkeypatch.setenv("SEARCH", SECRET)
    with pytest.raises(SettingsError, match="no user"):
        cluster("opensearch://h:1/t?password_env=SEARCH")


async def test_nobody_there():
    found = cluster(f"opensearch://127.0.0.1:{free_port()}/t?tls=disable")
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        await found.request("GET", "/")
    assert not isinstance(caught.value, StoreBusy)


async def test_the_second_host_answers(opensearch_server):
    hosts = f"127.0.0.1:{free_port()},{opensearch_server.address}"
    found = cluster(f"opensearch://{hosts}/t?tls=disable")
    for _ in range(3):
        assert await found.request("GET", "/")


async def test_faults_on_the_way(opensearch_server):
    async with fault_proxy(opensearch_server.url) as proxy:
        found = cluster(f"opensearch://127.0.0.1:{proxy.port}/t?tls=disable")
        proxy.reset(lambda _: True, times=99)
        with pytest.raises(StoreError, match="cannot be reached"):
            await found.request("GET", "/")
        assert 90 < proxy.rules[0].times < 98  # it was asked again, and not for ever
        proxy.rules.clear()
        proxy.silence(lambda _: True)
        with pytest.raises(StoreBusy, match="in time"):
            await found.request("GET", "/", timeout_s=0.3)
        proxy.answer(lambda _: True, "503 Unavailable", times=2)
        with pytest.raises(StoreBusy, match="503"):
            await found.request("GET", "/")
        proxy.answer(lambda _: True, "200 OK", b"{", headers=("Content-Type: application/json",))
        with pytest.raises(StoreError, match="no answer to read"):
            await found.request("GET", "/")
        assert await found.request("GET", "/")


# -- TLS and logins ------


async def test_a_login_over_tls(opensearch_secure, monkeypatch):
    monkeypatch.setenv("SEARCH", opensearch_secure.password)
    found = cluster(opensearch_secure.index_url("t", password_env="SEARCH"))
    answer = await found.request("GET", "/_plugins/_security/authinfo")
    assert answer["user_name"] == opensearch_secure.user == found.user


async def test_a_wrong_password_is_told_without_it(opensearch_secure, monkeypatch, caplog):
    monkeypatch.setenv("SEARCH", SECRET)
    caplog.set_level(logging.DEBUG)
    found = cluster(opensearch_secure.index_url("t", password_env="SEARCH"))
    with pytest.raises(StoreError, match="refuses the login of 'root-of-tests'") as caught:
        await found.request("GET", "/")
    assert "password_file" in caught.value.hint
    assert SECRET not in told(caught.value)
    assert SECRET not in caplog.text


async def test_no_login_at_all(opensearch_secure):
    found = cluster(opensearch_secure.index_url("t").replace("root-of-tests@", ""))
    with pytest.raises(StoreError, match="refuses the login of 'nobody'"):
        await found.request("GET", "/")


async def test_a_rotated_password_is_taken(opensearch_secure, tmp_path):
    first, second = "First-password-11", "Second-password-22"
    opensearch_secure.create_user("rotated", first, ["all_access"])
    (tmp_path / "secret").write_text(first + "\n")
    url = opensearch_secure.index_url("t", user="rotated", password_file="secret")
    found = cluster(url, tmp_path)
    assert await found.request("GET", "/")
    opensearch_secure.create_user("rotated", second, ["all_access"])
    with pytest.raises(StoreError, match="refuses the login"):
        await found.request("GET", "/")
    (tmp_path / "secret").write_text(second)
    assert await found.request("GET", "/")


async def test_the_wrong_authority(opensearch_secure, tmp_path, monkeypatch):
    monkeypatch.setenv("SEARCH", opensearch_secure.password)
    chain, _ = write_certificate(tmp_path)
    found = cluster(opensearch_secure.index_url("t", ca=str(chain), password_env="SEARCH"))
    with pytest.raises(StoreError, match="No TLS") as caught:
        await found.request("GET", "/")
    assert "local issuer" in caught.value.message
    assert "ca=" in caught.value.hint
    assert opensearch_secure.password not in told(caught.value)


async def test_another_name_than_the_certificates(opensearch_secure, monkeypatch):
    monkeypatch.setenv("SEARCH", opensearch_secure.password)
    url = opensearch_secure.index_url("t", password_env="SEARCH")
    found = cluster(url.replace("@127.0.0.1", "@127.0.0.2"))
    with pytest.raises(StoreError):
        await found.request("GET", "/")


async def test_encrypted_and_unchecked_only_when_told(opensearch_secure, monkeypatch):
    monkeypatch.setenv("SEARCH", opensearch_secure.password)
    found = cluster(opensearch_secure.index_url("t", tls="require", password_env="SEARCH"))
    assert found._context.verify_mode is ssl.CERT_NONE
    assert await found.request("GET", "/")


async def test_plaintext_where_tls_is_spoken(opensearch_secure):
    url = opensearch_secure.index_url("t", tls="disable")
    found = cluster(url.replace("root-of-tests@", ""))
    with pytest.raises(StoreError, match="speaks TLS"):
        await found.request("GET", "/")


async def test_a_login_by_certificate(opensearch_secure):
    config = opensearch_secure.ca.parent
    url = opensearch_secure.index_url(
        "t", cert=str(config / "admin.crt"), key=str(config / "admin.key")
    )
    found = cluster(url.replace("root-of-tests@", ""))
    answer = await found.request("GET", "/_plugins/_security/authinfo")
    assert answer["principal"] == "CN=admin"


async def test_requests_are_not_logged(opensearch_server, caplog):
    caplog.set_level(logging.DEBUG)
    found = cluster(opensearch_server.index_url("t"))
    with pytest.raises(StoreError):
        await found.request("POST", "/_search", {"query": {SECRET: {}}})
    await found.request("POST", "/_search", {"query": {"match": {"x": SECRET}}})
    assert SECRET not in caplog.text


async def test_a_deprecation_is_no_error(opensearch_server, caplog):
    caplog.set_level(logging.INFO)
    async with fault_proxy(opensearch_server.url) as proxy:
        warning = 'Warning: 299 OpenSearch-3.4.0-0 "this will go"'
        headers = ("Content-Type: application/json", warning)
        proxy.answer(lambda _: True, "200 OK", b"{}", headers=headers)
        found = cluster(f"opensearch://127.0.0.1:{proxy.port}/t?tls=disable")
        assert await found.request("GET", "/") == {}
    assert "this will go" in caplog.text
