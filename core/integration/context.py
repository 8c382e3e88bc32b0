"""The context of a running task: the engine's services for plugin code."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, overload

from pydantic import BaseModel

from core.errors import PermanentError
from core.integration.results import Blob

if TYPE_CHECKING:
    from core.http_session import HttpSession

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """The running task.

    Attributes:
      id: The task's id.
      type: The name of its `@task` method, or `start`.
      attempt: The number of this attempt, from 1. A snooze does not count as an attempt.
      is_suspect: True if a process may have died while it ran the task. The third such death parks
        it, so a task that can leave work to follow-ups should do little now. Default: False.
    """

    id: str
    type: str
    attempt: int
    is_suspect: bool = False


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The run that the task belongs to.

    Attributes:
      id: The run's id.
      trigger: `schedule`, `hint`, `manual`, `resync`, `retry` or `reread`. A run with the trigger
        `hint` never sweeps.
      lane: `live` or `backfill`.
      complete: True if the run must list everything, even if the plugin could resume from a cursor:
        in a resync, and in a run that confirms held deletions.
    """

    id: str
    trigger: str
    lane: str
    complete: bool = False


@dataclass(frozen=True, slots=True)
class AccountInfo:
    """The account that the task runs for.

    Attributes:
      id: The account's id in the engine.
      user_id: The owner's id in the product that uses the engine.
      name: The account's name, for people.
      domain: The integration's domain.
    """

    id: str
    user_id: str
    name: str
    domain: str


class BlobWriter(Protocol):
    """A file-like writer for large content, which it spools to disk and hashes.

    Use it as a context manager. A writer with a `key` is resumable. After a failure, the next
    attempt of any task with this key, on this machine, finds the bytes that the failed one wrote.
    `tell()` returns their number.
    """

    def write(self, data: bytes | memoryview, /) -> int:
        """Append bytes, and return their number."""
        ...

    def tell(self) -> int:
        """Return the number of bytes written so far, those of earlier attempts included."""
        ...

    def restart(self) -> None:
        """Discard the bytes written so far, because the source has changed."""
        ...

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes written so far, in lower-case hexadecimal."""
        ...

    @property
    def blob(self) -> Blob:
        """The finished blob, for `TaskOutput.content`."""
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
    """The engine's services for a running task; every task gets one."""

    @property
    def task(self) -> TaskInfo:
        """The running task."""
        ...

    @property
    def run(self) -> RunInfo:
        """The run that the task belongs to."""
        ...

    @property
    def hints(self) -> Sequence[str]:
        """The parts of the account that hints named, if hints made this run.

        Empty in other runs, and if a hint stands for the complete account.
        """
        ...

    @property
    def account(self) -> AccountInfo:
        """The account that the task runs for."""
        ...

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger that adds account, run and task to each line, and redacts secrets."""
        ...

    def state(self, partition: str, model: type[M]) -> M | None:
        """Return the state that an earlier task or run stored, or None.

        After this call, a write to the partition in the task's result is compare-and-set; see
        `TaskResult.state`.

        Args:
          partition: The name of a part of the account's state, such as a folder; at most 1,024
            characters.
          model: The pydantic model of the value.

        Raises:
          CursorExpired: The stored value does not validate as `model`.
        """
        ...

    def progress(self, done: int, total: int | None = None) -> None:
        """Report how much of its work this task has done, for people who watch the run.

        Call it as often as you like: the engine records a report each second. The unit is the
        plugin's, such as bytes or pages.

        Args:
          done: The units that are done; 0 or more.
          total: The units of the complete work. Default: unknown.

        Raises:
          ValueError: A number is negative, or too large for 64 bits.
        """
        ...

    @property
    def now(self) -> datetime:
        """The current time, in UTC. In the harness, time is virtual, and a test can set it."""
        ...

    @property
    def http(self) -> HttpSession:
        """A session for HTTP requests, which belongs to this instance.

        It keeps its connections for the next task of the account, and is closed with the instance.
        The rate limits that the provider states in its responses hold for all workers: the tasks
        whose cost names the request's limit wait. A request without one pauses the account.
        """
        ...

    @overload
    def fingerprints(self, ids: Iterable[str], /) -> dict[str, str | None]: ...

    @overload
    def fingerprints(self, *, parent: str | None) -> dict[str, str | None]: ...

    def fingerprints(
        self, ids: Iterable[str] | None = None, *, parent: str | None = None
    ) -> dict[str, str | None]:
        """Return the items that are kept and not deleted, with their fingerprints.

        Args:
          ids: Ids of items of this account.
          parent: The parent of the items, in place of their ids. None: all items without a parent.

        Returns:
          The fingerprint by id; None for an item that was kept without one.
        """
        ...

    def blob(self, key: str | None = None) -> BlobWriter:
        """Return a writer for large content.

        Args:
          key: A name for the bytes, unique within the account. With a key, the next attempt on this
            machine resumes where this one stopped. Default: bytes of a failed attempt are
            discarded.
        """
        ...

    def content(self, id: str) -> Iterator[bytes]:
        """Return the content that is kept of an item, in blocks of about 1 MiB.

        A task can continue a file that only grows: it copies what is kept, and fetches the rest.

        Args:
          id: The item's id.

        Returns:
          The blocks; none if the item is not kept, is deleted, or has no content.
        """
        ...

    def charge(self, limit: str, units: int = 1) -> None:
        """Charge units that the task used beyond its declared cost.

        The units become a debt: tasks that use this limit wait until it is paid off.

        Args:
          limit: The name of a `Rate`.
          units: The number of units. Default: 1.

        Raises:
          PermanentError: The account has no `Rate` of this name.
        """
        ...

    def refresh_credentials(self) -> None:
        """Renew the account's credentials, and set them on this instance.

        One task in the fleet calls `BaseIntegration.refresh`. The others wait for its result, at
        most 75 seconds.

        Raises:
          CredentialsInvalid: The provider refuses to renew them.
          TransientError: The renewal failed, or another task's renewal did not end in time.
        """
        ...

    @property
    def stopping(self) -> bool:
        """True after the worker began to shut down, or the account was stopped.

        A person may have paused, disconnected or erased the account. A long task may then return
        early, with a follow-up for the rest.
        """
        ...


def require_progress(done: int, total: int | None) -> None:
    """Check the arguments of `Context.progress`.

    Raises:
      ValueError: A number is negative, or too large for 64 bits.
    """
    for units in (done, total):
        if units is not None and not 0 <= units < 2**63:
            raise ValueError(f"progress: {units} is not a number of units")


def require_rate(limit: str, rates: Container[str], domain: str) -> None:
    """Check the limit of `Context.charge`.

    Args:
      limit: The name of the limit.
      rates: The names of the account's `Rate` limits.
      domain: The domain of the account's integration.

    Raises:
      PermanentError: The account has no rate limit of this name.
    """
    if limit not in rates:
        raise PermanentError(f"{domain} has no rate limit {limit!r} to charge")


class ContextLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds a task's fields to each log line, and redacts secrets in it.

    Args:
      logger: The logger that writes the lines.
      names: The fields to add, such as `account`, `run` and `task`.
      redact: Returns a text without the account's secrets. Default: the text itself.
    """

    def __init__(
        self, logger: logging.Logger, names: Mapping[str, object], redact: Any = None
    ) -> None:
        super().__init__(logger, dict(names))
        self._redact = redact or (lambda text: text)

    def process(
        self, msg: object, kwargs: MutableMapping[str, Any]
    ) -> tuple[object, MutableMapping[str, Any]]:
        """Add the fields to the record's `extra`; fields of the call win."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Format and redact the message, and log it.

        The message is formatted here, so that secrets in its arguments are redacted too. The line
        has the type and text of an exception in `exc_info`, without its traceback.
        """
        if not self.isEnabledFor(level):
            return
        text = str(msg) % args if args else str(msg)
        error = kwargs.pop("exc_info", None)
        if isinstance(error, BaseException):
            text = f"{text}: {type(error).__name__}: {error}"
        super().log(level, "%s", self._redact(text), **kwargs)
