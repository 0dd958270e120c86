import socket
import ssl

import pytest
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    SaslAuthenticationFailed,
    UnsupportedCodecError,
    UnsupportedSaslMechanismError,
)

from sealtape.capture.bus.kafka.trouble import mapped, of_code
from sealtape.schemas.errors import StoreBusy, StoreCorrupt, StoreError


@pytest.mark.parametrize("code", [2, 5, 6, 7, 14, 15, 16, 19, 20, 41, 56, 74, 78])
def test_what_passes_by_itself_is_busy(code):
    error = of_code(code, "Appending to t")
    assert type(error) is StoreBusy
    assert error.retry_after_s > 0
    assert error.context["code"] == code


@pytest.mark.parametrize("code", [3, 10, 29, 30, 31, 37, 38, 100])
def test_what_needs_somebody_says_what_for(code):
    error = of_code(code, "Appending to t")
    assert type(error) is StoreError
    assert error.message.startswith("Appending to t: ")
    assert error.hint


def test_a_code_nobody_knows_is_told():
    assert "error 999" in of_code(999, "Appending to t").message


def caused(inner):
    error = KafkaConnectionError("Connection at 127.0.0.1:9092 closed")
    error.__cause__ = inner
    return error


def certificate_error():
    error = ssl.SSLCertVerificationError()
    error.verify_message = "self-signed certificate"
    return error


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ConnectionRefusedError(111, "Connection refused"), StoreBusy, "Connection refused"),
        (socket.gaierror(-2, "Name or service not known"), StoreBusy, "Name or service"),
        (KafkaConnectionError("x"), StoreBusy, "connection was closed"),
        (EOFError(), StoreBusy, "connection was closed"),
        (certificate_error(), StoreError, "self-signed"),
        (caused(ssl.SSLError(1, "[SSL: ALERT] alert")), StoreError, "TLS fails"),
        (SaslAuthenticationFailed("secret-in-broker-text"), StoreError, "not accepted"),
        (caused(SaslAuthenticationFailed("x")), StoreError, "not accepted"),
        (UnsupportedSaslMechanismError("x"), StoreError, "this way to log in"),
        (IncompatibleBrokerVersion("x"), StoreError, "too old"),
        (NotImplementedError("x"), StoreError, "too old"),
        (UnsupportedCodecError("x"), StoreError, "compressed"),
        (ValueError("Buffer underrun"), StoreCorrupt, "not Kafka's protocol"),
        (AssertionError(), StoreCorrupt, "not Kafka's protocol"),
    ],
)
def test_what_fails_on_the_way(error, kind, text):
    with pytest.raises(StoreError) as caught, mapped("Kafka at h:1"):
        raise error
    assert type(caught.value) is kind
    assert text in caught.value.message
    assert "secret" not in str(caught.value)


def test_a_timeout_stays_one():
    with pytest.raises(TimeoutError), mapped("Kafka at h:1"):
        raise TimeoutError


def test_store_errors_pass():
    with pytest.raises(StoreBusy, match="as it was"), mapped("Kafka at h:1"):
        raise StoreBusy("as it was", retry_after_s=1)
