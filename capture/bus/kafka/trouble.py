"""What the brokers and the way to them answer instead of what was asked for, as store errors.

`StoreBusy` is what may go away by itself: the callers of this package try again until their time is
over. Everything else needs somebody, and its hint says what for.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedCodecError,
    UnsupportedSaslMechanismError,
)

from sealtape.schemas.errors import StoreBusy, StoreCorrupt, StoreError

__all__ = ["RETRY_S", "busy", "mapped", "of_code"]

RETRY_S = 0.5
"""When to try again what a broker could not do just now."""

# https://kafka.apache.org/protocol, "Error Codes": what passes by itself, as its name.
_PASSING = {
    2: "a batch was damaged on its way",
    5: "no leader is elected",
    6: "the leader has changed",
    7: "the replicas did not answer in time",
    8: "the broker is not available",
    9: "the replica is not available",
    13: "the network failed",
    14: "the group's coordinator is starting",
    15: "the group has no coordinator",
    16: "the group's coordinator has changed",
    19: "fewer replicas are in sync than min.insync.replicas",
    20: "fewer replicas are in sync than min.insync.replicas",
    41: "the controller has changed",
    56: "the leader's disk failed",
    74: "the leader has changed",
    75: "the leader has changed",
    78: "the leader was just elected",
    89: "the brokers throttle us",
}
_LASTING = {
    3: ("the topic does not exist", "Run `sealtape setup` to create it, or correct its name."),
    10: (
        "a message is longer than the topic takes",
        "Raise the topic's max.message.bytes; `sealtape doctor` says to what.",
    ),
    29: ("the topic's ACLs refuse us", "docs/kafka.md lists what each room needs."),
    30: ("the group's ACLs refuse us", "docs/kafka.md lists what each room needs."),
    31: ("the cluster's ACLs refuse us", "docs/kafka.md lists what each room needs."),
    32: ("a message's time is not acceptable", "Compare this node's clock with the broker's."),
    35: ("the broker does not know this version of the request", "Use Kafka 3.1 or newer."),
    37: ("the number of partitions is not acceptable", "Correct `partitions` in the URL."),
    38: (
        "there are fewer brokers than replicas are wanted",
        "Start them, or lower `replicas` (and `min_isr`) in the URL.",
    ),
    44: ("a policy of the cluster refuses it", "Ask whoever runs the cluster."),
    87: ("the broker does not accept the message", "The topic must not be compacted."),
    100: ("the topic was deleted", "Restore it, or start this process again."),
}


def of_code(code: int, what: str) -> StoreError:
    """Return the error for a code that a broker answered; `what` begins the sentence."""
    if code in _PASSING:
        return StoreBusy(f"{what}: {_PASSING[code]}.", retry_after_s=RETRY_S, code=code)
    reason, hint = _LASTING.get(code, (f"the broker answers with error {code}", ""))
    return StoreError(f"{what}: {reason}.", hint=hint, code=code)


def busy(message: str) -> StoreBusy:
    """Return the error for what passes by itself."""
    return StoreBusy(message, retry_after_s=RETRY_S)


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """Raise what fails on the way to a broker as a store error; `what` begins the sentence.

    A timeout of the caller is not turned into one: only who set it knows what it means.
    """
    try:
        yield
    except (KafkaError, NotImplementedError, OSError, EOFError) as exc:
        if isinstance(exc, TimeoutError):
            raise
        raise _of_exception(exc, what) from exc
    except (ValueError, TypeError, IndexError, AssertionError) as exc:
        raise _of_nonsense(what) from exc


def _of_exception(exc: Exception, what: str) -> StoreError:
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLError):  # one of its kinds is a ValueError too
            return _of_tls(cause, what)
        if isinstance(cause, ValueError | TypeError | IndexError | AssertionError):
            return _of_nonsense(what)
        if isinstance(cause, SaslAuthenticationFailed):
            return StoreError(
                f"{what}: the user or password is not accepted.",
                hint="Check the URL's user and what password_file or password_env refer to.",
            )
        if isinstance(cause, UnsupportedSaslMechanismError):
            return StoreError(
                f"{what}: the listener does not offer this way to log in.",
                hint="Correct `sasl` in the URL, or the listener.",
            )
        if isinstance(cause, IncompatibleBrokerVersion | NotImplementedError):
            return StoreError(f"{what}: the broker is too old.", hint="Use Kafka 3.1 or newer.")
        if isinstance(cause, UnsupportedCodecError):
            return StoreError(
                f"{what}: the messages are compressed in a way that is not installed.",
                hint="Set the topic's compression.type to producer.",
            )
        cause = cause.__cause__ or cause.__context__
    return busy(f"{what}: {_words(exc)}.")


def _of_nonsense(what: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"{what}: the answer is not Kafka's protocol.",
        hint="Is this the address of a Kafka listener, with or without TLS as `tls` says?",
    )


def _of_tls(exc: ssl.SSLError, what: str) -> StoreError:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return StoreError(
            f"{what}: its certificate is not valid: {exc.verify_message}.",
            hint="`ca` in the URL must name the CA that signed it, for the name in the URL.",
        )
    reason = getattr(exc, "reason", None) or "the connection was closed"
    return StoreError(
        f"{what}: TLS fails: {reason}.",
        hint="Does the listener speak TLS, and does it want `cert` and `key`?",
    )


def _words(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return "the connection was closed"
