"""The tree of a run's tasks: their number by type, and the tasks themselves, page by page.

Counting reads all tasks of the run: one or two seconds for a million tasks. A page compares at most
`MAX_SCANNED_ROWS` tasks. An index on the parent would make reading cheaper, but writing every task
more expensive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.ledger.completion import COUNTED
from core.service.count_cache import CountCache
from core.service.pagination import Keyset, Page
from core.service.query_timeout import QuerySlots
from core.states import Lane, TaskState

# The unique index that begins with the run serves it. Follow-ups for the background belong to
# another run. In that run, a task whose parent is not in the same run is a root.
TYPES = f"""
WITH tasks AS MATERIALIZED (
    SELECT id, parent_id, run_id, type, state, retried_as FROM sync_task WHERE run_id = %(run)s
)
SELECT t.type, p.type AS made_by, min(t.id) AS first, count(*) AS known,
    count(*) FILTER (WHERE t.state = '{TaskState.DONE}') AS done,
    count(*) FILTER (WHERE t.state = '{TaskState.PARKED}') AS parked,
    count(*) FILTER (WHERE t.state = '{TaskState.DEFERRED}') AS deferred,
    count(*) FILTER (WHERE t.state = '{TaskState.QUEUED}') AS queued,
    count(*) FILTER (WHERE t.state = '{TaskState.READY}') AS ready,
    count(*) FILTER (WHERE t.state = '{TaskState.CANCELLED}') AS cancelled
FROM tasks t LEFT JOIN tasks p ON p.id = t.parent_id
WHERE {COUNTED}
GROUP BY 1, 2 ORDER BY first
"""
# The connections of the engine prefer nested loops, which suit the short statements of the ledger.
# Here a nested loop would compare every task with every other task.
HASHED = (
    "SELECT set_config('enable_hashjoin', 'on', true), set_config('enable_nestloop', 'off', true)"
)
_SHOWN = """
SELECT id, run_id, type, state, left(payload::text, 300) AS payload, attempts,
    left(reason, 300) AS reason, followups, retry_of, retried_as,
    created_at, started_at, finished_at
FROM sync_task WHERE id = ANY(%(ids)s) ORDER BY id
"""
# The tasks in the order of their ids. `sync_task_of_run` serves it: because of BETWEEN, the planner
# does not take the order from the primary key. A task's follow-ups have greater ids.
_TASKS_AFTER = """
WHERE run_id BETWEEN %(run)s AND %(run)s
  AND id > greatest(%(after_id)s::bigint, %(parent)s::bigint, 0)
"""
_TASKS_IN_ORDER = f"""
(SELECT id, run_id, parent_id FROM sync_task {_TASKS_AFTER}
  AND (%(end_id)s::bigint IS NULL OR id <= %(end_id)s) ORDER BY run_id, id OFFSET 0)
"""
LAST_TASK = (
    f"SELECT id FROM sync_task {_TASKS_AFTER} ORDER BY run_id, id OFFSET %(skipped)s LIMIT 1"
)
ROOTS = f"""
SELECT t.id FROM {_TASKS_IN_ORDER} t
WHERE NOT EXISTS (SELECT FROM sync_task p WHERE p.id = t.parent_id AND p.run_id = t.run_id)
ORDER BY t.id LIMIT %(limit)s
"""
CHILD_TASKS = f"""
SELECT id FROM {_TASKS_IN_ORDER} t WHERE parent_id = %(parent)s ORDER BY id LIMIT %(limit)s
"""
# Reads the ancestors of a task through the primary key. A parent has a smaller id than its
# follow-ups, so the chain ends.
ANCESTORS = """
WITH RECURSIVE above AS (
    SELECT id, parent_id, run_id, user_integration_id, type, 1 AS step FROM sync_task
    WHERE id = %(task)s
    UNION ALL
    SELECT p.id, p.parent_id, p.run_id, p.user_integration_id, p.type, above.step + 1
    FROM above JOIN sync_task p ON p.id = above.parent_id
        AND p.user_integration_id = above.user_integration_id
    WHERE above.step < %(most)s
)
SELECT id, parent_id, run_id, type FROM above ORDER BY id
"""
# The backfill run that was open when the task ended has its follow-ups. `sync_run_history` serves
# it.
BACKGROUND = f"""
SELECT r.id FROM sync_task t JOIN sync_run r ON r.user_integration_id = t.user_integration_id
WHERE t.id = %(task)s AND r.id <> t.run_id AND r.lane = '{Lane.BACKFILL}'
  AND r.started_at <= t.finished_at
  AND (r.finished_at IS NULL OR r.finished_at >= t.finished_at)
ORDER BY r.started_at DESC LIMIT 1
"""

KEY = Keyset({"id": "bigint"})

MAX_ANCESTORS = 30
"""Tasks in a breadcrumb. A chain of pages may be thousands of tasks deep."""


@dataclass(slots=True)
class Branch:
    """All tasks of one type in a run.

    Attributes:
      depth: The distance from the root. The parent of a type is the type that created its first
        task.
      others: Other types that created tasks of this type.
    """

    type: str
    depth: int
    known: int = 0
    done: int = 0
    parked: int = 0
    deferred: int = 0
    queued: int = 0
    ready: int = 0
    cancelled: int = 0
    others: tuple[str, ...] = ()


def by_type(conn: Conn, slots: QuerySlots, run: UUID, user: str | None) -> list[Branch]:
    """Count the tasks of a run by type; each type follows the type that created it.

    Raises:
      InvalidInput: The run is so large that counting takes too long.
      ServerUnavailable: Too many slow queries are in progress.
    """
    with slots.transaction(conn, user=user):
        conn.execute(HASHED)
        return nest(fetch(conn, TYPES, {"run": run}))


def cached_by_type(
    conn: Conn, slots: QuerySlots, counts: CountCache, run: UUID, user: str | None
) -> list[Branch]:
    """Count the tasks of a run by type. The count of many tasks may be some seconds old."""
    return counts.get(
        ("types", run),
        lambda: by_type(conn, slots, run, user),
        lambda branches: sum(branch.known for branch in branches),
    )


def nest(rows: Sequence[Row]) -> list[Branch]:
    """Arrange the counts by type and creator as a tree, in depth-first order.

    Args:
      rows: The result of `TYPES`, in the order of each type's first task.
    """
    below: dict[str | None, list[str]] = {}
    made_by: dict[str, list[Any]] = {}
    for row in rows:
        makers = made_by.setdefault(row["type"], [])
        if not makers:
            below.setdefault(row["made_by"], []).append(row["type"])
        makers.append(row["made_by"])
    branches: list[Branch] = []

    def add(maker: str | None, depth: int) -> None:
        for type in below.pop(maker, []):
            others = [maker for maker in made_by[type][1:] if maker not in (None, type)]
            branches.append(_count(Branch(type, depth, others=tuple(others)), rows))
            add(type, depth + 1)

    add(None, 0)
    while below:  # types that no root leads to; there should be none
        add(next(iter(below)), 0)
    return branches


def _count(branch: Branch, rows: Sequence[Row]) -> Branch:
    for row in rows:
        if row["type"] == branch.type:
            for name in ("known", "done", "parked", "deferred", "queued", "ready", "cancelled"):
                setattr(branch, name, getattr(branch, name) + row[name])
    return branch


def tasks(
    conn: Conn,
    slots: QuerySlots,
    run: UUID,
    parent: int | None,
    *,
    user: str | None,
    limit: int = 50,
    after: str | None = None,
) -> Page:
    """List the follow-ups of a task in this run, in the order of their creation.

    A page of a large run may have fewer rows than `limit`, or none, and a cursor.

    Args:
      conn: A connection.
      slots: The slots of slow queries.
      run: The run.
      parent: The task. None: list the root tasks of the run.
      user: The reader; None for an operator.
      limit: The maximum number of rows of the page.
      after: The cursor of the page before. Default: the first page.

    Raises:
      InvalidInput: The cursor is invalid, or the query takes too long.
      ServerUnavailable: Too many slow queries are in progress.
    """
    params = {"run": run, "parent": parent} | KEY.params(limit, after)
    with slots.transaction(conn, user=user):
        page = KEY.read_bounded(conn, ROOTS if parent is None else CHILD_TASKS, LAST_TASK, params)
    with slots.transaction(conn, user=user):
        rows = fetch(conn, _SHOWN, {"ids": [row["id"] for row in page.rows]})
    return Page(rows, page.cursor)


def ancestors(conn: Conn, task: int) -> list[Row]:
    """Return the task after its ancestors, the oldest first, with at most `MAX_ANCESTORS` rows."""
    return fetch(conn, ANCESTORS, {"task": task, "most": MAX_ANCESTORS})


def background_run(conn: Conn, task: int) -> UUID | None:
    """Return the backfill run that has the background follow-ups of a task, if there is one."""
    rows = fetch(conn, BACKGROUND, {"task": task})
    return rows[0]["id"] if rows else None
