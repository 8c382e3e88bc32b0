"""One dispatch of a task, and what it came to."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from core.content.rows import BlobStore, Row, amend, listing_row, output_row, seen_ids
from core.content.text import encode_json, holds_unfit
from core.errors import ResultInvalid
from core.integration.base import Integration
from core.integration.results import Task, TaskResult
from core.ledger.fields import from_fields

MOST_TASKS = 100_000
"""Follow-ups of one result."""

MOST_OUTPUTS = 100_000
"""Items of one result."""

MOST_BYTES = 64 * 1024 * 1024
"""Inline content of one result."""

LONGEST_PAYLOAD = 64 * 1024
"""Bytes of JSON."""

PRIORITIES = range(-(2**31), 2**31)


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What a message names: a task, which of its dispatches this is, and what running it takes.

    `epoch`, `task_id` and `dispatch_no` are the fence: a result that does not match the ledger is
    dropped whole. Fields with a default are optional in messages; their keys are in
    `core.messages.KEYS`.
    """

    epoch: int
    task_id: int
    dispatch_no: int
    dispatch_seq: int
    run_id: str
    account_id: str
    account_version: int
    domain: str
    lane: str
    trigger: str
    type: str
    payload: dict[str, Any]
    attempts: int = 0
    crashes: int = 0
    snoozes: int = 0
    suspect: bool = False

    @property
    def id(self) -> str:
        """The id of its message in Redis."""
        return f"{self.task_id}-{self.dispatch_no}"


@dataclass(frozen=True, slots=True)
class Block:
    """A limit that is exhausted, for everybody, for some seconds."""

    key: str
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The account cannot go on: it waits for a person."""

    reason: Literal["credentials", "configuration"]
    detail: str
    credentials_version: int


@dataclass(slots=True)
class Outcome:
    """The next state of a task, and everything that is committed with it.

    Attributes:
      state: `done`, `ready` (again) or `parked`.
      delay: Seconds until it may be dispatched again.
      attempt, crash, snooze: What this dispatch adds to the task's counters.
      reason: Why it was skipped, parked or put back; shown to people.
      error: Added to the task's list of errors.
      expired: The state partition to drop, with a resync due at once.
      outputs, tasks, states, seen, listed: The result, as rows.
      queue: Where its message is, if not on the queue of its domain.
    """

    dispatch: Dispatch
    state: Literal["done", "ready", "parked"] = "done"
    delay: float = 0.0
    attempt: int = 0
    crash: int = 0
    snooze: int = 0
    suspect: bool = False
    reason: str | None = None
    error: str | None = None
    block: Block | None = None
    stop: Stop | None = None
    expired: str | None = None
    outputs: list[Row] = field(default_factory=list)
    tasks: list[Row] = field(default_factory=list)
    states: list[Row] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    listed: list[Row] = field(default_factory=list)
    size: int = 0
    queue: str | None = None

    @property
    def rows(self) -> int:
        return len(self.outputs) + len(self.tasks) + len(self.seen)

    def to_json(self) -> dict[str, Any]:
        """As a message carries it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """Read what `to_json` wrote, in this version of the engine or in another one.

        Raises:
          TypeError: A required field is missing.
        """
        nested: dict[str, Any] = {"dispatch": from_fields(Dispatch, data.get("dispatch", {}))}
        for name, part in (("block", Block), ("stop", Stop)):
            if data.get(name) is not None:
                nested[name] = from_fields(part, data[name])
        return from_fields(cls, {**data, **nested})


def dedup_key(task: Task, encoded: str) -> str:
    """What runs once in a run: the task's own key, or its type and payload."""
    text = f"key:{task.key}" if task.key is not None else f"{task.type}:{encoded}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def task_row(task: Task, integration: Integration) -> Row:
    """One follow-up as a row.

    Raises:
      ResultInvalid: It cannot be put on the queue, and why.
    """
    if not isinstance(task, Task):
        raise ResultInvalid(f"tasks holds a {type(task).__name__} where a Task belongs")
    if task.type not in integration.task_specs:
        raise ResultInvalid(
            f"there is no task {str(task.type)[:80]!r} in {integration.manifest.domain}"
        )
    payload = dict(task.payload)
    # Keys sorted, so that one payload is one key whatever order its author wrote it in.
    encoded = encode_json(dict(sorted(payload.items())), f"the payload of a {task.type} task")
    if len(encoded) > LONGEST_PAYLOAD:
        raise ResultInvalid(
            f"the payload of a {task.type} task has {len(encoded):,} bytes; {LONGEST_PAYLOAD:,} are"
            " allowed"
        )
    if holds_unfit(encoded) and not _storable(payload):
        raise ResultInvalid(f"the payload of a {task.type} task has a NUL or a lone surrogate")
    # Compared, not looked up: a range is searched one by one for what is no plain int.
    if (
        not isinstance(task.priority, int)
        or not PRIORITIES.start <= task.priority < PRIORITIES.stop
    ):
        raise ResultInvalid(f"the priority {task.priority!r} of a {task.type} task is out of range")
    return {
        "type": task.type,
        # A copy of our own: a generator may change what it has yielded.
        "payload": json.loads(encoded),
        "key": dedup_key(task, encoded),
        "priority": int(task.priority),
        "background": bool(task.background),
        "weight": len(encoded),
    }


def _storable(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" not in value and not any(0xD800 <= ord(char) <= 0xDFFF for char in value)
    if isinstance(value, Mapping):
        return all(_storable(key) and _storable(item) for key, item in value.items())
    return all(_storable(item) for item in value) if isinstance(value, list | tuple) else True


def result_outcome(
    dispatch: Dispatch,
    result: TaskResult,
    integration: Integration,
    blobs: BlobStore,
    read: Mapping[str, int],
) -> Outcome:
    """A plugin's result as rows; its generators run here.

    Parameters:
      read: The versions of the state partitions that the task has read.

    Raises:
      ResultInvalid: It cannot be kept, and why.
      Whatever a generator of the plugin raises.
    """
    if not isinstance(result, TaskResult):
        raise ResultInvalid(
            f"{dispatch.type} returned a {type(result).__name__} instead of a TaskResult"
        )
    outcome = Outcome(dispatch)
    rows: dict[str, Row] = {}
    for output in _bounded(result.output, MOST_OUTPUTS, "outputs"):
        row = output_row(output, blobs)
        _weigh(outcome, row)
        _collect(rows, row)
    outcome.outputs = list(rows.values())
    for task in _bounded(result.tasks, MOST_TASKS, "tasks"):
        outcome.tasks.append(task_row(task, integration))
        _weigh(outcome, outcome.tasks[-1])
    outcome.seen = seen_ids(_bounded(result.seen, 10 * MOST_OUTPUTS, "seen ids"))
    outcome.listed = [listing_row(listing) for listing in result.listed]
    outcome.states = [
        _state_row(partition, value, read) for partition, value in result.state.items()
    ]
    outcome.size += 60 * len(outcome.seen)
    return outcome


def _collect(rows: dict[str, Row], row: Row) -> None:
    """One row for each item: the last word counts, and a change of metadata is added to what
    stands there.
    """
    before = rows.pop(row["id"], None)
    if before is not None and row["code"] == 206:
        if before["code"] != 410:
            amend(before, row)
        row = before
    rows[row["id"]] = row


def _weigh(outcome: Outcome, row: Row) -> None:
    outcome.size += 150 + row.pop("weight")
    if outcome.size > MOST_BYTES:
        raise ResultInvalid(f"one result may carry {MOST_BYTES:,} bytes; return more tasks instead")


def _bounded(items: Iterable[Any], most: int, what: str) -> Iterable[Any]:
    try:
        iterator = iter(items)
    except TypeError:
        raise ResultInvalid(
            f"{what}: a {type(items).__name__} is nothing to iterate over"
        ) from None
    yield from itertools.islice(iterator, most)
    if next(iterator, None) is not None:
        raise ResultInvalid(
            f"one result may carry {most:,} {what}; return a task that goes on with the rest"
        )


def _state_row(partition: str, value: Any, read: Mapping[str, int]) -> Row:
    if not isinstance(partition, str) or not partition or len(partition) > 1024:
        raise ResultInvalid(
            f"state partition {str(partition)[:80]!r}: use a text of 1 to 1,024 characters"
        )
    if value is not None and not hasattr(value, "model_dump"):
        raise ResultInvalid(
            f"the state of {partition!r} is a {type(value).__name__}; use a pydantic model"
        )
    dumped = None if value is None else value.model_dump(mode="json")
    if len(encode_json(dumped, f"the state of {partition!r}")) > 1024 * 1024:
        raise ResultInvalid(
            f"the state of {partition!r} is larger than 1 MiB; split it into partitions"
        )
    return {"partition": partition, "value": dumped, "read": read.get(partition)}
