"""A dispatch of a task, and its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from core.content.portions import SWEEP
from core.db.short_transactions import MAX_ROWS
from core.integration.base import Integration
from core.integration.results import TaskResult
from core.ledger.serialization import from_fields, to_fields
from core.results.outputs import BlobStore
from core.results.parking import Cause
from core.results.reread import RereadRow, RereadWrite
from core.results.result import result_rows
from core.results.rows import ListingRow, OutputRow, StateRow, TaskRow
from core.states import AccountStateReason, Operation, TaskState

LeaseKey = tuple[int, int, int | None]
"""The task, `dispatch_no` and token of a dispatch."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One dispatch of a task, with everything that a worker needs to run it.

    `epoch`, `task_id`, `dispatch_no` and `token` are the fence: the saver drops a result that does
    not match the ledger, with all of its effects. Fields with a default are optional in messages;
    `core.transport.messages.KEYS` has the keys of all fields.

    Attributes:
      token: 64 random bits, new at each dispatch. They distinguish this dispatch from one with the
        same numbers that the database has lost, in a failover or a restore. None if a leader of a
        version without tokens sent the message.
      user: The user that owns the account; empty if a leader of an older version sent the message.
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
    token: int | None = None
    user: str = ""
    attempts: int = 0
    crashes: int = 0
    snoozes: int = 0
    suspect: bool = False
    deferrals: int = 0
    failing_seconds: float = 0.0
    probe: bool = False

    @property
    def id(self) -> str:
        """The id of this dispatch's message in Redis."""
        return f"{self.task_id}-{self.dispatch_no}"

    @property
    def lease(self) -> LeaseKey:
        """The key by which the ledger and a process know this dispatch."""
        return self.task_id, self.dispatch_no, self.token


@dataclass(frozen=True, slots=True)
class Block:
    """A limit that is blocked for all workers, for some seconds."""

    key: str
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """A reason to stop an account until a person acts."""

    reason: AccountStateReason
    detail: str
    credentials_version: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure that may pass, as breakers count it.

    Attributes:
      reason: Shown to people.
      limit: The limit of the account that does not answer; None for the complete account.
      types: The task types that use the limit.
      requested: Seconds until the next try that the provider asks for; 0 if it asks for none.
    """

    reason: str
    limit: str | None = None
    types: list[str] = field(default_factory=list)
    requested: float = 0.0


@dataclass(slots=True)
class Outcome:
    """The next state of a task, and everything that is committed with it.

    Attributes:
      state: `done`, `ready` (to run again), `deferred` or `parked`.
      delay: Seconds until the task may run again.
      attempt, crash, snooze: Increments of the task's counters.
      reason: Why the task was skipped, parked or requeued; shown to people.
      error: An entry for the task's list of errors.
      failure: A failure that may pass; None for any other outcome.
      failed_probe: Seconds that the provider asks to wait, if the task's account did not answer its
        probe; None otherwise.
      expired: The state partition to drop; a resync is then due immediately.
      outputs, tasks, states, seen, listed: The result, as rows.
      rereads: The changes of a reread, by item.
      unchanged, skipped: The numbers of items that the plugin or a reread found unchanged, and that
        the plugin skipped, by reason.
      queue: The queue that has the message, if it is not the queue of the domain.
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
    failure: Failure | None = None
    failed_probe: float | None = None
    expired: str | None = None
    outputs: list[OutputRow] = field(default_factory=list)
    tasks: list[TaskRow] = field(default_factory=list)
    states: list[StateRow] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    listed: list[ListingRow] = field(default_factory=list)
    rereads: list[RereadRow] = field(default_factory=list)
    unchanged: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    size: int = 0
    queue: str | None = None

    @property
    def rows(self) -> int:
        """The number of rows that saving this outcome writes."""
        step = MAX_ROWS if self.dispatch.type == SWEEP else 0
        reread = sum(len(row.writes) + len(row.gone) for row in self.rereads)
        return step + reread + len(self.outputs) + len(self.tasks) + len(self.seen)

    @property
    def has_only_named_rows(self) -> bool:
        """True if this outcome names each row that saving it reads or writes.

        Deletions and listings find further rows, and rereads compare rows with others.
        """
        return not (
            self.listed
            or self.rereads
            or self.dispatch.type == SWEEP
            or any(row.operation is Operation.TOMBSTONE for row in self.outputs)
        )

    def to_json(self) -> dict[str, Any]:
        """Return the outcome in the form that a message carries."""
        data = {each.name: getattr(self, each.name) for each in fields(self)}
        data["dispatch"] = asdict(self.dispatch)
        for name in _PARTS:
            part = data[name]
            data[name] = part and asdict(part)
        return data | {name: [to_fields(row) for row in data[name]] for name in _ROWS}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """Read the form that `to_json` returns, written by this or another engine version.

        Raises:
          TypeError: A required field is missing.
        """
        nested: dict[str, Any] = {"dispatch": from_fields(Dispatch, data.get("dispatch", {}))}
        for name, part in _PARTS.items():
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
        rows["rereads"] = [
            row._replace(
                read=[(id, seq, changed) for id, seq, changed in row.read],
                writes=[from_fields(RereadWrite, each) for each in row.writes],
            )
            for row in rows["rereads"]
        ]
        return from_fields(cls, {**data, **nested, **rows})


_PARTS: Mapping[str, Any] = {"block": Block, "stop": Stop, "failure": Failure}
_ROWS: Mapping[str, Any] = {
    "outputs": OutputRow,
    "tasks": TaskRow,
    "states": StateRow,
    "listed": ListingRow,
    "rereads": RereadRow,
}


def result_outcome(
    dispatch: Dispatch,
    result: TaskResult,
    integration: Integration,
    blobs: BlobStore,
    read: Mapping[str, int],
) -> Outcome:
    """Return the outcome of a task that returned a result. The result's generators run here.

    Args:
      dispatch: The dispatch that ran.
      result: The plugin's result.
      integration: The plugin's integration.
      blobs: The store for large content.
      read: The versions of the state partitions that the task has read.

    Raises:
      ResultInvalid: The result cannot be kept; the message says why.
      Exception: A generator of the plugin raised it.
    """
    rows = result_rows(result, integration, blobs, read)
    return Outcome(
        dispatch,
        outputs=rows.outputs,
        tasks=rows.tasks,
        states=rows.states,
        seen=rows.seen,
        listed=rows.listed,
        unchanged=rows.unchanged,
        skipped=rows.skipped,
        size=rows.size,
    )


def parked(outcome: Outcome, reason: str, cause: Cause = Cause.UNSAVABLE) -> Outcome:
    """Return the outcome of the same task, parked without its result.

    Args:
      outcome: The outcome with the result that is not saved.
      reason: The reason, shown to people.
      cause: The cause, by which the error is found among others. Default: `UNSAVABLE`.
    """
    return replace(
        Outcome(outcome.dispatch),
        state=TaskState.PARKED,
        attempt=1,
        reason=reason,
        error=f"{cause}: {reason}",
    )
