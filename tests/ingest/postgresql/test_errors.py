import ssl

import asyncpg
import pytest

from sealtape.ingest.postgresql.errors import away, foreign, settled, translated
from sealtape.schemas.errors import StoreBusy, StoreCorrupt, StoreError, StoreFull

PLACE = "PostgreSQL at h/db"
E = asyncpg.exceptions


def server_error(kind, message="said so", detail="Key (x)=(secret)"):
    error = kind(message)
    error.message, error.detail = message, detail
    return error


@pytest.mark.parametrize(
    ("error", "kind", "is_away"),
    [
        (server_error(E.DiskFullError), StoreFull, False),
        (server_error(E.DataCorruptedError), StoreCorrupt, False),
        (server_error(E.LockNotAvailableError), StoreBusy, False),
        (server_error(E.QueryCanceledError), StoreBusy, False),
        (server_error(E.DeadlockDetectedError), StoreBusy, True),
        (server_error(E.SerializationError), StoreBusy, True),
        (server_error(E.AdminShutdownError), StoreBusy, True),
        (server_error(E.CrashShutdownError), StoreBusy, True),
        (server_error(E.CannotConnectNowError), StoreBusy, True),
        (server_error(E.TooManyConnectionsError), StoreBusy, True),
        (server_error(E.ReadOnlySQLTransactionError), StoreBusy, True),
        (server_error(E.ConnectionDoesNotExistError), StoreBusy, True),
        (server_error(E.InsufficientPrivilegeError), StoreError, False),
        (server_error(E.UndefinedTableError), StoreError, False),
        (server_error(E.InvalidPasswordError), StoreError, False),
        (server_error(E.InvalidCatalogNameError), StoreError, False),
        (E.InterfaceError("connection is closed"), StoreBusy, True),
        (E.TargetServerAttributeNotMatched("no primary"), StoreBusy, True),
        (ConnectionResetError("reset"), StoreBusy, True),
        (TimeoutError(), StoreBusy, True),
        (ssl.SSLCertVerificationError("self-signed"), StoreError, False),
    ],
)
def test_every_failure_has_its_word(error, kind, is_away):
    found = translated(error, PLACE)
    assert type(found) is kind
    assert PLACE in found.message
    assert "secret" not in str(found)
    assert away(error) is is_away
    assert foreign(error)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (E.UndefinedTableError, "sealtape setup"),
        (E.InvalidCatalogNameError, "database"),
        (E.InsufficientPrivilegeError, "member"),
        (E.InvalidPasswordError, "password_file"),
    ],
)
def test_what_a_person_can_do_is_said(kind, word):
    assert word in translated(server_error(kind), PLACE).hint


def test_our_own_mistakes_stay_what_they_are():
    assert not foreign(TypeError("x"))
    assert not foreign(StoreError("x"))


@pytest.mark.parametrize(
    ("error", "nothing_happened"),
    [
        (server_error(E.UniqueViolationError), True),
        (server_error(E.SerializationError), True),
        (server_error(E.DiskFullError), True),
        (server_error(E.AdminShutdownError), False),
        (server_error(E.CrashShutdownError), False),
        (server_error(E.ConnectionDoesNotExistError), False),
        (server_error(E.InternalServerError), False),
        (E.InterfaceError("connection is closed"), False),
        (ConnectionResetError("reset"), False),
        (TimeoutError(), False),
    ],
)
def test_a_commit_that_failed_is_settled_only_where_the_server_said_so(error, nothing_happened):
    assert settled(error) is nothing_happened
