"""What S3 has and obstore does not offer: versions, locks, uploads in parts that never overwrite.

botocore blocks, so every request runs in a small pool of threads of this vault's own: a store that
hangs cannot use up the threads that others wait for.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from sealtape.ingest.serving import together
from sealtape.ingest.vault.base import Buffer
from sealtape.ingest.vault.bucket import TOKEN
from sealtape.ingest.vault.faults import RETRY_AFTER_S, Fault, fault_of_botocore
from sealtape.schemas.errors import Exists, Missing, StoreBusy, StoreError

__all__ = ["S3Native"]

T = TypeVar("T")

PART_BYTES = 16 << 20
THREADS = 4
ABANDONED = timedelta(hours=24)
LOCKED_RETRY_S = 3600.0
# A store that redirects everything is asked by botocore for its region without end.
FOREIGN = (ClientError, BotoCoreError, RecursionError)


class S3Native:
    """See `bucket.Native` for the contract."""

    def __init__(
        self,
        client: Any,
        *,
        name: str,
        bucket: str,
        prefix: str,
        region: str,
        lock: str,
        encryption: Mapping[str, str],
        multipart_over: int,
    ) -> None:
        """Take a client for `bucket`. `lock` is `off`, `governance` or `compliance`."""
        self.multipart_over = multipart_over
        self.locks = lock != "off"
        self.prefix = f"{prefix}/" if prefix else ""
        self.name = name
        self._mode = lock.upper()
        self._client = client
        self._bucket = bucket
        self._region = region
        self._encryption = dict(encryption)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="vault-s3")

    async def close(self) -> None:
        """Let running requests end by themselves; no new ones are taken."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    # -- uploads in parts --------------------------------------------------------------------------

    async def put_parts(self, key: str, data: Buffer, token: str) -> None:
        """Create an object in parts; the completion is what is conditional."""
        view = memoryview(data).cast("B")
        upload = await self._run(
            lambda: str(
                self._ask(
                    f"an upload of {key}",
                    "create_multipart_upload",
                    Key=self.prefix + key,
                    ChecksumAlgorithm="SHA256",
                    Metadata={TOKEN: token},
                    **self._encryption,
                )["UploadId"]
            )
        )
        pieces = (view[start:][:PART_BYTES] for start in range(0, len(view), PART_BYTES))
        try:
            parts = await together(
                *(self._put_part(key, upload, *each) for each in enumerate(pieces, 1))
            )
            await self._complete(key, upload, parts, token)
        except BaseException:
            # A completed upload is not found any more, so this takes no object away.
            await asyncio.shield(self._run(lambda: self._abort(key, upload)))
            raise

    async def _put_part(
        self, key: str, upload: str, number: int, data: memoryview
    ) -> dict[str, object]:
        def put() -> dict[str, object]:
            digest = base64.b64encode(hashlib.sha256(data).digest()).decode("ascii")
            answer = self._ask(
                f"part {number} of {key}",
                "upload_part",
                Key=self.prefix + key,
                UploadId=upload,
                PartNumber=number,
                Body=bytes(data),
                ChecksumSHA256=digest,
            )
            return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": digest}

        return await self._run(put)

    async def _complete(self, key: str, upload: str, parts: list[Any], token: str) -> None:
        def complete() -> None:
            try:
                self._client.complete_multipart_upload(
                    Bucket=self._bucket,
                    Key=self.prefix + key,
                    UploadId=upload,
                    MultipartUpload={"Parts": parts},
                    IfNoneMatch="*",
                )
            except FOREIGN as error:
                fault = fault_of_botocore(error)
                # botocore sends it again when an answer is lost; then the upload is gone, or the
                # object that is there is our own.
                doubtful = fault.code == "NoSuchUpload" or fault.exists or fault.unsure
                if doubtful and self._made_by(key, token):
                    return
                if fault.exists:
                    raise Exists(f"The vault holds {key} already.", key=key) from None
                if fault.code == "NoSuchUpload":
                    told = f"The upload of {key} to {self.name} was aborted by somebody else."
                    raise StoreBusy(told, retry_after_s=RETRY_AFTER_S, key=key) from error
                raise fault.error(self.name, f"the end of an upload of {key}") from error

        await self._run(complete)

    def _made_by(self, key: str, token: str) -> bool:
        try:
            answer = self._ask(f"a head of {key}", "head_object", Key=self.prefix + key)
        except Missing:
            return False
        return bool(answer.get("Metadata", {}).get(TOKEN) == token)

    def _abort(self, key: str, upload: str) -> bool:
        try:
            self._client.abort_multipart_upload(
                Bucket=self._bucket, Key=self.prefix + key, UploadId=upload
            )
        except FOREIGN:
            return False  # `tidy` finds it tomorrow
        return True

    async def tidy(self) -> int:
        """Abort uploads of our prefix that began more than a day ago."""

        def abort_old() -> int:
            limit = datetime.now(UTC) - ABANDONED
            try:
                old = [
                    (str(found["Key"]), str(found["UploadId"]))
                    for page in self._pages("list_multipart_uploads", self.prefix)
                    for found in page.get("Uploads", ())
                    if found["Initiated"] < limit
                ]
            except _UnknownRequest:
                return 0
            cut = len(self.prefix)
            return sum(self._abort(key[cut:], upload) for key, upload in old)

        return await self._run(abort_old)

    # -- versions ----------------------------------------------------------------------------------

    async def erase(self, key: str) -> None:
        """Remove every version and delete marker of an object."""
        await self._run(lambda: self._erase(key))

    def _erase(self, key: str) -> None:
        name = self.prefix + key
        try:
            versions = list(self._versions(name))
        except _UnknownRequest:
            versions = [None]
        for version in versions:
            which = {} if version is None else {"VersionId": version}
            try:
                self._client.delete_object(Bucket=self._bucket, Key=name, **which)
            except FOREIGN as error:
                raise self._not_erased(key, version, fault_of_botocore(error)) from error

    def _versions(self, name: str) -> Iterator[str | None]:
        for page in self._pages("list_object_versions", name):
            entries = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
            yield from (str(entry["VersionId"]) for entry in entries if entry["Key"] == name)
            if any(entry["Key"] > name for entry in entries):
                return

    def _not_erased(self, key: str, version: str | None, fault: Fault) -> StoreError:
        until = self._locked_until(key, version) if fault.locked_or_denied else ""
        if until:
            return StoreBusy(
                f"The vault {self.name} keeps {key}: locked {until}.",
                retry_after_s=LOCKED_RETRY_S,
                key=key,
            )
        return fault.error(self.name, f"a delete of {key}")

    # -- locks -------------------------------------------------------------------------------------

    async def retain(self, key: str, until_ns: int) -> bool:
        """Lock the newest version until then; an earlier and longer lock stays as it is."""
        # Rounded up to the second, the unit S3 keeps.
        until = datetime.fromtimestamp(-(-until_ns // 1_000_000_000), UTC)
        if not self.locks or until <= datetime.now(UTC):
            await self._run(lambda: self._ask(f"a head of {key}", "head_object", Key=self._at(key)))
            return self.locks

        def retain() -> bool:
            now = self._retention(key)
            if now is None or now < until:
                self._ask(
                    f"a lock of {key}",
                    "put_object_retention",
                    Key=self._at(key),
                    Retention={"Mode": self._mode, "RetainUntilDate": until},
                )
            return True

        return await self._run(retain)

    async def hold(self, key: str, *, on: bool) -> bool:
        """Set or lift the legal hold of the newest version."""
        if not self.locks:
            return await self.retain(key, 0)

        def hold() -> bool:
            status = {"Status": "ON" if on else "OFF"}
            doing = f"a legal hold on {key}"
            self._ask(doing, "put_object_legal_hold", Key=self._at(key), LegalHold=status)
            return True

        return await self._run(hold)

    def _locked_until(self, key: str, version: str | None) -> str:
        """What keeps a version from being deleted, in words; empty when it is no lock."""
        which = {} if version is None else {"VersionId": version}
        for look in (self._own_lock, self._held, self._bucket_lock):
            try:
                if found := look(key, which):
                    return found
            except FOREIGN:
                continue  # none, or not ours to ask; then it is told as the refusal that it is
        return ""

    def _own_lock(self, key: str, which: Mapping[str, str]) -> str:
        answer = self._client.get_object_retention(Bucket=self._bucket, Key=self._at(key), **which)
        until: datetime = answer["Retention"]["RetainUntilDate"]
        return f"until {until:%Y-%m-%d %H:%M:%SZ}" if until > datetime.now(UTC) else ""

    def _held(self, key: str, which: Mapping[str, str]) -> str:
        answer = self._client.get_object_legal_hold(Bucket=self._bucket, Key=self._at(key), **which)
        return "by a legal hold" if answer["LegalHold"]["Status"] == "ON" else ""

    def _bucket_lock(self, key: str, which: Mapping[str, str]) -> str:
        """Some stores do not write the bucket's default onto the object."""
        answer = self._client.get_object_lock_configuration(Bucket=self._bucket)
        default = answer["ObjectLockConfiguration"].get("Rule", {}).get("DefaultRetention")
        return "by the bucket's default retention" if default else ""

    def _retention(self, key: str) -> datetime | None:
        try:
            answer = self._client.get_object_retention(Bucket=self._bucket, Key=self._at(key))
        except FOREIGN as error:
            fault = fault_of_botocore(error)
            if fault.code == "NoSuchObjectLockConfiguration":
                return None
            raise fault.error(self.name, f"the lock of {key}") from error
        until: datetime = answer["Retention"]["RetainUntilDate"]
        return until

    # -- the bucket --------------------------------------------------------------------------------

    async def facts(self, request: str, **arguments: object) -> Mapping[str, Any] | Fault:
        """Ask something about the bucket; an answer that is an error comes back as a `Fault`."""

        def ask() -> Mapping[str, Any] | Fault:
            try:
                answer: Mapping[str, Any] = getattr(self._client, request)(
                    Bucket=self._bucket, **arguments
                )
            except FOREIGN as error:
                return fault_of_botocore(error)
            return answer

        return await self._run(ask)

    async def prepare(self) -> list[str]:
        """Create the bucket, with object lock where locks are wanted; says what was done."""
        found = await self.facts("head_bucket")
        if not isinstance(found, Fault):
            return []
        if found.status != 404:
            raise found.error(self.name, "a look at the bucket")
        wanted: dict[str, Any] = {"ObjectLockEnabledForBucket": True} if self.locks else {}
        if self._region != "us-east-1":
            wanted["CreateBucketConfiguration"] = {"LocationConstraint": self._region}
        made = await self.facts("create_bucket", **wanted)
        if isinstance(made, Fault) and made.code == "BucketAlreadyOwnedByYou":
            return []  # another was first
        if isinstance(made, Fault):
            raise made.error(self.name, "the creation of the bucket")
        done = [f"created the bucket {self._bucket}{' with object lock' * self.locks}"]
        closed = dict.fromkeys(
            ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"),
            True,
        )
        shut = await self.facts("put_public_access_block", PublicAccessBlockConfiguration=closed)
        if not isinstance(shut, Fault):
            done.append("blocked public access to it")
        elif not shut.unknown_request:
            raise shut.error(self.name, "blocking public access")
        return done

    # -- requests ----------------------------------------------------------------------------------

    def _at(self, key: str) -> str:
        return self.prefix + key

    def _ask(self, doing: str, request: str, **arguments: object) -> Mapping[str, Any]:
        try:
            answer: Mapping[str, Any] = getattr(self._client, request)(
                Bucket=self._bucket, **arguments
            )
        except FOREIGN as error:
            raise fault_of_botocore(error).error(self.name, doing) from error
        return answer

    def _pages(self, request: str, prefix: str) -> Iterator[Mapping[str, Any]]:
        try:
            yield from self._client.get_paginator(request).paginate(
                Bucket=self._bucket, Prefix=prefix
            )
        except FOREIGN as error:
            fault = fault_of_botocore(error)
            if fault.unknown_request:
                raise _UnknownRequest from error
            raise fault.error(self.name, f"a {request.replace('_', ' ')}") from error

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


class _UnknownRequest(Exception):
    """The store does not offer this kind of request."""
