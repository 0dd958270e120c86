"""Where the two clients of an `s3:` vault send their requests: always to one place."""

import os
from datetime import timedelta
from inspect import cleandoc

import obstore
import pytest

from sealtape.ingest.vault import open_vault
from sealtape.schemas.errors import SettingsError, StoreError
from tests.factories.s3_vaults import SECRET_VARIABLE
from tests.servers.http_faults import fault_proxy

URL = f"s3://id@evidence/prod?password_env={SECRET_VARIABLE}"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv(SECRET_VARIABLE, "hunter2")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


async def places(url, base):
    """The URLs, without their signatures, under which each client reads the object `a`."""
    vault = await open_vault(url, base)
    stores = (vault._reading, vault._writing)
    signed = [await obstore.sign_async(store, "GET", "a", timedelta(60)) for store in stores]
    wanted = {"Bucket": "evidence", "Key": vault.native.prefix + "a"}
    signed.append(vault.native._client.generate_presigned_url("get_object", Params=wanted))
    await vault.close()
    return {each.partition("?")[0] for each in signed}


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ("&endpoint=https://s3.test:9000", "https://s3.test:9000/evidence/prod/a"),
        ("&endpoint=https://s3.test/", "https://s3.test/evidence/prod/a"),
        ("&endpoint=https://s3.test/s3", "https://s3.test/s3/evidence/prod/a"),
        ("&endpoint=https://s3.test:9000&path_style=0", "https://evidence.s3.test:9000/prod/a"),
        ("&endpoint=https://s3.test/&path_style=0", "https://evidence.s3.test/prod/a"),
    ],
)
async def test_a_url_names_one_place(tmp_path, options, place):
    assert await places(URL + options, tmp_path) == {place}


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
async def test_a_variable_names_one_place(tmp_path, monkeypatch, variable):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://other.test")
    monkeypatch.setenv(variable, "https://s3.test")
    assert await places(URL, tmp_path) == {"https://s3.test/evidence/prod/a"}
    url = URL + "&endpoint=https://named.test"
    assert await places(url, tmp_path) == {"https://named.test/evidence/prod/a"}


@pytest.mark.parametrize(
    "lines",
    [
        "endpoint_url = https://s3.test\n",
        """
        endpoint_url = https://other.test
        services = here
        [services here]
        s3 =
          endpoint_url = https://s3.test
        """,
    ],
)
async def test_a_profile_names_one_place(tmp_path, lines):
    (tmp_path / "config").write_text(f"[default]\n{cleandoc(lines)}\n")
    assert await places(URL, tmp_path) == {"https://s3.test/evidence/prod/a"}


async def test_plaintext_is_refused_wherever_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.test")
    with pytest.raises(SettingsError, match="not https"):
        await open_vault(URL, tmp_path)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_SKIP_SIGNATURE", "true"),
        ("AWS_CONDITIONAL_PUT", "disabled"),
        ("AWS_S3_EXPRESS", "true"),
    ],
)
async def test_variables_of_one_client_change_nothing(tmp_path, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    async with fault_proxy("http://127.0.0.1:1") as proxy:
        proxy.answer(lambda _: True, "200 OK", headers=['ETag: "1"'])
        vault = await open_vault(f"{URL}&endpoint={proxy.url}&allow_http=1", tmp_path)
        await vault.put_new("a", b"1")
        await vault.close()
    (put,) = proxy.seen
    assert put.headers["if-none-match"] == "*"
    assert put.headers["authorization"].startswith("AWS4-HMAC-SHA256")


@pytest.mark.parametrize("headers", [["Location: https://s3.test/"], []])
async def test_a_redirection_is_told(tmp_path, headers):
    """By a web server before the store, or by Amazon, whose bucket is in another region."""
    async with fault_proxy("http://127.0.0.1:1") as proxy:
        proxy.answer(lambda _: True, "301 Moved Permanently", times=999, headers=headers)
        vault = await open_vault(f"{URL}&endpoint={proxy.url}&allow_http=1", tmp_path)
        for call in (vault.put_new("a", b"1"), vault.erase("a")):
            with pytest.raises(StoreError, match=r"redirect|301") as caught:
                await call
            assert type(caught.value) is StoreError
            assert "region=" in caught.value.hint
        await vault.close()
    assert len(proxy.seen) < 999


async def test_credentials_that_cannot_be_renewed_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("sealtape.ingest.vault.bucket.PATIENCE_S", 0.0)
    monkeypatch.setattr("sealtape.ingest.vault.s3.RENEW", timedelta(0))
    answer = (
        '{"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "hunter2",'
        ' "Expiration": "2001-01-01T00:00:00Z"}'
    )
    (tmp_path / "answer").write_text(answer)
    (tmp_path / "config").write_text(
        f"[profile p]\ncredential_process = cat {tmp_path / 'answer'}\n"
    )
    url = "s3://evidence/prod?profile=p&allow_http=1&endpoint=http://127.0.0.1:1"
    vault = await open_vault(url, tmp_path)
    (tmp_path / "answer").unlink()
    for call in (vault.put_new("a", b"1"), vault.get("a"), vault.erase("a")):
        with pytest.raises(StoreError, match="credentials could not be had") as caught:
            await call
        assert "401" not in caught.value.message
        assert "hunter2" not in str(caught.value)
    await vault.close()
