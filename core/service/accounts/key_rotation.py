"""Re-encrypt everything that the secret keys encrypt with the newest key.

A key can be removed when nothing is encrypted with it and no process encrypts with it any more. An
earlier removal loses the tokens that such a process has stored since. A provider that rotates
refresh tokens does not issue them twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from core.accounts import store
from core.accounts.vault import Vault
from core.db.pool import Conn
from core.errors import VaultError, WrongState
from core.ledger import audit, processes
from core.service.backend import Backend
from core.states import Act, AuditTarget

BATCH = 1_000
MAX_NAMED = 5
"""The number of processes or accounts that a message names."""

COUNT_SEALED = "SELECT count(*) FROM user_integration WHERE credentials IS NOT NULL"

# Served by the primary key.
SEALED_CREDENTIALS = """
SELECT id, credentials FROM user_integration
WHERE credentials IS NOT NULL AND id > %s ORDER BY id LIMIT %s
"""
# Pending sign-ins: the table has the flows of the last minutes, and is read completely.
SEALED_ORGANIZATIONS = "SELECT credentials FROM organization WHERE credentials IS NOT NULL"
SEALED_SUBSCRIPTIONS = "SELECT sealed FROM subscription"
SEALED_SIGN_INS = """
SELECT verifier FROM oauth_flow WHERE expires_at > now()
UNION ALL SELECT answer FROM oauth_flow WHERE expires_at > now() AND answer IS NOT NULL
"""
LOCK_SIGN_INS = """
SELECT state_digest, verifier, answer FROM oauth_flow
WHERE expires_at > now() ORDER BY state_digest FOR UPDATE
"""
LOCK_SEALED_SUBSCRIPTIONS = """
SELECT id, sealed FROM subscription WHERE id > %s ORDER BY id LIMIT 100 FOR UPDATE
"""
RESEAL_SUBSCRIPTION = "UPDATE subscription SET sealed = %s WHERE id = %s"
RESEAL_SIGN_IN = "UPDATE oauth_flow SET verifier = %s, answer = %s WHERE state_digest = %s"


@dataclass(slots=True)
class Rotation:
    """The progress of a rotation.

    Attributes:
      done: The number of accounts, organizations and subscriptions whose secrets are encrypted with
        the newest key.
      failed: The accounts, organizations and subscriptions whose secrets no key decrypts.
    """

    done: int = 0
    failed: list[UUID] = field(default_factory=list)


def count_sealed(conn: Conn) -> int:
    """Count the accounts that have credentials."""
    row = conn.execute(COUNT_SEALED).fetchone()
    return row[0] if row else 0


def require_ready(conn: Conn, vault: Vault) -> None:
    """Check that each live process has the newest key, and encrypts with it.

    Raises:
      WrongState: A process does not. The message names the processes and the key.
    """
    live = [holder for holder in processes.key_holders(conn) if holder.alive]
    newest = vault.fingerprints[0]
    if unknown := [process for process in live if process.encrypts_with is None]:
        raise WrongState("rotation-keys-unknown", processes=listed(unknown))
    if lacking := [process for process in live if newest not in (process.decrypts_with or ())]:
        raise WrongState("rotation-key-missing", key=newest, processes=listed(lacking))
    if others := [process for process in live if process.encrypts_with != newest]:
        raise WrongState("rotation-key-not-first", key=newest, processes=listed(others))


def rotate(backend: Backend) -> Iterator[Rotation]:
    """Encrypt everything with the first key, in batches, and yield the progress after each batch.

    Credentials that no key decrypts are skipped, and raise an error at the end.

    Raises:
      WrongState: A live process does not encrypt with the first key, before or after the rotation.
      VaultError: No key decrypts the credentials of some accounts. All others are encrypted.
    """
    with backend.database.connection() as conn:
        require_ready(conn, backend.vault)
        _rotate_sign_ins(conn, backend.vault)
    rotation, last, count = Rotation(), UUID(int=0), 1
    while count:
        with backend.database.connection() as conn, conn.transaction():
            rows = conn.execute(store.LOCK_SEALED, (last,)).fetchall()
            for account, sealed in rows:
                _rotate(conn, backend.vault, account, sealed, rotation)
                last = account
        count = len(rows)
        yield rotation
    _rotate_rows(backend, rotation, store.LOCK_SEALED_ORGANIZATIONS, store.RESEAL_ORGANIZATION)
    _rotate_rows(backend, rotation, LOCK_SEALED_SUBSCRIPTIONS, RESEAL_SUBSCRIPTION)
    yield rotation
    with backend.database.connection() as conn:
        require_ready(conn, backend.vault)  # a process may have started in the meantime
    if rotation.failed:
        raise VaultError(
            "rotation-incomplete", count=len(rotation.failed), accounts=listed(rotation.failed)
        )


def keys_in_use(conn: Conn, vault: Vault) -> Counter[str | None]:
    """Count the encrypted values by the fingerprint of their key; None if no key decrypts them."""
    used = Counter(vault.key_of(sealed) for (sealed,) in conn.execute(SEALED_SIGN_INS))
    used.update(vault.key_of(sealed) for (sealed,) in conn.execute(SEALED_ORGANIZATIONS))
    used.update(vault.key_of(sealed) for (sealed,) in conn.execute(SEALED_SUBSCRIPTIONS))
    last = UUID(int=0)
    while rows := conn.execute(SEALED_CREDENTIALS, (last, BATCH)).fetchall():
        used.update(vault.key_of(sealed) for _, sealed in rows)
        last = rows[-1][0]
    return used


def listed(names: Sequence[object]) -> str:
    """Return the first names of a list, and the number of the others."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(map(str, names[:MAX_NAMED])) + more


def _rotate_rows(backend: Backend, rotation: Rotation, lock: str, reseal: str) -> None:
    """Encrypt the values of a table, in portions."""
    last, count = UUID(int=0), 1
    while count:
        with backend.database.connection() as conn, conn.transaction():
            rows = conn.execute(lock, (last,)).fetchall()
            for id, sealed in rows:
                _rotate(conn, backend.vault, id, sealed, rotation, reseal)
                last = id
        count = len(rows)


def _rotate(
    conn: Conn,
    vault: Vault,
    account: UUID,
    sealed: str,
    rotation: Rotation,
    reseal: str = store.RESEAL,
) -> None:
    try:
        conn.execute(reseal, (vault.rotate(sealed), account))
    except VaultError:
        rotation.failed.append(account)
    else:
        rotation.done += 1


def _rotate_sign_ins(conn: Conn, vault: Vault) -> None:
    """Encrypt pending sign-ins. One that no key decrypts has to be started again in any case."""
    with conn.transaction():
        for state, *sealed in conn.execute(LOCK_SIGN_INS).fetchall():
            values = [None if value is None else _resealed(vault, value) for value in sealed]
            conn.execute(RESEAL_SIGN_IN, (*values, state))
        audit.record(conn, Act.KEYS_ROTATE, AuditTarget.KEYS, vault.fingerprints[0])


def _resealed(vault: Vault, sealed: str) -> str:
    return sealed if vault.key_of(sealed) is None else vault.rotate(sealed)
