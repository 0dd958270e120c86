import datetime as dt

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from tests.servers.s3 import S3Error


def _store(server, bucket, key=None, **options):
    access, secret = key or (server.access_key, server.secret_key)
    return S3Store(
        bucket,
        endpoint=server.endpoint,
        access_key_id=access,
        secret_access_key=secret,
        region="us-east-1",
        client_options={"allow_http": True, **options},
    )


def _bytes(store, name):
    return bytes(obstore.get(store, name).bytes())


def test_a_name_is_put_once(s3_server):
    store = _store(s3_server, s3_server.bucket())
    obstore.put(store, "a/b", b"first", mode="create")
    with pytest.raises(AlreadyExistsError):
        obstore.put(store, "a/b", b"second", mode="create")
    assert _bytes(store, "a/b") == b"first"


def test_versions_are_kept(s3_server):
    bucket = s3_server.bucket(versioning=True)
    store = _store(s3_server, bucket)
    obstore.put(store, "name", b"one")
    obstore.put(store, "name", b"two")
    obstore.delete(store, "name")
    _, listing = s3_server.call("GET", f"/{bucket}", "versions")
    assert listing.count(b"<Version>") == 2
    assert listing.count(b"<DeleteMarker>") == 1


def test_a_locked_object_stays(s3_server):
    bucket = s3_server.bucket(lock=True)
    until = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    headers = {"x-amz-object-lock-mode": "COMPLIANCE",
               "x-amz-object-lock-retain-until-date": until}  # fmt: skip
    answer, _ = s3_server.call("PUT", f"/{bucket}/kept", body=b"evidence", headers=headers)
    with pytest.raises(S3Error) as refused:
        s3_server.call("DELETE", f"/{bucket}/kept", f"versionId={answer['x-amz-version-id']}")
    assert refused.value.status == 403
    assert b"AccessDenied" in refused.value.body


def test_a_user_may_do_what_the_policy_says(s3_server):
    bucket = s3_server.bucket()
    key = s3_server.user()
    writer = _store(s3_server, bucket, key)
    with pytest.raises(BaseError):
        obstore.put(writer, "x", b"1")
    s3_server.allow(bucket, (key[0], ["PutObject", "GetObject"], "/*"))
    obstore.put(writer, "x", b"1")
    assert _bytes(writer, "x") == b"1"
    with pytest.raises(S3Error) as refused:
        s3_server.call("DELETE", f"/{bucket}/x", key=key)
    assert refused.value.status == 403


def test_keeps_its_objects_over_a_kill(s3_alone):
    store = _store(s3_alone, s3_alone.bucket())
    obstore.put(store, "x", b"1")
    s3_alone.kill()
    s3_alone.start()
    assert _bytes(store, "x") == b"1"
