"""`/v1/runs`: runs and their tasks."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query

from core.rest.routes import problems
from core.rest.schemas import Owed, Page, RunInFull, Task, Wait
from core.service import authorization
from core.service.accounts.owed import owed_by
from core.service.authorization import Principal
from core.service.backend import Backend
from core.service.runs import actions as run_actions
from core.service.runs import listing as run_listing
from core.service.runs import progress
from core.service.runs import queries as run_queries
from core.states import RunState, TaskState
from core.web.dependencies import After, Engine, Limit, RunId
from core.web.permissions import DetailReader, FleetOperator, StatusReader

router = APIRouter(prefix="/v1/runs", tags=["runs"])


@router.get("/{run}", responses=problems(401, 404, 422))
def get_run(engine: Engine, principal: StatusReader, run: RunId) -> RunInFull:
    """Return a run with its current counters."""
    return _read(engine, principal, run)


@router.post("/{run}/cancel", responses=problems(401, 404, 409, 422))
def cancel_run(engine: Engine, principal: FleetOperator, run: RunId) -> RunInFull:
    """End a run now. Its open tasks continue in the account's next run."""
    with engine.database.connection() as conn:
        authorization.require(conn, principal, "run", run)
    run_actions.cancel(engine, run)
    return _read(engine, principal, run)


@router.get("/{run}/tasks", responses=problems(401, 404, 422))
def list_tasks(
    engine: Engine,
    principal: DetailReader,
    run: RunId,
    state: Annotated[TaskState | None, Query(description="Return only tasks in this state")] = None,
    limit: Limit = 50,
    after: After = None,
) -> Page[Task]:
    """List the tasks of a run, the newest first.

    With `state`, a page of a large run may have fewer rows than `limit`, or none. The last page has
    a null `cursor`.
    """
    with engine.database.connection() as conn:
        authorization.require(conn, principal, "run", run)
        page = run_listing.tasks(
            conn,
            engine.query_slots,
            run,
            user=principal.user_id,
            state=state,
            limit=limit,
            after=after,
        )
    return Page[Task].model_validate({"items": page.rows, "cursor": page.cursor})


def _read(engine: Backend, principal: Principal, run: UUID) -> RunInFull:
    with engine.database.connection() as conn:
        authorization.require(conn, principal, "run", run)
        row: dict[str, Any] = run_queries.runs.one(conn, "run", run)
        now = progress.cached(conn, engine.counts, run)
        running = row["state"] == RunState.RUNNING
        owed = owed_by(conn, row["user_integration_id"])
        waits = progress.blockers(conn, progress.load_account(conn, now), now) if running else []
    counts: dict[str, Any] = now.counters()
    counts |= {"skipped": now.skipped_items() or None}
    counts |= {"tasks_known": now.known, "tasks_queued": now.queued, "tasks_ready": now.ready}
    counts |= {"progress_done": now.reported_done, "progress_total": now.reported_total}
    waiting = [Wait(reason=wait.reason, until=wait.until) for wait in waits]
    owing = Owed(tasks=owed.tasks, since=owed.since)
    return RunInFull.model_validate({**row, **counts, "waits": waiting, "owed": owing})
