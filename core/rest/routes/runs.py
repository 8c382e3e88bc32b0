"""`/v1/runs`: runs and their tasks."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query

from core.rest.routes import problems
from core.rest.schemas.common import Page
from core.rest.schemas.runs import Owed, Run, RunInFull, Wait, Why
from core.rest.schemas.tasks import Task
from core.service import authorization
from core.service.accounts import waiting
from core.service.accounts.owed import owed_by
from core.service.authorization import Principal
from core.service.backend import Backend
from core.service.runs import actions as run_actions
from core.service.runs import listing as run_listing
from core.service.runs import progress
from core.service.runs import queries as run_queries
from core.states import RunState, TaskState, Trigger
from core.web.dependencies import (
    AccountFilter,
    After,
    DomainFilter,
    Engine,
    Limit,
    Order,
    RunId,
    Since,
    Until,
    UserFilter,
    visible_user,
)
from core.web.permissions import DetailReader, FleetOperator, StatusReader

router = APIRouter(prefix="/v1/runs", tags=["runs"])


@router.get("", responses=problems(401, 403, 422))
def list_all_runs(
    engine: Engine,
    principal: StatusReader,
    account: AccountFilter = None,
    user_id: UserFilter = None,
    domain: DomainFilter = None,
    state: Annotated[RunState | None, Query(description="Return only runs in this state")] = None,
    trigger: Annotated[
        Trigger | None, Query(description="Return only runs with this trigger")
    ] = None,
    min_seconds: Annotated[
        float | None,
        Query(ge=0, le=1e9, description="Return only runs that take at least this time"),
    ] = None,
    since: Since = None,
    until: Until = None,
    order: Order = "newest",
    limit: Limit = 50,
    after: After = None,
) -> Page[Run]:
    """List the runs of all accounts. `since` and `until` compare their start.

    With filters, a page may have fewer items than `limit`, or none. The last page has a null
    `cursor`.
    """
    run_filter = run_listing.RunFilter(
        user=visible_user(principal, user_id),
        account=account,
        domain=domain,
        state=state,
        since=since,
        until=until,
        trigger=trigger,
        min_seconds=min_seconds,
    )
    with engine.database.connection() as conn:
        page = run_listing.page(
            conn,
            engine.query_slots,
            run_filter,
            limit=limit,
            after=after,
            oldest_first=order == "oldest",
        )
    rows = [authorization.shown(principal, row) for row in page.rows]
    return Page[Run].model_validate({"items": rows, "cursor": page.cursor})


@router.get("/{run_id}", responses=problems(401, 404, 422))
def get_run(engine: Engine, principal: StatusReader, run: RunId) -> RunInFull:
    """Return a run with its current counters."""
    return _read(engine, principal, run)


@router.post("/{run_id}/cancel", responses=problems(401, 404, 409, 422))
def cancel_run(engine: Engine, principal: FleetOperator, run: RunId) -> RunInFull:
    """End a run now. Its open tasks continue in the account's next run."""
    with engine.database.connection() as conn:
        authorization.require(conn, principal, "run", run)
    run_actions.cancel(engine, run)
    return _read(engine, principal, run)


@router.get("/{run_id}/tasks", responses=problems(401, 404, 422))
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
        account = progress.load_account(conn, now)
        wait = (
            waiting.of_run(engine, conn, account, now, shows_texts=principal.reads_texts)
            if running
            else None
        )
    counts: dict[str, Any] = now.counters()
    counts |= {"skipped": now.skipped_items() or None}
    counts |= {"tasks_known": now.known, "tasks_queued": now.queued, "tasks_ready": now.ready}
    counts |= {"progress_done": now.reported_done, "progress_total": now.reported_total}
    why = None if wait is None else Why.of(wait)
    owing = Owed(tasks=owed.tasks, since=owed.since)
    row = authorization.shown(principal, {**row, **counts})
    return RunInFull.model_validate({**row, "waits": Wait.all_of(wait), "why": why, "owed": owing})
