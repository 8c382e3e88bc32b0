"""One dispatch of a task, and what it came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from core.integration.base import Integration
from core.integration.results import TaskResult
from core.ledger.serialization import from_fields
from core.results.outputs import BlobStore
from core.results.result import result_rows
from core.results.rows import ListingRow, OutputRow, StateRow, TaskRow
from core.states import AccountStateReason, Operation, TaskState


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What a message names: a task, which of its dispatches this is, and what running it takes.

    `epoch`, `task_id` and `dispatch_no` are the fence: a result that does not match the ledger is
    dropped whole. Fields with a default are optional in messages; their keys are in
    `core.transport.messages.KEYS`.
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

    reason: AccountStateReason
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
    state: TaskState = TaskState.DONE
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
    outputs: list[OutputRow] = field(default_factory=list)
    tasks: list[TaskRow] = field(default_factory=list)
    states: list[StateRow] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    listed: list[ListingRow] = field(default_factory=list)
    size: int = 0
    queue: str | None = None

    @property
    def rows(self) -> int:
        return len(self.outputs) + len(self.tasks) + len(self.seen)

    def to_json(self) -> dict[str, Any]:
        """As a message carries it."""
        data = {each.name: getattr(self, each.name) for each in fields(self)}
        data["dispatch"] = asdict(self.dispatch)
        data["block"] = self.block and asdict(self.block)
        data["stop"] = self.stop and asdict(self.stop)
        return data | {name: [row._asdict() for row in data[name]] for name in _ROWS}

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
        if "state" in data:
            nested["state"] = TaskState(data["state"])
        rows = {
            name: [from_fields(row, each) for each in data.get(name, ())]
            for name, row in _ROWS.items()
        }
        rows["outputs"] = [
            row._replace(operation=Operation(row.operation)) for row in rows["outputs"]
        ]
        return from_fields(cls, {**data, **nested, **rows})


_ROWS: Mapping[str, Any] = {
    "outputs": OutputRow,
    "tasks": TaskRow,
    "states": StateRow,
    "listed": ListingRow,
}


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
    rows = result_rows(result, integration, blobs, read)
    return Outcome(
        dispatch,
        outputs=rows.outputs,
        tasks=rows.tasks,
        states=rows.states,
        seen=rows.seen,
        listed=rows.listed,
        size=rows.size,
    )


def parked(outcome: Outcome, reason: str) -> Outcome:
    """Return the outcome of the same task, parked: its result cannot be saved."""
    return replace(
        Outcome(outcome.dispatch), state=TaskState.PARKED, attempt=1, reason=reason, error=reason
    )
