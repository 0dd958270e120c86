import datetime
from email.utils import format_datetime

import pytest

from sealtape.ingest.vault import check_vault
from tests.factories.s3_vaults import s3_url, s3_vault
from tests.servers.http_faults import fault_proxy


def asks(name):
    return lambda request: name in request.query


@pytest.fixture
async def proxy(s3):
    async with fault_proxy(s3.endpoint) as proxy:
        yield proxy


async def checked(url, base):
    found = await check_vault(url, base)
    assert len({check.name for check in found}) == len(found)
    assert all(check.hint for check in found if check.level == "error")
    return {check.name.removeprefix("vault: "): check for check in found}


async def test_a_plain_bucket(s3, tmp_path):
    bucket = s3.bucket()
    found = await checked(s3_url(s3, bucket), tmp_path)
    assert {name for name, check in found.items() if check.level == "ok"} >= {
        "access",
        "swaps",
        "uploads in parts",
        "clock",
        "versions",
        "lifecycle",
        "public access",
    }
    assert found["object lock"].level == "warning"
    async with s3_vault(s3, bucket, prefix="") as vault:
        assert [key async for key in vault.keys("")] == []  # nothing left


async def test_a_bucket_with_locks(s3, raw, tmp_path):
    bucket = s3.bucket(versioning=True, lock=True)
    found = await checked(s3_url(s3, bucket, lock="compliance"), tmp_path)
    assert found["object lock"].level == "ok"
    assert "no default" in found["object lock"].message
    assert "Enabled" in found["versions"].message
    found = await checked(s3_url(s3, bucket), tmp_path)
    assert found["object lock"].level == "warning"
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    raw.put_object_lock_configuration(
        Bucket=bucket,
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule},
    )
    found = await checked(s3_url(s3, bucket, lock="compliance"), tmp_path)
    assert "1 days (GOVERNANCE)" in found["object lock"].message
    assert found["access"].level == "ok"
    assert "default retention" in found["access"].message
    assert found["swaps"].level == "ok"


async def test_locks_that_are_wanted_and_not_there(s3, tmp_path):
    found = await checked(s3_url(s3, s3.bucket(), lock="compliance"), tmp_path)
    assert found["object lock"].level == "error"


async def test_no_bucket_no_server_no_permission(s3, tmp_path, monkeypatch):
    found = await checked(s3_url(s3, "no-such-bucket"), tmp_path)
    assert found["access"].level == "error"
    assert "setup" in found["access"].hint
    gone = s3_url(s3, "b", endpoint="http://127.0.0.1:1", timeout="1s")
    found = await checked(gone, tmp_path)
    assert found["access"].level == "error"
    monkeypatch.setenv("SEALTAPE_TEST_S3_SECRET", "a-wrong-secret")
    found = await checked(s3_url(s3, s3.bucket()), tmp_path)
    assert found["access"].level == "error"
    assert "a-wrong-secret" not in str(found)
    found = await checked("s3://bucket/x?nonsense=1", tmp_path)
    assert found["settings"].level == "error"


async def test_a_store_that_ignores_the_condition_of_parts(s3, proxy, tmp_path):
    done = b"<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>"
    proxy.answer(lambda r: r.method == "POST" and "uploadId" in r.query, "200 OK", done)
    found = await checked(s3_url(s3, s3.bucket(), endpoint=proxy.url), tmp_path)
    assert found["access"].level == "ok"
    assert found["uploads in parts"].level == "error"
    assert "multipart=" in found["uploads in parts"].hint


async def test_uploads_in_parts_that_fail(s3, proxy, tmp_path):
    proxy.answer(asks("uploads"), "501 Not Implemented", times=9)
    found = await checked(s3_url(s3, s3.bucket(), endpoint=proxy.url), tmp_path)
    assert found["uploads in parts"].level == "warning"


@pytest.mark.parametrize(("skew_s", "level"), [(5, "ok"), (120, "warning"), (-2000, "error")])
async def test_clocks_that_differ(s3, proxy, tmp_path, skew_s, level):
    date = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=skew_s)
    header = f"Date: {format_datetime(date, usegmt=True)}"
    proxy.answer(lambda r: r.method == "HEAD", "200 OK", headers=[header])
    found = await checked(s3_url(s3, s3.bucket(), endpoint=proxy.url), tmp_path)
    assert found["clock"].level == level


async def test_a_store_that_tells_no_time(s3, proxy, tmp_path):
    proxy.answer(lambda r: r.method == "HEAD", "200 OK")
    found = await checked(s3_url(s3, s3.bucket(), endpoint=proxy.url), tmp_path)
    assert found["clock"].level == "warning"


def rule(action, where="<Filter><Prefix></Prefix></Filter>", status="Enabled"):
    return (
        "<LifecycleConfiguration><Rule><ID>tidy-up</ID>"
        f"{where}<Status>{status}</Status>{action}</Rule></LifecycleConfiguration>"
    ).encode()


EXPIRES = "<Expiration><Days>30</Days></Expiration>"
OLD_VERSIONS = (
    "<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration>"
)

PENDING = "deep/prefix/log/v1/1/checkpoint.pending"


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        (rule(EXPIRES), "error"),
        (rule(OLD_VERSIONS), "error"),
        (rule(EXPIRES, "<Prefix>deep/</Prefix>"), "error"),
        (rule(EXPIRES, "<Filter><And><Prefix>deep/prefix/seg</Prefix></And></Filter>"), "error"),
        (rule(EXPIRES, "<Filter><Prefix>other/</Prefix></Filter>"), "ok"),
        (rule(EXPIRES, "<Filter><Prefix>deep/prefix/probe/</Prefix></Filter>"), "ok"),
        (rule(OLD_VERSIONS, f"<Prefix>{PENDING}</Prefix>"), "ok"),
        (rule(EXPIRES + OLD_VERSIONS, f"<Prefix>{PENDING}</Prefix>"), "error"),
        (rule(EXPIRES, f"<Prefix>{PENDING}</Prefix>"), "error"),
        (rule(OLD_VERSIONS, "<Prefix>deep/prefix/log/v1/1/checkpoint</Prefix>"), "error"),
        (rule(OLD_VERSIONS, "<Prefix>deep/prefix/log/v1/</Prefix>"), "error"),
        (rule(EXPIRES, status="Disabled"), "ok"),
        (
            rule(
                "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"
            ),
            "ok",
        ),
        (
            rule(
                "<AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation>"
                "</AbortIncompleteMultipartUpload>"
            ),
            "ok",
        ),
    ],
)
async def test_lifecycle_rules(s3, proxy, tmp_path, answer, level):
    """The server of the tests has none, so the proxy answers for it."""
    proxy.answer(asks("lifecycle"), "200 OK", answer)
    found = await checked(s3_url(s3, s3.bucket(), endpoint=proxy.url), tmp_path)
    assert found["lifecycle"].level == level
    if level == "error":
        assert "tidy-up" in found["lifecycle"].message


def public(**flags):
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in flags.items())
    return f"<PublicAccessBlockConfiguration>{inner}</PublicAccessBlockConfiguration>".encode()


ALL = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


@pytest.mark.parametrize(
    ("status", "answer", "level"),
    [
        ("200 OK", public(**dict.fromkeys(ALL, "true")), "ok"),
        ("200 OK", public(**{**dict.fromkeys(ALL, "true"), ALL[0]: "false"}), "warning"),
        (
            "404 Not Found",
            b"<Error><Code>NoSuchPublicAccessBlockConfiguration</Code></Error>",
            "warning",
        ),
        ("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>", "warning"),
    ],
)
async def test_public_access(s3, proxy, tmp_path, status, answer, level):
    proxy.answer(asks("publicAccessBlock"), status, answer)
    found = await checked(s3_url(s3, s3.bucket(), endpoint=proxy.url), tmp_path)
    assert found["public access"].level == level


@pytest.mark.parametrize("name", ["versioning", "object-lock", "lifecycle"])
async def test_what_may_not_be_asked_is_a_warning(s3, proxy, tmp_path, name):
    denied = b"<Error><Code>AccessDenied</Code></Error>"
    proxy.answer(asks(name), "403 Forbidden", denied, times=9)
    found = await checked(s3_url(s3, s3.bucket(), endpoint=proxy.url), tmp_path)
    shown = {"versioning": "versions", "object-lock": "object lock"}.get(name, name)
    assert found[shown].level == "warning"
    assert "AccessDenied" in found[shown].message


async def test_no_rule_at_all(s3, proxy, tmp_path):
    none = b"<Error><Code>NoSuchLifecycleConfiguration</Code></Error>"
    proxy.answer(asks("lifecycle"), "404 Not Found", none)
    found = await checked(s3_url(s3, s3.bucket(), endpoint=proxy.url), tmp_path)
    assert found["lifecycle"].level == "ok"
