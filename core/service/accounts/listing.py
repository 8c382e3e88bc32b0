"""List accounts by state, integration, user, name and due time, each with its first blocker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID

from core.accounts import store
from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.service.accounts import queries as account_queries
from core.service.accounts.owed import completeness
from core.service.accounts.queries import NextSync
from core.service.fleet import liveness
from core.service.runs import progress
from core.service.runs.parked import CONDITION
from core.service.runs.progress import Blocker
from core.settings import Settings

Due = Literal["now", "over"]

# Reads accounts in the order of the listing. If few names contain the text, it reads all others.
ALL = replace(
    account_queries.listed_accounts,
    filters={**account_queries.accounts.filters, "name": "text"},
    bounds={**account_queries.accounts.bounds, "name": "strpos(lower(name), lower(%(name)s)) > 0"},
)
DUE_NOW = replace(ALL, where=liveness.DUE)
OVERDUE_ACCOUNTS = replace(ALL, where=f"id IN (SELECT a.id {liveness.OVERDUE})")
# The primary key serves it, for the requested accounts only.
OVERDUE_OF = f"SELECT a.id {liveness.OVERDUE} AND a.id = ANY(%(ids)s)"

# The index `sync_task_owed` serves it. Counting stops at `MAX_COUNTED_ROWS`.
PARKED_TASKS = f"FROM sync_task t WHERE t.user_integration_id = %(id)s AND {CONDITION}"
LATEST_PARKED = f"""
SELECT id, run_id, type, reason, errors->-1->>'error' AS error, finished_at {PARKED_TASKS}
ORDER BY id DESC LIMIT %(limit)s
"""
COUNT_PARKED = f"""
SELECT count(*) AS number FROM (SELECT {PARKED_TASKS} LIMIT %(most)s) counted
"""

MAX_COUNTED_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An account of a page.

    Attributes:
      wait: The most important blocker; None if nothing blocks the account.
      overdue: True if the account should have been polled by now.
    """

    row: Row
    wait: Blocker | None
    overdue: bool

    @property
    def next_sync(self) -> NextSync:
        """The next sync of the account."""
        return account_queries.next_sync(self.row)

    @property
    def completeness(self) -> str:
        """The number of owed tasks, or the time as of which the account is complete."""
        return completeness(self.row)


@dataclass(frozen=True, slots=True)
class ParkedSummary:
    """The latest parked tasks of an account, and their number, counted up to `MAX_COUNTED_ROWS`."""

    rows: list[Row]
    number: int


def page(
    conn: Conn,
    settings: Settings,
    *,
    user_id: str | None = None,
    domain: str | None = None,
    status: str | None = None,
    name: str | None = None,
    due: Due | None = None,
    after: str | None = None,
    limit: int = 50,
) -> tuple[list[AccountRow], str | None]:
    """Read one page of accounts, the oldest first, and return it with the cursor of the next page.

    Args:
      conn: A connection.
      settings: The settings.
      user_id: The owner of the accounts. Default: any user.
      domain: The domain of the integration. Default: any.
      status: The state of the accounts. Default: any.
      name: A part of the name, in upper or lower case.
      due: `now`: accounts whose next run is due. `over`: overdue accounts.
      after: The cursor of the page before. Default: the first page.
      limit: The maximum number of rows of the page.

    Raises:
      InvalidInput: The cursor is invalid.
    """
    listing = ALL if due is None else DUE_NOW if due == "now" else OVERDUE_ACCOUNTS
    accounts_page = listing.page(
        conn,
        limit=limit,
        after=after,
        user_id=user_id,
        integration_domain=domain,
        sync_status=status,
        name=name,
        **(liveness.overdue_params(settings) if listing is OVERDUE_ACCOUNTS else {}),
    )
    ids = [row["id"] for row in accounts_page.rows]
    waits = progress.first_blockers(conn, store.load_status(conn, ids))
    late = overdue_of(conn, settings, ids)
    return [
        AccountRow(row, waits.get(row["id"]), row["id"] in late) for row in accounts_page.rows
    ], accounts_page.cursor


def overdue_of(conn: Conn, settings: Settings, ids: Sequence[UUID]) -> set[UUID]:
    """Return the ids of the overdue accounts among these."""
    rows = fetch(conn, OVERDUE_OF, {"ids": list(ids)} | liveness.overdue_params(settings))
    return {row["id"] for row in rows}


def parked_summary(conn: Conn, account: UUID, *, limit: int = 10) -> ParkedSummary:
    """Read the latest parked tasks of an account, and count its parked tasks."""
    params = {"id": account, "limit": limit, "most": MAX_COUNTED_ROWS}
    return ParkedSummary(
        fetch(conn, LATEST_PARKED, params), fetch(conn, COUNT_PARKED, params)[0]["number"]
    )
