"""`/v1/tasks`: single tasks, and actions on all tasks that match a filter."""

from __future__ import annotations

from fastapi import APIRouter

from core.errors import InvalidInput
from core.rest.routes import problems
from core.rest.schemas import BulkAction, Retried, Task, TaskFilter
from core.service import authorization
from core.service.authorization import Principal
from core.service.backend import Backend
from core.service.runs import actions as run_actions
from core.service.runs import parked
from core.service.runs import queries as run_queries
from core.service.runs.parked import BulkResult, ParkedFilter
from core.states import TaskState
from core.web.dependencies import After, Engine, TaskId
from core.web.permissions import DetailReader, FleetOperator

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])


@router.post("/retry", responses=problems(401, 404, 422, 429, 503))
def retry_tasks(
    engine: Engine, principal: FleetOperator, body: TaskFilter, after: After = None
) -> BulkAction:
    """Retry all matching tasks. Copies of them run in their account's open run or in a new run.

    The request processes at most about 1,000 tasks, for at most 10 seconds. To continue, pass its
    `cursor` as `after`. Then no task is retried twice, even if it fails again immediately.
    """
    return _bulk(
        parked.apply_to_all(engine, run_actions.retry, _filter(engine, principal, body), after)
    )


@router.post("/discard", responses=problems(401, 404, 422, 503))
def discard_tasks(
    engine: Engine, principal: FleetOperator, body: TaskFilter, after: After = None
) -> BulkAction:
    """Discard all matching tasks.

    This cannot be undone. The copy may then lack the items of these tasks.
    """
    return _bulk(
        parked.apply_to_all(engine, run_actions.discard, _filter(engine, principal, body), after)
    )


@router.get("/{task}", responses=problems(401, 404, 422))
def get_task(engine: Engine, principal: DetailReader, task: TaskId) -> Task:
    """Return a task with the errors of its attempts."""
    return _read(engine, principal, task)


@router.post("/{task}/retry", responses=problems(401, 404, 409, 422, 429))
def retry_task(engine: Engine, principal: FleetOperator, task: TaskId) -> Retried:
    """Retry a parked task. A copy of it runs in the account's open run or in a new run."""
    _read(engine, principal, task)
    run_actions.count_request(engine, principal.user_id)
    return Retried(tasks=run_actions.retry(engine, [task]))


@router.post("/{task}/discard", responses=problems(401, 404, 409, 422))
def discard_task(engine: Engine, principal: FleetOperator, task: TaskId) -> Task:
    """Discard a parked task.

    This cannot be undone. The copy may then lack the items of this task.
    """
    _read(engine, principal, task)
    run_actions.discard(engine, [task])
    return _read(engine, principal, task)


def _filter(engine: Backend, principal: Principal, body: TaskFilter) -> ParkedFilter:
    if not body.model_dump(exclude_none=True):
        raise InvalidInput("tasks-not-selected")
    if body.user_integration_id is not None:
        with engine.database.connection() as conn:
            authorization.require(conn, principal, "account", body.user_integration_id)
    return ParkedFilter(
        user=principal.user_id,
        account=body.user_integration_id,
        domain=body.integration_domain,
        type=body.type,
        reason=body.reason,
        since=body.since,
        states=[TaskState(body.state)] if body.state else [TaskState.PARKED, TaskState.DEFERRED],
    )


def _bulk(result: BulkResult) -> BulkAction:
    return BulkAction(
        done=result.done, refused=result.refused, more=result.more, cursor=result.cursor
    )


def _read(engine: Backend, principal: Principal, task: int) -> Task:
    with engine.database.connection() as conn:
        authorization.require(conn, principal, "task", task)
        return Task.model_validate(run_queries.tasks.one(conn, "task", task))
