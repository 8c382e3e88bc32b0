"""Follow-ups in the saving transaction: new tasks, in the run of their parent or in the backfill.

`prepare` locks the backfill run before content is written; `insert` writes the tasks after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self
from uuid import uuid4

from core.db.pool import Conn
from core.ledger.fence import FencedRun
from core.ledger.outcomes import Dispatch, Outcome
from core.results.rows import TaskRow
from core.results.text import json_text
from core.states import Lane, RunState, TaskState

# Another transaction may end the backfill run in the meantime: SHARE_BACKFILL waits for it, and
# then finds no run.
OPEN_BACKFILL = f"""
INSERT INTO sync_run (
    id, user_integration_id, integration_domain, lane, trigger, start_seq, config_version,
    complete)
SELECT %(id)s, %(account)s, %(domain)s, '{Lane.BACKFILL}', %(trigger)s, last_value,
    (SELECT config_version FROM user_integration WHERE id = %(account)s),
    (SELECT complete FROM sync_run WHERE id = %(live)s)
FROM dispatch_seq
ON CONFLICT (user_integration_id, lane) WHERE state = '{RunState.RUNNING}' DO NOTHING
"""

SHARE_BACKFILL = f"""
SELECT id::text FROM sync_run WHERE user_integration_id = %s AND lane = '{Lane.BACKFILL}'
    AND state = '{RunState.RUNNING}' FOR SHARE
"""

# Ids are taken in the order of the plugin's result, which is the order of work. Rows are inserted
# by key, which is the order of locks. A conflict on (run_id, dedup_key) is a task that the run has
# already.
_ROWS = """
json_to_recordset(%s::json) AS r(
    run uuid, account uuid, domain text, lane text, parent bigint, type text,
    payload jsonb, key text, priority int, carried bool, delay float)
"""
INSERT_TASKS = f"""
WITH incoming AS MATERIALIZED (
    SELECT nextval('sync_task_id_seq') AS id, r.* FROM {_ROWS}
)
INSERT INTO sync_task (
    id, run_id, user_integration_id, integration_domain, lane, parent_id, type,
    payload, dedup_key, priority, carried, available_at)
SELECT id, run, account, domain, lane, parent, type,
    payload, decode(key, 'hex'), priority, carried, now() + coalesce(delay, 0) * interval '1 second'
FROM incoming ORDER BY run, key
ON CONFLICT (run_id, dedup_key) DO NOTHING
RETURNING parent_id
"""
# Nothing that a carried task lists is compared. If its run comes to the same task, and the task
# still waits, it becomes a task of the run. If it may have begun, it runs again, once, under a
# second key. Its reading may be older than the pages before it, and an item that moved between
# them is in neither. The same key with another payload is another task, which may list other
# pages.
# Served by the unique index on (run_id, dedup_key).
TAKE_PLACES = f"""
WITH met AS MATERIALIZED (
    SELECT r.*, t.id AS carried_id, t.type = r.type AND t.payload = r.payload AS is_same
    FROM {_ROWS} JOIN sync_task t ON t.run_id = r.run AND t.dedup_key = decode(r.key, 'hex')
    WHERE t.carried AND t.state IN ('{TaskState.READY}', '{TaskState.QUEUED}', '{TaskState.DONE}')
), waiting AS MATERIALIZED (
    SELECT t.id FROM sync_task t
    WHERE t.id IN (SELECT carried_id FROM met WHERE is_same)
      AND t.carried AND t.state = '{TaskState.READY}'
    ORDER BY t.id FOR UPDATE SKIP LOCKED
), freed AS (
    UPDATE sync_task t SET carried = false FROM waiting WHERE t.id = waiting.id RETURNING t.id
)
INSERT INTO sync_task (
    run_id, user_integration_id, integration_domain, lane, parent_id, type,
    payload, dedup_key, priority, carried, available_at)
SELECT run, account, domain, lane, parent, type, payload, decode(md5(key || ' again'), 'hex'),
    priority, false, now() + coalesce(delay, 0) * interval '1 second'
FROM met WHERE carried_id NOT IN (SELECT id FROM freed) ORDER BY run, key
ON CONFLICT (run_id, dedup_key) DO NOTHING
RETURNING parent_id
"""


class NewTask(NamedTuple):
    """A task to insert, with the fields that `INSERT_TASKS` reads."""

    run: str
    account: str
    domain: str
    lane: str
    parent: int
    type: str
    payload: dict[str, Any]
    key: str
    priority: int
    carried: bool
    delay: float

    @classmethod
    def of(
        cls,
        dispatch: Dispatch,
        row: TaskRow,
        *,
        carried: bool = False,
        backfill: str | None = None,
    ) -> Self:
        """Return the follow-up of a dispatch.

        Args:
          dispatch: The dispatch.
          row: The follow-up.
          carried: True if the follow-up never sweeps; see `FencedRun`. Default: False.
          backfill: The backfill run to which it moves. Default: none; its run stays the same.
        """
        run = dispatch.run_id if backfill is None else backfill
        lane = dispatch.lane if backfill is None else Lane.BACKFILL
        return cls(
            run, dispatch.account_id, dispatch.domain, lane, dispatch.task_id, row.type,
            row.payload, row.key, row.priority, carried, row.delay,
        )  # fmt: skip


def prepare(
    conn: Conn, outcomes: Sequence[Outcome], runs: Mapping[int, FencedRun]
) -> list[NewTask]:
    """Return the rows of the follow-ups, each with its run.

    Background tasks of a live task belong to the backfill run. It is opened if necessary, and
    locked FOR SHARE, so that it cannot end before this transaction.
    """
    backfills: dict[str, str] = {}
    for outcome in sorted(outcomes, key=lambda outcome: outcome.dispatch.account_id):
        account = outcome.dispatch.account_id
        if account not in backfills and any(_moves(outcome, row) for row in outcome.tasks):
            backfills[account] = _backfill_run(conn, outcome)
    return [row for outcome in outcomes for row in _task_rows(outcome, runs, backfills)]


def insert(conn: Conn, tasks: Sequence[NewTask]) -> Counter[int]:
    """Insert follow-ups. Returns the number of new tasks by parent."""
    if not tasks:
        return Counter()
    rows = json_text([task._asdict() for task in tasks])
    new = Counter(parent for (parent,) in conn.execute(INSERT_TASKS, (rows,)))
    if new.total() < len(tasks) and (
        ours := [each._asdict() for each in tasks if not each.carried]
    ):
        new.update(parent for (parent,) in conn.execute(TAKE_PLACES, (json_text(ours),)))
    return new


def _task_rows(
    outcome: Outcome, runs: Mapping[int, FencedRun], backfills: Mapping[str, str]
) -> Iterator[NewTask]:
    dispatch = outcome.dispatch
    for row in outcome.tasks:
        yield NewTask.of(
            dispatch,
            row,
            carried=runs[dispatch.task_id].carried,
            backfill=backfills[dispatch.account_id] if _moves(outcome, row) else None,
        )


def _backfill_run(conn: Conn, outcome: Outcome) -> str:
    dispatch = outcome.dispatch
    params = {
        "account": dispatch.account_id,
        "domain": dispatch.domain,
        "trigger": dispatch.trigger,
        "live": dispatch.run_id,
    }
    while True:
        conn.execute(OPEN_BACKFILL, {**params, "id": uuid4()})
        row = conn.execute(SHARE_BACKFILL, (dispatch.account_id,)).fetchone()
        if row is not None:
            return str(row[0])


def _moves(outcome: Outcome, row: TaskRow) -> bool:
    """Return True if a follow-up moves from the live run to the backfill run."""
    return row.background and outcome.dispatch.lane == Lane.LIVE
