"""The use of each user since the latest heartbeat, in memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from core.integration.base import START
from core.ledger.commit import CommitResult
from core.ledger.use import Use
from core.states import TaskState


class UseCounters:
    """Numbers of the tasks of each user in this process, thread-safe.

    A heartbeat writes the numbers. A process that is killed loses those of its last seconds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: dict[str, Use] = {}

    def ran(self, user: str, seconds: float) -> None:
        """Add the time for which a task has held a thread."""
        with self._lock:
            self._of(user).thread_seconds += seconds

    def saved(self, commits: Sequence[CommitResult]) -> None:
        """Add the tasks and the content of committed results."""
        with self._lock:
            for commit in commits:
                changed = {account: set(ids) for (account, _), ids in commit.changed.items()}
                for outcome, state in commit.applied:
                    use = self._of(outcome.dispatch.user)
                    if state != TaskState.READY:
                        use.tasks += 1
                        use.polls += outcome.dispatch.type == START
                    ids = changed.get(outcome.dispatch.account_id, ())
                    for row in outcome.outputs:
                        use.bytes_in += row.size
                        use.bytes_kept += row.size if row.id in ids else 0

    def take(self) -> dict[str, Use]:
        """Return the numbers since the last call, by user."""
        with self._lock:
            used, self._used = self._used, {}
        # A leader of an older version names no user.
        used.pop("", None)
        return used

    def restore(self, used: Mapping[str, Use]) -> None:
        """Add numbers that could not be written to the next result of `take`."""
        with self._lock:
            for user, use in used.items():
                self._used[user] = self._of(user) + use

    def _of(self, user: str) -> Use:
        return self._used.setdefault(user, Use())
