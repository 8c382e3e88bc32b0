"""The `Context` that the harness hands to a task."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from core.errors import CursorExpired, PermanentError
from core.integration.context import AccountInfo, ContextLogger, RunInfo, TaskInfo
from core.testing.blobs import MemoryStore, MemoryWriter, Spool
from core.testing.content import ContentTable

M = TypeVar("M", bound=BaseModel)


@dataclass(slots=True)
class Account:
    """What the harness keeps of its account, beside the queue.

    `versions` count the writes of each state partition; `writers` hold the sequence number of the
    last one. `rates` are the names of the limits that can be charged.
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
    spool: Spool = field(init=False)
    _clock: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.spool = Spool(self.blobs)

    def tick(self) -> int:
        """The next sequence number: of a run, a dispatch or a write."""
        return next(self._clock)


class HarnessContext:
    """`core.Context` on an account in memory; `sequence` is the time of the task's dispatch."""

    def __init__(
        self,
        account: Account,
        run: RunInfo,
        task: TaskInfo,
        sequence: int,
        refresh: Callable[[], None],
    ) -> None:
        self.task = task
        self.run = run
        self.account = account.info
        self.sequence = sequence
        self.refresh_credentials = refresh
        self.reads: dict[str, int] = {}
        self.blob_keys: list[str] = []
        self.log = ContextLogger(
            logging.getLogger(f"integration_polling.{account.info.domain}"),
            {"account": account.info.id, "run": run.id, "task": task.id},
        )
        self._account = account

    def state(self, partition: str, model: type[M]) -> M | None:
        self.reads.setdefault(partition, self._account.versions[partition])
        value = self._account.state.get(partition)
        if value is None:
            return None
        try:
            return model.model_validate(value)
        except ValidationError:
            raise CursorExpired(partition) from None

    def fingerprints(self, ids: Iterable[str]) -> dict[str, str | None]:
        return self._account.content.fingerprints(ids)

    def blob(self, key: str | None = None) -> MemoryWriter:
        if key is not None:
            self.blob_keys.append(key)
        return self._account.spool.writer(key)

    def charge(self, limit: str, units: int = 1) -> None:
        if limit not in self._account.rates:
            domain = self._account.info.domain
            raise PermanentError(f"{domain} has no rate limit {limit!r} to charge")
        self._account.charged[limit] += units

    @property
    def stopping(self) -> bool:
        return self._account.stopping
