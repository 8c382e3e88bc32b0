"""The harness: it syncs an account in memory, by the engine's rules."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from pydantic import BaseModel, JsonValue

from core.errors import ConfigurationError, CredentialsInvalid
from core.integration.base import START, BaseIntegration, refused_field
from core.integration.context import AccountInfo, RunInfo, TaskInfo
from core.integration.limits import AccountIdentity, Rate
from core.integration.listening import ListenableAccount, Listener
from core.integration.rehearsal import Rehearsal
from core.integration.results import Task
from core.known_secrets import Redactor, secrets_of
from core.results.delete_guard import DeleteGuard
from core.results.listeners import named_listeners
from core.results.rehearsal import shown
from core.states import Deletions, Lane, Trigger
from core.testing.blobs import MemoryStore
from core.testing.content import ContentTable, Item
from core.testing.context import Account, HarnessContext
from core.testing.faults import Faults, Injector
from core.testing.ledger import Ledger
from core.testing.listening import Hinted
from core.testing.outcome import SyncResult
from core.testing.queue import Queue
from core.testing.rereading import RereadResult, reread_items
from core.testing.worker import Attempt, Worker


class Harness:
    """One account of an integration, in memory. Time is virtual: only the plugin itself can sleep.

    The harness judges results and exceptions with the engine's code. It has no time limit for
    tasks.

    Args:
      integration: The integration's class.
      config: As JSON or as the integration's model. Default: the model's defaults.
      credentials: As JSON or as the integration's model. Default: the model's defaults.
      faults: Faults to inject. Default: none.
      deletions: `mark` or `keep`: the treatment of items that disappear at the source. Default:
        `mark`.
      max_deleted_share: The delete guard: the largest share of a listing that a sweep may delete.
        Default: 0.5.
      min_guarded_items: The delete guard holds fewer deletions than this only if no item would
        remain. Default: 20.
      max_attempts: Attempts of a task before it is parked. Default: 3.
      max_tasks: Tasks of one run. In a larger run, tasks with follow-ups are parked. Default:
        100,000.

    Raises:
      pydantic.ValidationError: The config or credentials do not fit their model.
    """

    def __init__(
        self,
        integration: type[BaseIntegration[Any, Any]],
        config: Mapping[str, Any] | BaseModel | None = None,
        credentials: Mapping[str, Any] | BaseModel | None = None,
        *,
        faults: Faults | None = None,
        deletions: str = Deletions.MARK,
        max_deleted_share: float = 0.5,
        min_guarded_items: int = 20,
        max_attempts: int = 3,
        max_tasks: int = 100_000,
    ) -> None:
        self.integration = integration
        self.config = integration.config_model.model_validate(config or {})
        limits = list(integration.limits(self.config))
        blobs = MemoryStore()
        self._account = Account(
            AccountInfo(str(uuid4()), str(uuid4()), "harness", integration.manifest.domain),
            frozenset(limit.name for limit in limits if isinstance(limit, Rate)),
            ContentTable(
                DeleteGuard(max_deleted_share, min_guarded_items), blobs, Deletions(deletions)
            ),
            blobs,
        )
        self._injector = Injector(faults or Faults())
        self._queue = Queue(self._injector.rank)
        self._worker = Worker(
            integration, self.config, self._validated(credentials), self._account, self._queue
        )
        self._ledger = Ledger(
            self._account,
            integration,
            limits,
            self._queue,
            max_attempts=max_attempts,
            max_tasks=max_tasks,
        )

    def check(self) -> AccountIdentity:
        """Return the identity from `check()` of a fresh instance, or raise its exception.

        Raises:
          ValueError: The exception names a field that the config or credentials do not have.
        """
        self.close()
        try:
            return self._worker.open().check()
        except (ConfigurationError, CredentialsInvalid) as error:
            part, field = refused_field(self.integration, error)
            if error.field != field:
                raise ValueError(f"no field {error.field!r} in the {part}") from error
            raise
        finally:
            self.close()

    def rehearse(self) -> Rehearsal:
        """Return the rehearsal as the engine shows it, after `check()` of the same instance.

        Raises:
          TypeError: The plugin returned something else than a `Rehearsal` of plain values.
          Exception: The integration raised it.
        """
        self.close()
        try:
            instance = self._worker.open()
            instance.check()
            return shown(instance.rehearse(), Redactor(secrets_of(instance.credentials)))
        finally:
            self.close()

    def listeners(self) -> dict[str, Listener]:
        """Return the listeners of the account by their keys, by the engine's rules.

        Raises:
          TypeError, ValueError: The result of `listeners` is not valid.
        """
        info, settings = self._account.info, self.integration.manifest.settings
        account = ListenableAccount(
            info.id, info.user_id, self.check().id, None, self.config.model_dump(mode="json")
        )
        found = self.integration.listeners(settings() if settings else None, [account])
        return named_listeners(found, [account.id])

    def sync(self, trigger: str = Trigger.MANUAL) -> SyncResult:
        """Sync the account: run tasks, with backfill and resync, until none is left or it stops.

        After a stop, the next call resumes the run.

        Args:
          trigger: The trigger of the run. Default: `manual`. A resync lists everything again, and
            so does the sync after `accept_deletions`.

        Returns:
          The counts, errors and parked tasks of this call.
        """
        ledger = self._ledger
        ledger.result = SyncResult()
        try:
            self._drain(trigger)
            while ledger.resync and ledger.result.error is None:
                ledger.resync = False
                self._drain(Trigger.RESYNC)
        finally:
            self.close()
        return ledger.result

    def hint(self, *parts: str) -> SyncResult:
        """Sync the account because a hint says that these parts have changed.

        The run has the trigger `hint`, and never sweeps.

        Args:
          *parts: The value of `Context.hints`. Default: the complete account.
        """
        self._account.hints = tuple(sorted(set(parts)))
        return self.sync(Trigger.HINT)

    def follows(self, part: str) -> bool:
        """Return the result of `follows` for a part of the account, with its present state.

        Args:
          part: A part that a hint names.
        """
        config, states = self.config.model_dump(mode="json"), self._account.state
        return self.integration.follows(part, Hinted(self._account.info.id, config, states))

    def reread(self) -> RereadResult:
        """Read all kept items again, as `polling reread` does.

        The instance has no credentials and no network, and is not initialized.

        Returns:
          The counts.

        Raises:
          ValueError: The integration has no reader.
          Exception: The integration raised it, or its result is invalid.
        """
        result = RereadResult()
        for _, changes in list(reread_items(self.integration, self.config, self._account)):
            result.unchanged += changes.unchanged
            if changes.row is not None:
                result.saved += len(changes.row.writes)
                result.deleted += len(changes.row.gone)
                self._account.content.apply_reread(changes.row)
        return result

    def accept_deletions(self) -> None:
        """Accept the held deletions, as a person does: the next sync is complete.

        It deletes exactly these items, if they are still missing. The guard holds others again.
        """
        self._account.content.accept()

    def refuse_deletions(self) -> None:
        """Refuse the held deletions: their items stay until the source shows them again."""
        self._account.content.refuse()

    def plant(self, *items: Item) -> None:
        """Keep items that the source does not have, as if an earlier sync had kept them."""
        self._account.content.plant(items)

    def reconnect(self, credentials: Mapping[str, Any] | BaseModel) -> None:
        """Give the account other credentials."""
        self.close()
        self._worker.credentials = self._validated(credentials)

    def context(self, type: str = START) -> HarnessContext:
        """Return a context for calling a method of the integration directly.

        Args:
          type: The task's type, for `Context.task`. Default: `start`.
        """
        run, task = RunInfo("run-0", Trigger.MANUAL, Lane.LIVE), TaskInfo("task-0", type, 1)
        return HarnessContext(self._account, run, task, self._account.tick(), self._worker)

    def close(self) -> None:
        """Close the instance, as the engine does when it is idle."""
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self.close()

    @property
    def content(self) -> dict[str, Item]:
        """The items that are kept and not deleted, by id."""
        return {item.id: item for item in self._account.content.live()}

    @property
    def deleted(self) -> set[str]:
        """The ids of the items that are marked deleted."""
        return self._account.content.deleted()

    @property
    def held(self) -> set[str]:
        """The ids of the items whose deletion waits for a person."""
        return set().union(*self._account.content.held.values())

    @property
    def gone(self) -> set[str]:
        """The ids of the items that are kept, and gone at the source."""
        return {id for id, item in self.content.items() if item.gone}

    @property
    def deletions(self) -> Deletions:
        """The treatment of items that disappear at the source, for a test to set."""
        return self._account.content.deletions

    @deletions.setter
    def deletions(self, value: str) -> None:
        self._account.content.deletions = Deletions(value)

    @property
    def state(self) -> dict[str, JsonValue]:
        """The plugin's state by partition, for a test to read and change."""
        return self._account.state

    @property
    def credentials(self) -> BaseModel:
        """The current credentials, as `Context.refresh_credentials` leaves them."""
        return self._worker.credentials

    @property
    def tasks(self) -> list[Task]:
        """Every task that was returned and committed, as the plugin made it."""
        return self._ledger.tasks

    @property
    def charged(self) -> Mapping[str, int]:
        """Units charged with `Context.charge`, by limit."""
        return self._account.charged

    @property
    def progress(self) -> list[tuple[int, int | None]]:
        """Every report of `Context.progress`, with its units done and in total."""
        return self._account.progress

    @property
    def clock(self) -> float:
        """Seconds of virtual time that backoff and rate limits have taken."""
        return self._queue.clock

    @property
    def now(self) -> datetime:
        """The value of `Context.now`, for a test to set. Backoff and rate limits move it."""
        return self._worker.now()

    @now.setter
    def now(self, value: datetime) -> None:
        self._worker.began = value - timedelta(seconds=self._queue.clock)

    @property
    def stopping(self) -> bool:
        """The value of `Context.stopping`, for a test to set."""
        return self._account.stopping

    @stopping.setter
    def stopping(self, value: bool) -> None:
        self._account.stopping = value

    def _validated(self, credentials: Mapping[str, Any] | BaseModel | None) -> BaseModel:
        return self.integration.credentials_model.model_validate(credentials or {})

    def _drain(self, trigger: str) -> None:
        self._ledger.start(trigger, Task(START))
        while self._ledger.result.error is None and (entry := self._queue.take()) is not None:
            other = self._queue.take() if self._injector.overlaps() else None
            attempts = [
                self._worker.attempt(each, self._account.tick(), self._injector)
                for each in (entry, other)
                if each
            ]
            for attempt in reversed(attempts):
                self._settle(attempt)
        if self._ledger.result.error is None:
            self._ledger.finish()

    def _settle(self, attempt: Attempt) -> None:
        entry = attempt.entry
        if isinstance(attempt.outcome, Exception):
            self._ledger.fail(entry, attempt.outcome)
        elif self._injector.kills(entry):
            entry.crashes += 1
            self._worker.close()
            self._queue.put(entry)
        else:
            self._ledger.commit(entry, attempt.context, attempt.outcome, attempt.returned)
            if self._injector.delivers_twice():
                self._worker.attempt(entry, self._account.tick(), self._injector)
