"""Queries on runs and tasks, for pages and single rows."""

from __future__ import annotations

from dataclasses import replace

from core.content.visible import OF_ACCOUNT, visible
from core.db.rows import Row
from core.ledger.controls import DISCARDED
from core.service.pagination import Keyset, PagedQuery
from core.states import AccountState, RunState, TaskState

_OUTPUTS = "outputs_saved, outputs_unchanged, outputs_deleted"
TASK_COLUMNS = f"""id, run_id, user_integration_id, integration_domain, lane, parent_id, retry_of,
    retried_as, type, payload, state, priority, available_at, lease_until, dispatch_no, attempts,
    crashes, snoozes, snoozed_seconds, suspect, started_at, reason, errors, {_OUTPUTS}, skipped,
    progress_done, progress_total, followups, created_at, finished_at"""

STOPPED = "stopped"
"""The state that people see of an open run whose account is not active."""

runs = PagedQuery(
    "*",
    "sync_run",
    Keyset({"started_at": "timestamptz", "id": "uuid"}),
    newest_first=True,
    filters={"user_integration_id": "uuid", "state": "text"},
    bounds={"user_integration_id": OF_ACCOUNT},
    visible=visible(),
)
# The primary key of accounts serves it.
listed_runs = replace(
    runs,
    columns="""r.*, (SELECT a.sync_status FROM user_integration a
        WHERE a.id = r.user_integration_id) AS account_state""",
    table="sync_run r",
)
"""The same rows with `account_state`, the state of their account."""

tasks = PagedQuery(
    TASK_COLUMNS,
    "sync_task",
    Keyset({"id": "bigint"}),
    newest_first=True,
    filters={
        "run_id": "uuid",
        "user_integration_id": "uuid",
        "state": "text",
        "type": "text",
        "reason": "text",
        "since": "timestamptz",
    },
    bounds={
        "user_integration_id": OF_ACCOUNT,
        "reason": "strpos(lower(reason), lower(%(reason)s)) > 0",
        "since": "coalesce(finished_at, created_at) >= %(since)s",
    },
    visible=visible(),
)


def shown_run_state(state: str, account_state: str) -> str:
    """Return the state of a run for people: no task of an account that is not active starts."""
    is_stopped = state == RunState.RUNNING and account_state != AccountState.ACTIVE
    return STOPPED if is_stopped else state


def shown_state(row: Row) -> str:
    """Return the state of a task for people: a task may be done because it did not run.

    A retried task has a copy. A person discards a task; the plugin skips one, and gives a reason.
    """
    if row["retried_as"] is not None:
        return "retried"
    if row["state"] == TaskState.DONE and row["reason"]:
        return "discarded" if row["reason"].startswith(DISCARDED) else "skipped"
    return str(row["state"])
