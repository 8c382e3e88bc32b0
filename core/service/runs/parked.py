"""Parked tasks: list them, count them in groups, and retry or discard many in one call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any
from uuid import UUID

from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.errors import NotFound, WrongState
from core.service.backend import Backend
from core.service.pagination import Keyset, Page
from core.service.query_timeout import within
from core.service.runs import actions as run_actions
from core.states import STOPPED_TASKS, TaskState, literals

KEY = Keyset({"id": "bigint"})

CONDITION = f"""
t.state IN ({literals(STOPPED_TASKS)}) AND t.retried_as IS NULL AND t.state = '{TaskState.PARKED}'
"""
"""Its first part is that of the index `sync_task_stopped`, which holds few rows of a table that
may hold millions.
"""

ERROR_CLASS = """CASE WHEN t.errors->-1->>'error' ~ '^[A-Za-z_][A-Za-z0-9_]{0,79}(:|$)'
    THEN split_part(t.errors->-1->>'error', ':', 1) ELSE 'other' END"""
"""The last error's class, and no more of its text."""

# All that is parked is read, by `sync_task_stopped`; of one account, or of a user's, only theirs.
_FOUND = f"""
FROM sync_task t JOIN user_integration a ON a.id = t.user_integration_id
WHERE {CONDITION}
  AND (%(user)s::text IS NULL OR a.user_id = %(user)s)
  AND (%(account)s::uuid IS NULL OR t.user_integration_id = %(account)s)
  AND (%(domain)s::text IS NULL OR t.integration_domain = %(domain)s)
  AND (%(type)s::text IS NULL OR t.type = %(type)s)
  AND (%(error)s::text IS NULL OR {ERROR_CLASS} = %(error)s)
"""
PAGE = f"""
SELECT t.id, t.run_id, t.user_integration_id, a.name AS account_name, a.user_id,
    t.integration_domain, t.lane, t.type, t.attempts, t.finished_at,
    left(t.reason, 300) AS reason, left(t.errors->-1->>'error', 300) AS error,
    {ERROR_CLASS} AS error_class
{_FOUND} AND ({KEY.is_first_page} OR (t.id) < {KEY.place})
ORDER BY t.id DESC LIMIT %(limit)s
"""
GROUPS = f"""
SELECT t.integration_domain AS domain, t.type, {ERROR_CLASS} AS error, count(*) AS number
{_FOUND} GROUP BY 1, 2, 3 ORDER BY number DESC, 1, 2, 3 LIMIT 100
"""
COUNT = f"SELECT count(*) AS number {_FOUND}"
# In the order of the index: account by account.
PORTION = f"""
SELECT t.id, t.user_integration_id {_FOUND}
  AND t.id <= %(newest)s
  AND (t.user_integration_id, t.id) > (%(after_account)s::uuid, %(after_task)s)
ORDER BY t.user_integration_id, t.id LIMIT %(limit)s
"""
NEWEST = "SELECT coalesce(max(id), 0) AS id FROM sync_task"
NAMED = """
SELECT t.id, t.user_integration_id FROM sync_task t
JOIN user_integration a ON a.id = t.user_integration_id
WHERE t.id = ANY(%(ids)s) AND (%(user)s::text IS NULL OR a.user_id = %(user)s) ORDER BY 2, 1
"""
AT_ONCE = 100
"""Tasks of one transaction."""

MAX_BULK_SECONDS = 10.0
"""That one request goes on for; what is left then is told."""

Act = Callable[[Backend, Sequence[int]], list[int]]


@dataclass(frozen=True, slots=True)
class ParkedFilter:
    """Which parked tasks; None does not filter.

    Attributes:
      error: The class of the last error; `other` for those that have none.
    """

    user: str | None = None
    account: UUID | None = None
    domain: str | None = None
    type: str | None = None
    error: str | None = None


@dataclass(slots=True)
class BulkResult:
    """What became of many tasks.

    Attributes:
      done: How many it was done to.
      refused: How many were not parked any more, or are not there.
      more: Whether time ran out before all had their turn.
    """

    done: int = 0
    refused: int = 0
    more: bool = False


def page(conn: Conn, wanted: ParkedFilter, *, limit: int = 50, after: str | None = None) -> Page:
    """One page, the newest first.

    Raises:
      InvalidInput: The cursor is invalid, or looking takes too long.
    """
    names = asdict(wanted) | KEY.params(limit, after)
    with within(conn):
        rows = fetch(conn, PAGE, names, prepare=False)
    return KEY.page(rows, limit)


def groups(conn: Conn, wanted: ParkedFilter) -> list[Row]:
    """Count parked tasks by integration, type and class of the last error.

    Returns the largest hundred groups.

    Raises:
      InvalidInput: Counting takes too long.
    """
    with within(conn):
        return fetch(conn, GROUPS, asdict(wanted), prepare=False)


def count(conn: Conn, wanted: ParkedFilter) -> int:
    """How many there are.

    Raises:
      InvalidInput: Counting takes too long.
    """
    with within(conn):
        number: int = fetch(conn, COUNT, asdict(wanted), prepare=False)[0]["number"]
    return number


def retry(backend: Backend, ids: Sequence[int], user: str | None) -> BulkResult:
    """Try these again, those of the user; None: of anybody.

    One that is not parked any more keeps none of the others from it.
    """
    return _apply_to_ids(backend, run_actions.retry, ids, user)


def discard(backend: Backend, ids: Sequence[int], user: str | None) -> BulkResult:
    """Drop these for good, as with `retry`."""
    return _apply_to_ids(backend, run_actions.discard, ids, user)


def retry_all(backend: Backend, wanted: ParkedFilter) -> BulkResult:
    """Try all again that match and are parked now; what is parked meanwhile is left."""
    return _apply_to_filter(backend, run_actions.retry, wanted)


def discard_all(backend: Backend, wanted: ParkedFilter) -> BulkResult:
    """Drop all for good that match and are parked now."""
    return _apply_to_filter(backend, run_actions.discard, wanted)


def _apply_to_ids(backend: Backend, act: Act, ids: Sequence[int], user: str | None) -> BulkResult:
    with backend.database.connection() as conn:
        found = fetch(conn, NAMED, {"ids": list(set(ids)), "user": user})
    outcome = BulkResult(refused=len(set(ids)) - len(found))
    _portion(backend, act, found, outcome)
    return outcome


def _apply_to_filter(backend: Backend, act: Act, wanted: ParkedFilter) -> BulkResult:
    deadline, outcome = time.monotonic() + MAX_BULK_SECONDS, BulkResult()
    names: dict[str, Any] = asdict(wanted) | {
        "limit": AT_ONCE,
        "after_account": UUID(int=0),
        "after_task": 0,
    }
    with backend.database.connection() as conn:
        names["newest"] = fetch(conn, NEWEST, {})[0]["id"]
    while True:
        with backend.database.connection() as conn, within(conn):
            found = fetch(conn, PORTION, names, prepare=False)
        _portion(backend, act, found, outcome)
        if len(found) < AT_ONCE:
            return outcome
        if time.monotonic() >= deadline:
            outcome.more = True
            return outcome
        names |= {"after_account": found[-1]["user_integration_id"], "after_task": found[-1]["id"]}


def _portion(backend: Backend, act: Act, found: Iterable[Row], outcome: BulkResult) -> None:
    """An account at a time: two that act on many at once lock no accounts in different orders."""
    for _, tasks in groupby(found, key=lambda row: row["user_integration_id"]):
        ids = [task["id"] for task in tasks]
        try:
            act(backend, ids)
            outcome.done += len(ids)
        except (NotFound, WrongState):
            _singly(backend, act, ids, outcome)


def _singly(backend: Backend, act: Act, ids: Iterable[int], outcome: BulkResult) -> None:
    for id in ids:
        try:
            act(backend, [id])
            outcome.done += 1
        except (NotFound, WrongState):
            outcome.refused += 1
