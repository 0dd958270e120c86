"""Answers that the store of the tests never gives: a proxy stands in for the server."""

from contextlib import asynccontextmanager

import pytest

from sealtape.ingest.vault import open_vault, prepare_vault
from sealtape.schemas.errors import StoreBusy, StoreError
from tests.factories.s3_vaults import SECRET_VARIABLE
from tests.servers.http_faults import fault_proxy

UPLOAD = b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"


def coded(code):
    return f"<Error><Code>{code}</Code></Error>".encode()


@pytest.fixture
async def proxy(monkeypatch):
    monkeypatch.setenv(SECRET_VARIABLE, "hunter2")
    async with fault_proxy("http://127.0.0.1:1") as proxy:
        yield proxy


def url_of(proxy):
    options = f"password_env={SECRET_VARIABLE}&allow_http=1&multipart=5242880"
    return f"s3://id@evidence/prod?endpoint={proxy.url}&{options}"


@asynccontextmanager
async def opened(proxy, base):
    vault = await open_vault(url_of(proxy), base)
    try:
        yield vault
    finally:
        await vault.close()


@pytest.mark.parametrize("status", ["501 Not Implemented", "405 Method Not Allowed"])
async def test_a_store_that_lists_no_uploads_has_none_to_abort(proxy, tmp_path, status):
    proxy.answer(lambda request: "uploads" in request.query, status, coded("NotImplemented"))
    async with opened(proxy, tmp_path) as vault:
        assert await vault.tidy() == 0


async def test_an_upload_that_is_gone_is_to_be_tried_again(proxy, tmp_path):
    """Somebody has aborted it; what is missing is no object of whoever asked."""
    proxy.answer(lambda request: "uploads" in request.query, "200 OK", UPLOAD)
    proxy.answer(lambda request: request.method == "PUT", "200 OK", headers=['ETag: "1"'], times=9)
    proxy.answer(lambda request: request.method == "POST", "404 Not Found", coded("NoSuchUpload"))
    proxy.answer(lambda request: request.method == "HEAD", "404 Not Found")
    proxy.answer(lambda request: request.method == "DELETE", "204 No Content")
    async with opened(proxy, tmp_path) as vault:
        with pytest.raises(StoreBusy, match="upload"):
            await vault.put_new("a", bytes(6 << 20))


async def test_two_that_prepare_a_bucket_at_once(proxy, tmp_path):
    proxy.answer(lambda request: request.method == "HEAD", "404 Not Found", times=9)
    body = coded("BucketAlreadyOwnedByYou")
    proxy.answer(lambda request: request.method == "PUT", "409 Conflict", body)
    assert await prepare_vault(url_of(proxy), tmp_path) == []


async def test_a_bucket_of_somebody_else(proxy, tmp_path):
    proxy.answer(lambda request: request.method == "HEAD", "404 Not Found", times=9)
    body = coded("BucketAlreadyExists")
    proxy.answer(lambda request: request.method == "PUT", "409 Conflict", body)
    with pytest.raises(StoreError, match="BucketAlreadyExists") as caught:
        await prepare_vault(url_of(proxy), tmp_path)
    assert "another name" in caught.value.hint
