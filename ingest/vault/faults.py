"""What an object store answered, or did not: one reading for obstore's and botocore's errors.

obstore tells status and code of an answer only in its message, which also holds whole answers and
URLs. So both are picked out here and nothing else of the text is passed on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from obstore.exceptions import BaseError, InvalidPathError, UnauthenticatedError

from sealtape.schemas.errors import Exists, Missing, StoreBusy, StoreError, StoreFull

__all__ = ["FOREIGN", "Fault", "fault_of", "fault_of_botocore"]

FOREIGN = (BaseError, OSError, ValueError)
"""What obstore raises; `OSError` covers FileNotFoundError and TimeoutError."""

RETRY_AFTER_S = 2.0

_STATUS = re.compile(r"status code: (\d{3})\b")
_CODE = re.compile(r"<Code>([A-Za-z0-9_.]{1,64})</Code>")
_FULL = {"QuotaExceeded", "XMinioStorageFull", "EntityTooLarge", "InsufficientStorage"}
_THROTTLED = {"SlowDown", "TooManyRequests", "RequestLimitExceeded", "ServerBusy", "Throttling"}
# S3's word for a body that came too slowly: a 400, and yet the next one may pass.
_SLOW = {"RequestTimeout"}
# A conditional write met another one in progress: nothing is said about who created the object.
_RACING = {"ConditionalRequestConflict", "OperationAborted"}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
_NO_KEY = {"NoSuchKey", "NoSuchVersion", "NotFound", "404", "BlobNotFound"}
_WRONG_KEY = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
    "AuthenticationFailed",
}
_REDIRECTIONS = {301, 302, 307, 308}
_ELSEWHERE = {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"}
_UNTRUSTED = "its certificate is not trusted"
_PLAINTEXT = "the endpoint is http:// and allow_http is not set"
_REDIRECTS = "it redirects to another place"
_NO_CREDENTIALS = "the credentials could not be had"
_ODD_NAME = re.compile(r"Path (\".{0,300}?\")", re.DOTALL)
# Words of obstore (reqwest, hyper, rustls) and botocore, and what they mean.
_NETWORK = (
    ("Error when retrieving credentials", _NO_CREDENTIALS),
    ("Received redirect without LOCATION", _REDIRECTS),
    ("CertificateRequired", _UNTRUSTED),
    ("UnknownIssuer", _UNTRUSTED),
    ("InvalidCertificate", _UNTRUSTED),
    ("CERTIFICATE_VERIFY_FAILED", _UNTRUSTED),
    ("URL scheme is not allowed", _PLAINTEXT),
    ("ConnectionRefused", "the connection was refused"),
    ("Could not connect", "it cannot be reached"),
    ("ConnectionReset", "the connection was reset"),
    ("BrokenPipe", "the connection was reset"),
    ("IncompleteMessage", "the connection was closed before the answer was complete"),
    ("UnexpectedEof", "the connection was closed before the answer was complete"),
    ("Connection was closed", "the connection was closed before the answer was complete"),
    ("dns error", "its name cannot be resolved"),
    ("TimedOut", "no answer in time"),
    ("timeout on endpoint", "no answer in time"),
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One failed request.

    Attributes:
        status: HTTP status, 0 when there was no answer.
        code: the store's own word for it, empty where it gave none.
        reason: what happened to the connection, where there was no answer.
        odd: the name of an object that no vault gives and the client cannot read, quoted.
    """

    status: int = 0
    code: str = ""
    reason: str = ""
    odd: str = ""

    @property
    def exists(self) -> bool:
        """A create-only write found an object."""
        return self.status in {304, 409, 412} and self.code not in _RACING

    @property
    def missing(self) -> bool:
        """There is no such object (and the bucket, if the answer says so much, exists)."""
        return self.status == 404 and self.code not in _NO_BUCKET

    @property
    def past_end(self) -> bool:
        """A range begins behind the last byte."""
        return self.status == 416

    @property
    def again(self) -> bool:
        """It may pass by itself."""
        throttled = self.status in {408, 429} or self.code in _THROTTLED | _RACING | _SLOW
        final = self.odd or self.reason in {_UNTRUSTED, _PLAINTEXT, _REDIRECTS}
        return throttled or (self.unsure and not final)

    @property
    def unsure(self) -> bool:
        """A write may have been carried out all the same."""
        return self.status == 0 or (self.status >= 500 and self.status not in {501, 507})

    @property
    def locked_or_denied(self) -> bool:
        """Refused: by permissions, or by a lock on the object."""
        return self.status == 403 or self.code in {"AccessDenied", "InvalidRequest"}

    @property
    def unknown_request(self) -> bool:
        """The store does not know this kind of request."""
        return self.status in {405, 501} or self.code in {"NotImplemented", "MethodNotAllowed"}

    def error(self, name: str, doing: str) -> StoreError:
        """The error to raise: `name` is the vault's URL without options, `doing` the request."""
        what = f"The vault {name} " + (
            f"answered {self.status}{f' ({self.code})' if self.code else ''} to {doing}."
            if self.status
            else f"gave no answer to {doing}: {self.reason or 'the connection failed'}."
            if not self.odd
            else f"holds an object whose name stops {doing}: {self.odd}."
        )
        context: dict[str, Any] = {"vault": name, "status": self.status, "store_code": self.code}
        if self.exists:
            return Exists(what, hint=self._hint(), **context)
        if self.missing:
            return Missing(what, **context)
        if self.code in _FULL or self.status == 507:
            return StoreFull(what, hint="Raise the bucket's quota or make room.", **context)
        if self.again:
            return StoreBusy(what, retry_after_s=RETRY_AFTER_S, **context)
        return StoreError(what, hint=self._hint(), **context)

    def _hint(self) -> str:
        if self.code == "BucketAlreadyExists":
            return "Somebody else's bucket has this name: choose another name."
        if self.code in _NO_BUCKET:
            return "Create the bucket, or run `sealtape setup`."
        if self.code in _WRONG_KEY or self.status == 401:
            return "The access key is wrong or has expired: check the vault's credentials."
        if self.code == "RequestTimeTooSkewed":
            return "This host's clock is wrong: set it."
        if self.status == 403:
            return "These credentials may not do that: see the policies in docs/vault.md."
        if self.odd:
            return "Remove it: no vault gives such names."
        if self.reason == _REDIRECTS or self.status in _REDIRECTIONS or self.code in _ELSEWHERE:
            return "The bucket is in another region or place: check region= and endpoint=."
        if self.reason == _UNTRUSTED:
            return "Name the store's CA with ?ca=FILE."
        if self.reason == _PLAINTEXT:
            return "Use https://, or say allow_http=1 where plaintext is meant."
        return ""


def fault_of(error: BaseException) -> Fault:
    """Read an error of obstore."""
    if isinstance(error, TimeoutError):
        return Fault(reason="no answer in time")
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    if status is not None:
        return Fault(int(status[1]), code[1] if code else "")
    if isinstance(error, FileNotFoundError):
        return Fault(404)
    if isinstance(error, InvalidPathError):
        name = _ODD_NAME.search(text)
        return Fault(odd=ascii(name[1])[1:-1] if name else "unknown")
    if "External AWS credential provider" in text:
        return Fault(reason=_NO_CREDENTIALS)
    if isinstance(error, UnauthenticatedError):
        return Fault(401, "AuthenticationFailed")
    return Fault(reason=_network(text))


def fault_of_botocore(error: Exception) -> Fault:
    """Read an error of botocore: `ClientError`s hold an answer, all others mean there was none."""
    if isinstance(error, RecursionError):
        return Fault(reason=_REDIRECTS)
    response: Mapping[str, Any] | None = getattr(error, "response", None)
    if not response:
        return Fault(reason=_network(str(error)))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return Fault(status, str(response.get("Error", {}).get("Code") or ""))


def _network(text: str) -> str:
    return next((said for word, said in _NETWORK if word in text), "")
