"""List the runs of all accounts, and the tasks of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from core.content.visible import ACCOUNT_IS_VISIBLE
from core.db.pool import Conn
from core.service.pagination import Keyset, Page
from core.service.query_timeout import QuerySlots
from core.service.runs.queries import TASK_COLUMNS
from core.states import RunState, TaskState

KEY = Keyset({"started_at": "timestamptz", "id": "uuid"})

_OF_KIND = """
(%(domain)s::text IS NULL OR r.integration_domain = %(domain)s)
AND (%(state)s::text IS NULL OR r.state = %(state)s)
AND (%(trigger)s::text IS NULL OR r.trigger = %(trigger)s)
AND (%(min_seconds)s::float IS NULL OR coalesce(r.finished_at, clock_timestamp()) - r.started_at
    >= %(min_seconds)s * interval '1 second')
"""
_IN_TIME = """
(%(since)s::timestamptz IS NULL OR r.started_at >= %(since)s)
AND (%(until)s::timestamptz IS NULL OR r.started_at < %(until)s)
"""
_COLUMNS = "r.*, a.name AS account_name, a.user_id, a.sync_status AS account_state"


@dataclass(frozen=True, slots=True)
class _Statements:
    """The statements of one order.

    Attributes:
      all: All runs. The index `sync_run_latest` serves it. The sort order within the inner query
        keeps the filters out of it.
      end: The place of the last run that a page of `all` compares.
      open: Open runs. The index `sync_run_by_domain` serves it.
      of_accounts: The runs of one account, or of all accounts of a user. It reads the first runs of
        each account through `sync_run_history`, then takes the first of those.
    """

    all: str
    end: str
    open: str
    of_accounts: str


def _in_order(direction: str, further: str, until_end: str) -> _Statements:
    after = f"{_IN_TIME} AND ({KEY.is_first_page} OR (r.started_at, r.id) {further} {KEY.place})"
    order = f"ORDER BY r.started_at {direction}, r.id {direction}"
    return _Statements(
        all=f"""
        SELECT {_COLUMNS} FROM (
            SELECT * FROM sync_run r
            WHERE {after} AND ({KEY.is_endless} OR (r.started_at, r.id) {until_end} {KEY.end})
            {order} OFFSET 0
        ) r
        JOIN user_integration a ON a.id = r.user_integration_id
        WHERE {_OF_KIND} AND {ACCOUNT_IS_VISIBLE} {order} LIMIT %(limit)s
        """,
        end=f"""
        SELECT r.started_at, r.id FROM sync_run r WHERE {after}
        {order} OFFSET %(skipped)s LIMIT 1
        """,
        open=f"""
        SELECT {_COLUMNS} FROM sync_run r
        JOIN user_integration a ON a.id = r.user_integration_id
        WHERE r.state = '{RunState.RUNNING}' AND {_OF_KIND} AND {after} AND {ACCOUNT_IS_VISIBLE}
        {order} LIMIT %(limit)s
        """,
        of_accounts=f"""
        SELECT {_COLUMNS} FROM user_integration a CROSS JOIN LATERAL (
            SELECT * FROM sync_run r
            WHERE r.user_integration_id = a.id AND {_OF_KIND} AND {after}
            {order} LIMIT %(limit)s
        ) r
        WHERE (%(account)s::uuid IS NULL OR a.id = %(account)s)
          AND (%(user)s::text IS NULL OR a.user_id = %(user)s) AND {ACCOUNT_IS_VISIBLE}
        {order} LIMIT %(limit)s
        """,
    )


NEWEST = _in_order("DESC", "<", ">=")
OLDEST = _in_order("ASC", ">", "<=")


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Conditions on runs. None: any value.

    Attributes:
      since, until: The range of the start of a run.
      min_seconds: The shortest duration of a run; of an open run, until now.
    """

    user: str | None = None
    account: UUID | None = None
    domain: str | None = None
    state: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    trigger: str | None = None
    min_seconds: float | None = None


def page(
    conn: Conn,
    slots: QuerySlots,
    run_filter: RunFilter,
    *,
    limit: int = 50,
    after: str | None = None,
    oldest_first: bool = False,
) -> Page:
    """Read one page of runs, each with the name of its account.

    A page of all runs may have fewer rows than `limit`, or none, and a cursor.

    Raises:
      InvalidInput: The cursor is invalid, or the query takes too long.
      ServerUnavailable: Too many slow queries are in progress.
    """
    statements = OLDEST if oldest_first else NEWEST
    params = asdict(run_filter) | KEY.params(limit, after)
    with slots.transaction(conn, user=run_filter.user):
        if run_filter.user is not None or run_filter.account is not None:
            return KEY.read(conn, statements.of_accounts, params)
        if run_filter.state == RunState.RUNNING:
            return KEY.read(conn, statements.open, params)
        return KEY.read_bounded(conn, statements.all, statements.end, params)


TASKS_KEY = Keyset({"run_id": "uuid", "id": "bigint"})

# `sync_task_of_run` serves both: because of BETWEEN, the planner does not take the order from the
# primary key, which has the tasks of all newer runs first.
_TASKS_OF_RUN = f"""
run_id BETWEEN %(run)s AND %(run)s
AND ({TASKS_KEY.is_first_page} OR (run_id, id) < {TASKS_KEY.place})
"""
TASKS_OF_PAGE = f"""
SELECT * FROM (
    SELECT {TASK_COLUMNS} FROM sync_task
    WHERE {_TASKS_OF_RUN} AND ({TASKS_KEY.is_endless} OR (run_id, id) >= {TASKS_KEY.end})
    ORDER BY run_id DESC, id DESC OFFSET 0
) t
WHERE %(state)s::text IS NULL OR state = %(state)s
ORDER BY run_id DESC, id DESC LIMIT %(limit)s
"""
END_OF_TASKS = f"""
SELECT run_id, id FROM sync_task WHERE {_TASKS_OF_RUN}
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
        return TASKS_KEY.read_bounded(conn, TASKS_OF_PAGE, END_OF_TASKS, params)
