"""The harness's worker: one instance of the integration, one attempt at a time."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

from core.integration.base import BaseIntegration
from core.integration.context import TaskInfo
from core.integration.results import Task, TaskResult
from core.results.result import result_rows
from core.results.rows import ResultRows
from core.testing.context import Account, HarnessContext
from core.testing.faults import Injector
from core.testing.queue import Entry

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
    """Keeps one instance of the integration, and closes it after a failure."""

    def __init__(
        self,
        integration: type[BaseIntegration[Any, Any]],
        config: BaseModel,
        credentials: BaseModel,
        account: Account,
    ) -> None:
        self.credentials = credentials
        self._integration, self._config, self._account = integration, config, account
        self._instance: BaseIntegration[Any, Any] | None = None

    def attempt(self, entry: Entry, sequence: int, injector: Injector) -> Attempt:
        """Run a task, and check its result.

        Args:
          entry: The task.
          sequence: The number of its dispatch.
          injector: Decides whether a fault replaces the run.
        """
        info = TaskInfo(entry.id, entry.task.type, entry.attempts + 1)
        context = HarnessContext(self._account, entry.run.info, info, sequence, self.refresh)
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
        """Close the instance, if there is one."""
        instance, self._instance = self._instance, None
        if instance is not None:
            instance.close()

    def refresh(self) -> None:
        """Renew the credentials, for this instance and later ones."""
        instance = self.open()
        self.credentials = instance.credentials = instance.refresh()


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
