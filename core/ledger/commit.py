"""The saving transaction: what a batch of tasks came to, committed whole.

Every process writes in this order, each kind sorted by its key, so that savers do not deadlock:
tasks, state, run, content, new tasks, accounts and blocks. The completion check is no part of it:
see `core.ledger.completion`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import uuid4

import psycopg

from core.accounts.store import STOP
from core.content import store as content
from core.content.store import Write, Writer
from core.db.pool import Conn
from core.errors import ResultConflict
from core.ledger.outcomes import Outcome
from core.ledger.state import write_states
from core.results.parking import MAX_SNOOZED_SECONDS
from core.results.rows import TaskRow
from core.results.text import json_text
from core.states import Lane, Operation, RunState, TaskState

# THE FENCE. Locks exactly the tasks named that are still queued with this dispatch_no, by id.
# Served by the primary key: the form of the condition keeps the planner from `sync_task_queued`,
# which is small only as long as the dead can be cleared away.
FENCE = f"""
SELECT t.id, t.dispatch_no, (SELECT epoch FROM engine_state), r.start_seq, r.started_at,
    r.allow_deletions, t.carried, r.over_limit
FROM sync_task t
JOIN unnest(%s::bigint[], %s::int[]) AS named(id, dispatch_no) ON named.id = t.id
JOIN sync_run r ON r.id = t.run_id
WHERE CASE t.state WHEN '{TaskState.QUEUED}' THEN t.dispatch_no END = named.dispatch_no
ORDER BY t.id FOR UPDATE OF t
"""

# Someone else may end the backfill run meanwhile: the share lock waits for that, and then finds
# none.
OPEN_BACKFILL = f"""
INSERT INTO sync_run (id, user_integration_id, integration_domain, lane, trigger, start_seq)
SELECT %(id)s, %(account)s, %(domain)s, '{Lane.BACKFILL}', %(trigger)s, last_value FROM dispatch_seq
ON CONFLICT (user_integration_id, lane) WHERE state = '{RunState.RUNNING}' DO NOTHING
"""
# What a person has allowed the live run holds for the listings it sends to the background. Before
# the share lock: after it, two batches that both hold one would wait for each other.
ALLOW_BACKFILL = f"""
UPDATE sync_run SET allow_deletions = true
WHERE user_integration_id = %s AND lane = '{Lane.BACKFILL}' AND state = '{RunState.RUNNING}'
  AND NOT allow_deletions
"""
SHARE_BACKFILL = f"""
SELECT id::text FROM sync_run WHERE user_integration_id = %s AND lane = '{Lane.BACKFILL}'
    AND state = '{RunState.RUNNING}' FOR SHARE
"""

# The ids are taken in the order the plugin gave, and the rows inserted by key: one keeps the order
# of work, the other the order of locks. Conflicts on (run_id, dedup_key) are tasks that the run has
# already.
INSERT_TASKS = """
WITH incoming AS MATERIALIZED (
    SELECT nextval('sync_task_id_seq') AS id, r.* FROM json_to_recordset(%s::json) AS r(
        run uuid, account uuid, domain text, lane text, parent bigint, type text,
        payload jsonb, key text, priority int, carried bool)
)
INSERT INTO sync_task (
    id, run_id, user_integration_id, integration_domain, lane, parent_id, type,
    payload, dedup_key, priority, carried)
SELECT id, run, account, domain, lane, parent, type,
    payload, decode(key, 'hex'), priority, carried
FROM incoming ORDER BY run, key
ON CONFLICT (run_id, dedup_key) DO NOTHING
RETURNING parent_id
"""

MAX_ERRORS = 20
"""Errors kept of one task, the latest."""

# The rows are locked by the fence already. A task that would have waited too long in all is parked:
# Cause.SNOOZED of core.results.parking.
FINISH = f"""
UPDATE sync_task t SET
    state = CASE WHEN f.snooze > 0 AND t.snoozed_seconds + f.delay > {MAX_SNOOZED_SECONDS}
        THEN '{TaskState.PARKED}' ELSE f.state END,
    available_at = CASE WHEN f.delay > 0 THEN clock_timestamp() + f.delay * interval '1 second'
        ELSE t.available_at END,
    attempts = t.attempts + f.attempt, crashes = t.crashes + f.crash,
    snoozes = t.snoozes + f.snooze,
    snoozed_seconds = t.snoozed_seconds + CASE WHEN f.snooze > 0 THEN f.delay ELSE 0 END,
    suspect = f.suspect, lease_until = NULL, reason = f.reason,
    errors = CASE WHEN f.error IS NULL THEN t.errors ELSE (
        SELECT jsonb_agg(e ORDER BY n) FROM (
            SELECT e, n FROM jsonb_array_elements(
                coalesce(t.errors, '[]') || jsonb_build_object(
                    'at', clock_timestamp(), 'attempt', t.attempts + f.attempt, 'error', f.error)
            ) WITH ORDINALITY AS x(e, n)
            ORDER BY n DESC LIMIT {MAX_ERRORS}
        ) latest) END,
    outputs_saved = f.saved, outputs_unchanged = f.unchanged, outputs_deleted = f.deleted,
    followups = f.followups,
    finished_at = CASE WHEN f.state = '{TaskState.READY}'
        AND NOT (f.snooze > 0 AND t.snoozed_seconds + f.delay > {MAX_SNOOZED_SECONDS})
        THEN NULL ELSE clock_timestamp() END
FROM json_to_recordset(%s::json) AS f(
    id bigint, state text, delay float, attempt int, crash int, snooze int, suspect bool,
    reason text, error text, saved int, unchanged int, deleted int, followups int)
WHERE t.id = f.id
RETURNING t.id, t.state
"""

BLOCK = """
INSERT INTO limit_block (key, until, reason)
VALUES (%s, clock_timestamp() + %s * interval '1 second', %s)
ON CONFLICT (key) DO UPDATE SET
    until = greatest(limit_block.until, excluded.until), reason = excluded.reason
"""

RESYNC_DUE = "UPDATE user_integration SET resync_due = true WHERE id = %s"


@dataclass(slots=True)
class CommitResult:
    """The effects of a transaction, for what follows its commit.

    Attributes:
      applied: The outcomes that passed the fence, with the task's new state.
      changed: External ids created, changed or deleted, by (account, domain).
      added: Whether tasks were added or returned to `ready`, so that the dispatcher has work.
    """

    applied: list[tuple[Outcome, str]] = field(default_factory=list)
    changed: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    added: bool = False


@dataclass(slots=True)
class _Counts:
    saved: int = 0
    unchanged: int = 0
    deleted: int = 0
    followups: int = 0


def commit_outcomes(
    conn: Conn, outcomes: Sequence[Outcome], *, max_deleted_share: float
) -> CommitResult:
    """Commit these outcomes in one transaction; those that the fence refuses are dropped.

    Raises: psycopg.Error: Nothing was saved, or, when the connection broke during the commit, maybe
      everything: saving the same outcomes again is right in both cases.
    """
    for _ in range(5):
        try:
            with conn.transaction():
                passed, runs = _pass_fence(conn, outcomes)
                return (
                    _Commit(conn, passed, runs, max_deleted_share).run()
                    if passed
                    else CommitResult()
                )
        except ResultConflict:
            continue
    raise psycopg.OperationalError("state partitions are written too often at once")


@dataclass(frozen=True, slots=True)
class _Run:
    """The fence's view of a task's run, and whether an earlier run created the task."""

    start_seq: int
    began: datetime
    allow_deletions: bool
    carried: bool


def _pass_fence(conn: Conn, outcomes: Sequence[Outcome]) -> tuple[list[Outcome], dict[int, _Run]]:
    """The outcomes whose tasks still are what they were when they were dispatched, one for each
    task, in the order of their dispatch; and the tasks' runs.
    """
    named = {(each.dispatch.task_id, each.dispatch.dispatch_no): each for each in outcomes}
    tasks, numbers = _array(task for task, _ in named), _array(number for _, number in named)
    passed, runs = [], {}
    for task, number, epoch, start_seq, began, allow, carried, over_limit in conn.execute(
        FENCE, (tasks, numbers)
    ):
        outcome = named[task, number]
        if outcome.dispatch.epoch != epoch:
            continue
        runs[task] = _Run(start_seq, began, allow, carried)
        if over_limit and outcome.tasks:  # Cause.RUN_LIMIT
            outcome = Outcome(outcome.dispatch, state=TaskState.PARKED, reason=over_limit)
        passed.append(outcome)
    return sorted(passed, key=lambda outcome: outcome.dispatch.dispatch_seq), runs


class _Commit:
    """One attempt of the transaction that commits outcomes, after the fence.

    Parameters:
      outcomes: Those that have passed it, in the order of their dispatch.
      runs: Their runs, by task.
    """

    def __init__(
        self, conn: Conn, outcomes: list[Outcome], runs: dict[int, _Run], max_deleted_share: float
    ) -> None:
        self.conn = conn
        self.max_deleted_share = max_deleted_share
        self.runs = runs
        self.outcomes = outcomes
        self.counts = {outcome.dispatch.task_id: _Counts() for outcome in outcomes}
        self.result = CommitResult()

    def run(self) -> CommitResult:
        self.outcomes = write_states(self.conn, self.outcomes)
        added = self._prepare_tasks()
        self._write_content()
        self._insert_tasks(added)
        self._stop_accounts()
        self._finish()
        return self.result

    # Content
    # ----------------------------------------------------------------------------------------------

    def _write_content(self) -> None:
        rows = self._latest()
        # What is gone goes first: a result may delete a folder and keep a file that is now in it.
        gone = [(writer, row.id) for writer, row in rows[Operation.TOMBSTONE]]
        deleted = content.mark_deleted(self.conn, gone)
        content.insert_placeholders(self.conn, gone)
        kept, updates = rows[Operation.KEEP], rows[Operation.UPDATE]
        changed = content.upsert(self.conn, kept) | content.update(self.conn, updates)
        for writer, row in (*kept, *updates):
            if (writer.account, row.id) in changed:
                self.counts[writer.task].saved += 1
            else:
                self.counts[writer.task].unchanged += 1
        for writer, id in gone:
            self.counts[writer.task].deleted += deleted[writer.account, id]
        self._record_seen(changed)
        self._sweep()
        self._note_changed(changed | set(deleted))

    def _latest(self) -> dict[Operation, list[Write]]:
        """Rows to write, by operation: the latest for each item."""
        rows: dict[Operation, dict[content.Key, Write]] = {each: {} for each in Operation}
        for outcome in self.outcomes:
            writer = _writer(outcome)
            for row in outcome.outputs:
                latest, key = rows[row.operation], (writer.account, row.id)
                write = (writer, row)
                if row.operation is Operation.UPDATE and key in latest:
                    # Each changes only its own keys.
                    before = latest[key][1].metadata
                    write = (writer, row._replace(metadata=before | row.metadata))
                latest[key] = write
        return {operation: list(latest.values()) for operation, latest in rows.items()}

    def _record_seen(self, changed: set[content.Key]) -> None:
        """Record the unchanged items of a listing; changed ones have a new sequence number.

        The record lasts until the listing is complete.
        """
        seen = {(o.dispatch.run_id, id) for o in self.outcomes for id in o.seen}
        for outcome in self.outcomes:
            account, run = outcome.dispatch.account_id, outcome.dispatch.run_id
            seen.update(
                (run, row.id)
                for row in outcome.outputs
                if row.operation is not Operation.TOMBSTONE and (account, row.id) not in changed
            )
        content.record_seen(self.conn, seen)

    def _sweep(self) -> None:
        for outcome in self.outcomes:
            task = outcome.dispatch.task_id
            run = self.runs[task]
            for listing in outcome.listed if not run.carried else ():
                self.counts[task].deleted += content.sweep(
                    self.conn,
                    listing,
                    _writer(outcome),
                    start_seq=run.start_seq,
                    began=run.began,
                    max_deleted_share=1.0 if run.allow_deletions else self.max_deleted_share,
                )

    def _note_changed(self, changed: set[content.Key]) -> None:
        domains = {each.dispatch.account_id: each.dispatch.domain for each in self.outcomes}
        for account, id in sorted(changed):
            self.result.changed.setdefault((account, domains[account]), []).append(id)

    # Tasks
    # ----------------------------------------------------------------------------------------------

    def _prepare_tasks(self) -> list[dict[str, Any]]:
        """Follow-ups with their runs.

        Those that a live task sends to the background belong to the backfill run.
        """
        backfills: dict[str, str] = {}
        for outcome in sorted(self.outcomes, key=lambda outcome: outcome.dispatch.account_id):
            account = outcome.dispatch.account_id
            if account not in backfills and any(_moves(outcome, row) for row in outcome.tasks):
                backfills[account] = self._backfill_run(outcome)
        return [row for outcome in self.outcomes for row in self._task_rows(outcome, backfills)]

    def _task_rows(self, outcome: Outcome, backfills: dict[str, str]) -> Iterator[dict[str, Any]]:
        dispatch = outcome.dispatch
        for row in outcome.tasks:
            moves = _moves(outcome, row)
            yield {
                "type": row.type,
                "payload": row.payload,
                "key": row.key,
                "priority": row.priority,
                "account": dispatch.account_id,
                "domain": dispatch.domain,
                "parent": dispatch.task_id,
                "carried": self.runs[dispatch.task_id].carried,
                "run": backfills[dispatch.account_id] if moves else dispatch.run_id,
                "lane": Lane.BACKFILL if moves else dispatch.lane,
            }

    def _backfill_run(self, outcome: Outcome) -> str:
        dispatch = outcome.dispatch
        params = {
            "account": dispatch.account_id,
            "domain": dispatch.domain,
            "trigger": dispatch.trigger,
        }
        while True:
            self.conn.execute(OPEN_BACKFILL, {**params, "id": uuid4()})
            if self.runs[dispatch.task_id].allow_deletions:
                self.conn.execute(ALLOW_BACKFILL, (dispatch.account_id,))
            row = self.conn.execute(SHARE_BACKFILL, (dispatch.account_id,)).fetchone()
            if row is not None:
                return str(row[0])

    def _insert_tasks(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            inserted = Counter(
                parent for (parent,) in self.conn.execute(INSERT_TASKS, (json_text(rows),))
            )
            for task, count in inserted.items():
                self.counts[task].followups = count
            self.result.added = bool(inserted)

    # Accounts and blocks
    # ----------------------------------------------------------------------------------------------

    def _stop_accounts(self) -> None:
        for outcome in sorted(self.outcomes, key=lambda outcome: outcome.dispatch.account_id):
            if outcome.stop is not None:
                stop, account = outcome.stop, outcome.dispatch.account_id
                arguments = {"id": account, "reason": stop.reason, "detail": stop.detail}
                self.conn.execute(
                    STOP, {**arguments, "credentials_version": stop.credentials_version}
                )
            if outcome.expired is not None:
                self.conn.execute(RESYNC_DUE, (outcome.dispatch.account_id,))
        blocks = [outcome.block for outcome in self.outcomes if outcome.block is not None]
        for block in sorted(blocks, key=lambda block: block.key):
            self.conn.execute(BLOCK, (block.key, block.seconds, block.reason))

    def _finish(self) -> None:
        rows = [
            _finished(outcome, self.counts[outcome.dispatch.task_id]) for outcome in self.outcomes
        ]
        states: dict[int, str] = dict(self.conn.execute(FINISH, (json_text(rows),)).fetchall())
        self.result.applied = [
            (outcome, states[outcome.dispatch.task_id]) for outcome in self.outcomes
        ]
        self.result.added |= any(state == TaskState.READY for state in states.values())


def _array(numbers: Iterable[int]) -> str:
    """An array as PostgreSQL writes it; psycopg makes one element by element."""
    return "{" + ",".join(map(str, numbers)) + "}"


def _moves(outcome: Outcome, row: TaskRow) -> bool:
    return row.background and outcome.dispatch.lane == Lane.LIVE


def _writer(outcome: Outcome) -> Writer:
    dispatch = outcome.dispatch
    return Writer(
        dispatch.account_id,
        dispatch.domain,
        dispatch.run_id,
        dispatch.task_id,
        dispatch.dispatch_seq,
    )


def _finished(outcome: Outcome, counts: _Counts) -> dict[str, Any]:
    return {
        "id": outcome.dispatch.task_id,
        "state": outcome.state,
        "delay": outcome.delay,
        "attempt": outcome.attempt,
        "crash": outcome.crash,
        "snooze": outcome.snooze,
        "suspect": outcome.suspect,
        "reason": outcome.reason,
        "error": outcome.error,
        "saved": counts.saved,
        "unchanged": counts.unchanged,
        "deleted": counts.deleted,
        "followups": counts.followups,
    }


def parked(outcome: Outcome, reason: str) -> Outcome:
    """The same task, parked: its result cannot be saved."""
    return replace(
        Outcome(outcome.dispatch), state=TaskState.PARKED, attempt=1, reason=reason, error=reason
    )
