"""Runs the tasks of the harness: one instance of the integration, one attempt at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from core.integration.base import BaseIntegration
from core.integration.context import TaskInfo
from core.testing.context import Account, HarnessContext
from core.testing.effects import Effects
from core.testing.faults import Injector
from core.testing.queue import Entry


@dataclass(frozen=True, slots=True)
class Attempt:
    """A task that has run: what it is to commit, or what it raised."""

    entry: Entry
    context: HarnessContext
    outcome: Effects | Exception


class Worker:
    """Holds the instance, and closes it after a failure."""

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
        info = TaskInfo(entry.id, entry.task.type, entry.attempt)
        context = HarnessContext(self._account, entry.run.info, info, sequence, self.refresh)
        try:
            injector.before(entry)
            result = self.open().run_task(entry.task, context)
            return Attempt(entry, context, Effects.of(result, self._integration))
        # Whatever a plugin raises says what to do with its task.
        except Exception as error:  # noqa: BLE001
            self.close()
            return Attempt(entry, context, error)

    def open(self) -> BaseIntegration[Any, Any]:
        """The instance, connected."""
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
        instance, self._instance = self._instance, None
        if instance is not None:
            instance.close()

    def refresh(self) -> None:
        """Renew the credentials, for this instance and those after it."""
        instance = self.open()
        self.credentials = instance.credentials = instance.refresh()
