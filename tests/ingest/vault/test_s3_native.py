"""What only S3 has, on a real store; faults come from a proxy before it."""

import asyncio
import os
import time

import pytest

from sealtape.ingest.vault import s3_native as module
from sealtape.schemas.errors import Exists, Missing, StoreBusy, StoreError
from tests.factories.circles import Burden, without_collector
from tests.factories.s3_vaults import s3_vault
from tests.servers.http_faults import fault_proxy

MIB = 1 << 20
DATA = os.urandom(17 * MIB)


def parts(request):
    return "partNumber" in request.query


def completions(request):
    return request.method == "POST" and "uploadId" in request.query


def starts(request):
    return request.method == "POST" and "uploads" in request.query


def deletes(request):
    return request.method == "DELETE"


def versions(request):
    return "versions" in request.query


@pytest.fixture
async def proxy(s3):
    async with fault_proxy(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def bucket(s3):
    return s3.bucket()


@pytest.fixture
async def vault(s3, bucket, proxy, monkeypatch):
    monkeypatch.setattr(module, "PART_BYTES", 5 * MIB)
    options = {"endpoint": proxy.url, "multipart": 5 * MIB, "timeout": "5s"}
    async with s3_vault(s3, bucket, **options) as vault:
        yield vault


class TestUploadsInParts:
    async def test_a_large_object_goes_in_parts(self, vault, proxy):
        await vault.put_new("a/large", DATA)
        sent = [request for request in proxy.seen if parts(request)]
        assert sorted(request.query["partNumber"][0] for request in sent) == ["1", "2", "3", "4"]
        assert all(request.headers["x-amz-checksum-sha256"] for request in sent)
        (completion,) = filter(completions, proxy.seen)
        assert completion.headers["if-none-match"] == "*"
        assert await vault.get("a/large") == DATA
        assert await vault.size("a/large") == len(DATA)

    async def test_nothing_is_overwritten_and_nothing_left(self, vault, raw, bucket):
        await vault.put_new("a", b"first")
        with pytest.raises(Exists):
            await vault.put_new("a", DATA)
        assert await vault.get("a") == b"first"
        assert not raw.list_multipart_uploads(Bucket=bucket).get("Uploads")

    async def test_one_of_many_creators_wins(self, vault):
        datas = [bytes([number]) + DATA[: 6 * MIB] for number in range(4)]
        puts = [vault.put_new("a", data) for data in datas]
        results = await asyncio.gather(*puts, return_exceptions=True)
        winners = [number for number, result in enumerate(results) if result is None]
        assert len(winners) == 1
        assert all(isinstance(r, Exists) for n, r in enumerate(results) if n not in winners)
        assert await vault.get("a") == datas[winners[0]]

    async def test_a_part_that_fails_is_sent_again(self, vault, proxy):
        proxy.answer(parts, "503 Slow Down", times=1)
        proxy.reset(parts, times=1, skip=2)
        await vault.put_new("a", DATA)
        assert await vault.get("a") == DATA

    async def test_an_upload_that_goes_on_failing_leaves_nothing(self, vault, proxy, raw, bucket):
        proxy.answer(lambda r: parts(r) and r.query["partNumber"] == ["3"], "500 Oops", times=99)
        with pytest.raises(StoreBusy, match="500"):
            await vault.put_new("a", DATA)
        assert not raw.list_multipart_uploads(Bucket=bucket).get("Uploads")
        with pytest.raises(Missing):
            await vault.get("a")
        proxy.rules.clear()
        await vault.put_new("a", DATA)
        assert await vault.get("a") == DATA

    async def test_nothing_of_a_failed_upload_stays(self, vault, proxy):
        burden = Burden()
        proxy.answer(lambda r: parts(r) and r.query["partNumber"] == ["3"], "500 Oops", times=99)
        with without_collector():
            with pytest.raises(StoreBusy):
                await vault.put_new("a", burden.lifted(DATA))
            assert burden.gone()

    async def test_a_refused_start_is_said(self, vault, proxy):
        proxy.answer(starts, "403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>")
        with pytest.raises(StoreError, match="AccessDenied"):
            await vault.put_new("a", DATA)

    async def test_a_lost_completion_is_found_out(self, vault, proxy):
        proxy.lose_answer(completions, times=1)
        await vault.put_new("a", DATA)
        assert await vault.get("a") == DATA

    async def test_all_completions_lost(self, vault, proxy):
        proxy.lose_answer(completions, times=99)
        await vault.put_new("a", DATA)
        assert await vault.get("a") == DATA

    async def test_a_completion_that_never_arrives(self, vault, proxy, raw, bucket):
        proxy.reset(completions, times=99)
        with pytest.raises(StoreBusy):
            await vault.put_new("a", DATA)
        with pytest.raises(Missing):
            await vault.get("a")
        assert not raw.list_multipart_uploads(Bucket=bucket).get("Uploads")

    async def test_an_abort_that_fails_is_left_to_tidying(self, vault, proxy, raw, bucket):
        proxy.answer(parts, "500 Oops", times=99)
        proxy.answer(deletes, "500 Oops", times=99)
        with pytest.raises(StoreBusy):
            await vault.put_new("a", DATA)
        assert len(raw.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 1

    async def test_a_cancelled_upload_leaves_nothing(self, vault, proxy, raw, bucket):
        proxy.delay(parts, 0.5, times=99)
        put = asyncio.create_task(vault.put_new("a", DATA))
        await asyncio.sleep(0.3)
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        async with asyncio.timeout(60):  # what was sent already arrives in its own time
            while raw.list_multipart_uploads(Bucket=bucket).get("Uploads"):
                await asyncio.sleep(0.2)
        with pytest.raises(Missing):
            await vault.get("a")

    async def test_tidying_aborts_what_is_old_and_ours(self, vault, raw, bucket, monkeypatch):
        for key in ("deep/prefix/a", "deep/prefix/b", "deep/prefix-not/c"):
            raw.create_multipart_upload(Bucket=bucket, Key=key)
        assert await vault.tidy() == 0
        monkeypatch.setattr(module, "ABANDONED", -module.ABANDONED)
        assert await vault.tidy() == 2
        (left,) = raw.list_multipart_uploads(Bucket=bucket)["Uploads"]
        assert left["Key"] == "deep/prefix-not/c"


class TestErasing:
    async def test_every_version_is_removed(self, s3, raw):
        bucket = s3.bucket(versioning=True)
        async with s3_vault(s3, bucket, "p") as vault:
            await vault.put_new("a", b"1")
            for content in (b"2", b"3"):  # behind the vault's back
                raw.delete_object(Bucket=bucket, Key="p/a")
                raw.put_object(Bucket=bucket, Key="p/a", Body=content)
            await vault.put_new("a-not", b"4")
            await vault.put_new("a.not", b"5")
            found = raw.list_object_versions(Bucket=bucket, Prefix="p/a")
            assert len(found["Versions"]) == 5
            assert len(found["DeleteMarkers"]) == 2
            await vault.erase("a")
            found = raw.list_object_versions(Bucket=bucket, Prefix="p/a")
            assert [version["Key"] for version in found["Versions"]] == ["p/a-not", "p/a.not"]
            assert not found.get("DeleteMarkers")
            assert [key async for key in vault.keys("")] == ["a-not", "a.not"]

    @pytest.mark.parametrize("status", ["501 Not Implemented", "405 Method Not Allowed"])
    async def test_a_store_without_versions(self, vault, proxy, status):
        await vault.put_new("a", b"1")
        proxy.answer(versions, status, b"<Error><Code>NotImplemented</Code></Error>", times=99)
        await vault.erase("a")
        await vault.erase("a")
        with pytest.raises(Missing):
            await vault.get("a")

    async def test_a_failing_store(self, vault, proxy):
        await vault.put_new("a", b"1")
        for fault in (versions, deletes):
            proxy.answer(fault, "503 Slow Down", times=99)
            with pytest.raises(StoreBusy, match="503"):
                await vault.erase("a")
            proxy.rules.clear()
        assert await vault.get("a") == b"1"
        proxy.answer(deletes, "503 Slow Down", times=1)
        await vault.erase("a")

    async def test_a_refusal_that_is_no_lock(self, vault, proxy):
        await vault.put_new("a", b"1")
        denied = b"<Error><Code>AccessDenied</Code></Error>"
        proxy.answer(deletes, "403 Forbidden", denied, times=99)
        with pytest.raises(StoreError, match="403") as caught:
            await vault.erase("a")
        assert not isinstance(caught.value, StoreBusy)


class TestLocks:
    @pytest.fixture
    def bucket(self, s3):
        return s3.bucket(versioning=True, lock=True)

    async def test_the_mode_is_the_one_that_was_asked_for(self, s3, raw, bucket):
        until_ns = (int(time.time()) + 2) * 1_000_000_000 + 1
        async with s3_vault(s3, bucket, "p", lock="governance") as vault:
            await vault.put_new("a", b"1", retain_until_ns=until_ns)
            found = raw.get_object_retention(Bucket=bucket, Key="p/a")["Retention"]
            assert found["Mode"] == "GOVERNANCE"
            assert found["RetainUntilDate"].timestamp() * 1e9 >= until_ns
            with pytest.raises(StoreBusy, match="locked until 20"):
                await vault.erase("a")

    async def test_a_lock_grows_and_never_shrinks(self, s3, raw, bucket):
        async with s3_vault(s3, bucket, "p", lock="compliance") as vault:
            now = int(time.time())
            await vault.put_new("a", b"1", retain_until_ns=(now + 2) * 1_000_000_000)
            assert await vault.retain("a", (now + 3) * 1_000_000_000)
            assert await vault.retain("a", (now + 1) * 1_000_000_000)
            found = raw.get_object_retention(Bucket=bucket, Key="p/a")["Retention"]
            assert found["RetainUntilDate"].timestamp() == now + 3

    async def test_a_time_that_has_passed_locks_nothing(self, s3, raw, bucket):
        async with s3_vault(s3, bucket, "p", lock="compliance") as vault:
            await vault.put_new("a", b"1", retain_until_ns=1)
            assert await vault.retain("a", time.time_ns() - 10**9)
            await vault.erase("a")
            with pytest.raises(Missing):
                await vault.retain("a", 1)

    async def test_without_being_told_nothing_is_locked(self, s3, raw, bucket):
        async with s3_vault(s3, bucket, "p") as vault:
            until_ns = time.time_ns() + 3_600_000_000_000
            await vault.put_new("a", b"1", retain_until_ns=until_ns)
            assert not await vault.retain("a", until_ns)
            assert not await vault.hold("a", on=True)
            await vault.erase("a")

    async def test_an_object_that_could_not_be_locked_is_not_put(self, s3, proxy):
        """Nothing counts on an object whose creation failed, so it may stay without its lock."""
        options = {"endpoint": proxy.url, "lock": "compliance"}
        async with s3_vault(s3, s3.bucket(), **options) as vault:
            with pytest.raises(StoreError, match="lock of a"):
                await vault.put_new("a", b"1", retain_until_ns=time.time_ns() + 10**10)

    async def test_a_failing_store(self, s3, proxy, bucket):
        options = {"endpoint": proxy.url, "lock": "compliance"}
        async with s3_vault(s3, bucket, **options) as vault:
            await vault.put_new("a", b"1")
            proxy.reset(lambda r: "retention" in r.query, times=99)
            with pytest.raises(StoreBusy):
                await vault.retain("a", time.time_ns() + 10**9)
            proxy.rules.clear()
            proxy.answer(lambda r: "legal-hold" in r.query, "403 Forbidden", times=99)
            with pytest.raises(StoreError, match="legal hold"):
                await vault.hold("a", on=True)
