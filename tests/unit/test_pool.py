"""The errors of PostgreSQL after which the engine retries."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors

from core.db.pool import passes

PASS = [
    errors.QueryCanceled(),
    psycopg.OperationalError("the connection is lost"),
    psycopg.InterfaceError("the connection is closed"),
    errors.ConnectionFailure(),
    errors.AdminShutdown(),
    errors.CrashShutdown(),
    errors.CannotConnectNow(),
    errors.IdleSessionTimeout(),
    errors.IdleInTransactionSessionTimeout(),
    errors.lookup("25P04")(),
    errors.DatabaseDropped(),
    errors.IoError(),
    errors.DeadlockDetected(),
    errors.SerializationFailure(),
    errors.LockNotAvailable(),
    errors.TooManyConnections(),
    errors.DiskFull(),
    errors.OutOfMemory(),
    errors.ReadOnlySqlTransaction(),
]
STAY = [
    psycopg.DataError("a NUL in a text"),
    psycopg.ProgrammingError("the wrong number of parameters"),
    errors.UniqueViolation(),
    errors.CheckViolation(),
    errors.NumericValueOutOfRange(),
    errors.UndefinedTable(),
    errors.InsufficientPrivilege(),
    errors.ProgramLimitExceeded(),
]


@pytest.mark.parametrize("error", PASS, ids=lambda error: type(error).__name__)
def test_a_temporary_error_is_retried(error: psycopg.Error) -> None:
    assert passes(error)


@pytest.mark.parametrize("error", STAY, ids=lambda error: type(error).__name__)
def test_a_permanent_error_is_not_retried(error: psycopg.Error) -> None:
    assert not passes(error)
