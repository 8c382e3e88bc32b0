"""List accounts by state, integration, user, name and due time, each with its first blocker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import UUID

from core.accounts import store
from core.content.visible import visible
from core.db.clocks import lasts
from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.service.accounts import blockers
from core.service.accounts import queries as account_queries
from core.service.accounts.blockers import Blocker
from core.service.accounts.owed import completeness
from core.service.accounts.queries import NextSync
from core.service.backend import Backend
from core.service.fleet import liveness
from core.service.pagination import Page, PagedQuery
from core.service.runs.parked import CONDITION
from core.settings import Settings
from core.states import RunState, TaskState

Due = Literal["now", "over", "ready_tasks", "queued_tasks", "exhausted_limit"]

# Reads accounts in the order of the listing. If few names contain the text, it reads all others.
ALL = replace(
    account_queries.listed_accounts,
    filters={**account_queries.accounts.filters, "name": "text"},
    bounds={**account_queries.accounts.bounds, "name": "strpos(lower(name), lower(%(name)s)) > 0"},
)
DUE_NOW = replace(ALL, where=liveness.IS_DUE)
OVERDUE_ACCOUNTS = replace(ALL, where=f"id IN (SELECT a.id {liveness.OVERDUE})")
# Only accounts with an open run have open tasks. `sync_run_open` serves it, and for each of them
# `sync_task_ready` and `sync_task_queued`.
_HAS_RUN = f"id IN (SELECT user_integration_id FROM sync_run WHERE state = '{RunState.RUNNING}')"
READY = f"""
{_HAS_RUN} AND EXISTS (SELECT FROM sync_task t WHERE t.state = '{TaskState.READY}'
    AND t.integration_domain = a.integration_domain AND t.user_integration_id = a.id)
"""
HAS_QUEUED = f"""
{_HAS_RUN} AND EXISTS (SELECT FROM sync_task t WHERE t.state = '{TaskState.QUEUED}'
    AND t.integration_domain = a.integration_domain AND t.user_integration_id = a.id)
"""
# The parts of the keys of limits that are used up now: see `Limit.by`. Their table has few rows. A
# group may contain a slash, so its keys are compared with the group.
_BLOCKED = f"SELECT split_part(key, '/', 2) FROM limit_block WHERE {lasts('limit_block.until')}"
LIMITED = f"""
(id::text IN ({_BLOCKED} AND key ^@ 'account/')
OR integration_domain IN ({_BLOCKED} AND key ^@ 'integration/')
OR EXISTS (SELECT FROM limit_block WHERE {lasts("limit_block.until")}
    AND key ^@ ('group/' || a.integration_domain || '/' || a.limit_group || '/')))
"""
LISTINGS: Mapping[Due, PagedQuery] = {
    "now": DUE_NOW,
    "over": OVERDUE_ACCOUNTS,
    "ready_tasks": replace(ALL, where=READY),
    "queued_tasks": replace(ALL, where=HAS_QUEUED),
    "exhausted_limit": replace(ALL, where=LIMITED),
}
# The primary key serves it, for the requested accounts only.
OVERDUE_OF = f"SELECT a.id {liveness.OVERDUE} AND a.id = ANY(%(ids)s)"

# The index `sync_task_owed` serves it. Counting stops at `MAX_COUNTED_ROWS`.
PARKED_TASKS = f"""
FROM sync_task t
WHERE t.user_integration_id = %(id)s AND {CONDITION} AND {visible("%(id)s::uuid")}
"""
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
    engine: Backend,
    conn: Conn,
    *,
    user_id: str | None = None,
    domain: str | None = None,
    status: str | None = None,
    name: str | None = None,
    due: Due | None = None,
    after: str | None = None,
    limit: int = 50,
    shows_texts: bool = True,
) -> tuple[list[AccountRow], str | None]:
    """Read one page of accounts, the oldest first, and return it with the cursor of the next page.

    Args:
      engine: The backend.
      conn: A connection.
      user_id: The owner of the accounts. Default: any user.
      domain: The domain of the integration. Default: any.
      status: The state of the accounts. Default: any.
      name: A part of the name, in upper or lower case.
      due: `now`: accounts whose next run is due. `over`: overdue accounts. The others:
        accounts with such tasks, or with such a limit.
      after: The cursor of the page before. Default: the first page.
      limit: The maximum number of rows of the page.
      shows_texts: As for `blockers.blockers`.

    Raises:
      InvalidInput: The cursor is invalid.
    """
    accounts_page = waiting(
        conn,
        engine.settings,
        due,
        limit=limit,
        after=after,
        user_id=user_id,
        integration_domain=domain,
        sync_status=status,
        name=name,
    )
    ids = [row["id"] for row in accounts_page.rows]
    accounts = store.load_status(conn, ids)
    waits = blockers.first_blockers(engine, conn, accounts, shows_texts=shows_texts)
    late = overdue_of(conn, engine.settings, ids)
    return [
        AccountRow(row, waits.get(row["id"]), row["id"] in late) for row in accounts_page.rows
    ], accounts_page.cursor


def waiting(conn: Conn, settings: Settings, due: Due | None, **filters: Any) -> Page:
    """Read one page of accounts that wait in this way.

    Args:
      conn: A connection.
      settings: The settings.
      due: As for `page`. None: all accounts.
      **filters: The limit, the cursor, and the filters of the listing.

    Raises:
      InvalidInput: The cursor is invalid.
    """
    listing = ALL if due is None else LISTINGS[due]
    if due == "over":
        filters |= liveness.overdue_params(settings)
    return listing.page(conn, **filters)


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
