"""Actions of users on runs and tasks. An action that creates work wakes up the dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from core.accounts import store
from core.db.pool import Conn
from core.errors import InvalidInput, ResultInvalid
from core.field_problems import first_problem
from core.integration.base import Integration
from core.integration.results import Task
from core.ledger import controls, rereads, scheduling
from core.results.result import task_row
from core.service.accounts.actions import require_running
from core.service.backend import Backend
from core.service.runs import queries as run_queries


def count_request(backend: Backend, user: str | None) -> None:
    """Count a request that may start a run.

    Args:
      backend: The backend.
      user: The user whose token or session makes the request. None: an operator, without a bound.

    Raises:
      TooManyRequests: The user has sent too many in this hour.
    """
    if user is not None:
        backend.provider_slots.count_run(backend.queues, user)


def sync(backend: Backend, account: UUID) -> tuple[UUID, bool]:
    """Start a run for an account, unless one is open.

    Returns:
      The id of the run, and True if it is new.

    Raises:
      NotFound: The account does not exist.
      WrongState: The account is paused, in error, or disconnected.
      QuotaReached: Its user has no run left on this day, or too much content.
    """
    return _request(backend, account, scheduling.request_run)


def resync(backend: Backend, account: UUID) -> tuple[UUID, bool]:
    """Delete all cursors and list everything again. The resync starts after an open run.

    Returns:
      The id of the run, and True if it is new.

    Raises:
      NotFound: The account does not exist.
      WrongState: The account is paused, in error, or disconnected.
      QuotaReached: Its user has no run left on this day, or too much content.
    """
    return _request(backend, account, scheduling.request_resync)


def reread(backend: Backend, account: UUID) -> tuple[UUID, bool]:
    """Read the kept items of an account again, without its provider; or join the open reread.

    Returns:
      The id of its run, and True if the reread is new.

    Raises:
      NotFound: The account does not exist.
      WrongState: The account is not active, or its integration cannot read items again.
      QuotaReached: Its user has no run left on this day, or too much content.
    """
    return _request(backend, account, partial(rereads.request_reread, counts=True))


def _request(
    backend: Backend, account: UUID, request: Callable[[Conn, UUID], tuple[UUID, bool]]
) -> tuple[UUID, bool]:
    with backend.database.connection() as conn:
        require_running(store.load(conn, account))
        run = request(conn, account)
    backend.wake()
    return run


def cancel(backend: Backend, run: UUID) -> None:
    """Cancel a run. The next run of the account continues its open tasks.

    Raises:
      NotFound: The run does not exist.
      InvalidInput: The run has already ended.
    """
    with backend.database.connection() as conn:
        controls.cancel_run(conn, run)


def retry(backend: Backend, tasks: Sequence[int]) -> list[int]:
    """Retry stopped tasks, and return the ids of the new tasks.

    Raises:
      NotFound: A task does not exist; no task is retried.
      WrongState: A task is not deferred, parked or cancelled, or was already retried; no task is
        retried.
      QuotaReached: A user has no run left on this day, or too much content; no task is retried.
    """
    with backend.database.connection() as conn:
        copies = controls.retry(conn, tasks)
    backend.wake()
    return copies


def retry_edited(backend: Backend, task: int, payload: Mapping[str, Any]) -> int:
    """Retry a stopped task with another payload, and return the id of the new task.

    A payload may name any item and address, so only operators may call it.

    Raises:
      NotFound: The task does not exist, or its integration is not installed.
      InvalidInput: The payload does not fit the parameters of the task.
      WrongState: As for `retry`; or the open run of the account has the same task already.
      QuotaReached: As for `retry`.
    """
    with backend.database.connection() as conn:
        row = run_queries.tasks.one(conn, "task", task)
        integration = backend.registry.get(row["integration_domain"])
        fitting = _fitting(integration, row["type"], payload)
        copy = controls.retry_edited(conn, task, fitting)
    backend.wake()
    return copy


def _fitting(integration: Integration, type: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of a task, if it can be stored and fits the task's parameters.

    Raises:
      InvalidInput: It does not.
    """
    try:
        row, _ = task_row(Task(type, payload), integration)
        integration.task_specs[type].arguments(row.payload)
    except ResultInvalid as error:
        raise InvalidInput("payload-invalid", reason=error) from None
    except ValidationError as error:
        raise InvalidInput("payload-invalid", reason=first_problem(error)) from None
    return row.payload


def discard(backend: Backend, tasks: Sequence[int]) -> list[int]:
    """Discard stopped tasks, and return their ids. Content that they would have saved is missing.

    Raises:
      NotFound: A task does not exist; no task is discarded.
      WrongState: A task is not deferred, parked or cancelled, or was already retried; no task is
        discarded.
    """
    with backend.database.connection() as conn:
        return controls.discard(conn, tasks)
