import datetime
import os

import pytest

from sealtape.ingest.vault import check_vault, open_vault, prepare_vault
from sealtape.schemas.errors import Exists, Missing, SettingsError, StoreError
from tests.conformance.vault import VaultConformance
from tests.factories.s3_vaults import s3_url, s3_vault
from tests.servers.http_faults import fault_proxy


class TestS3Vault(VaultConformance):
    @pytest.fixture
    async def vault(self, s3):
        async with s3_vault(s3, s3.bucket()) as vault:
            yield vault


class TestVersionedS3Vault(VaultConformance):
    @pytest.fixture
    async def vault(self, s3):
        async with s3_vault(s3, s3.bucket(versioning=True), prefix="") as vault:
            yield vault


class TestLockingS3Vault(VaultConformance):
    @pytest.fixture
    async def vault(self, s3):
        async with s3_vault(s3, s3.bucket(versioning=True, lock=True), lock="compliance") as vault:
            yield vault


class TestS3VaultInParts(VaultConformance):
    """As if every object were large: all uploads go in parts."""

    @pytest.fixture
    async def vault(self, s3):
        async with s3_vault(s3, s3.bucket()) as vault:
            vault._native.multipart_over = 0
            yield vault


async def test_a_prefix_is_a_vault_of_its_own(s3):
    bucket = s3.bucket()
    async with (
        s3_vault(s3, bucket, "one") as one,
        s3_vault(s3, bucket, "one/more") as inner,
        s3_vault(s3, bucket, "on") as other,
        s3_vault(s3, bucket, "") as whole,
    ):
        await one.put_new("a", b"1")
        await inner.put_new("a", b"2")
        assert [key async for key in one.keys("")] == ["a", "more/a"]
        assert [key async for key in inner.keys("")] == ["a"]
        assert [key async for key in other.keys("")] == []
        assert [key async for key in whole.keys("")] == ["one/a", "one/more/a"]
        await one.erase("more/a")
        assert [key async for key in whole.keys("")] == ["one/a"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://", "one bucket"),
        ("s3://a,b/x", "one bucket"),
        ("s3://bucket:80/x", "one bucket"),
        ("s3://bucket/a//b", "prefix"),
        ("s3://bucket/x?regoin=eu-west-1", "regoin"),
        ("s3://id@bucket/x", "go together"),
        ("s3://bucket/x?password_env=SECRET", "go together"),
        ("s3://id:hunter2@bucket/x", "password"),
        ("s3://id@bucket/x?profile=p&password_env=SECRET", "profile"),
        ("s3://bucket/x?profile=nobody", "nobody"),
        ("s3://id@bucket/x?password_env=SECRET&lock=maybe", "lock"),
        ("s3://id@bucket/x?password_env=SECRET&sse=rot13", "sse"),
        ("s3://id@bucket/x?password_env=SECRET&sse_kms_key=k", "sse=aws:kms"),
        ("s3://id@bucket/x?password_env=SECRET&endpoint=http://127.0.0.1:1", "https"),
        ("s3://id@bucket/x?password_env=SECRET&ca=none.pem", "none.pem"),
        ("s3://id@bucket/x?password_env=SECRET&multipart=1", "multipart"),
        ("s3://id@bucket/x?password_env=SECRET&endpoint=nonsense", "endpoint"),
    ],
)
async def test_what_is_wrong_in_a_url_is_said(tmp_path, monkeypatch, url, said):
    monkeypatch.setenv("SECRET", "topsecret")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=said) as caught:
        await open_vault(url, tmp_path)
    assert "topsecret" not in str(caught.value) + repr(caught.value.context)
    assert "hunter2" not in str(caught.value) + repr(caught.value.context)


async def test_without_credentials_it_says_where_they_may_come_from(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"no credentials.*docs/vault.md"):
        await open_vault("s3://bucket/x", tmp_path)


class TestCredentials:
    """The usual places, each tried on the server."""

    @pytest.fixture
    def url(self, s3, monkeypatch, tmp_path):
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        return f"s3://{s3.bucket()}/x?endpoint={s3.endpoint}&allow_http=1"

    async def works(self, url, base):
        vault = await open_vault(url, base)
        await vault.put_new("a", b"1")
        assert await vault.get("a") == b"1"
        await vault.erase("a")
        await vault.close()

    async def test_the_environment(self, s3, url, tmp_path, monkeypatch):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
        await self.works(url, tmp_path)

    async def test_a_profile(self, s3, url, tmp_path):
        text = f"[p]\naws_access_key_id={s3.access_key}\naws_secret_access_key={s3.secret_key}\n"
        (tmp_path / "credentials").write_text(text)
        await self.works(url + "&profile=p", tmp_path)

    async def test_a_program_whose_answer_expires(self, s3, url, tmp_path):
        """As web identity and instance roles do: keys with an end, asked for again."""
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        program = tmp_path / "program"
        program.write_text(
            '#!/bin/sh\necho \'{"Version":1,'
            f'"AccessKeyId":"{s3.access_key}","SecretAccessKey":"{s3.secret_key}",'
            f'"Expiration":"{soon:%Y-%m-%dT%H:%M:%SZ}"}}\'\n'
        )
        program.chmod(0o700)
        (tmp_path / "config").write_text(f"[profile p]\ncredential_process = {program}\n")
        await self.works(url + "&profile=p", tmp_path)

    async def test_a_file_beside_the_settings(self, s3, url, tmp_path):
        (tmp_path / "secret").write_text(s3.secret_key + "\n")
        url = url.replace("s3://", f"s3://{s3.access_key}@")
        await self.works(url + "&password_file=secret", tmp_path)

    async def test_a_wrong_secret_is_said_and_not_shown(self, s3, url, tmp_path):
        (tmp_path / "secret").write_text("a-wrong-secret")
        url = url.replace("s3://", f"s3://{s3.access_key}@") + "&password_file=secret"
        vault = await open_vault(url, tmp_path)
        for call in (
            vault.put_new("a", b""),
            vault.get("a"),
            vault.size("a"),
            vault.erase("a"),
            vault.keys().__anext__(),
            vault.tidy(),
        ):
            with pytest.raises(StoreError, match="403") as caught:
                await call
            assert caught.value.hint
            text = str(caught.value) + repr(caught.value.context)
            assert "a-wrong-secret" not in text
            assert s3.secret_key not in text
        await vault.close()


async def test_preparing_makes_the_bucket_once(s3, raw, tmp_path):
    name = s3.bucket() + "-new"
    assert any("created" in line for line in await prepare_vault(s3_url(s3, name), tmp_path))
    assert await prepare_vault(s3_url(s3, name), tmp_path) == []
    async with s3_vault(s3, name) as vault:
        await vault.put_new("a", b"")


async def test_preparing_makes_a_bucket_with_locks_where_they_are_wanted(s3, raw, tmp_path):
    name = s3.bucket() + "-locks"
    await prepare_vault(s3_url(s3, name, lock="governance"), tmp_path)
    found = raw.get_object_lock_configuration(Bucket=name)
    assert found["ObjectLockConfiguration"]["ObjectLockEnabled"] == "Enabled"


async def test_preparing_fails_where_the_store_refuses(s3, tmp_path):
    async with fault_proxy(s3.endpoint) as proxy:
        url = s3_url(s3, "never-made", endpoint=proxy.url)
        proxy.answer(lambda request: request.method == "PUT", "403 Forbidden", times=9)
        with pytest.raises(StoreError, match="403"):
            await prepare_vault(url, tmp_path)
        proxy.rules.clear()
        proxy.answer(lambda request: request.method == "HEAD", "403 Forbidden", times=9)
        with pytest.raises(StoreError, match="403"):
            await prepare_vault(url, tmp_path)


async def test_a_missing_bucket_is_not_a_missing_object(s3):
    async with s3_vault(s3, "no-such-bucket") as vault:
        for call in (
            vault.put_new("a", b""),
            vault.get("a"),
            vault.size("a"),
            vault.keys().__anext__(),
        ):
            with pytest.raises(StoreError, match="NoSuchBucket") as caught:
                await call
            assert type(caught.value) is StoreError
            assert "setup" in caught.value.hint


async def test_encryption_by_the_store_is_asked_for(s3):
    async with fault_proxy(s3.endpoint) as proxy:
        wanted = {"endpoint": proxy.url, "sse": "aws:kms", "sse_kms_key": "key/one"}
        async with s3_vault(s3, s3.bucket(), **wanted) as vault:
            for over in (1 << 30, 0):
                vault._native.multipart_over = over
                try:
                    await vault.put_new(f"a{over}", b"")
                except StoreError:
                    pass  # this server has no KMS; what it was asked for is what counts
        asked = [r.headers for r in proxy.seen if r.method in {"PUT", "POST"}]
        assert asked[0]["x-amz-server-side-encryption"] == "aws:kms"
        assert asked[0]["x-amz-server-side-encryption-aws-kms-key-id"] == "key/one"
        assert asked[1]["x-amz-server-side-encryption"] == "aws:kms"
        assert asked[1]["x-amz-server-side-encryption-aws-kms-key-id"] == "key/one"


async def test_tls_is_checked_against_the_ca_that_is_named(s3, tls_front, tmp_path):
    """`tls_front` ends TLS before the server, under a certificate of a CA of its own."""
    bucket, (front, ca) = s3.bucket(), tls_front
    async with s3_vault(s3, bucket, endpoint=front.url, ca=ca) as vault:
        await vault.put_new("a", b"1")
        assert await vault.get("a") == b"1"
        await vault.erase("a")
    async with s3_vault(s3, bucket, endpoint=front.url) as vault:
        for call in (vault.get("a"), vault.put_new("a", b""), vault.erase("a")):
            with pytest.raises(StoreError, match="certificate is not trusted") as caught:
                await call
            assert "ca=" in caught.value.hint


class TestPermissions:
    """The table in docs/vault.md, on the store's own users."""

    WRITES = ("PutObject", "GetObject", "AbortMultipartUpload")
    LISTS = ("ListBucket", "ListBucketVersions", "ListBucketMultipartUploads")

    @pytest.fixture
    def bucket(self, s3):
        return s3.bucket(versioning=True)

    def url_of(self, s3, bucket, monkeypatch, objects, whole):
        access, secret = s3.user()
        s3.allow(bucket, (access, objects, "/*"), (access, whole, ""))
        monkeypatch.setenv("ROLE_SECRET", secret)
        return (
            f"s3://{access}@{bucket}/p?endpoint={s3.endpoint}&allow_http=1&password_env=ROLE_SECRET"
        )

    async def test_ingest_writes_and_cannot_delete(self, s3, bucket, monkeypatch, tmp_path):
        url = self.url_of(s3, bucket, monkeypatch, self.WRITES, self.LISTS)
        vault = await open_vault(url, tmp_path)
        await vault.put_new("a", b"1")
        with pytest.raises(Exists):
            await vault.put_new("a", b"2")
        vault.native.multipart_over = 0
        await vault.put_new("b", b"in parts")
        assert await vault.get("b") == b"in parts"
        assert [key async for key in vault.keys("")] == ["a", "b"]
        await vault.swap("log/v1/1/checkpoint", b"1", None)
        await vault.swap("log/v1/1/checkpoint", b"2", b"1")
        assert await vault.tidy() == 0
        with pytest.raises(StoreError, match="403") as caught:
            await vault.erase("a")
        assert type(caught.value) is StoreError
        assert "docs/vault.md" in caught.value.hint
        assert await vault.get("a") == b"1"
        await vault.close()

    async def test_doctor_wants_no_more_than_a_room(self, s3, bucket, monkeypatch, tmp_path):
        asks = ("GetBucketVersioning", "GetBucketObjectLockConfiguration")
        for objects, whole, writes, access in (
            (("GetObject",), ("ListBucket", *asks), False, "ok"),
            (("GetObject",), ("ListBucket", *asks), True, "error"),
            (self.WRITES, (*self.LISTS, *asks), True, "warning"),
            ((), ("ListBucket", *asks), False, "error"),
        ):
            async with s3_vault(s3, bucket, "p") as owner:
                await owner.erase("seg/v1/a")
                await owner.put_new("seg/v1/a", b"1")
            url = self.url_of(s3, bucket, monkeypatch, objects or ("PutObject",), whole)
            found = {c.name: c for c in await check_vault(url, tmp_path, writes=writes)}
            assert found["vault: access"].level == access, (objects, found)
            others = {c.level for name, c in found.items() if name != "vault: access"}
            assert "error" not in others, found

    async def test_the_collector_deletes(self, s3, bucket, monkeypatch, tmp_path):
        erases = ("DeleteObject", "DeleteObjectVersion", "GetObjectLegalHold")
        url = self.url_of(s3, bucket, monkeypatch, (*self.WRITES, *erases), self.LISTS)
        vault = await open_vault(url, tmp_path)
        await vault.put_new("a", b"1")
        await vault.erase("a")
        with pytest.raises(Missing):
            await vault.get("a")
        await vault.close()

    async def test_a_reader_reads(self, s3, bucket, monkeypatch, tmp_path):
        async with s3_vault(s3, bucket, "p") as owner:
            await owner.put_new("a", b"123")
        url = self.url_of(s3, bucket, monkeypatch, ("GetObject",), ("ListBucket",))
        vault = await open_vault(url, tmp_path)
        assert await vault.get("a", 1) == b"23"
        assert await vault.size("a") == 3
        assert [key async for key in vault.keys("")] == ["a"]
        for call in (
            vault.put_new("b", b""),
            vault.swap("log/v1/1/checkpoint", b"1", None),
            vault.erase("a"),
        ):
            with pytest.raises(StoreError, match="403"):
                await call
        await vault.close()
