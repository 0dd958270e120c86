import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from obstore.exceptions import GenericError, UnauthenticatedError

from sealtape.ingest.vault.faults import Fault, fault_of, fault_of_botocore
from sealtape.schemas.errors import Exists, Missing, StoreBusy, StoreError, StoreFull


def answered(status, code=""):
    body = f"<Error><Code>{code}</Code><Secret>hunter2</Secret></Error>" if code else ""
    text = f"Error performing PUT http://host/key - Server returned non-2xx status code: {status} X"
    return GenericError(f"Generic S3 error: {text}: {body}\n\nDebug source: hunter2")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (412, "PreconditionFailed", Exists),
        (409, "BlobAlreadyExists", Exists),
        (409, "ConditionalRequestConflict", StoreBusy),
        (404, "NoSuchKey", Missing),
        (404, "", Missing),
        (404, "NoSuchBucket", StoreError),
        (401, "", StoreError),
        (403, "AccessDenied", StoreError),
        (403, "QuotaExceeded", StoreFull),
        (400, "EntityTooLarge", StoreFull),
        (507, "", StoreFull),
        (429, "", StoreBusy),
        (503, "SlowDown", StoreBusy),
        (400, "RequestTimeout", StoreBusy),
        (500, "InternalError", StoreBusy),
        (400, "InvalidRequest", StoreError),
    ],
)
def test_an_answer_has_its_error(status, code, kind):
    error = fault_of(answered(status, code)).error("s3://b", "a put of k")
    assert type(error) is kind
    assert str(status) in error.message
    assert "hunter2" not in str(error) + repr(error.context)
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert fault_of_botocore(ClientError(response, "Put")) == Fault(status, code)


@pytest.mark.parametrize(
    ("status", "code", "word"),
    [
        (404, "NoSuchBucket", "setup"),
        (403, "InvalidAccessKeyId", "access key"),
        (400, "TokenRefreshRequired", "access key"),
        (400, "AuthorizationHeaderMalformed", "region="),
        (401, "", "access key"),
        (403, "RequestTimeTooSkewed", "clock"),
        (403, "AccessDenied", "docs/vault.md"),
        (507, "", "quota"),
        (400, "", ""),
    ],
)
def test_a_hint_says_what_to_do(status, code, word):
    hint = fault_of(answered(status, code)).error("s3://b", "a put").hint
    assert word in hint
    assert bool(word) == bool(hint)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (TimeoutError(), Fault(reason="no answer in time")),
        (FileNotFoundError("Object at location k not found"), Fault(404)),
        (UnauthenticatedError("x: hunter2"), Fault(401, "AuthenticationFailed")),
        (
            GenericError("Os { kind: ConnectionRefused }"),
            Fault(reason="the connection was refused"),
        ),
        (GenericError("what nobody has seen"), Fault()),
    ],
)
def test_no_answer_has_a_reason(error, fault):
    assert fault_of(error) == fault


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EndpointConnectionError(endpoint_url="https://h"), "it cannot be reached"),
        (ReadTimeoutError(endpoint_url="https://h"), "no answer in time"),
    ],
)
def test_botocores_words_too(error, reason):
    fault = fault_of_botocore(error)
    assert fault == Fault(reason=reason)
    assert fault.unsure
    assert isinstance(fault.error("s3://b", "a put"), StoreBusy)


@pytest.mark.parametrize(
    ("word", "hint"), [("UnknownIssuer", "ca="), ("URL scheme is not allowed", "allow_http")]
)
def test_what_will_not_pass_is_not_tried_again(word, hint):
    fault = fault_of(GenericError(word))
    assert not fault.again
    error = fault.error("s3://b", "a put")
    assert type(error) is StoreError
    assert hint in error.hint
