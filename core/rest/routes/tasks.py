"""`/v1/tasks`: single tasks."""

from __future__ import annotations

from fastapi import APIRouter

from core.rest.routes import problems
from core.rest.schemas import Retried, Task
from core.service import authorization
from core.service.authorization import Principal
from core.service.backend import Backend
from core.service.runs import actions as run_actions
from core.service.runs import queries as run_queries
from core.web.dependencies import Authenticated, Engine, TaskId

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])


@router.get("/{task}", responses=problems(401, 404, 422))
def get_task(engine: Engine, principal: Authenticated, task: TaskId) -> Task:
    """Return a task with the errors of its attempts."""
    return _read(engine, principal, task)


@router.post("/{task}/retry", responses=problems(401, 404, 409, 422))
def retry_task(engine: Engine, principal: Authenticated, task: TaskId) -> Retried:
    """Retry a parked task. A copy of it runs in the account's open run or in a new run."""
    _read(engine, principal, task)
    return Retried(tasks=run_actions.retry(engine, [task]))


@router.post("/{task}/discard", responses=problems(401, 404, 409, 422))
def discard_task(engine: Engine, principal: Authenticated, task: TaskId) -> Task:
    """Discard a parked task.

    This cannot be undone. Content that the task would have saved may be missing.
    """
    _read(engine, principal, task)
    run_actions.discard(engine, [task])
    return _read(engine, principal, task)


def _read(engine: Backend, principal: Principal, task: int) -> Task:
    with engine.database.connection() as conn:
        authorization.require(conn, principal, "task", task)
        return Task.model_validate(run_queries.tasks.one(conn, "task", task))
