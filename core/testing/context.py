"""The `Context` that the harness gives to a task."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING, Protocol, TypeVar, overload

from pydantic import BaseModel, JsonValue

from core.integration.context import (
    AccountInfo,
    ContextLogger,
    RunInfo,
    TaskInfo,
    require_progress,
    require_rate,
)
from core.integration.stored import state_value
from core.states import Trigger
from core.testing.blobs import MemoryStore, MemoryWriter, Spool
from core.testing.content import ContentTable

if TYPE_CHECKING:
    from core.http_session import HttpSession

M = TypeVar("M", bound=BaseModel)


@dataclass(slots=True)
class Account:
    """The harness's data of its account, except the queue.

    Attributes:
      info: The account's ids and name.
      rates: The names of the limits that a task can charge.
      content: The account's content.
      blobs: The account's large content.
      state: The plugin's state, by partition.
      versions: The number of writes of each state partition.
      writers: The sequence number of the last write of each state partition.
      charged: Units charged, by limit.
      stopping: The value of `Context.stopping`.
      progress: All reports of progress.
      hints: The parts that the hints of the present run name.
      spool: The unfinished blobs.
    """

    info: AccountInfo
    rates: frozenset[str]
    content: ContentTable
    blobs: MemoryStore
    state: dict[str, JsonValue] = field(default_factory=dict)
    versions: Counter[str] = field(default_factory=Counter)
    writers: dict[str, int] = field(default_factory=dict)
    charged: Counter[str] = field(default_factory=Counter)
    stopping: bool = False
    hints: tuple[str, ...] = ()
    progress: list[tuple[int, int | None]] = field(default_factory=list)
    spool: Spool = field(init=False)
    _clock: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.spool = Spool(self.blobs)

    def tick(self) -> int:
        """Return the next sequence number, for a run, a dispatch or a write."""
        return next(self._clock)


class Services(Protocol):
    """The services of the harness that a context needs besides the account's data."""

    def refresh(self) -> None:
        """Renew the credentials."""
        ...

    def http(self) -> HttpSession:
        """Return the HTTP session of the instance."""
        ...

    def now(self) -> datetime:
        """Return the virtual time."""
        ...


class HarnessContext:
    """The `core.Context` of an account in memory.

    Attributes:
      sequence: The sequence number of the task's dispatch.
      reads: The versions of the state partitions that the task has read.
      blob_keys: The keys of the task's resumable blobs.
    """

    def __init__(
        self,
        account: Account,
        run: RunInfo,
        task: TaskInfo,
        sequence: int,
        services: Services,
    ) -> None:
        self.task = task
        self.run = run
        self.account = account.info
        self.sequence = sequence
        self.refresh_credentials = services.refresh
        self.hints = account.hints if run.trigger == Trigger.HINT else ()
        self.reads: dict[str, int] = {}
        self.blob_keys: list[str] = []
        self.log = ContextLogger(
            logging.getLogger(f"integration_polling.{account.info.domain}"),
            {"account": account.info.id, "run": run.id, "task": task.id},
        )
        self._account = account
        self._services = services

    def state(self, partition: str, model: type[M]) -> M | None:
        """Return the state of a partition; see `core.Context.state`."""
        self.reads[partition] = self._account.versions[partition]
        return state_value(partition, self._account.state.get(partition), model)

    def progress(self, done: int, total: int | None = None) -> None:
        """Record the report in `Harness.progress`; see `core.Context.progress`."""
        require_progress(done, total)
        self._account.progress.append((done, total))

    @property
    def now(self) -> datetime:
        """The virtual time; see `Harness.now`."""
        return self._services.now()

    @property
    def http(self) -> HttpSession:
        """The HTTP session of the harness's instance; see `core.Context.http`."""
        return self._services.http()

    @overload
    def fingerprints(self, ids: Iterable[str], /) -> dict[str, str | None]: ...

    @overload
    def fingerprints(self, *, parent: str | None) -> dict[str, str | None]: ...

    def fingerprints(
        self, ids: Iterable[str] | None = None, *, parent: str | None = None
    ) -> dict[str, str | None]:
        """Return the items that are kept, with fingerprints; see `core.Context.fingerprints`."""
        content = self._account.content
        return content.fingerprints(ids) if ids is not None else content.fingerprints_below(parent)

    def blob(self, key: str | None = None) -> MemoryWriter:
        """Return a writer for large content; see `core.Context.blob`."""
        if key is not None:
            self.blob_keys.append(key)
        return self._account.spool.writer(key)

    def content(self, id: str) -> Iterator[bytes]:
        """Return the kept content of an item; see `core.Context.content`."""
        for item in self._account.content.live():
            if item.id == id and item.content:
                yield item.content

    def charge(self, limit: str, units: int = 1) -> None:
        """Count the units; see `core.Context.charge`. In the harness, no task waits for them."""
        require_rate(limit, self._account.rates, self._account.info.domain)
        self._account.charged[limit] += units

    @property
    def stopping(self) -> bool:
        """The value that the test set on `Harness.stopping`."""
        return self._account.stopping
