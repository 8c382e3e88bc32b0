"""What a task returns: output to keep, more tasks, state, and what a listing has seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from pydantic import BaseModel, JsonValue


class Blob(Protocol):
    """Large content that is stored already, made by `Context.blob`."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    @property
    def sha256(self) -> str:
        """In lower-case hexadecimal."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """One more step of this run.

    Parameters:
      type: The name of a `@task` method.
      payload: Its arguments, as JSON; at most 64 KiB.
      key: One key runs once in a run. Default: type and payload.
      priority: Higher runs first, within the account.
      background: Puts this task and its follow-ups into the account's backfill, a run of its own
        beside the live one.
    """

    type: str
    payload: Mapping[str, JsonValue] = field(default_factory=dict)
    key: str | None = None
    priority: int = 0
    background: bool = False


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """One item to keep: a row of the content table, one per `id` of an account.

    Parameters:
      id: The item's id in the account; at most 2,048 bytes of UTF-8.
      content: Text, bytes, a blob, or nothing. Text with a NUL or a lone surrogate is kept as
        bytes; in names and metadata, both become U+FFFD.
      kind: What sort of item: `message`, `source`, `attachment`, `file`, …
      parent: The id of the item (or the name of the place) it belongs to.
      name: For people: a subject, a file name.
      timestamp: When it came to be at the source; with a time zone.
      content_type: Its media type, such as `text/plain`.
      metadata: More of it, as JSON.
      fingerprint: What tells a changed item from an unchanged one without fetching it;
        `Context.fingerprints` gives it back.
      code: 200 keeps the whole item; 206 changes only the metadata given; 410 marks it and its
        children deleted.
    """

    id: str
    content: str | bytes | Blob | None = None
    kind: str = "item"
    parent: str | None = None
    name: str | None = None
    timestamp: datetime | None = None
    content_type: str | None = None
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    fingerprint: str | None = None
    code: Literal[200, 206, 410] = 200

    @classmethod
    def update(
        cls, id: str, *, metadata: Mapping[str, JsonValue], fingerprint: str | None = None
    ) -> TaskOutput:
        """Change these keys of an item's metadata; its content stays.

        An item that is not kept is left alone.
        """
        return cls(id, metadata=metadata, fingerprint=fingerprint, code=206)

    @classmethod
    def gone(cls, id: str) -> TaskOutput:
        """Mark an item and its children as deleted at the source."""
        return cls(id, code=410)


@dataclass(frozen=True, slots=True)
class Listing:
    """A part of the account that has now been listed to its end.

    Items in it that were not kept, seen or updated since this run began are marked deleted.

    Parameters:
      parent: The items with this parent. Default: the items that have no parent. Children follow
        their items.
      since, until: Only items whose timestamp lies in this half-open window.
    """

    parent: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class TaskResult:
    """Everything a task did. It is committed whole, in one transaction, or not at all.

    Parameters:
      output: Items to keep; may be a generator.
      tasks: More work; may be a generator.
      state: New values by partition; `None` removes one. A write after `Context.state` read the
        partition is compare-and-set: if another task changed it in between, this result is dropped
        and the task runs again.
      seen: Ids that are still at the source and were not fetched again.
      listed: Listings that are complete with this task.
    """

    output: Iterable[TaskOutput] = ()
    tasks: Iterable[Task] = ()
    state: Mapping[str, BaseModel | None] = field(default_factory=dict)
    seen: Iterable[str] = ()
    listed: Sequence[Listing] = ()
