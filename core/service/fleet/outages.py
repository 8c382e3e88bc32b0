"""Outages: integrations, or single limits of them, that do not answer some accounts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from core.db.indexed import IS_STOPPED
from core.db.pool import Conn
from core.db.row_factory import dataclass_row
from core.limits.keys import WHOLE_ACCOUNT
from core.plugins import Registry
from core.service.formatting import moment
from core.states import AccountState, TaskState

MAX_COUNTED = 100_000
"""The number of waiting tasks of an outage above which they are not counted."""

NOT_ANSWERING = f"""b.opened_at IS NOT NULL
    AND (b.limit_name <> '{WHOLE_ACCOUNT}' OR b.failed_probes > 0)"""
"""The condition on a breaker `b` that its account, or its limit, does not answer."""

# `breaker_open` has the open breakers alone. `sync_task_ready` and `sync_task_owed` serve the tasks
# of their accounts.
OUTAGES = f"""
SELECT o.domain, o.limit_name, o.accounts, o.since, o.next_try,
    (SELECT count(*)::int FROM user_integration a WHERE a.integration_domain = o.domain
        AND a.sync_status = '{AccountState.ACTIVE}'
        AND (%(user)s::text IS NULL OR a.user_id = %(user)s)) AS active,
    (SELECT count(*)::int FROM (
        SELECT 1 FROM breaker b JOIN user_integration a ON a.id = b.user_integration_id
        CROSS JOIN LATERAL (
            SELECT 1 FROM sync_task t WHERE t.state = '{TaskState.READY}'
                AND t.integration_domain = b.integration_domain
                AND t.user_integration_id = b.user_integration_id
                AND (b.types IS NULL OR t.type = ANY (b.types))
            UNION ALL
            SELECT 1 FROM sync_task t WHERE {IS_STOPPED} AND t.state = '{TaskState.DEFERRED}'
                AND t.user_integration_id = b.user_integration_id
                AND (b.types IS NULL OR t.type = ANY (b.types))
        ) waiting
        WHERE {NOT_ANSWERING} AND b.integration_domain = o.domain AND b.limit_name = o.limit_name
          AND a.sync_status = '{AccountState.ACTIVE}'
          AND (%(user)s::text IS NULL OR a.user_id = %(user)s)
        LIMIT {MAX_COUNTED + 1}) counted) AS tasks
FROM (
    SELECT b.integration_domain AS domain, b.limit_name, count(*)::int AS accounts,
        min(b.first_failed_at) AS since, min(b.probe_at) AS next_try
    FROM breaker b JOIN user_integration a ON a.id = b.user_integration_id
    WHERE {NOT_ANSWERING} AND a.sync_status = '{AccountState.ACTIVE}'
      AND (%(user)s::text IS NULL OR a.user_id = %(user)s)
    GROUP BY 1, 2
) o ORDER BY o.domain, o.limit_name
"""


@dataclass(frozen=True, slots=True)
class Outage:
    """An integration, or one limit of it, that does not answer some of its accounts.

    Attributes:
      limit_name: The limit that does not answer; empty for the complete integration.
      accounts: The number of accounts that get no answer.
      since: The time of the first failure.
      next_try: The time of the next probe.
      active: The number of active accounts of the integration.
      tasks: The number of tasks that wait, ready or deferred; at most `MAX_COUNTED` + 1.
    """

    domain: str
    limit_name: str
    accounts: int
    since: datetime
    next_try: datetime
    active: int
    tasks: int

    def sentence(self, name: str, now: datetime | None = None) -> str:
        """Return the outage as one sentence.

        Args:
          name: The display name of the integration.
          now: The current time. Default: the clock of this process.
        """
        now = now or datetime.now(UTC)
        what = f"{name} has not answered {self.limit_name}".rstrip()
        accounts = f"{self.accounts:,} of {self.active:,} accounts"
        tasks = f"more than {MAX_COUNTED:,}" if self.tasks > MAX_COUNTED else f"{self.tasks:,}"
        wait = "1 task waits" if self.tasks == 1 else f"{tasks} tasks wait"
        next_try = "now" if self.next_try <= now else _clock(self.next_try, now)
        return (
            f"{what} since {_clock(self.since, now)} for {accounts};"
            f" {wait}; next try {next_try}; nothing is lost"
        )


def _clock(at: datetime, now: datetime) -> str:
    """Format a time of the last or next 12 hours without its date."""
    near = abs((at - now).total_seconds()) < 43_200
    return f"{at.astimezone(UTC):%H:%M} UTC" if near else moment(at)


def outages(conn: Conn, user: str | None = None) -> list[Outage]:
    """Return the current outages, by integration and limit.

    Args:
      conn: A connection.
      user: The owner of the accounts. Default: all users.
    """
    cursor = conn.cursor(row_factory=dataclass_row(Outage))
    return cursor.execute(OUTAGES, {"user": user}).fetchall()


def sentences(conn: Conn, registry: Registry, user: str | None = None) -> list[str]:
    """Return one sentence for each outage; the arguments are those of `outages`."""
    return [outage.sentence(display_name(registry, outage)) for outage in outages(conn, user)]


def display_name(registry: Registry, outage: Outage) -> str:
    """Return the display name of an outage's integration; its domain if it is not installed."""
    installed = registry.integrations.get(outage.domain)
    return outage.domain if installed is None else installed.manifest.name
