"""States of accounts, runs and tasks, their transitions, and the other words of ledger columns.

This module is their only definition. SQL, CHECK constraints, REST, the dashboard, the command line
and the documentation derive from it: `docs/reference/states.md` draws the state machines.

In SQL the words are literals, which f-strings insert: `WHERE state = '{RunState.RUNNING}'`.
PostgreSQL uses a partial index only if the text of the statement contains the index's condition.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Self, TypeVar


class Word(StrEnum):
    """A value of a column.

    Attributes:
      meaning: The meaning of the value, as a sentence for the documentation.
      planned: True if the value is reserved: no statement writes it yet.
    """

    meaning: str
    planned: bool

    def __new__(cls, value: str, meaning: str = "", planned: bool = False) -> Self:
        """Create a member; the enumeration assigns its arguments from the tuple of the member."""
        word = str.__new__(cls, value)
        word._value_ = value
        word.meaning = meaning
        word.planned = planned
        return word

    @classmethod
    def used(cls) -> tuple[Self, ...]:
        """Return the values that a row may have now: those that are not planned."""
        return tuple(word for word in cls if not word.planned)


PLANNED = True


class AccountState(Word):
    """The polling state of an account: `user_integration.sync_status`."""

    ACTIVE = "active", "Runs start when they are due."
    PAUSED = "paused", "A person paused the account. `resume` ends the pause."
    ERROR = "error", "The engine stopped the account. Its reason names the error to correct."
    ERASING = "erasing", "The credentials are deleted. The content is hidden, and deleted later."
    DISCONNECTED = "disconnected", "The credentials are deleted. The content may stay."


class AccountStateReason(Word):
    """The reason why an account is in `error`: `user_integration.status_reason`."""

    CREDENTIALS = "credentials", "The provider rejected the credentials. Reconnect the account."
    CONFIGURATION = "configuration", "The configuration is invalid. Correct it."


class RunState(Word):
    """The progress of a run: `sync_run.state`."""

    RUNNING = "running", "The run has open tasks."
    SUCCEEDED = "succeeded", "Every task is done."
    PARTIAL = "partial", "Some tasks are parked or deferred."
    FAILED = "failed", "The root task is parked."
    CANCELLED = "cancelled", "The run was cancelled. The next run continues its open tasks."


class TaskState(Word):
    """The progress of a task: `sync_task.state`."""

    READY = "ready", "The task waits to be dispatched."
    QUEUED = "queued", "The task is dispatched: it is in Redis, in a worker or in a saver."
    DONE = "done", "The result is saved, the plugin skipped the task, or a person discarded it."
    DEFERRED = "deferred", "The failure may pass. A copy retries the task later."
    PARKED = "parked", "The task is set aside with its error until a person retries or discards it."
    CANCELLED = "cancelled", "The task's run was cancelled. The next run continues it as a copy."


class Lane(Word):
    """The items that a run loads, either new items or history.

    An account has at most one open run in each lane.
    """

    LIVE = "live", "New and changed items."
    BACKFILL = "backfill", "History, loaded concurrently with the live run."


class Trigger(Word):
    """The reason why a run was created: `sync_run.trigger`."""

    SCHEDULE = "schedule", "The account was due."
    MANUAL = "manual", "A person requested the run."
    RESYNC = "resync", "The run lists everything again, without cursors."
    RETRY = "retry", "The run retries deferred, parked or cancelled tasks."
    HINT = "hint", "An event from the provider opened the run. It never sweeps."
    REREAD = "reread", "The run reads stored sources again, without the provider."


class Channel(Word):
    """The way by which an act came: `audit.channel`."""

    API = "api", "A request with a token."
    DASHBOARD = "dashboard", "A page of the dashboard, in a session."
    BROWSER = "browser", "A page without a session, such as the sign-in."
    COMMAND = "command", "A command on a machine that reaches the database."


class AuditTarget(Word):
    """The kind of an act's object: `audit.target_type`."""

    ACCOUNT = "account", "An account."
    USER = "user", "A user."
    TOKEN = "token", "A token of the API."
    SESSION = "session", "A session of the dashboard."
    HELD_DELETION = "held_deletion", "A held deletion."
    ORGANIZATION = "organization", "An organization."
    SUBSCRIPTION = "subscription", "A subscription."
    KEYS = "keys", "The secret keys."
    LIMIT = "limit", "A limit of an integration."


class Act(Word):
    """An act in the audit trail: `audit.act`."""

    ACCOUNT_CONNECT = "account.connect", "Connected a new account."
    ACCOUNT_RECONNECT = "account.reconnect", "Replaced the credentials of an account."
    ACCOUNT_CONFIGURE = "account.configure", "Changed the properties of an account."
    ACCOUNT_DISCONNECT = "account.disconnect", "Deleted the credentials of an account."
    ACCOUNT_ERASE_CONTENT = (
        "account.erase_content",
        "Deleted the credentials and the content of an account.",
    )
    ACCOUNT_ERASE = "account.erase", "Deleted an account with all its data."
    USER_ERASE = "user.erase", "Deleted all data of a user."
    ORGANIZATION_CONNECT = (
        "organization.connect",
        "Connected an organization, or replaced its credentials.",
    )
    ORGANIZATION_DISCONNECT = (
        "organization.disconnect",
        "Deleted the credentials of an organization.",
    )
    DELETION_ACCEPT = "deletion.accept", "Accepted a held deletion."
    DELETION_REFUSE = "deletion.refuse", "Refused a held deletion."
    SUBSCRIPTION_ADD = "subscription.add", "Added a subscription."
    SUBSCRIPTION_REMOVE = "subscription.remove", "Removed a subscription."
    TOKEN_CREATE = "token.create", "Created a token."
    TOKEN_REVOKE = "token.revoke", "Revoked a token."
    SESSION_OPEN = "sign_in.open", "Signed in to the dashboard."
    SESSION_END = "sign_in.end", "Ended all sessions of a person."
    SESSION_REFUSE = "sign_in.refuse", "Tried to sign in, and was refused."
    LIMIT_CHANGE = "limit.change", "Changed the figures of a limit, or reset them."
    KEYS_ROTATE = "keys.rotate", "Started to encrypt everything with the newest key."


class Deletions(Word):
    """The treatment of content that no longer exists at the source."""

    MARK = "mark", "The content is marked deleted."
    KEEP = "keep", "The content stays. Its row records when it disappeared."


class Quota(Word):
    """The quantity of a user that an operator bounds: `user_quota.name`."""

    ACCOUNTS = "accounts", "Accounts in every state."
    BYTES = "bytes", "The size of the kept content, deleted items included."
    RUNS = "runs", "Runs that begin on a day (UTC)."


class HoldSource(Word):
    """The origin of a held deletion: `held_deletion.source`."""

    LISTING = "listing", "A complete listing, which no longer has the items."
    GONE = "gone", "Single answers that an item is gone (code 410)."


class HeldState(Word):
    """The decision on a held deletion: `held_deletion.state`."""

    COUNTING = "counting", "The engine still compares a large listing."
    DELETING = "deleting", "The engine deletes the items of a large listing."
    DROPPED = "dropped", "The engine removes the items of a large one that is no longer needed."
    HELD = "held", "The deletion waits for a person."
    ACCEPTED = "accepted", "A person accepted the deletion of exactly these items."
    REFUSED = "refused", "A person keeps these items."


class SubscriptionKind(Word):
    """The messages that a subscription delivers: `subscription.kind`."""

    CONTENT = "content", "The latest state of each item, and erasures."
    OPERATIONS = "operations", "Conditions of the engine, which sends none yet."


class SubscriptionChannel(Word):
    """The way to the receiver: `subscription.channel`."""

    WEBHOOK = "webhook", "A signed request to a URL, as Standard Webhooks describes it."
    SLACK = "slack", "A message to an incoming webhook of Slack. Not supported yet."
    EMAIL = "email", "A mail over SMTP. Not supported yet."


class SubscriptionState(Word):
    """The state of the deliveries of a subscription: `subscription.state`."""

    ACTIVE = "active", "The latest attempt succeeded, or there was none yet."
    FAILING = "failing", "The latest attempt failed. The engine retries with growing pauses."
    PAUSED = "paused", "A person, or the engine after a long failure, has paused it."


class DeliveryState(Word):
    """The progress of a single message to a receiver: `delivery.state`."""

    WAITING = "waiting", "The message waits for its first or its next attempt."
    FAILED = "failed", "All attempts failed. A person can replay the message."


class Operation(Word):
    """The effect of an output on its content row; in the plugin API it is a `code`."""

    KEEP = "keep", "Store the complete item (code 200)."
    UPDATE = "update", "Change only the given metadata (code 206)."
    TOMBSTONE = "tombstone", "Mark the item and its children deleted (code 410)."

    @classmethod
    def of_code(cls, code: object) -> Operation:
        """Return the operation for the `code` of a plugin's output.

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
      event: The cause of the change. It contains no colon, because a colon ends a diagram's label.
      planned: True if no statement makes this change yet.
    """

    source: S | None
    target: S
    event: str
    planned: bool = False


class WaitCause(Word):
    """The cause of the wait of an account or of a run."""

    PAUSED = "paused", "A person paused the account."
    CREDENTIALS = "credentials", "The provider rejects the credentials."
    CONFIGURATION = "configuration", "The configuration is invalid."
    DISCONNECTED = "disconnected", "The account has no credentials."
    INTEGRATION_PAUSED = "integration-paused", "An operator paused the integration."
    WORKER = "worker", "No worker serves the integration."
    DISPATCHER = "dispatcher", "No dispatcher leads."
    REDIS = "redis", "Redis does not answer, so no task is sent."
    SCHEDULER = "scheduler", "The run is due, and the schedule has not fired yet."
    QUOTA = "quota", "A quota of the user is reached."
    BREAKER = "breaker", "The provider does not answer."
    RATE_LIMIT = "rate-limit", "The account has used up one of its limits."
    SHARED_RATE_LIMIT = "shared-rate-limit", "Accounts that share a limit have used it up."
    POSTPONED = "postponed", "The tasks of the run start later."
    THREADS = "threads", "Other tasks use all threads."
    RESYNC = "resync", "A resync starts after the open run."
    BACKFILL = "backfill", "Older items load in the background, behind new ones."
    RUNNING = "running", "A run is in progress."
    DELETION = "deletion", "A deletion waits for a decision."
    SCHEDULED = "scheduled", "Nothing is open. The next run has its time."


@dataclass(frozen=True, slots=True)
class Machine(Generic[S]):
    """The states of one kind of row.

    Attributes:
      table, column: The column that holds the state.
      states: All states.
      open: The states of a row with work to do.
      transitions: All allowed changes of state.
    """

    table: str
    column: str
    states: type[S]
    open: tuple[S, ...]
    transitions: tuple[Transition[S], ...]

    @property
    def final(self) -> tuple[S, ...]:
        """States without a transition to another state."""
        left = {transition.source for transition in self.transitions}
        return tuple(state for state in self.states if state not in left)

    def allows(self, source: str | None, target: str) -> bool:
        """Return True if a row may change from `source` to `target` now."""
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
        Transition(_A.ERROR, _A.ACTIVE, "resume, reconnect, configuration corrected"),
        Transition(_A.ACTIVE, _A.DISCONNECTED, "disconnect"),
        Transition(_A.PAUSED, _A.DISCONNECTED, "disconnect"),
        Transition(_A.ERROR, _A.DISCONNECTED, "disconnect"),
        Transition(_A.DISCONNECTED, _A.ACTIVE, "reconnect"),
        Transition(_A.ACTIVE, _A.ERASING, "disconnect, deleting content"),
        Transition(_A.PAUSED, _A.ERASING, "disconnect, deleting content"),
        Transition(_A.ERROR, _A.ERASING, "disconnect, deleting content"),
        Transition(_A.DISCONNECTED, _A.ERASING, "delete content"),
        Transition(_A.ERASING, _A.ACTIVE, "reconnect before content is deleted"),
        Transition(_A.ERASING, _A.DISCONNECTED, "content deleted"),
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
        Transition(_R.RUNNING, _R.PARTIAL, "last task closed, some parked or deferred"),
        Transition(_R.RUNNING, _R.FAILED, "last task closed, root parked"),
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
        Transition(_T.QUEUED, _T.DEFERRED, "quick attempts used up"),
        Transition(_T.READY, _T.DEFERRED, "limit does not answer for too long"),
        Transition(_T.READY, _T.CANCELLED, "run cancelled"),
        Transition(_T.QUEUED, _T.CANCELLED, "run cancelled"),
        Transition(_T.PARKED, _T.DONE, "discarded"),
        Transition(_T.CANCELLED, _T.DONE, "discarded"),
        Transition(_T.DEFERRED, _T.DONE, "discarded"),
    ),
)


class StoppedState(StrEnum):
    """The states of tasks that a person retries or discards."""

    PARKED = TaskState.PARKED
    DEFERRED = TaskState.DEFERRED


class ShownHeldState(StrEnum):
    """The states of held deletions that people see. In the others, the engine works on them."""

    HELD = HeldState.HELD
    ACCEPTED = HeldState.ACCEPTED
    REFUSED = HeldState.REFUSED


CARRIED_TASKS = (TaskState.DEFERRED, TaskState.CANCELLED)
"""The states of tasks that a later run continues by itself."""

STOPPED_TASKS = (TaskState.DEFERRED, TaskState.PARKED, TaskState.CANCELLED)
"""States of tasks that ended without a result. A copy continues the task, or it is discarded."""


def literals(words: Iterable[Word | StrEnum]) -> str:
    """Return the values as SQL literals for an IN list: `'ready', 'queued'`."""
    return ", ".join(f"'{word}'" for word in words)
