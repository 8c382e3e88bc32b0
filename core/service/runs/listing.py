"""List the runs of all accounts and the tasks of a run, the newest first."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from uuid import UUID

from core.db.pool import Conn
from core.service.pagination import Keyset, Page
from core.service.query_timeout import QuerySlots
from core.service.runs.queries import TASK_COLUMNS
from core.states import RunState, TaskState

KEY = Keyset({"started_at": "timestamptz", "id": "uuid"})

_OF_KIND = """
(%(domain)s::text IS NULL OR r.integration_domain = %(domain)s)
AND (%(state)s::text IS NULL OR r.state = %(state)s)
"""
_AFTER = f"({KEY.is_first_page} OR (r.started_at, r.id) < {KEY.place})"
_NARROWED = f"{_OF_KIND} AND {_AFTER}"

# The index `sync_run_latest` serves it. The sort order within the inner query keeps the filters out
# of it.
ALL = f"""
SELECT r.*, a.name AS account_name, a.user_id FROM (
    SELECT * FROM sync_run r
    WHERE {_AFTER} AND ({KEY.is_endless} OR (r.started_at, r.id) >= {KEY.end})
    ORDER BY r.started_at DESC, r.id DESC OFFSET 0
) r
JOIN user_integration a ON a.id = r.user_integration_id
WHERE {_OF_KIND} ORDER BY r.started_at DESC, r.id DESC LIMIT %(limit)s
"""
END = f"""
SELECT r.started_at, r.id FROM sync_run r WHERE {_AFTER}
ORDER BY r.started_at DESC, r.id DESC OFFSET %(skipped)s LIMIT 1
"""
# The index `sync_run_by_domain` serves it.
OPEN = f"""
SELECT r.*, a.name AS account_name, a.user_id FROM sync_run r
JOIN user_integration a ON a.id = r.user_integration_id
WHERE r.state = '{RunState.RUNNING}' AND {_NARROWED}
ORDER BY r.started_at DESC, r.id DESC LIMIT %(limit)s
"""
# Reads the newest runs of each account through `sync_run_history`, then takes the newest of those.
# Used for one account, and for all accounts of a user.
OF_ACCOUNTS = f"""
SELECT r.*, a.name AS account_name, a.user_id FROM user_integration a CROSS JOIN LATERAL (
    SELECT * FROM sync_run r WHERE r.user_integration_id = a.id AND {_NARROWED}
    ORDER BY r.started_at DESC, r.id DESC LIMIT %(limit)s
) r
WHERE (%(account)s::uuid IS NULL OR a.id = %(account)s)
  AND (%(user)s::text IS NULL OR a.user_id = %(user)s)
ORDER BY r.started_at DESC, r.id DESC LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Conditions on runs. None: any value."""

    user: str | None = None
    account: UUID | None = None
    domain: str | None = None
    state: str | None = None


def page(
    conn: Conn,
    slots: QuerySlots,
    run_filter: RunFilter,
    *,
    limit: int = 50,
    after: str | None = None,
) -> Page:
    """Read one page of runs, each with the name of its account.

    A page of all runs may have fewer rows than `limit`, or none, and a cursor.

    Raises:
      InvalidInput: The cursor is invalid, or the query takes too long.
      ServerUnavailable: Too many slow queries are in progress.
    """
    params = asdict(run_filter) | KEY.params(limit, after)
    with slots.transaction(conn, user=run_filter.user):
        if run_filter.user is not None or run_filter.account is not None:
            return KEY.read(conn, OF_ACCOUNTS, params)
        if run_filter.state == RunState.RUNNING:
            return KEY.read(conn, OPEN, params)
        return KEY.read_bounded(conn, ALL, END, params)


TASKS_KEY = Keyset({"run_id": "uuid", "id": "bigint"})

# `sync_task_of_run` serves both: because of BETWEEN, the planner does not take the order from the
# primary key, which has the tasks of all newer runs first.
_TASKS = f"""
run_id BETWEEN %(run)s AND %(run)s
AND ({TASKS_KEY.is_first_page} OR (run_id, id) < {TASKS_KEY.place})
"""
TASKS = f"""
SELECT * FROM (
    SELECT {TASK_COLUMNS} FROM sync_task
    WHERE {_TASKS} AND ({TASKS_KEY.is_endless} OR (run_id, id) >= {TASKS_KEY.end})
    ORDER BY run_id DESC, id DESC OFFSET 0
) t
WHERE %(state)s::text IS NULL OR state = %(state)s
ORDER BY run_id DESC, id DESC LIMIT %(limit)s
"""
END_OF_TASKS = f"""
SELECT run_id, id FROM sync_task WHERE {_TASKS}
ORDER BY run_id DESC, id DESC OFFSET %(skipped)s LIMIT 1
"""


def tasks(
    conn: Conn,
    slots: QuerySlots,
    run: UUID,
    *,
    user: str | None,
    state: TaskState | None = None,
    limit: int = 50,
    after: str | None = None,
) -> Page:
    """Read one page of a run's tasks. It may have fewer rows than `limit`, or none, and a cursor.

    Args:
      conn: A connection.
      slots: The slots of slow queries.
      run: The run.
      user: The reader; None for an operator.
      state: The state of the tasks. Default: any.
      limit: The maximum number of rows of the page.
      after: The cursor of the page before. Default: the first page.

    Raises:
      InvalidInput: The cursor is invalid, or the query takes too long.
      ServerUnavailable: Too many slow queries are in progress.
    """
    params = {"run": run, "state": state} | TASKS_KEY.params(limit, after)
    with slots.transaction(conn, user=user):
        return TASKS_KEY.read_bounded(conn, TASKS, END_OF_TASKS, params)
