"""Renew credentials: one task in the fleet calls the provider, and the others wait.

A provider may revoke a refresh token when it is used. Therefore the new credentials are stored
before anyone uses them. No database transaction is open during the call to the provider.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

from core.db.clocks import REFRESH_SECONDS, passed
from core.db.pool import DATABASE_UNAVAILABLE, Conn, Database, DiskFull
from core.errors import IntegrationError, TransientError

WAIT_SECONDS = 75.0
"""Seconds that a task waits for the refresh of another task."""

CLAIM_REFRESH = f"""
UPDATE user_integration SET
    refresh_holder = %(holder)s,
    refresh_until = clock_timestamp() + %(lease)s * interval '1 second'
WHERE id = %(id)s AND credentials_version = %(version)s
  AND (refresh_holder IS NULL OR {passed("user_integration.refresh_until")})
RETURNING id
"""

NEWER = """
SELECT credentials, credentials_version FROM user_integration
WHERE id = %s AND credentials_version > %s
"""

STORE = """
UPDATE user_integration SET
    credentials = %(credentials)s, credentials_version = credentials_version + 1,
    version = version + 1, refresh_holder = NULL, refresh_until = NULL, updated_at = now()
WHERE id = %(id)s AND credentials_version = %(version)s
RETURNING credentials_version
"""

RELEASE_REFRESH = """
UPDATE user_integration SET refresh_holder = NULL, refresh_until = NULL
WHERE id = %s AND refresh_holder = %s
"""


@dataclass(frozen=True, slots=True)
class Sealed:
    """Encrypted credentials and their version."""

    ciphertext: str | None
    version: int


def refresh(database: Database, account_id: UUID, version: int, renew: Callable[[], str]) -> Sealed:
    """Return credentials that are newer than `version`.

    Args:
      database: The database.
      account_id: The id of the account.
      version: The version of the caller's credentials.
      renew: Requests new credentials from the provider and returns them encrypted. One task of the
        fleet calls it at a time.

    Raises:
      TransientError: The refresh of another task did not end in time, or this one failed with an
        unexpected exception.
      IntegrationError: `renew` raised it.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    holder = uuid4()
    while time.monotonic() < deadline:
        with database.connection() as conn:
            newer = conn.execute(NEWER, (account_id, version)).fetchone()
            if newer is not None:
                return Sealed(*newer)
            if _claimed(conn, account_id, version, holder):
                break
        time.sleep(0.1)
    else:
        raise TransientError("another task is still refreshing the credentials")
    return _renew(database, account_id, version, holder, renew)


def _claimed(conn: Conn, account_id: UUID, version: int, holder: UUID) -> bool:
    row = conn.execute(
        CLAIM_REFRESH,
        {"id": account_id, "version": version, "holder": holder, "lease": REFRESH_SECONDS},
    ).fetchone()
    return row is not None


def _renew(
    database: Database, account_id: UUID, version: int, holder: UUID, renew: Callable[[], str]
) -> Sealed:
    try:
        ciphertext = renew()
    except BaseException as error:
        with contextlib.suppress(*DATABASE_UNAVAILABLE), database.connection() as conn:
            conn.execute(RELEASE_REFRESH, (account_id, holder))
        if isinstance(error, Exception) and not isinstance(error, IntegrationError):
            # Its text may contain the new tokens, and no redactor knows them yet.
            raise TransientError(
                f"could not refresh the credentials: {type(error).__name__}"
            ) from None
        raise
    return _store(database, account_id, version, ciphertext)


def _store(database: Database, account_id: UUID, version: int, ciphertext: str) -> Sealed:
    """Store the new credentials; retry for 60 s while the database is unavailable.

    With rotating tokens, only the new credentials work. While the disk is full, no other task can
    claim the refresh, so the retries continue.
    """
    deadline = time.monotonic() + REFRESH_SECONDS
    arguments = {"id": account_id, "version": version, "credentials": ciphertext}
    while True:
        try:
            with database.connection() as conn:
                stored = conn.execute(STORE, arguments).fetchone()
                newer = None if stored else conn.execute(NEWER, (account_id, version)).fetchone()
            break
        except DATABASE_UNAVAILABLE as error:
            if time.monotonic() > deadline and not isinstance(error, DiskFull):
                raise
        time.sleep(0.5)
    if stored is not None:
        return Sealed(ciphertext, stored[0])
    if newer is None:
        raise TransientError("could not store the refreshed credentials")
    return Sealed(*newer)
