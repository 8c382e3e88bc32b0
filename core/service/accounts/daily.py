"""The daily figures of an account: its runs, also those whose rows are deleted."""

from __future__ import annotations

from uuid import UUID

from core.content.visible import visible
from core.db.pool import Conn
from core.db.rows import Row, fetch

# The polls of the latest day that found nothing are counted in the row of the account. The primary
# keys serve it.
RUNS_BY_DAY = f"""
SELECT day, sum(runs)::bigint AS runs, sum(empty_runs)::bigint AS empty_runs,
    sum(failed_runs)::bigint AS failed_runs, sum(outputs_saved)::bigint AS outputs_saved,
    sum(outputs_deleted)::bigint AS outputs_deleted
FROM (
    SELECT day, runs, empty_runs, failed_runs, outputs_saved, outputs_deleted
    FROM account_day WHERE user_integration_id = %(account)s
    UNION ALL
    SELECT empty_day, empty_runs, empty_runs, 0, 0, 0
    FROM user_integration WHERE id = %(account)s AND empty_runs > 0
) counted
WHERE {visible("%(account)s::uuid")}
GROUP BY day ORDER BY day DESC LIMIT %(days)s
"""


def latest(conn: Conn, account: UUID, days: int) -> list[Row]:
    """Return the figures of the latest days (UTC) on which a run has ended, the newest first."""
    return fetch(conn, RUNS_BY_DAY, {"account": account, "days": days})
