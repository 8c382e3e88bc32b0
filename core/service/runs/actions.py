"""Actions of users on runs and tasks. An action that creates work wakes the dispatcher."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from core.accounts import store
from core.ledger import controls, scheduling
from core.service.accounts.actions import require_running
from core.service.backend import Backend


def sync(backend: Backend, account: UUID, *, allow_deletions: bool = False) -> tuple[UUID, bool]:
    """Start a run of this account, unless one is open. Return its id and whether it is new.

    Parameters:
      allow_deletions: Delete items even if the delete guard would hold the deletion.

    Raises:
      InvalidInput: The account is paused, has stopped, or is disconnected.
    """
    with backend.database.connection() as conn:
        require_running(store.load(conn, account))
        run = scheduling.request_run(conn, account, allow_deletions=allow_deletions)
    backend.wake()
    return run


def resync(backend: Backend, account: UUID) -> tuple[UUID, bool]:
    """Delete all cursors and list everything again; an open run ends first.

    Returns the run and whether it is new.

    Raises:
      InvalidInput: The account is paused, has stopped, or is disconnected.
    """
    with backend.database.connection() as conn:
        require_running(store.load(conn, account))
        run = scheduling.request_resync(conn, account)
    backend.wake()
    return run


def cancel(backend: Backend, run: UUID) -> None:
    """Cancel a run; its open tasks resume in the account's next run."""
    with backend.database.connection() as conn:
        controls.cancel_run(conn, run)


def retry(backend: Backend, tasks: Sequence[int]) -> list[int]:
    """Retry parked tasks. Return the ids of the new tasks.

    Raises:
      NotFound, InvalidInput: A task does not exist or is not parked; no task is retried.
    """
    with backend.database.connection() as conn:
        copies = controls.retry(conn, tasks)
    backend.wake()
    return copies


def discard(backend: Backend, tasks: Sequence[int]) -> list[int]:
    """Discard parked tasks: the content that they would have saved may be missing.

    Return their ids.
    """
    with backend.database.connection() as conn, conn.transaction():
        return controls.discard(conn, tasks)
