"""Parked tasks: list them, count them in groups, and retry or discard many in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from core.content.visible import ACCOUNT_IS_VISIBLE
from core.db.indexed import IS_STOPPED
from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.errors import NotFound, QuotaReached, TooManyRequests, WrongState
from core.service.backend import Backend
from core.service.pagination import Keyset, Page
from core.service.query_timeout import QuerySlots
from core.service.runs import actions as run_actions
from core.states import TaskState

KEY = Keyset({"id": "bigint"})
BULK_KEY = Keyset({"newest": "bigint", "account": "uuid", "task": "bigint"})
"""The place at which a bulk action stopped. Tasks newer than `newest` are not part of it."""

CONDITION = f"{IS_STOPPED} AND t.state = '{TaskState.PARKED}'"
"""The condition of a parked task.

Its first part is the condition of the index `sync_task_owed`, which contains few rows of a table
that may have millions.
"""

ERROR_CLASS = """CASE WHEN t.errors->-1->>'error' ~ '^[A-Za-z_][A-Za-z0-9_]{0,79}(:|$)'
    THEN split_part(t.errors->-1->>'error', ':', 1) ELSE 'other' END"""
"""The class of the last error, without the rest of its text."""

# Reads all stopped tasks through `sync_task_owed`; with an account or a user, only their tasks.
_FOUND = f"""
FROM sync_task t JOIN user_integration a ON a.id = t.user_integration_id
WHERE {IS_STOPPED} AND t.state = ANY (%(states)s) AND {ACCOUNT_IS_VISIBLE}
  AND (%(user)s::text IS NULL OR a.user_id = %(user)s)
  AND (%(account)s::uuid IS NULL OR t.user_integration_id = %(account)s)
  AND (%(domain)s::text IS NULL OR t.integration_domain = %(domain)s)
  AND (%(type)s::text IS NULL OR t.type = %(type)s)
  AND (%(error)s::text IS NULL OR {ERROR_CLASS} = %(error)s)
  AND (%(reason)s::text IS NULL OR strpos(lower(t.reason), lower(%(reason)s)) > 0)
  AND (%(since)s::timestamptz IS NULL OR t.finished_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR t.finished_at < %(until)s)
"""
_PAGE = f"""
SELECT t.id, t.run_id, t.user_integration_id, a.name AS account_name, a.user_id,
    t.integration_domain, t.lane, t.type, t.attempts, t.finished_at,
    t.state, t.created_at,
    left(t.reason, 300) AS reason, left(t.errors->-1->>'error', 300) AS error,
    {ERROR_CLASS} AS error_class
{_FOUND}
"""
PAGE_OF_PARKED = f"""
{_PAGE} AND ({KEY.is_first_page} OR (t.id) < {KEY.place}) ORDER BY t.id DESC LIMIT %(limit)s
"""
OLDEST_PAGE = f"""
{_PAGE} AND ({KEY.is_first_page} OR (t.id) > {KEY.place}) ORDER BY t.id LIMIT %(limit)s
"""
GROUPS = f"""
SELECT t.integration_domain AS domain, t.type, {ERROR_CLASS} AS error, count(*) AS number
{_FOUND} GROUP BY 1, 2, 3 ORDER BY number DESC, 1, 2, 3 LIMIT 100
"""
COUNT_FILTERED = f"SELECT count(*) AS number {_FOUND}"
# The statement reads in the order of the index, one account after the other.
NEXT_BATCH = f"""
SELECT t.id, t.user_integration_id {_FOUND}
  AND t.id <= %(after_newest)s
  AND (t.user_integration_id, t.id) > (%(after_account)s::uuid, %(after_task)s)
ORDER BY t.user_integration_id, t.id LIMIT %(limit)s
"""
NEWEST_TASK = "SELECT coalesce(max(id), 0) AS id FROM sync_task"
BY_IDS = f"""
SELECT t.id, t.user_integration_id FROM sync_task t
JOIN user_integration a ON a.id = t.user_integration_id
WHERE t.id = ANY(%(ids)s) AND (%(user)s::text IS NULL OR a.user_id = %(user)s)
  AND {ACCOUNT_IS_VISIBLE} ORDER BY 2, 1
"""
BATCH_TASKS = 100
"""Tasks that one transaction changes."""

MAX_BULK_TASKS = 1_000
"""Tasks that one request processes; then it stops, with a cursor in its result."""

MAX_BULK_SECONDS = 10.0
"""Seconds after which one request stops, with a cursor in its result."""

Act = Callable[[Backend, Sequence[int]], list[int]]


@dataclass(frozen=True, slots=True)
class ParkedFilter:
    """Conditions on stopped tasks. None: any value.

    Attributes:
      error: The class of the last error; `other` for tasks whose error names no class.
      reason: A part of the task's reason; upper and lower case are equal.
      since, until: The range of the time at which the task stopped.
      states: The states of the tasks. Default: parked.
    """

    user: str | None = None
    account: UUID | None = None
    domain: str | None = None
    type: str | None = None
    error: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    states: list[TaskState] = field(default_factory=lambda: [TaskState.PARKED])


@dataclass(slots=True)
class BulkResult:
    """The result of an action on many tasks.

    Attributes:
      done: Number of tasks that the action changed.
      refused: Number of tasks that do not exist, were no longer parked, or exceed a quota.
      cursor: The place at which the request stopped; None if it processed all matching tasks. The
        caller passes it to the next request of the same command. Otherwise, a task that fails again
        quickly would be retried repeatedly.
    """

    done: int = 0
    refused: int = 0
    cursor: str | None = None

    @property
    def more(self) -> bool:
        """True if the request stopped before it processed all matching tasks."""
        return self.cursor is not None


def page(
    conn: Conn,
    slots: QuerySlots,
    parked_filter: ParkedFilter,
    *,
    limit: int = 50,
    after: str | None = None,
    oldest_first: bool = False,
) -> Page:
    """Read one page of parked tasks, the newest first, or the oldest.

    Raises:
      InvalidInput: The cursor is invalid, or the query takes too long.
      ServerUnavailable: Too many slow queries are in progress.
    """
    params = asdict(parked_filter) | KEY.params(limit, after)
    with slots.transaction(conn, user=parked_filter.user):
        return KEY.read(conn, OLDEST_PAGE if oldest_first else PAGE_OF_PARKED, params)


def groups(conn: Conn, slots: QuerySlots, parked_filter: ParkedFilter) -> list[Row]:
    """Count parked tasks by integration, type and class of the last error.

    Returns the 100 largest groups.

    Raises:
      InvalidInput: Counting takes too long.
      ServerUnavailable: Too many slow queries are in progress.
    """
    with slots.transaction(conn, user=parked_filter.user):
        return fetch(conn, GROUPS, asdict(parked_filter), prepare=False)


def count(conn: Conn, slots: QuerySlots, parked_filter: ParkedFilter) -> int:
    """Count the parked tasks that match.

    Raises:
      InvalidInput: Counting takes too long.
      ServerUnavailable: Too many slow queries are in progress.
    """
    with slots.transaction(conn, user=parked_filter.user):
        number: int = fetch(conn, COUNT_FILTERED, asdict(parked_filter), prepare=False)[0]["number"]
    return number


def apply_to_ids(backend: Backend, act: Act, ids: Sequence[int], user: str | None) -> BulkResult:
    """Retry or discard the parked tasks with these ids.

    A task that is no longer parked does not prevent the action on the others.

    Args:
      backend: The backend.
      act: `retry` or `discard` of `core.service.runs.actions`.
      ids: The ids of the tasks.
      user: The owner of the tasks' accounts; tasks of other users are refused. None: any user.

    Raises:
      TooManyRequests: The user has requested too many runs in this hour. A retry may open one.
    """
    with backend.database.connection() as conn:
        rows = fetch(conn, BY_IDS, {"ids": list(set(ids)), "user": user})
    result = BulkResult(refused=len(set(ids)) - len(rows))
    for account in _by_account(rows):
        for start in range(0, len(account), BATCH_TASKS):
            _apply(backend, act, account[start : start + BATCH_TASKS], result, user)
    return result


def apply_to_all(
    backend: Backend, act: Act, parked_filter: ParkedFilter, after: str | None = None
) -> BulkResult:
    """Retry or discard all matching tasks that are stopped now, and none that stop later.

    Args:
      backend: The backend.
      act: `retry` or `discard` of `core.service.runs.actions`.
      parked_filter: The conditions on the tasks.
      after: The cursor of an earlier result, to continue its command. Default: a new command.

    Raises:
      InvalidInput: The cursor is invalid.
      TooManyRequests: As for `apply_to_ids`, before the first task.
    """
    deadline, result = time.monotonic() + MAX_BULK_SECONDS, BulkResult()
    if after is None:
        with backend.database.connection() as conn:
            place = {
                "newest": fetch(conn, NEWEST_TASK, {})[0]["id"],
                "account": UUID(int=0),
                "task": 0,
            }
    else:
        place = dict(zip(BULK_KEY.columns, BULK_KEY.decode(after), strict=True))
    params: dict[str, Any] = asdict(parked_filter) | {"limit": BATCH_TASKS}
    number = 0
    while True:
        params |= {f"after_{column}": value for column, value in place.items()}
        with (
            backend.database.connection() as conn,
            backend.query_slots.transaction(conn, user=parked_filter.user),
        ):
            rows = fetch(conn, NEXT_BATCH, params, prepare=False)
        for account in _by_account(rows):
            try:
                _apply(backend, act, account, result, parked_filter.user)
            except TooManyRequests:
                if not number:
                    raise
                result.cursor = BULK_KEY.encode(place)
                return result
            number += len(account)
            place |= {"account": account[-1]["user_integration_id"], "task": account[-1]["id"]}
        if len(rows) < BATCH_TASKS:
            return result
        if number >= MAX_BULK_TASKS or time.monotonic() >= deadline:
            result.cursor = BULK_KEY.encode(place)
            return result


def _by_account(rows: Iterable[Row]) -> list[list[Row]]:
    """Group tasks by account, so that concurrent bulk actions lock accounts in one order."""
    return [list(group) for _, group in groupby(rows, key=lambda row: row["user_integration_id"])]


def _apply(
    backend: Backend, act: Act, tasks: Sequence[Row], result: BulkResult, user: str | None
) -> None:
    """Act on tasks of one account, in one transaction.

    Raises:
      TooManyRequests: The user has requested too many runs in this hour, or has reached a quota. A
        retry may open a run. For an operator, tasks beyond a quota are refused instead.
    """
    if act is run_actions.retry:
        run_actions.count_request(backend, user)
    ids = [task["id"] for task in tasks]
    try:
        all_done = _acts(backend, act, ids)
    except QuotaReached:
        if user is not None:
            raise
        result.refused += len(ids)  # an operator acts on tasks of other users, too
        return
    done = len(ids) if all_done else sum(_acts(backend, act, [id]) for id in ids)
    result.done += done
    result.refused += len(ids) - done


def _acts(backend: Backend, act: Act, ids: Sequence[int]) -> bool:
    """Act on tasks; return False if one of them does not exist or is no longer stopped."""
    try:
        act(backend, ids)
    except (NotFound, WrongState):
        return False
    return True
