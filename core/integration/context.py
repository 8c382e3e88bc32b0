"""What a task may ask of the engine while it runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from pydantic import BaseModel

from core.integration.results import Blob

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """The task that runs. `attempt` counts from 1; snoozes do not raise it."""

    id: str
    type: str
    attempt: int


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The run it belongs to.

    `trigger` is `schedule`, `manual`, `resync` or `retry`; `lane` is `live` or `backfill`.
    """

    id: str
    trigger: str
    lane: str


@dataclass(frozen=True, slots=True)
class AccountInfo:
    """The account it runs for."""

    id: str
    user_id: str
    name: str
    domain: str


class BlobWriter(Protocol):
    """A file-like writer for large content: spooled to disk and hashed as it comes.

    With a `key` it is resumable: after a failure the next attempt of any task with this key, on
    this machine, finds what was written, and `tell()` says how much that is.
    """

    def write(self, data: bytes, /) -> int:
        """Append; returns the number of bytes."""
        ...

    def tell(self) -> int:
        """How many bytes are there already."""
        ...

    def restart(self) -> None:
        """Throw away what was written: the source has changed."""
        ...

    @property
    def blob(self) -> Blob:
        """The finished blob, to be returned as a `TaskOutput.content`."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


class Context(Protocol):
    """Handed to every task."""

    @property
    def task(self) -> TaskInfo: ...

    @property
    def run(self) -> RunInfo: ...

    @property
    def account(self) -> AccountInfo: ...

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that names account, run and task in every line, and redacts secrets."""
        ...

    def state(self, partition: str, model: type[M]) -> M | None:
        """The plugin's own memory of an earlier task or run.

        Raises:
          CursorExpired: What is stored no longer validates as `model`.
        """
        ...

    def fingerprints(self, ids: Iterable[str]) -> dict[str, str | None]:
        """Those of `ids` that are kept and not deleted, with their fingerprints."""
        ...

    def blob(self, key: str | None = None) -> BlobWriter:
        """A writer for large content."""
        ...

    def charge(self, limit: str, units: int = 1) -> None:
        """Charge what this task used beyond its declared cost.

        The debt is paid off before the next task runs.
        """
        ...

    def refresh_credentials(self) -> None:
        """Renew the account's credentials.

        One task in the fleet renews them; the others wait and get the new ones.

        Raises:
          CredentialsInvalid: The provider refuses to renew them.
        """
        ...

    @property
    def stopping(self) -> bool:
        """True once the worker was asked to stop: a long task may return early with a follow-up."""
        ...


class ContextLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds a task's names to each line and redacts secrets in it."""

    def __init__(
        self, logger: logging.Logger, names: Mapping[str, object], redact: Any = None
    ) -> None:
        super().__init__(logger, dict(names))
        self._redact = redact or (lambda text: text)

    def process(
        self, msg: object, kwargs: MutableMapping[str, Any]
    ) -> tuple[object, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Format the message here, to redact secrets in its arguments; drop exception text."""
        if not self.isEnabledFor(level):
            return
        text = str(msg) % args if args else str(msg)
        error = kwargs.pop("exc_info", None)
        if isinstance(error, BaseException):
            text = f"{text}: {type(error).__name__}: {error}"
        super().log(level, "%s", self._redact(text), **kwargs)
