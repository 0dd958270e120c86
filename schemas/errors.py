"""The one tree of errors.

A raised error says what happened, to what, and what to do about it. `code` is a stable name for
programs, `exit_code` what the command line ends with (sysexits.h where it has a word for it).

::

    SealtapeError                      70
    +- UsageError                      64
    |  +- SettingsError                64
    |  +- QueryError                   64
    |  +- NotFound                     66
    |  +- Ambiguous                    64
    |  +- DeploymentExists             73
    +- FormatError                     65   malformed bytes, never a raw ValueError or KeyError
    |  +- DigestError                  65
    |  +- SignatureError               65
    |  +- KeyCommitmentError           65
    +- StoreError                      74
    |  +- StoreBusy                    75   carries retry_after_s
    |  +- StoreCorrupt                 74
    |  +- StoreFull                    74
    |  +- Exists                       74
    |  +- Missing                      74
    |  +- Replaced                     74
    |  +- Fenced                       75
    +- Refused                         77   carries reason and protocol_code
    +- TargetError                     69
    +- ProviderError                   69
    +- KeyUnavailable                  77

The table in `docs/errors.md` is generated from `ERRORS`.
"""

from __future__ import annotations

from typing import ClassVar


class SealtapeError(Exception):
    """Something inside Sealtape went wrong that has no narrower name; please report it.

    `message` says what happened and to what, `hint` what to do. `context` holds the values a
    program or a log line wants by name; secrets never go into any of the three.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str = "", **context: object) -> None:
        """Keep the parts; the text is `message`, then `hint` where there is one."""
        super().__init__(f"{message} {hint}" if hint else message)
        self.message = message
        self.hint = hint
        self.context = context

    def __reduce__(self) -> tuple[object, ...]:
        """How it crosses to another process: by its parts, whatever its `__init__` asks for."""
        return _revived, (type(self), self.args, self.__dict__)


class UsageError(SealtapeError):
    """The command line or an argument does not make sense; correct it and run again."""

    code = "usage"
    exit_code = 64


class SettingsError(UsageError):
    """A setting in `sealtape.toml` or the environment is unknown, missing or wrong; it is named."""

    code = "settings"


class QueryError(UsageError):
    """A search query could not be read; the message points at the place."""

    code = "query"


class NotFound(UsageError):
    """The session, target or object that was named does not exist here."""

    code = "not-found"
    exit_code = 66


class Ambiguous(UsageError):
    """A session prefix matches several sessions; give more digits."""

    code = "ambiguous"


class DeploymentExists(UsageError):
    """There is a deployment in this folder already, and nothing is ever overwritten."""

    code = "deployment-exists"
    exit_code = 73


class FormatError(SealtapeError):
    """Bytes do not follow their format: damaged, tampered with, or written by something else."""

    code = "format"
    exit_code = 65


class DigestError(FormatError):
    """Stored bytes do not have the SHA-256 that was recorded for them."""

    code = "digest"


class SignatureError(FormatError):
    """A signature that must be there is missing, or one that is there does not verify."""

    code = "signature"


class KeyCommitmentError(FormatError):
    """A frame was opened with a key that is not the one it was sealed under."""

    code = "key-commitment"


class StoreError(SealtapeError):
    """A store (bus, keyring, vault, ledger, index or spool) failed to do what it was asked."""

    code = "store"
    exit_code = 74


class StoreBusy(StoreError):
    """A store cannot take more at the moment; try again after `retry_after_s` seconds."""

    code = "store-busy"
    exit_code = 75

    def __init__(
        self, message: str, *, retry_after_s: float, hint: str = "", **context: object
    ) -> None:
        """Keep how long to wait, in seconds."""
        super().__init__(message, hint=hint, **context)
        self.retry_after_s = retry_after_s


class StoreCorrupt(StoreError):
    """A store holds bytes it cannot have written; run `sealtape verify` and restore from a copy."""

    code = "store-corrupt"


class StoreFull(StoreError):
    """A store has reached its limit or the disk is full; make room or raise the limit."""

    code = "store-full"


class Exists(StoreError):
    """What was to be created is there already, with other content; nothing was changed."""

    code = "exists"


class Missing(StoreError):
    """A store does not hold the object or row it was asked for."""

    code = "missing"


class Replaced(StoreError):
    """Another bus has taken the place of the one that was opened; start the process again."""

    code = "replaced"


class Fenced(StoreError):
    """A newer lease holder has gone ahead; this one must stop writing and start over."""

    code = "fenced"
    exit_code = 75


class Refused(SealtapeError):
    """A client was refused; `reason` is a stable word, `protocol_code` what its protocol says."""

    code = "refused"
    exit_code = 77

    def __init__(
        self, message: str, *, reason: str, protocol_code: str, hint: str = "", **context: object
    ) -> None:
        """Keep the reason for the journal and the code (SQLSTATE, HTTP status) for the client."""
        super().__init__(message, hint=hint, **context)
        self.reason = reason
        self.protocol_code = protocol_code


class TargetError(SealtapeError):
    """A target is down, its TLS is not what was demanded, or it refused the stored credential."""

    code = "target"
    exit_code = 69


class ProviderError(SealtapeError):
    """The identity provider cannot be reached, makes no sense, or gave no token."""

    code = "identity-provider"
    exit_code = 69


class KeyUnavailable(SealtapeError):
    """The private key or wrapped key needed here was deleted, or is held by somebody else."""

    code = "key-unavailable"
    exit_code = 77


def _revived(
    kind: type[SealtapeError], args: tuple[object, ...], parts: dict[str, object]
) -> SealtapeError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(parts)
    return error


ERRORS: tuple[type[SealtapeError], ...] = (
    SealtapeError,
    UsageError,
    SettingsError,
    QueryError,
    NotFound,
    Ambiguous,
    DeploymentExists,
    FormatError,
    DigestError,
    SignatureError,
    KeyCommitmentError,
    StoreError,
    StoreBusy,
    StoreCorrupt,
    StoreFull,
    Exists,
    Missing,
    Replaced,
    Fenced,
    Refused,
    TargetError,
    ProviderError,
    KeyUnavailable,
)
