"""What a bucket's vault does when requests fail: a real store behind a proxy that breaks things."""

import asyncio
import os
import time

import pytest

from sealtape.ingest.vault import bucket as module
from sealtape.schemas.errors import Exists, Missing, StoreBusy, StoreError, StoreFull
from tests.factories.s3_vaults import s3_vault
from tests.servers.http_faults import fault_proxy

SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
CONFLICT = b"<Error><Code>ConditionalRequestConflict</Code></Error>"


def puts(request):
    return request.method == "PUT" and not request.query


def gets(request):
    return request.method == "GET" and not request.query


def heads(request):
    return request.method == "HEAD"


def listings(request):
    return "list-type" in request.query


def listing(names, size=1):
    """A store's answer that lists these names."""
    entries = "".join(
        f"<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>x</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for name in names
    )
    body = f"<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated>{entries}"
    return f"{body}</ListBucketResult>".encode()


def anything(request):
    return True


@pytest.fixture
async def proxy(s3):
    async with fault_proxy(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
async def vault(s3, proxy):
    async with s3_vault(s3, s3.bucket(), endpoint=proxy.url, timeout="2s") as vault:
        yield vault


@pytest.fixture
async def plain(s3, vault):
    """The same vault without the proxy."""
    bucket, prefix = vault._name.removeprefix("s3://").split("/", 1)
    async with s3_vault(s3, bucket, prefix) as plain:
        yield plain


class TestCreating:
    async def test_a_put_is_conditional_and_carries_a_checksum(self, vault, proxy):
        await vault.put_new("a", b"x")
        (put,) = proxy.seen
        assert put.headers["if-none-match"] == "*"
        assert put.headers["x-amz-checksum-sha256"]

    async def test_throttling_passes(self, vault, proxy):
        proxy.answer(puts, "503 Slow Down", SLOW_DOWN, times=3)
        await vault.put_new("a", b"x")
        assert len(proxy.seen) == 4

    async def test_throttling_that_lasts_is_busy(self, vault, proxy, monkeypatch):
        monkeypatch.setattr(module, "PATIENCE_S", 0.5)
        proxy.answer(puts, "503 Slow Down", SLOW_DOWN, times=99)
        with pytest.raises(StoreBusy, match="503 \\(SlowDown\\)") as caught:
            await vault.put_new("a", b"x")
        assert caught.value.retry_after_s > 0
        proxy.rules.clear()
        await vault.put_new("a", b"x")

    @pytest.mark.parametrize("size", [1, 3 << 20])
    async def test_a_lost_answer_is_found_out(self, vault, proxy, plain, size):
        data = os.urandom(size)
        proxy.lose_answer(puts)
        await vault.put_new("a", data)
        assert await plain.get("a") == data
        with pytest.raises(Exists):
            await vault.put_new("a", data)

    async def test_only_the_creator_takes_a_lost_answer_for_its_own(self, vault, proxy, plain):
        """Two writers, the same bytes: the loser whose answer was lost must not think it won."""
        await plain.put_new("a", b"same")
        proxy.lose_answer(puts)
        with pytest.raises(Exists):
            await vault.put_new("a", b"same")

    async def test_an_error_after_the_store_has_acted_is_no_conflict(self, vault, proxy, plain):
        async def acts_and_fails(proxy, request, body, reader, writer):
            await proxy.ask(request, body)
            writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return True

        proxy.answer(puts, "500")
        proxy.rules[-1].act = acts_and_fails
        await vault.put_new("a", b"x")
        assert await plain.get("a") == b"x"

    async def test_all_answers_lost(self, vault, proxy, plain, monkeypatch):
        """Nobody answers the last question: the object is there, and the caller cannot know."""
        monkeypatch.setattr(module, "PATIENCE_S", 0.5)
        proxy.lose_answer(anything, times=99)
        with pytest.raises(StoreBusy, match=r"reset|complete"):
            await vault.put_new("a", b"x")
        assert await plain.get("a") == b"x"

    async def test_all_puts_lost_and_a_question_answered(self, vault, proxy, plain, monkeypatch):
        monkeypatch.setattr(module, "PATIENCE_S", 0.0)
        proxy.lose_answer(puts, times=99)
        await vault.put_new("a", b"x")
        assert await plain.get("a") == b"x"

    async def test_nothing_arrived_and_a_question_answered(self, vault, proxy, plain, monkeypatch):
        monkeypatch.setattr(module, "PATIENCE_S", 0.0)
        proxy.reset(puts, times=99)
        with pytest.raises(StoreBusy):
            await vault.put_new("a", b"x")
        with pytest.raises(Missing):
            await plain.get("a")

    async def test_a_conditional_write_that_met_another_is_tried_again(self, vault, proxy):
        proxy.answer(puts, "409 Conflict", CONFLICT, times=2)
        await vault.put_new("a", b"x")
        proxy.answer(puts, "409 Conflict", CONFLICT, times=1)
        with pytest.raises(Exists):
            await vault.put_new("a", b"x")

    async def test_a_store_that_hangs_is_left(self, s3, proxy, monkeypatch):
        monkeypatch.setattr(module, "PATIENCE_S", 0.5)
        options = {"endpoint": proxy.url, "timeout": "500ms"}
        async with s3_vault(s3, s3.bucket(), **options) as vault:
            proxy.silence(anything, times=99)
            started = time.monotonic()
            with pytest.raises(StoreBusy, match="no answer in time"):
                await vault.put_new("a", b"x")
            assert time.monotonic() - started < 15
            for call in (vault.get("a"), vault.size("a"), vault.keys().__anext__()):
                with pytest.raises(StoreBusy, match="no answer in time"):
                    await call

    async def test_a_large_body_has_more_time(self, s3, proxy, monkeypatch):
        monkeypatch.setattr(module, "PER_TIMEOUT", 1 << 20)
        options = {"endpoint": proxy.url, "timeout": "500ms"}
        async with s3_vault(s3, s3.bucket(), **options) as vault:
            proxy.delay(puts, 1.5)
            await vault.put_new("a", bytes(4 << 20))
            assert len(proxy.seen) == 1

    async def test_a_cancelled_put_leaves_all_or_nothing(self, vault, proxy, plain):
        proxy.delay(puts, 0.3)
        put = asyncio.create_task(vault.put_new("a", b"x" * 1000))
        await asyncio.sleep(0.15)
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        await asyncio.sleep(0.5)
        assert [len(await plain.get(key)) async for key in plain.keys("")] in ([], [1000])

    async def test_a_full_store_is_full(self, vault, proxy):
        proxy.answer(puts, "507 Insufficient Storage")
        with pytest.raises(StoreFull):
            await vault.put_new("a", b"x")
        quota = b"<Error><Code>QuotaExceeded</Code></Error>"
        proxy.answer(puts, "403 Forbidden", quota)
        with pytest.raises(StoreFull, match="QuotaExceeded"):
            await vault.put_new("a", b"x")
        assert len(proxy.seen) == 2

    async def test_an_answer_that_is_no_use_is_not_asked_for_again(self, vault, proxy):
        proxy.answer(puts, "403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>")
        with pytest.raises(StoreError, match="AccessDenied") as caught:
            await vault.put_new("a", b"x")
        assert "docs/vault.md" in caught.value.hint
        assert len(proxy.seen) == 1

    async def test_damage_on_the_way_is_refused(self, vault, proxy, plain):
        """The checksum is of the bytes as they left us."""

        async def damages(proxy, request, body, reader, writer):
            head, answer = await proxy.ask(request, body[:-1] + b"!")
            writer.write(head + answer)
            await writer.drain()
            return True

        proxy.answer(puts, "000", times=99)
        proxy.rules[-1].act = damages
        with pytest.raises(StoreError):
            await vault.put_new("a", b"0123456789")
        with pytest.raises(Missing):
            await plain.get("a")


class TestReading:
    @pytest.fixture(autouse=True)
    async def objects(self, plain):
        for key in ("a/1", "a/2", "b/1"):
            await plain.put_new(key, b"0123456789" * 100)

    @pytest.mark.parametrize("fault", ["answer", "reset", "cut_answer"])
    async def test_what_passes_is_tried_again(self, vault, proxy, fault):
        arguments = {"answer": ["503 Slow Down", SLOW_DOWN], "reset": [], "cut_answer": []}[fault]
        more = {"keep": 100} if fault == "cut_answer" else {}
        getattr(proxy, fault)(anything, *arguments, times=2, **more)
        assert await vault.get("a/1", 5, 25) == b"56789012345678901234"
        getattr(proxy, fault)(gets, *arguments, times=2, **more)
        assert len(await vault.get("a/1")) == 1000
        getattr(proxy, fault)(listings, *arguments, times=2, **more)
        assert [key async for key in vault.keys("")] == ["a/1", "a/2", "b/1"]
        if fault != "cut_answer":
            getattr(proxy, fault)(heads, *arguments, times=2)
        assert await vault.size("a/1") == 1000

    async def test_an_outage_is_told_within_seconds(self, vault, proxy):
        proxy.reset(anything, times=999)
        for call in (vault.put_new("a/3", b""), vault.get("a/1")):
            started = time.monotonic()
            with pytest.raises(StoreBusy):
                await call
            assert 2 < time.monotonic() - started < 12

    async def test_a_listing_goes_on_behind_what_came_last(self, vault, proxy, monkeypatch):
        monkeypatch.setattr(module, "_PAGE", 1)
        proxy.reset(listings, times=1, skip=1)
        proxy.answer(listings, "500 Oops", times=1, skip=1)
        assert [key async for key in vault.keys("a")] == ["a/1", "a/2"]
        assert [key async for key in vault.keys("", after="a/1")] == ["a/2", "b/1"]

    async def test_a_listing_out_of_order_is_refused(self, vault, proxy):
        proxy.answer(listings, "200 OK", listing(["deep/prefix/b", "deep/prefix/a"]))
        with pytest.raises(StoreError, match="ascending"):
            _ = [key async for key in vault.keys("")]

    async def test_a_listing_that_does_not_go_on_is_refused(self, vault, proxy, monkeypatch):
        monkeypatch.setattr(module, "_PAGE", 1)
        proxy.answer(listings, "200 OK", listing(["deep/prefix/"], size=0))
        with pytest.raises(StoreError, match="ascending"):
            _ = [key async for key in vault.keys("")]

    async def test_folders_of_other_tools_are_passed_over(self, vault, proxy):
        """Empty objects that end in a slash, as consoles make them."""
        names = ["deep/prefix/", "deep/prefix/a-b", "deep/prefix/a/", "deep/prefix/a/1"]
        proxy.answer(listings, "200 OK", listing(names, size=0))
        assert [key async for key in vault.keys("")] == ["a-b", "a/1"]

    @pytest.mark.parametrize(("name", "shown"), [("a//x", "a//x"), ("a/&#10;x", r"a/\nx")])
    async def test_a_name_that_stops_a_listing_is_told(self, vault, proxy, name, shown):
        proxy.answer(listings, "200 OK", listing([f"deep/prefix/{name}"]), times=99)
        with pytest.raises(StoreError, match="whose name stops a listing") as caught:
            _ = [key async for key in vault.keys("")]
        assert type(caught.value) is StoreError
        assert shown in caught.value.message
        assert "Remove it" in caught.value.hint

    async def test_what_is_no_key_is_not_listed(self, vault, raw):
        bucket = vault._name.split("/")[2]
        for name in ("a/1.5 copy", "a/.hidden", "é"):
            raw.put_object(Bucket=bucket, Key=f"deep/prefix/{name}")
        assert [key async for key in vault.keys("")] == ["a/1", "a/2", "b/1"]

    @pytest.mark.parametrize("prefix", ["a//", "../", "/", "é/x"])
    async def test_nothing_begins_with_what_no_key_begins_with(self, vault, prefix):
        assert [key async for key in vault.keys(prefix)] == []

    @pytest.mark.parametrize("after", ["a/", "a//", "~", "", "a/1/"])
    async def test_listing_after_what_is_no_key(self, vault, after):
        expected = [key for key in ("a/1", "a/2", "b/1") if key > after]
        assert [key async for key in vault.keys("", after=after)] == expected


async def test_tidying_and_closing_need_no_store(vault, proxy):
    await vault.close()
    await vault.close()
