"""Paused integrations: an operator stops all accounts of an integration, and continues them.

A pause ends when an operator resumes the integration, or when its time has passed. While it lasts,
the scheduler claims no account of the integration, and the leader dispatches no task of it. The
leader takes due accounts out of the schedule (`next_sync_at` NULL). After the pause it schedules
them again, spread over their interval, and then ends the pause.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from core.db.pool import Conn
from core.db.row_factory import dataclass_row
from core.states import AccountState

BATCH = 1_000
"""The number of accounts that one transaction changes."""

LASTS = "(paused_at IS NOT NULL AND (paused_until IS NULL OR paused_until > clock_timestamp()))"
"""The condition on a row of `integration` that its pause lasts."""

PAUSED_DOMAINS = "SELECT domain FROM integration WHERE paused_at IS NOT NULL"
"""The integrations whose accounts are not claimed: paused, or not yet scheduled again."""

PAUSE_INTEGRATION = """
INSERT INTO integration (domain, name, version, tasks, max_tasks, paused_at, paused_until)
SELECT domain, name, version, tasks, max_tasks, clock_timestamp(), %(until)s
FROM jsonb_to_record(%(entry)s::jsonb)
    AS r(domain text, name text, version text, tasks jsonb, max_tasks bigint)
ON CONFLICT (domain) DO UPDATE SET paused_until = excluded.paused_until,
    paused_at = coalesce(integration.paused_at, excluded.paused_at)
"""
RESUME_INTEGRATION = f"""
UPDATE integration SET paused_until = clock_timestamp() WHERE domain = %s AND {LASTS}
"""
LASTING = f"SELECT domain, paused_at AS since, paused_until AS until FROM integration WHERE {LASTS}"

SHARE_PAUSED = f"SELECT domain FROM integration WHERE {LASTS} ORDER BY domain FOR SHARE"
# Served by `user_integration_due`.
HOLD_ACCOUNTS = f"""
UPDATE user_integration SET next_sync_at = NULL WHERE id IN (
    SELECT id FROM user_integration
    WHERE sync_status = '{AccountState.ACTIVE}' AND next_sync_at <= clock_timestamp()
      AND integration_domain = ANY(%s)
    ORDER BY next_sync_at LIMIT {BATCH} FOR NO KEY UPDATE SKIP LOCKED)
"""
LOCK_ENDED_PAUSE = f"""
SELECT domain FROM integration WHERE paused_at IS NOT NULL AND NOT {LASTS}
ORDER BY domain LIMIT 1 FOR UPDATE SKIP LOCKED
"""
# Served by `user_integration_due`.
SPREAD_ACCOUNTS = f"""
UPDATE user_integration SET
    next_sync_at = clock_timestamp() + random() * poll_interval_minutes * interval '1 minute'
WHERE id IN (
    SELECT id FROM user_integration
    WHERE sync_status = '{AccountState.ACTIVE}' AND integration_domain = %(domain)s
      AND (next_sync_at IS NULL OR next_sync_at <= clock_timestamp())
    ORDER BY id LIMIT {BATCH} FOR NO KEY UPDATE)
"""
END_PAUSE = "UPDATE integration SET paused_at = NULL, paused_until = NULL WHERE domain = %s"


@dataclass(frozen=True, slots=True)
class Pause:
    """The pause of an integration.

    Attributes:
      until: The time at which it ends by itself; None: an operator resumes the integration.
    """

    domain: str
    since: datetime
    until: datetime | None


def pause(conn: Conn, entry: Mapping[str, Any], until: datetime | None) -> None:
    """Pause an integration, or change the end of its pause.

    Args:
      conn: A connection in autocommit mode.
      entry: Its entry in the catalog of plugins; no worker may have registered it yet.
      until: The time at which the pause ends by itself. None: an operator resumes the integration.
    """
    conn.execute(PAUSE_INTEGRATION, {"entry": json.dumps(dict(entry)), "until": until})


def resume(conn: Conn, domain: str) -> bool:
    """End the pause of an integration. Returns False if it is not paused."""
    return conn.execute(RESUME_INTEGRATION, (domain,)).rowcount > 0


def lasting(conn: Conn) -> dict[str, Pause]:
    """Return the pauses that last, by domain."""
    cursor = conn.cursor(row_factory=dataclass_row(Pause))
    return {each.domain: each for each in cursor.execute(LASTING)}


def hold_accounts(conn: Conn) -> bool:
    """Take due accounts of paused integrations out of the schedule.

    Returns:
      True if there may be more.
    """
    with conn.transaction():
        domains = [domain for (domain,) in conn.execute(SHARE_PAUSED)]
        return bool(domains) and conn.execute(HOLD_ACCOUNTS, (domains,)).rowcount == BATCH


def end_pauses(conn: Conn) -> bool:
    """Schedule accounts of an integration whose pause is over, spread over their interval.

    The transaction that finds no more of them ends the pause.

    Returns:
      True if there may be more.
    """
    with conn.transaction():
        ended = conn.execute(LOCK_ENDED_PAUSE).fetchone()
        if ended is None:
            return False
        if conn.execute(SPREAD_ACCOUNTS, {"domain": ended[0]}).rowcount < BATCH:
            conn.execute(END_PAUSE, ended)
        return True
