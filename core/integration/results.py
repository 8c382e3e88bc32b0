"""The result of a task: content to keep, follow-up tasks, state, and listings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from pydantic import AwareDatetime, BaseModel, JsonValue


class Blob(Protocol):
    """Stored large content, made with `Context.blob`."""

    @property
    def size(self) -> int:
        """The size in bytes."""
        ...

    @property
    def sha256(self) -> str:
        """The SHA-256 of the content, in lower-case hexadecimal."""
        ...


MAX_ID_BYTES = 2_048
"""The maximum length of an item's id in UTF-8; a longer one would not fit into the unique index."""

MAX_INLINE_BYTES = 1024 * 1024
"""The maximum size of content in the database. Larger content goes to the blob store."""


@dataclass(frozen=True, slots=True)
class Task:
    """One more step of this run; `self.method.task(…)` makes one.

    Attributes:
      type: The name of a `@task` method.
      payload: The method's arguments, as JSON; at most 64 KiB.
      key: The task's deduplication key: a run executes each key once. Default: type and payload.
      priority: A 32-bit integer; within the account, higher runs first. Default: 0.
      background: True to move this task and its follow-ups to the account's backfill, a separate
        run beside the live one. Default: False.
      delay: Seconds until the task may run, at most a day. Its run does not end before it.
        Default: 0.
    """

    type: str
    payload: Mapping[str, JsonValue] = field(default_factory=dict)
    key: str | None = None
    priority: int = 0
    background: bool = False
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class TaskOutput:
    """One item to keep: a row of the content table, unique by account and `id`.

    Attributes:
      id: The item's id in the account; 1 to 2,048 bytes of UTF-8.
      content: Text, bytes, a blob, or None. Text with a NUL or a lone surrogate is stored as bytes.
        In `kind`, `name`, `content_type` and `metadata`, both become U+FFFD.
      kind: The sort of item: `message`, `source`, `attachment`, `file`. Default: `item`.
      parent: The id of the item, or the name of the place, that it belongs to.
      name: A name for people: a subject, a file name.
      timestamp: The time at which the source created it; with a time zone.
      content_type: The media type (RFC 6838), such as `text/plain`.
      metadata: Further facts, as JSON; at most 1 MiB.
      fingerprint: A value that differs after a change, and is known without fetching the item: an
        ETag, or size and time. `Context.fingerprints` returns it.
      code: 200 keeps the complete item; 206 changes only the given metadata; 410 marks the item and
        its children deleted. Default: 200.
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
        """Return an output that changes keys of an item's metadata and keeps its content.

        The engine ignores it if it does not have the item.

        Args:
          id: The item's id.
          metadata: The keys to set; the item's other keys stay.
          fingerprint: The new fingerprint. Default: the old one stays.
        """
        return cls(id, metadata=metadata, fingerprint=fingerprint, code=206)

    @classmethod
    def gone(cls, id: str) -> TaskOutput:
        """Return an output that marks an item and its children deleted."""
        return cls(id, code=410)


@dataclass(frozen=True, slots=True)
class Listing:
    """A part of the account that a task has listed completely.

    The engine marks those of its items deleted that were not kept, seen or updated since this run
    began. Such a deletion is as old as the beginning of the run, so an item that a later task
    returns comes back.

    Attributes:
      parent: Only items with this parent. Default: only items without a parent. The children of a
        deleted item are deleted with it.
      since, until: Only items with `since <= timestamp < until`. Default: no bound.
    """

    parent: str | None = None
    since: datetime | None = None
    until: datetime | None = None


COMPARISON = "comparison"
"""The state partition with the latest `Comparison` of the account."""


class Comparison(BaseModel):
    """The numbers of items at the source and here, of the latest complete comparison.

    A plugin that compares writes it to the state partition `COMPARISON`. The engine shows it with
    the account. A subclass may hold more.

    Attributes:
      at_source: The number of items that the source listed.
      kept: The number of these items that were kept.
      at: The time of the comparison.
    """

    at_source: int
    kept: int
    at: AwareDatetime


NOTICE = "notice"
"""The state partition with the `Notice` of the account."""


class Notice(BaseModel):
    """Facts that people should know about an account, as sentences.

    A plugin that has such facts writes them to the state partition `NOTICE`. The engine shows them
    with the account, instead of `AccountIdentity.notice`. When they no longer apply, the plugin
    writes an empty text: without the partition, the account shows `AccountIdentity.notice` again.

    Attributes:
      text: The sentences; the engine shows at most 1,000 characters.
    """

    text: str


MEMBERS = "members"
"""The kind of items that list who may see another item.

After an account is disconnected, such a list would no longer be true. So the engine then deletes
it, even if the account's other content stays.
"""


@dataclass(frozen=True, slots=True)
class Skipped:
    """An item that a task listed, and that this run will not fetch.

    Attributes:
      id: The item's id. It counts as `seen`, because the item is at the source.
      reason: The reason, such as `no permission`; 1 to 200 characters. The run counts the items of
        each reason, so a reason does not name its item.
    """

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class TaskResult:
    """Everything that a task did. The engine commits all of it in one transaction, or nothing.

    Attributes:
      output: Items to keep; may be a generator. At most 100,000, with 64 MiB of inline content.
      tasks: Follow-up tasks; may be a generator. At most 100,000.
      state: New values by partition; None deletes the partition. After `Context.state` read the
        partition, the write is compare-and-set. If another task changed it in between, the engine
        drops this result and runs the task again.
      seen: Ids of items that are still at the source and that this result does not return itself,
        also of those that a follow-up will fetch. At most 1,000,000.
      listed: The listings that this task completed.
      unchanged: The number of items that the task found unchanged, and did not return. Default: 0.
      skipped: Items that the task listed and will not fetch in this run, as `Skipped(id, reason)`;
        at most 1,000,000. Or only their numbers by reason, such as `{"no permission": 3}`, for
        items without an id. At most 100 reasons.
    """

    output: Iterable[TaskOutput] = ()
    tasks: Iterable[Task] = ()
    state: Mapping[str, BaseModel | None] = field(default_factory=dict)
    seen: Iterable[str] = ()
    listed: Sequence[Listing] = ()
    unchanged: int = 0
    skipped: Iterable[Skipped] | Mapping[str, int] = ()
