"""The states of accounts, runs and tasks, the changes between them, and the other words of the
ledger's columns.

This module is their only definition. SQL, CHECK constraints, REST, the dashboard, the command line
and the documentation derive from it: `docs/reference/states.md` draws the state machines.

In SQL the words are literals, written by f-strings: `WHERE state = '{RunState.RUNNING}'`. A partial
index serves a statement only if its condition stands in the statement's text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Self, TypeVar


class Word(StrEnum):
    """A value of a column.

    Attributes:
      meaning: What it says, in a sentence for the documentation.
      planned: Whether it is reserved: no statement writes it yet.
    """

    meaning: str
    planned: bool

    def __new__(cls, value: str, meaning: str = "", planned: bool = False) -> Self:
        word = str.__new__(cls, value)
        word._value_ = value
        word.meaning = meaning
        word.planned = planned
        return word

    @classmethod
    def used(cls) -> tuple[Self, ...]:
        """Return the words that a row may hold today: those that are not planned."""
        return tuple(word for word in cls if not word.planned)


PLANNED = True


class AccountState(Word):
    """Whether an account is polled: `user_integration.sync_status`."""

    ACTIVE = "active", "Runs start when they are due."
    PAUSED = "paused", "A person stopped the account, and `resume` starts it again."
    ERROR = "error", "The account stopped by itself. Its reason says what a person must correct."
    ERASING = "erasing", "The content is hidden, and is deleted after a delay.", PLANNED
    DISCONNECTED = "disconnected", "The credentials are deleted. The content may stay."


class AccountStateReason(Word):
    """Why an account is in `error`: `user_integration.status_reason`."""

    CREDENTIALS = "credentials", "The provider rejected the credentials. Reconnect the account."
    CONFIGURATION = "configuration", "The configuration cannot work. Correct it."


class RunState(Word):
    """How far a run is: `sync_run.state`."""

    RUNNING = "running", "The run has open tasks."
    SUCCEEDED = "succeeded", "Every task is done."
    PARTIAL = "partial", "Some tasks are parked, and others are done."
    FAILED = "failed", "The root task is parked, or no task is done."
    CANCELLED = "cancelled", "A person ended the run. The next run continues its open tasks."


class TaskState(Word):
    """How far a task is: `sync_task.state`."""

    READY = "ready", "The task waits to be dispatched."
    QUEUED = "queued", "The task is dispatched: it is in Redis, in a worker or in a saver."
    DONE = "done", "The result is saved, the plugin skipped the task, or a person discarded it."
    DEFERRED = "deferred", "The failure may pass. The task is tried again later.", PLANNED
    PARKED = "parked", "The task is set aside with its error, to be retried or discarded."
    CANCELLED = "cancelled", "The task's run was cancelled. The next run continues it as a copy."


class Lane(Word):
    """What a run loads. An account has at most one open run in each lane."""

    LIVE = "live", "What is new."
    BACKFILL = "backfill", "History, loaded beside the live run."


class Trigger(Word):
    """Why a run began: `sync_run.trigger`."""

    SCHEDULE = "schedule", "The account was due."
    MANUAL = "manual", "A person asked for the run."
    RESYNC = "resync", "The run lists everything again, without cursors."
    RETRY = "retry", "Parked or cancelled tasks are tried again."
    HINT = "hint", "An event of the provider made the account due.", PLANNED
    REREAD = "reread", "Stored sources are read again, without the provider.", PLANNED


class Deletions(Word):
    """What happens to content that is gone at the source."""

    MARK = "mark", "The content is marked deleted."
    KEEP = "keep", "The content stays, and its row says since when it is gone.", PLANNED


class Operation(Word):
    """What an output does to its content row. The plugin API writes it as a `code`."""

    KEEP = "keep", "Keep the complete item (code 200)."
    UPDATE = "update", "Change only the metadata given (code 206)."
    TOMBSTONE = "tombstone", "Mark the item and its children deleted (code 410)."

    @classmethod
    def of_code(cls, code: object) -> Operation:
        """Return the operation that a plugin's `code` stands for.

        Raises:
          ValueError: The code is not 200, 206 or 410.
        """
        for known, operation in _CODES:
            if code == known:
                return operation
        raise ValueError("use 200, 206 or 410")


_CODES = ((200, Operation.KEEP), (206, Operation.UPDATE), (410, Operation.TOMBSTONE))

S = TypeVar("S", AccountState, RunState, TaskState)


@dataclass(frozen=True, slots=True)
class Transition(Generic[S]):
    """One allowed change of state.

    Attributes:
      source: The state before. None: the row is inserted.
      target: The state after.
      event: What causes the change, without a colon: the diagrams end a label there.
      planned: Whether no statement makes this change yet.
    """

    source: S | None
    target: S
    event: str
    planned: bool = False


@dataclass(frozen=True, slots=True)
class Machine(Generic[S]):
    """The states of one kind of row.

    Attributes:
      table, column: Where the state is kept.
      states: All states.
      open: The states in which there is work to do.
      transitions: All changes of state that may happen.
    """

    table: str
    column: str
    states: type[S]
    open: tuple[S, ...]
    transitions: tuple[Transition[S], ...]

    @property
    def final(self) -> tuple[S, ...]:
        """The states that no transition leaves."""
        left = {transition.source for transition in self.transitions}
        return tuple(state for state in self.states if state not in left)

    def allows(self, source: str | None, target: str) -> bool:
        """Return whether a row may change from `source` to `target` today."""
        return any(
            (transition.source, transition.target) == (source, target)
            for transition in self.transitions
            if not transition.planned
        )


_A, _R, _T = AccountState, RunState, TaskState

ACCOUNTS = Machine(
    "user_integration",
    "sync_status",
    AccountState,
    open=(_A.ACTIVE,),
    transitions=(
        Transition(None, _A.ACTIVE, "connect"),
        Transition(_A.ACTIVE, _A.PAUSED, "pause"),
        Transition(_A.PAUSED, _A.ACTIVE, "resume, reconnect"),
        Transition(_A.ACTIVE, _A.ERROR, "credentials or configuration rejected"),
        Transition(_A.ERROR, _A.ACTIVE, "reconnect, configuration corrected"),
        Transition(_A.ACTIVE, _A.DISCONNECTED, "disconnect"),
        Transition(_A.PAUSED, _A.DISCONNECTED, "disconnect"),
        Transition(_A.ERROR, _A.DISCONNECTED, "disconnect"),
        Transition(_A.DISCONNECTED, _A.ACTIVE, "reconnect"),
        Transition(_A.ACTIVE, _A.ERASING, "disconnect, deleting content", PLANNED),
        Transition(_A.PAUSED, _A.ERASING, "disconnect, deleting content", PLANNED),
        Transition(_A.ERROR, _A.ERASING, "disconnect, deleting content", PLANNED),
        Transition(_A.DISCONNECTED, _A.ERASING, "delete content", PLANNED),
        Transition(_A.ERASING, _A.ACTIVE, "reconnect before content is deleted", PLANNED),
        Transition(_A.ERASING, _A.DISCONNECTED, "content deleted", PLANNED),
    ),
)

RUNS = Machine(
    "sync_run",
    "state",
    RunState,
    open=(_R.RUNNING,),
    transitions=(
        Transition(None, _R.RUNNING, "account due, requested, or tasks retried"),
        Transition(_R.RUNNING, _R.SUCCEEDED, "last task closed, all done"),
        Transition(_R.RUNNING, _R.PARTIAL, "last task closed, some parked"),
        Transition(_R.RUNNING, _R.FAILED, "last task closed, root parked or none done"),
        Transition(_R.RUNNING, _R.CANCELLED, "cancelled, or account disconnected"),
    ),
)

TASKS = Machine(
    "sync_task",
    "state",
    TaskState,
    open=(_T.READY, _T.QUEUED),
    transitions=(
        Transition(None, _T.READY, "run opened, follow-up returned, copy of a stopped task"),
        Transition(None, _T.QUEUED, "follow-up takes its parent's place", PLANNED),
        Transition(_T.READY, _T.QUEUED, "dispatched"),
        Transition(_T.QUEUED, _T.READY, "retried later, snoozed, lease expired, released"),
        Transition(_T.QUEUED, _T.DONE, "result saved, or skipped"),
        Transition(_T.QUEUED, _T.PARKED, "last attempt, third crash, permanent error"),
        Transition(_T.QUEUED, _T.DEFERRED, "quick attempts used up", PLANNED),
        Transition(_T.READY, _T.DEFERRED, "breaker open for too long", PLANNED),
        Transition(_T.READY, _T.CANCELLED, "run cancelled"),
        Transition(_T.QUEUED, _T.CANCELLED, "run cancelled"),
        Transition(_T.PARKED, _T.DONE, "discarded"),
        Transition(_T.CANCELLED, _T.DONE, "discarded"),
        Transition(_T.DEFERRED, _T.DONE, "discarded", PLANNED),
        Transition(_T.DEFERRED, _T.PARKED, "given up", PLANNED),
    ),
)

STOPPED_TASKS = (TaskState.PARKED, TaskState.CANCELLED)
"""Closed without being done: retried or continued as a copy, or discarded."""


def literals(words: Iterable[Word]) -> str:
    """Return the words as SQL literals, for an IN list: `'ready', 'queued'`."""
    return ", ".join(f"'{word}'" for word in words)
