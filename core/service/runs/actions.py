"""What a person does with runs and tasks. Work that is made wakes the dispatcher."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from core.accounts import store
from core.ledger import controls, scheduling
from core.service.accounts.actions import require_running
from core.service.backend import Backend


def sync(backend: Backend, account: UUID, *, allow_deletions: bool = False) -> tuple[UUID, bool]:
    """A run of this account now, or the one that is open. Returns its id and whether it is new.

    Parameters:
      allow_deletions: Also delete what the guard would hold for a person.

    Raises:
      InvalidInput: The account is paused, has stopped, or is disconnected.
    """
    with backend.database.connection() as conn:
        require_running(store.load(conn, account))
        found = scheduling.request_run(conn, account, allow_deletions=allow_deletions)
    backend.wake()
    return found


def resync(backend: Backend, account: UUID) -> tuple[UUID, bool]:
    """Forget all cursors and list everything again; an open run ends first.

    Returns the run and whether it is new.

    Raises:
      InvalidInput: The account is paused, has stopped, or is disconnected.
    """
    with backend.database.connection() as conn:
        require_running(store.load(conn, account))
        found = scheduling.request_resync(conn, account)
    backend.wake()
    return found


def cancel(backend: Backend, run: UUID) -> None:
    """End a run now; its open tasks go on in the account's next run."""
    with backend.database.connection() as conn:
        controls.cancel_run(conn, run)


def retry(backend: Backend, tasks: Sequence[int]) -> list[int]:
    """Try parked tasks again. Returns the ids of the new tasks.

    Raises:
      NotFound, InvalidInput: A task is not there, or not parked; none of them is tried.
    """
    with backend.database.connection() as conn:
        copies = controls.retry(conn, tasks)
    backend.wake()
    return copies


def discard(backend: Backend, tasks: Sequence[int]) -> list[int]:
    """Drop parked tasks for good: what they would have brought may be missing.

    Returns their ids.
    """
    with backend.database.connection() as conn, conn.transaction():
        return controls.discard(conn, tasks)
