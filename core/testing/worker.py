"""The harness's worker: one instance of the integration, one attempt at a time."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from core.integration.base import BaseIntegration
from core.integration.context import TaskInfo
from core.integration.results import Task, TaskResult
from core.known_secrets import KNOWN, secrets_of
from core.log_redaction import renewing
from core.results.result import result_rows
from core.results.rows import ResultRows
from core.testing.context import Account, HarnessContext
from core.testing.faults import Injector
from core.testing.queue import Entry, Queue

if TYPE_CHECKING:
    from core.http_session import HttpSession

ENDINGS = (SystemExit, GeneratorExit, CancelledError)
"""Exceptions that a plugin may raise and that do not derive from `Exception`.

`KeyboardInterrupt` and the signals of a test runner are not among them.
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A task that has run.

    Attributes:
      entry: The task.
      context: The task's context.
      outcome: The checked result, or the exception raised.
      returned: The follow-ups as the plugin made them.
    """

    entry: Entry
    context: HarnessContext
    outcome: ResultRows | Exception
    returned: Sequence[Task] = ()


class Worker:
    """Keeps one instance of the integration, and closes it after a failure.

    Attributes:
      began: The point in time at which the virtual clock is 0.
    """

    def __init__(
        self,
        integration: type[BaseIntegration[Any, Any]],
        config: BaseModel,
        credentials: BaseModel,
        account: Account,
        queue: Queue,
    ) -> None:
        self.credentials = credentials
        self.began = datetime.now(UTC)
        self._integration, self._config, self._account = integration, config, account
        self._instance: BaseIntegration[Any, Any] | None = None
        self._queue = queue
        self._http: HttpSession | None = None

    def attempt(self, entry: Entry, sequence: int, injector: Injector) -> Attempt:
        """Run a task, and check its result.

        Args:
          entry: The task.
          sequence: The number of its dispatch.
          injector: Decides whether a fault replaces the run.
        """
        info = TaskInfo(entry.id, entry.task.type, entry.attempts + 1)
        context = HarnessContext(self._account, entry.run.info, info, sequence, self)
        returned: list[Task] = []
        try:
            injector.before(entry)
            result = self.open().run_task(entry.task, context)
            if isinstance(result, TaskResult):
                result = replace(result, tasks=_recorded(result.tasks, returned))
            rows = result_rows(result, self._integration, self._account.blobs, context.reads)
            return Attempt(entry, context, rows, returned)
        except Exception as error:  # noqa: BLE001  every exception has a decision
            raised = error
        except ENDINGS as error:
            # The engine's thread survives these too, and treats them as unknown errors.
            raised = RuntimeError(f"the plugin raised {type(error).__name__}: {error}")
            raised.__cause__ = error
        self.close()
        return Attempt(entry, context, raised)

    def open(self) -> BaseIntegration[Any, Any]:
        """Return the instance, initialized."""
        if self._instance is None:
            instance = self._integration(self._config, self.credentials)
            try:
                instance.initialize()
            except BaseException:
                instance.close()
                raise
            self._instance = instance
        return self._instance

    def close(self) -> None:
        """Close the instance and its HTTP session, if there are any."""
        instance, self._instance = self._instance, None
        http, self._http = self._http, None
        try:
            if instance is not None:
                instance.close()
        finally:
            if http is not None:
                http.close()

    def refresh(self) -> None:
        """Renew the credentials, for this instance and later ones."""
        instance = self.open()
        with renewing():
            self.credentials = instance.credentials = instance.refresh()
            KNOWN.learn(secrets_of(self.credentials))

    def http(self) -> HttpSession:
        """Return the HTTP session of the instance. Its pauses take virtual time."""
        if self._http is None:
            from core.http_session import HttpSession

            self._http = HttpSession(
                lambda limit, seconds, _: self._queue.block(limit, seconds),
                lambda: self._queue.clock,
            )
        return self._http

    def now(self) -> datetime:
        """Return the virtual time: that of the beginning, and the pauses since."""
        return self.began + timedelta(seconds=self._queue.clock)


def _recorded(tasks: Iterable[Task], into: list[Task]) -> Iterable[Task]:
    """Return the same tasks, and add each to `into` when it is read."""
    try:
        iterator = iter(tasks)
    except TypeError:
        return tasks  # `result_rows` rejects it

    def record() -> Iterator[Task]:
        for task in iterator:
            into.append(task)
            yield task

    return record()
