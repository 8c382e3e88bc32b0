"""The rows of a result, between the plugin and the tables.

They are named tuples, which are as fast to create as a dictionary. The statements of
`core.content.store` and `core.ledger.follow_ups` write them as JSON, field by field.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from core.states import Operation


class OutputRow(NamedTuple):
    """One item.

    An update has an id, metadata and a fingerprint. A tombstone has an id.

    Attributes:
      ts: The timestamp in ISO 8601 with an offset.
      text, bytes, blob: The content, in at most one of them. `bytes` is base64, and `blob` is the
        key of a stored blob.
      size: The size of the content in bytes.
      hash: The SHA-256 of the content, in hexadecimal.
      digest: A hash that distinguishes a changed item from an unchanged one.
    """

    operation: Operation
    id: str
    fingerprint: str | None = None
    metadata: dict[str, Any] = {}
    kind: str = "item"
    parent: str | None = None
    name: str | None = None
    ts: str | None = None
    type: str | None = None
    text: str | None = None
    bytes: str | None = None
    blob: str | None = None
    size: int = 0
    hash: str | None = None
    digest: str = ""


class TaskRow(NamedTuple):
    """One follow-up.

    Attributes:
      key: The key that is unique in the run, in hexadecimal; see `dedup_key`.
      delay: Seconds until the task may run.
    """

    type: str
    payload: dict[str, Any]
    key: str
    priority: int
    background: bool
    delay: float = 0.0


class StateRow(NamedTuple):
    """The new value of a state partition; None drops it.

    Attributes:
      read: The version that the task has read; None if it has not read the partition.
      expired: True if the cursor has expired. An older writer must not restore the value.
    """

    partition: str
    value: Any
    read: int | None = None
    expired: bool = False


class ListingRow(NamedTuple):
    """A complete listing. Timestamps are ISO 8601 with an offset."""

    parent: str | None
    since: str | None
    until: str | None


@dataclass(slots=True)
class ResultRows:
    """A validated `TaskResult`.

    Attributes:
      outputs: One row for each item.
      unchanged: The number of items that the plugin found unchanged.
      skipped: The numbers of skipped items, by reason.
      size: The estimated size of the result in memory and in a statement, in bytes.
    """

    outputs: list[OutputRow] = field(default_factory=list)
    tasks: list[TaskRow] = field(default_factory=list)
    states: list[StateRow] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    listed: list[ListingRow] = field(default_factory=list)
    unchanged: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    size: int = 0


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """Finished content of `Context.blob`: stored under `key`, or small and inline as `data`."""

    size: int
    sha256: str
    key: str | None = None
    data: bytes | None = None
