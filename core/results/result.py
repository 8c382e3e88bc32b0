"""Convert a `TaskResult` to rows: run its generators, and validate and bound all values."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from core.errors import ResultInvalid
from core.integration.base import Integration
from core.integration.results import Skipped, Task, TaskResult
from core.results.outputs import BlobStore, amended, listing_row, mapping, output_row, seen_ids
from core.results.rows import OutputRow, ResultRows, StateRow, TaskRow
from core.results.text import UNSTORABLE, decode_json, encode_json, is_storable, is_storable_json
from core.states import Operation

MAX_OUTPUTS = 100_000
"""The maximum number of outputs in one result, and of listings."""

MAX_TASKS = 100_000
"""The maximum number of follow-ups in one result."""

MAX_SEEN = 1_000_000
"""The maximum number of seen ids in one result."""

MAX_RESULT_BYTES = 64 * 1024 * 1024
"""The maximum size of inline content, metadata and payloads in one result, together."""

MAX_PAYLOAD_BYTES = 64 * 1024
"""The maximum size of a payload as JSON."""

MAX_STATE_BYTES = 1024 * 1024
"""The maximum size of one state partition as JSON."""

MAX_PARTITION_CHARS = 1_024
MAX_PARTITION_BYTES = 2_048
"""The maximum length of a partition's name in UTF-8. The unique index may reject a longer name."""

MAX_DELAY_SECONDS = 86_400.0
"""The maximum delay of a follow-up."""

MAX_SKIP_REASONS = 100
MAX_SKIP_REASON_CHARS = 200
"""The maximum number of reasons for skipped items in one result, and the length of a reason."""

PRIORITIES = range(-(2**31), 2**31)
"""The priorities that the column can store."""

ROW_BYTES = 150
"""The estimated size of a row without its content."""

SEEN_BYTES = 60
"""The estimated size of a seen id."""


def result_rows(
    result: TaskResult, integration: Integration, blobs: BlobStore, read: Mapping[str, int]
) -> ResultRows:
    """Convert the result of a plugin to rows.

    Exceptions that a generator of the plugin raises pass through.

    Args:
      result: The result of a task.
      integration: The integration, which defines the types of follow-ups and limits.
      blobs: The store for large content.
      read: The versions of the state partitions that the task has read.

    Raises:
      ResultInvalid: The result is invalid; the message gives the reason.
    """
    if not isinstance(result, TaskResult):
        raise ResultInvalid(f"the task returned a {type(result).__name__} instead of a TaskResult")
    rows = ResultRows()
    rows.outputs = _outputs(rows, result.output, blobs)
    for task in _bounded(result.tasks, MAX_TASKS, "tasks"):
        row, weight = task_row(task, integration)
        rows.tasks.append(row)
        _weigh(rows, weight)
    rows.skipped, skipped_ids = _skipped(result.skipped)
    rows.seen = seen_ids(itertools.chain(_bounded(result.seen, MAX_SEEN, "seen ids"), skipped_ids))
    rows.listed = [
        listing_row(listing) for listing in _bounded(result.listed, MAX_OUTPUTS, "listings")
    ]
    rows.states = [
        state_row(partition, value, read)
        for partition, value in mapping(result.state, "the state").items()
    ]
    rows.unchanged = _count(result.unchanged, "unchanged")
    rows.size += SEEN_BYTES * len(rows.seen)
    return rows


def _skipped(skipped: Iterable[Skipped] | Mapping[str, int]) -> tuple[dict[str, int], list[str]]:
    """Return the numbers of skipped items by reason, and the ids of those that have one."""
    if isinstance(skipped, Mapping):
        return skipped_items(skipped), []
    reasons: dict[str, int] = {}
    ids: list[str] = []
    for item in _bounded(skipped, MAX_SEEN, "skipped items"):
        if not isinstance(item, Skipped):
            raise ResultInvalid(f"skipped: a {type(item).__name__} instead of Skipped(id, reason)")
        ids.append(item.id)
        reasons[item.reason] = reasons.get(item.reason, 0) + 1
        if len(reasons) > MAX_SKIP_REASONS:
            break  # `skipped_items` says so
    return skipped_items(reasons), ids


def skipped_items(skipped: object) -> dict[str, int]:
    """Return the numbers of skipped items by reason, without zeros.

    Raises:
      ResultInvalid: A reason or a number is invalid, or there are too many reasons.
    """
    reasons = mapping(skipped, "skipped")
    if len(reasons) > MAX_SKIP_REASONS:
        raise ResultInvalid(f"a result may skip items for at most {MAX_SKIP_REASONS} reasons")
    for reason in reasons:
        if not (
            isinstance(reason, str)
            and 0 < len(reason) <= MAX_SKIP_REASON_CHARS
            and is_storable(reason)
        ):
            raise ResultInvalid(
                f"invalid reason for skipping: {str(reason)[:80]!r}; use a string of 1 to"
                f" {MAX_SKIP_REASON_CHARS} characters"
            )
    counts = {reason: _count(number, "skipped") for reason, number in reasons.items()}
    return {reason: number for reason, number in counts.items() if number}


def _count(number: object, what: str) -> int:
    if not isinstance(number, int) or not 0 <= number < 2**31:
        raise ResultInvalid(f"{what}: {str(number)[:80]!r} is not a number of items")
    return int(number)


def _outputs(rows: ResultRows, output: Iterable[Any], blobs: BlobStore) -> list[OutputRow]:
    """Merge outputs to one row for each item.

    A later output of the same item replaces an earlier one; an update changes its metadata.
    """
    merged: dict[str, OutputRow] = {}
    for item in _bounded(output, MAX_OUTPUTS, "outputs"):
        row, weight = output_row(item, blobs)
        _weigh(rows, weight)
        before = merged.pop(row.id, None)
        if before is not None and row.operation is Operation.UPDATE:
            row = before if before.operation is Operation.TOMBSTONE else amended(before, row)
        merged[row.id] = row
    return list(merged.values())


def _weigh(rows: ResultRows, weight: int) -> None:
    rows.size += ROW_BYTES + weight
    if rows.size > MAX_RESULT_BYTES:
        raise ResultInvalid(
            f"a result may contain at most {MAX_RESULT_BYTES:,} bytes; split it among more tasks"
        )


def _bounded(items: Iterable[Any], most: int, what: str) -> Iterable[Any]:
    """Return the items, of which there may be at most `most`."""
    if type(items) in (list, tuple) and len(items) <= most:  # type: ignore[arg-type]
        return items  # a generator would cost more than most results
    return _counted(items, most, what)


def _counted(items: Iterable[Any], most: int, what: str) -> Iterator[Any]:
    try:
        iterator = iter(items)
    except TypeError:
        raise ResultInvalid(f"{what}: a {type(items).__name__} is not iterable") from None
    yield from itertools.islice(iterator, most)
    if next(iterator, None) is not None:
        raise ResultInvalid(
            f"a result may contain at most {most:,} {what}; return a follow-up task for the rest"
        )


def dedup_key(task: Task, encoded: str) -> str:
    """Return the key that is unique in a run: a hash of the task's key, or of type and payload."""
    return task_key(f"key:{task.key}" if task.key is not None else f"{task.type}:{encoded}")


def task_key(text: str) -> str:
    """Return the key of the task that this text names in its run, in hexadecimal."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def task_row(task: Task, integration: Integration) -> tuple[TaskRow, int]:
    """Convert a follow-up to a row; return the row and the bytes that it adds to its result.

    Raises:
      ResultInvalid: The follow-up is invalid; the message gives the reason.
    """
    if not isinstance(task, Task):
        raise ResultInvalid(f"tasks contains a {type(task).__name__}; use Task")
    if not isinstance(task.type, str) or task.type not in integration.task_specs:
        raise ResultInvalid(
            f"{integration.manifest.domain} has no task type {str(task.type)[:80]!r}"
        )
    what = f"the payload of a {task.type} task"
    encoded = encode_json(mapping(task.payload, what), what)
    if len(encoded) > MAX_PAYLOAD_BYTES:
        raise ResultInvalid(
            f"{what} has {len(encoded):,} bytes; the maximum is {MAX_PAYLOAD_BYTES:,}"
        )
    if not is_storable_json(encoded):
        raise ResultInvalid(f"{what} contains {UNSTORABLE}")
    # Avoids `in`: a range searches linearly for an instance of a subclass of int.
    if (
        not isinstance(task.priority, int)
        or not PRIORITIES.start <= task.priority < PRIORITIES.stop
    ):
        raise ResultInvalid(f"the priority {task.priority!r} of a {task.type} task is out of range")
    if not isinstance(task.delay, int | float) or not 0 <= task.delay <= MAX_DELAY_SECONDS:
        raise ResultInvalid(f"the delay {task.delay!r} of a {task.type} task is out of range")
    # A copy, because a generator may change an object after yielding it.
    payload = decode_json(encoded, what)
    key = dedup_key(task, encoded)
    background, delay = bool(task.background), float(task.delay)
    row = TaskRow(task.type, payload, key, int(task.priority), background, delay)
    return row, len(encoded)


def partition_fits(partition: object) -> bool:
    """Return True if this is a valid name of a state partition."""
    return (
        isinstance(partition, str)
        and 0 < len(partition) <= MAX_PARTITION_CHARS
        and is_storable(partition)
        and len(partition.encode()) <= MAX_PARTITION_BYTES
    )


def state_row(partition: str, value: Any, read: Mapping[str, int]) -> StateRow:
    """Convert the new value of a state partition to a row.

    Args:
      partition: The name of the partition.
      value: The new value; None deletes the partition.
      read: The versions of the partitions that the task has read.

    Raises:
      ResultInvalid: The name or the value cannot be stored.
    """
    if not partition_fits(partition):
        raise ResultInvalid(
            f"invalid name of a state partition: {str(partition)[:80]!r}; use a string of 1 to"
            f" {MAX_PARTITION_CHARS:,} characters and at most {MAX_PARTITION_BYTES:,} bytes,"
            " without NUL bytes and unpaired surrogates"
        )
    what = f"the state of {partition[:80]!r}"
    if value is not None and not hasattr(value, "model_dump"):
        raise ResultInvalid(f"{what} is a {type(value).__name__}; use a pydantic model")
    try:
        dumped = None if value is None else value.model_dump(mode="json")
    except ValueError as error:  # cannot be serialized: an unpaired surrogate in a key, for example
        raise ResultInvalid(f"{what} is not valid JSON: {error}") from None
    encoded = encode_json(dumped, what)
    if len(encoded) > MAX_STATE_BYTES:
        raise ResultInvalid(f"{what} is larger than 1 MiB; split it into partitions")
    if not is_storable_json(encoded):
        raise ResultInvalid(f"{what} contains {UNSTORABLE}")
    return StateRow(partition, dumped, read.get(partition))
