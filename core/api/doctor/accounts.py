"""Accounts and tasks that wait for a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from core.accounts.vault import Vault
from core.api.doctor.check import Check, failed
from core.api.listings import fetch
from core.db.pool import Conn
from core.errors import PollingError, VaultError

SAMPLE = """
SELECT id, name, credentials FROM user_integration
WHERE credentials IS NOT NULL ORDER BY updated_at DESC, id LIMIT 50
"""
TROUBLES = """
SELECT
    (SELECT count(*) FROM user_integration WHERE sync_status = 'error') AS stopped,
    -- The first condition names the partial index `sync_task_stopped`.
    (SELECT count(*) FROM sync_task WHERE state IN ('parked', 'cancelled') AND retried_as IS NULL
       AND state = 'parked') AS parked,
    (SELECT count(*) FROM held_deletion) AS held,
    (SELECT count(*) FROM user_integration a
     WHERE sync_status = 'active' AND next_sync_at < clock_timestamp() - interval '10 minutes'
       AND NOT EXISTS (SELECT FROM sync_run r
           WHERE r.user_integration_id = a.id AND r.lane = 'live' AND r.state = 'running')
    ) AS overdue
"""
WORDS = {
    "stopped": (
        "accounts",
        "stopped because of their credentials or config",
        "See: polling accounts --status error",
    ),
    "parked": ("tasks", "parked: they failed for good", "See: polling tasks --state parked"),
    "held": (
        "deletions",
        "held, as too much vanished at once",
        "See: polling accounts show ID; then polling sync ID --allow-deletions",
    ),
    "overdue": (
        "accounts",
        "overdue by more than 10 minutes",
        "Is the scheduler running? See: polling runs",
    ),
}


def keys(conn: Conn, secret_keys: Sequence[str]) -> Check:
    """Do our keys open what is stored? Looks at a sample."""
    try:
        vault = Vault(secret_keys)
    except PollingError as error:
        return failed("keys", error)
    rows = fetch(conn, SAMPLE, {})
    for row in rows:
        try:
            vault.rotate(row["credentials"])
        except VaultError:
            message = f"no key opens the credentials of account {row['id']}"
            return Check(
                "keys",
                "fail",
                message,
                "Put the key they were sealed with into POLLING_SECRET_KEYS",
            )
    return Check(
        "keys",
        "ok",
        f"open the credentials of {len(rows)} accounts" if rows else "nothing is sealed yet",
    )


def examine(conn: Conn) -> Iterator[Check]:
    """What waits for a person."""
    found = fetch(conn, TROUBLES, {})[0]
    for name, (what, state, advice) in WORDS.items():
        if found[name]:
            yield Check(what, "warn", f"{found[name]} {state}", advice)
    if not any(found.values()):
        yield Check("accounts", "ok", "nothing waits for a person")
