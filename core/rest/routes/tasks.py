"""`/v1/tasks`: single tasks, and actions on all tasks that match a filter."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from core.errors import InvalidInput
from core.rest.routes import problems
from core.rest.schemas.common import BulkAction, Page, bulk_action
from core.rest.schemas.tasks import Retried, StoppedTask, Task, TaskFilter, TaskRetry
from core.service import authorization
from core.service.authorization import Principal
from core.service.backend import Backend
from core.service.runs import actions as run_actions
from core.service.runs import parked
from core.service.runs import queries as run_queries
from core.service.runs.parked import ParkedFilter
from core.states import StoppedState, TaskState
from core.web.dependencies import (
    NO_NUL,
    AccountFilter,
    After,
    DomainFilter,
    Engine,
    Limit,
    Order,
    Since,
    TaskId,
    Until,
    UserFilter,
    visible_user,
)
from core.web.permissions import TO_OPERATE_ALL, DetailReader, FleetOperator

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])


@router.get("", responses=problems(401, 403, 422))
def list_stopped_tasks(
    engine: Engine,
    principal: DetailReader,
    account: AccountFilter = None,
    user_id: UserFilter = None,
    domain: DomainFilter = None,
    type: Annotated[
        str | None,
        Query(max_length=200, pattern=NO_NUL, description="Return only tasks of this type"),
    ] = None,
    state: Annotated[
        StoppedState | None, Query(description="Return only tasks in this state. Default: both")
    ] = None,
    since: Since = None,
    until: Until = None,
    order: Order = "newest",
    limit: Limit = 50,
    after: After = None,
) -> Page[StoppedTask]:
    """List the parked and deferred tasks of all accounts. `since` and `until` compare their end.

    The list has no copies: a retried task is not part of it any more.
    """
    stopped = ParkedFilter(
        user=visible_user(principal, user_id),
        account=account,
        domain=domain,
        type=type,
        since=since,
        until=until,
        states=_states(state),
    )
    with engine.database.connection() as conn:
        page = parked.page(
            conn,
            engine.query_slots,
            stopped,
            limit=limit,
            after=after,
            oldest_first=order == "oldest",
        )
    return Page[StoppedTask].model_validate({"items": page.rows, "cursor": page.cursor})


@router.post("/retry", responses=problems(401, 404, 422, 429, 503))
def retry_tasks(
    engine: Engine, principal: FleetOperator, body: TaskFilter, after: After = None
) -> BulkAction:
    """Retry all matching tasks. Copies of them run in their account's open run or in a new run.

    The request processes at most about 1,000 tasks, for at most 10 seconds. To continue, pass its
    `cursor` as `after`. Then no task is retried twice, even if it fails again immediately.
    """
    return bulk_action(
        parked.apply_to_all(engine, run_actions.retry, _filter(engine, principal, body), after)
    )


@router.post("/discard", responses=problems(401, 404, 422, 503))
def discard_tasks(
    engine: Engine, principal: FleetOperator, body: TaskFilter, after: After = None
) -> BulkAction:
    """Discard all matching tasks.

    This cannot be undone. The copy may then lack the items of these tasks.
    """
    return bulk_action(
        parked.apply_to_all(engine, run_actions.discard, _filter(engine, principal, body), after)
    )


@router.get("/{task_id}", responses=problems(401, 404, 422))
def get_task(engine: Engine, principal: DetailReader, task: TaskId) -> Task:
    """Return a task with the errors of its attempts."""
    return _read(engine, principal, task)


@router.post("/{task_id}/retry", responses=problems(401, 403, 404, 409, 413, 422, 429))
def retry_task(
    engine: Engine, principal: FleetOperator, task: TaskId, body: TaskRetry | None = None
) -> Retried:
    """Retry a parked task. A copy of it runs in the account's open run or in a new run.

    Operators can change the payload of the copy.
    """
    _read(engine, principal, task)
    run_actions.count_request(engine, principal.user_id)
    if body is None or body.payload is None:
        return Retried(tasks=run_actions.retry(engine, [task]))
    TO_OPERATE_ALL.check(principal)
    return Retried(tasks=[run_actions.retry_edited(engine, task, body.payload)])


@router.post("/{task_id}/discard", responses=problems(401, 404, 409, 422))
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
        until=body.until,
        states=_states(body.state),
    )


def _states(state: StoppedState | None) -> list[TaskState]:
    """Return the states of stopped tasks to list. The tasks of a cancelled run are not stopped."""
    return [TaskState(one) for one in ([state] if state else StoppedState)]


def _read(engine: Backend, principal: Principal, task: int) -> Task:
    with engine.database.connection() as conn:
        authorization.require(conn, principal, "task", task)
        return Task.model_validate(run_queries.tasks.one(conn, "task", task))
