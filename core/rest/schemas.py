"""Schemas of requests and responses. Responses never contain credentials."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from core.accounts import MAX_POLL_INTERVAL_MINUTES
from core.ledger.quotas import MAX_QUOTA
from core.scopes import MAX_TOKEN_DAYS, Role, Scope
from core.service.backend import CheckStatus
from core.service.runs.parked import BulkResult
from core.states import (
    AccountState,
    AccountStateReason,
    Deletions,
    HoldSource,
    Lane,
    RunState,
    ShownHeldState,
    StoppedState,
    TaskState,
    Trigger,
)
from core.web.dependencies import NO_NUL
from core.web.timestamps import Timestamp

T = TypeVar("T")
UserId = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=NO_NUL)]
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=NO_NUL)
]
Minutes = Annotated[int, Field(ge=1, le=MAX_POLL_INTERVAL_MINUTES)]


KeepOrMark = Field(
    None,
    description=(
        "The treatment of items that disappear at the source. `mark`: they are marked deleted."
        " `keep`: they stay, and `gone_at_source` says since when they are gone. Default: `mark`,"
        " or the current choice of an existing account"
    ),
)


class _Request(BaseModel, extra="forbid", hide_input_in_errors=True):
    """Base of request bodies: an unknown field is an error, so that typos are not ignored."""


class NewUserIntegration(_Request):
    """The account to connect."""

    integration_domain: Annotated[
        str, StringConstraints(min_length=1, max_length=63, pattern=NO_NUL)
    ] = Field(description="The domain of the integration, such as `ftp`")
    user_id: UserId | None = Field(
        None,
        description=(
            "The user who owns the account. Required with an operator's token. With a user's token,"
            " it is always that user"
        ),
    )
    name: Name | None = Field(
        None, description="A display name. Default: the name that the provider returns"
    )
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="The configuration, as described by the integration's `config_schema`",
    )
    credentials: dict[str, Any] = Field(
        default_factory=dict,
        description=(
            "The credentials, as described by the integration's `credentials_schema`. No response"
            " contains them"
        ),
    )
    poll_interval_minutes: Minutes | None = Field(
        None,
        description=(
            "Minutes from the end of a run to the start of the next. Default: 15, or the current"
            " interval of an existing account"
        ),
    )
    deletions: Deletions | None = KeepOrMark


class UserIntegrationChanges(_Request):
    """The fields to change. Omitted fields keep their values."""

    name: Name | None = Field(None, description="A new display name")
    config: dict[str, Any] | None = Field(None, description="The complete new configuration")
    credentials: dict[str, Any] | None = Field(
        None, description="New credentials. A stopped account resumes where it stopped"
    )
    poll_interval_minutes: Minutes | None = Field(
        None, description="Minutes from the end of a run to the start of the next"
    )
    deletions: Deletions | None = KeepOrMark


class NewAuthorization(_Request):
    """A connection to start in a user's browser."""

    user_id: UserId | None = Field(
        None,
        description=(
            "The user who will own the account. Required with an operator's token, except to"
            " reconnect an account"
        ),
    )
    user_integration_id: UUID | None = Field(
        None, description="The account to reconnect. Default: connect a new account"
    )
    name: Name | None = Field(
        None, description="A display name. Default: the name that the provider returns"
    )
    config: dict[str, Any] = Field(
        default_factory=dict,
        description="The configuration, as described by the integration's `config_schema`",
    )
    poll_interval_minutes: Minutes | None = Field(
        None, description="Minutes from the end of a run to the start of the next. Default: 15"
    )
    deletions: Deletions | None = KeepOrMark
    redirect_to: Annotated[str, StringConstraints(max_length=2_000, pattern=NO_NUL)] | None = Field(
        None,
        description=(
            "The page of your product that gets the query parameter `connect_code` or `error`. It"
            " must start with `POLLING_PUBLIC_URL` or with one of `POLLING_REDIRECT_URLS`. Default:"
            " the person confirms on a page of this server"
        ),
    )


class ConnectCode(_Request):
    """A connection to store, for the user who is signed in to your product."""

    connect_code: Annotated[str, StringConstraints(max_length=200, pattern=NO_NUL)] = Field(
        description="The query parameter of `redirect_to`. It works once, within five minutes"
    )
    user_id: UserId | None = Field(
        None,
        description=(
            "The user who is signed in to your product in this browser. Take it from your own"
            " session, never from the request's parameters. Required with an operator's token"
        ),
    )


class NewToken(_Request):
    """A token to create."""

    role: Role | None = Field(
        None, description="A role, whose scopes the token gets besides `scopes`"
    )
    scopes: list[Scope] = Field(
        default_factory=list,
        max_length=20,
        description="The permissions of the token. A token needs a scope or a role",
    )
    user_id: UserId | None = Field(
        None,
        description=(
            "The user for whose data the token has its scopes. Default with an operator's token:"
            " all data. With a user's token: that user"
        ),
    )
    name: Annotated[str, StringConstraints(max_length=500, pattern=NO_NUL)] = Field(
        "", description="A label, for example the purpose of the token"
    )
    expires_in_days: float | None = Field(
        None, gt=0, le=MAX_TOKEN_DAYS, description="Days until the token expires. Default: never"
    )


class Page(BaseModel, Generic[T]):
    """A page of a list."""

    items: list[T] = Field(description="The items of this page")
    cursor: str | None = Field(
        description="Pass it as `after` to get the next page; null on the last page"
    )


class Integration(BaseModel):
    """An installed integration: a kind of service whose accounts can be connected."""

    integration_domain: str = Field(description="The unique name of the integration, such as `ftp`")
    name: str = Field(description="The display name")
    version: str | None = Field(description="The version of the plugin")
    docs: str | None = Field(description="The address of the documentation")
    oauth: bool = Field(
        description="True if accounts can be connected in a browser with `/v1/oauth`"
    )
    paused_at: datetime | None = Field(
        description="The time since when an operator has paused all accounts; null if it is not"
        " paused"
    )
    paused_until: datetime | None = Field(
        description="The time at which the pause ends by itself; null if there is no such time"
    )
    config_schema: dict[str, Any] = Field(description="The JSON schema of `config`")
    credentials_schema: dict[str, Any] = Field(description="The JSON schema of `credentials`")


class IntegrationPause(_Request):
    """The pause of an integration."""

    until: Timestamp | None = Field(
        None,
        description="The time at which the pause ends by itself. Default: never",
    )


class Outage(BaseModel):
    """An integration, or one limit of it, that does not answer some of its accounts."""

    integration_domain: str = Field(description="The integration")
    limit: str | None = Field(
        description="The limit that does not answer, such as one method; null for all of it"
    )
    since: datetime = Field(description="The time of the first failure")
    next_try: datetime = Field(description="The time of the next probe")
    accounts: int = Field(description="The number of accounts that get no answer")
    active_accounts: int = Field(description="The number of active accounts of the integration")
    tasks: int = Field(
        description="The number of tasks that wait. Above 100,000, they are not counted"
    )
    sentence: str = Field(description="The outage as a sentence for people")


class Wait(BaseModel):
    """A reason why an account or a run waits."""

    reason: str = Field(description="A description for people")
    until: datetime | None = Field(description="The end of the wait; null if it is unknown")


class RehearsalSample(BaseModel):
    """One line of a sample."""

    name: str = Field(description="The name of an item, or of a folder of items")
    level: int = Field(description="The depth in a tree; 0 is the top")


class RehearsalSection(BaseModel):
    """Plain facts about one part of an account."""

    title: str = Field(description="The heading")
    facts: dict[str, int | str] = Field(description="The facts, by their label")
    sample: list[RehearsalSample] = Field(description="Some of the items that would be kept")
    omitted: int = Field(description="The number of items that the sample leaves out")


class Rehearsal(BaseModel):
    """A description of an account before it is connected, in the plugin's words."""

    sections: list[RehearsalSection] = Field(description="The facts; at most 20 sections")
    warnings: list[str] = Field(description="Facts to which a person should agree")
    refusal: str | None = Field(
        description="The reason why this account cannot be connected; null if it can"
    )


class UserIntegration(BaseModel):
    """A user's connected account of an integration."""

    id: UUID = Field(description="The ID of the account")
    user_id: str = Field(description="The user who owns the account")
    integration_domain: str = Field(description="The domain of the integration")
    name: str = Field(description="The display name")
    identity: str = Field(description="The ID of the account at the provider")
    config: dict[str, Any] | None = Field(
        description=(
            "The configuration, without secrets; null if the token has only `metrics:read`. The"
            " texts of errors and notices are then null, too"
        )
    )
    sync_status: AccountState = Field(description="The state of the account")
    status_reason: AccountStateReason | None = Field(
        description="The reason for the state `error`; null in other states"
    )
    status_detail: str | None = Field(
        description="The error message for the state `error`; null in other states"
    )
    stopped_at: datetime | None = Field(
        description="The latest time at which the engine stopped the account"
    )
    stopped_by: int | None = Field(description="The ID of the task that caused this stop")
    poll_interval_minutes: int = Field(
        description="Minutes from the end of a run to the start of the next"
    )
    deletions: Deletions = Field(
        description=(
            "The treatment of items that disappear at the source: `mark` them deleted, or `keep`"
            " them"
        )
    )
    next_sync_at: datetime | None = Field(
        description="The time at which the next run is due. While a run for new items is open, the"
        " end of that run sets a new time."
    )
    last_sync_at: datetime | None = Field(description="The time at which the last run ended")
    consecutive_failures: int = Field(description="The number of failed runs in a row")
    resync_due: bool = Field(description="True if the next run is a resync")
    erasing_since: datetime | None = Field(
        description=(
            "The time at which the content was hidden, if the state is `erasing`; null in other"
            " states"
        )
    )
    erases_account: bool = Field(
        description="True if the account is deleted, too, and not only its content"
    )
    created_at: datetime = Field(description="The time at which the account was connected")
    updated_at: datetime = Field(description="The time of the last change")
    notice: str | None = Field(
        None,
        description=(
            "Facts that people should know, such as the end of the sign-in. A list of accounts has"
            " only the facts from the time of the connection"
        ),
    )
    rehearsal: Rehearsal | None = Field(
        None,
        description=(
            "The plugin's description of this account. Only in the response that connects the"
            " account, and only if the plugin gives one"
        ),
    )


class MemberChanges(BaseModel):
    """The changes that a listing of an organization's members has made."""

    members: int = Field(description="The number of active members")
    added: int = Field(description="The number of new accounts")
    returned: int = Field(
        description=(
            "The number of accounts that resumed, because their members or the organization are"
            " back"
        )
    )
    left: int = Field(
        description="The number of accounts that were paused, because their members have left"
    )
    renamed: int = Field(description="The number of accounts whose members have new addresses")
    skipped: int = Field(
        description="The number of members whose accounts have other credentials already"
    )
    problem: str | None = Field(description="Why some members have no account; null if all have")
    is_complete: bool = Field(
        description=(
            "False if there are too many members for a request. A worker process lists them within"
            " a minute. Nothing has changed yet"
        )
    )


class NewOrganization(_Request):
    """An organization to connect."""

    integration_domain: str = Field(max_length=63, description="The domain of the integration")
    name: str = Field(max_length=500, description="The name of the organization")
    credentials: dict[str, Any] = Field(
        description="The credentials that all accounts share, such as the key of a service account"
    )
    config: dict[str, Any] = Field({}, description="The config of new accounts")
    user_id: str = Field(
        "default",
        max_length=500,
        description="The owner of the accounts. `{member}` stands for the address of each member",
    )
    members: list[str] | None = Field(
        None,
        max_length=10_000,
        description="The members, by address. Default: the provider lists them",
    )
    excluded: list[str] = Field(
        [], max_length=10_000, description="The members to leave out, by address"
    )
    poll_interval_minutes: Minutes = Field(
        15, description="Minutes between two runs of a new account"
    )


class Organization(BaseModel):
    """An organization: one set of credentials for the accounts of all members."""

    id: UUID = Field(description="The ID of the organization")
    user_id: str = Field(
        description="The owner of the accounts. `{member}` stands for the address of each member"
    )
    integration_domain: str = Field(description="The domain of the integration")
    name: str = Field(description="The name of the organization")
    is_listed: bool = Field(
        description="True if a person has named the members; false if the provider lists them"
    )
    excluded: list[str] = Field(description="The members to leave out, by address or ID")
    poll_interval_minutes: int = Field(description="Minutes between two runs of a new account")
    members: int | None = Field(description="The number of active members in the latest listing")
    problem: str | None = Field(
        description="Why the members could not be listed; null after a listing"
    )
    listed_at: datetime | None = Field(description="The time of the latest listing")
    accounts: int = Field(description="The number of accounts")
    active: int = Field(description="The number of active accounts")
    in_error: int = Field(description="The number of accounts in error")
    members_left: int = Field(description="The number of accounts whose members have left")
    ending_since: datetime | None = Field(
        description=(
            "The time at which a person disconnected the organization. It is deleted when all its"
            " accounts are disconnected"
        )
    )
    created_at: datetime = Field(description="The time at which the organization was connected")
    updated_at: datetime = Field(description="The time of the last change")


class OrganizationWithChanges(Organization):
    """An organization that was just connected."""

    changes: MemberChanges = Field(description="The changes of its accounts")


class HeldDeletion(BaseModel):
    """An unusually large deletion that the delete guard holds until a person decides.

    Items are taken out of it when the source shows them again, and never added: an acceptance
    deletes exactly what was shown.
    """

    id: int = Field(description="The ID of the held deletion")
    user_integration_id: UUID = Field(description="The ID of the account")
    integration_domain: str = Field(description="The domain of the integration")
    state: ShownHeldState = Field(description="The decision")
    source: HoldSource = Field(description="The origin of the deletion")
    parent: str | None = Field(
        description="The parent of the missing items; null for the entire account"
    )
    parent_name: str | None = Field(description="The name of the parent, if it has one")
    since: datetime | None = Field(description="The start of the listed time range, if any")
    until: datetime | None = Field(description="The end of the listed time range, if any")
    vanished: int = Field(description="The number of missing items that would be deleted")
    total: int = Field(description="The number of items in the listed part")
    created_at: datetime = Field(description="The time at which the deletion was detected")
    decided_at: datetime | None = Field(
        description="The time at which a person accepted or refused it; null without a decision"
    )


class AcceptedDeletion(HeldDeletion):
    """An accepted held deletion."""

    run_id: UUID | None = Field(
        description=(
            "The new run that looks for the items again, and deletes those that are still missing."
            " Null if it starts later: after the open run, or when the account is active again"
        )
    )


class HeldItem(BaseModel):
    """An item that a held deletion would delete."""

    external_id: str = Field(description="The ID of the item at the source")
    content_id: int = Field(description="The ID of the content item")
    kind: str = Field(description="The kind of item, as the plugin defines it")
    name: str | None = Field(description="The display name")
    parent: str | None = Field(description="The `external_id` of the parent item")
    external_timestamp: datetime | None = Field(description="The time of the item at the source")
    size: int = Field(description="The size of the content in bytes")


class Totals(BaseModel):
    """Totals of an account's content."""

    items: int = Field(description="The number of items that are not marked deleted")
    deleted: int = Field(description="The number of items that are marked deleted")
    gone_at_source: int = Field(
        description="The number of items that are kept, and gone at the source"
    )
    bytes: int = Field(description="The size of all items that are not marked deleted")
    held: list[HeldDeletion] = Field(
        description=(
            "The latest 100 held deletions; empty without the scopes of `/v1/held-deletions`, which"
            " lists all"
        )
    )


class Owed(BaseModel):
    """The tasks that an account owes: deferred, parked, or continued and not yet done."""

    tasks: int = Field(description="The number of owed tasks")
    since: datetime | None = Field(
        description="The first failure of the oldest owed task; null if no task is owed"
    )


class Compared(BaseModel):
    """A comparison of an account with its source."""

    at_source: int = Field(description="The number of items that the source listed")
    kept: int = Field(description="The number of these items that were stored")
    at: datetime = Field(description="The time of the comparison")


class Listening(BaseModel):
    """The state of an account's listener. The engine polls the account in any case."""

    state: Literal["connected", "down", "webhook"] = Field(
        description="`connected`: events arrive. `down`: they do not, so that changes wait for the"
        " next poll. `webhook`: the provider sends them to `/v1/hints/{integration_domain}`"
    )
    since: datetime | None = Field(
        description="The start of this state; null if it is unknown, and for `webhook`"
    )
    error: str | None = Field(
        description="Why no events arrive. A user sees only a reason that concerns this account"
        " alone; otherwise null"
    )
    event_at: datetime | None = Field(
        description="The time of the latest event for the account; null before the first"
    )


class UserIntegrationInFull(UserIntegration):
    """An account with the reasons why it waits, and its totals on request."""

    listener: Listening | None = Field(
        description="Whether events arrive; null if the integration does not listen for the account"
    )
    owed: Owed = Field(description="The tasks that the account owes")
    complete_as_of: datetime | None = Field(
        description="The start of the last run after which nothing is owed; null if tasks are owed"
    )
    comparison: Compared | None = Field(
        description="The latest comparison with the source; null if there was none"
    )
    waits: list[Wait] = Field(
        description="The reasons why the account waits, the most important first"
    )
    totals: Totals | None = Field(
        description="Present with `totals=true` only, because counting a large account is slow"
    )


class Identity(BaseModel):
    """The account at the provider to which the credentials give access."""

    id: str = Field(description="The ID of the account at the provider")
    name: str = Field(description="The name of the account at the provider")


class NewCheck(_Request):
    """The account to check."""

    config: dict[str, Any] = Field(
        default_factory=dict,
        description="The configuration, as described by the integration's `config_schema`",
    )
    credentials: dict[str, Any] = Field(
        default_factory=dict,
        description="The credentials, as described by the integration's `credentials_schema`",
    )


class Checked(BaseModel):
    """A check of an account that is not connected."""

    identity: Identity = Field(description="The account that the credentials belong to")
    notice: str | None = Field(
        description="A fact that a person must know, such as the end of the sign-in"
    )
    rehearsal: Rehearsal = Field(description="The plugin's description of the copy")


class State(BaseModel):
    """A partition of the plugin's state."""

    partition: str = Field(description="The name of the partition")
    value: Any = Field(description="The value, as the plugin stored it")
    version: int = Field(description="The number of changes of the value")
    updated_at: datetime = Field(description="The time of the last change")


class Run(BaseModel):
    """One sync of one account. The counters are final once the run has ended."""

    id: UUID = Field(description="The ID of the run")
    user_integration_id: UUID = Field(description="The ID of the account")
    integration_domain: str = Field(description="The domain of the integration")
    lane: Lane = Field(description="The lane of the run")
    trigger: Trigger = Field(description="The reason why the run started")
    complete: bool = Field(
        description=(
            "True if the run lists everything again: a resync, or a run that confirms held"
            " deletions"
        )
    )
    state: RunState = Field(description="The state of the run")
    started_at: datetime = Field(description="The start of the run")
    finished_at: datetime | None = Field(description="The end of the run; null while it is open")
    tasks_done: int = Field(description="The number of tasks that are done")
    tasks_parked: int = Field(description="The number of parked tasks")
    tasks_deferred: int = Field(
        description="The number of deferred tasks; the engine retries them automatically"
    )
    outputs_saved: int = Field(description="The number of items created or changed")
    outputs_unchanged: int = Field(description="The number of items found unchanged")
    outputs_deleted: int = Field(description="The number of items marked deleted")
    skipped: dict[str, int] | None = Field(
        description=(
            "The numbers of items that were listed and not fetched, by reason; null if there are"
            " none"
        )
    )
    deletions_held: int = Field(
        description="The number of items whose deletion waits for a person's decision"
    )
    error: str | None = Field(description="The error of the run, such as that of a parked task")


class RunInFull(Run):
    """A run with its current counters."""

    tasks_known: int = Field(
        description="The number of tasks so far. It may grow while the run is open"
    )
    tasks_queued: int = Field(description="The number of dispatched tasks")
    tasks_ready: int = Field(description="The number of tasks that wait to be dispatched")
    progress_done: int | None = Field(
        description=(
            "The units of work that the dispatched tasks report as done, such as bytes or pages;"
            " null without a report"
        )
    )
    progress_total: int | None = Field(
        description="The units of their complete work; null if a task does not know them"
    )
    waits: list[Wait] = Field(description="The reasons why the run waits, the most important first")
    owed: Owed = Field(description="The tasks that the account of the run owes now")


class Requested(BaseModel):
    """The requested run: a new one, or the run that was already open."""

    run_id: UUID = Field(description="The ID of the run")
    new: bool = Field(description="True if the request started the run")


class Task(BaseModel):
    """One step of a run."""

    id: int = Field(description="The ID of the task")
    run_id: UUID = Field(description="The ID of the run")
    user_integration_id: UUID = Field(description="The ID of the account")
    integration_domain: str = Field(description="The domain of the integration")
    lane: Lane = Field(description="The lane of the run")
    parent_id: int | None = Field(
        description="The task that returned this one; null for a root task"
    )
    retry_of: int | None = Field(description="The task of which this one is a copy")
    retried_as: int | None = Field(description="The copy of this task that replaces it")
    type: str = Field(description="The type of the task, as the plugin defines it")
    payload: dict[str, Any] = Field(description="The parameters of the task")
    state: TaskState = Field(description="The state of the task")
    priority: int = Field(description="The priority. Tasks with a higher number run first")
    available_at: datetime | None = Field(
        description="The earliest time at which a ready task is dispatched"
    )
    attempts: int = Field(description="The number of failed attempts")
    crashes: int = Field(description="The number of crashes")
    snoozes: int = Field(description="The number of snoozes, which count no attempt")
    snoozed_seconds: float = Field(description="The duration of all snoozes, in seconds")
    reason: str | None = Field(description="The reason for the current state")
    errors: list[dict[str, Any]] | None = Field(description="The errors of the failed attempts")
    outputs_saved: int = Field(description="The number of items created or changed")
    outputs_unchanged: int = Field(description="The number of items found unchanged")
    outputs_deleted: int = Field(description="The number of items marked deleted")
    skipped: dict[str, int] | None = Field(
        description=(
            "The numbers of items that were listed and not fetched, by reason; null if there are"
            " none"
        )
    )
    progress_done: int | None = Field(
        description="The units of work that the task last reported as done; null without a report"
    )
    progress_total: int | None = Field(
        description="The units of its complete work; null if they are unknown"
    )
    followups: int = Field(description="The number of tasks that this task returned")
    created_at: datetime = Field(description="The time at which the task was created")
    started_at: datetime | None = Field(
        description="The start of the last attempt; recorded only for a suspect task"
    )
    finished_at: datetime | None = Field(description="The time at which the task ended")


class StoppedTask(BaseModel):
    """A task that has stopped, and waits for a person or for its next try."""

    id: int = Field(description="The ID of the task")
    run_id: UUID = Field(description="The ID of the run")
    user_integration_id: UUID = Field(description="The ID of the account")
    user_id: str = Field(description="The user who owns the account")
    integration_domain: str = Field(description="The domain of the integration")
    lane: Lane = Field(description="The lane of the run")
    type: str = Field(description="The type of the task, as the plugin defines it")
    state: StoppedState = Field(description="The state of the task")
    attempts: int = Field(description="The number of failed attempts")
    reason: str | None = Field(description="The reason for the state; its first 300 characters")
    error: str | None = Field(description="The last error; its first 300 characters")
    created_at: datetime = Field(description="The time at which the task was created")
    finished_at: datetime | None = Field(description="The time at which the task stopped")


class Retried(BaseModel):
    """The tasks that replace a retried task."""

    tasks: list[int] = Field(description="The IDs of the new tasks")


class TaskRetry(_Request):
    """The change of a task that is retried."""

    payload: dict[str, Any] | None = Field(
        None, description="The new parameters of the task. Default: the same parameters"
    )


class TaskFilter(_Request, json_schema_extra={"minProperties": 1}):
    """Conditions on stopped tasks. Null: any value. At least one is required."""

    user_integration_id: UUID | None = Field(None, description="The account of the tasks")
    integration_domain: str | None = Field(
        None, max_length=63, pattern=NO_NUL, description="The integration of the tasks"
    )
    type: str | None = Field(
        None, max_length=200, pattern=NO_NUL, description="The type of the tasks"
    )
    reason: str | None = Field(
        None,
        max_length=500,
        pattern=NO_NUL,
        description="A part of the tasks' reason; upper and lower case are equal",
    )
    since: Timestamp | None = Field(
        None, description="The earliest time at which the tasks stopped"
    )
    until: Timestamp | None = Field(None, description="The tasks stopped before this time")
    state: StoppedState | None = Field(None, description="The state of the tasks. Default: both")


class UserIntegrationFilter(_Request, json_schema_extra={"minProperties": 1}):
    """Conditions on accounts. Null: any value. At least one is required."""

    user_id: UserId | None = Field(
        None, description="The user of the accounts. With a user's token, it is always that user"
    )
    integration_domain: str | None = Field(
        None, max_length=63, pattern=NO_NUL, description="The integration of the accounts"
    )
    sync_status: AccountState | None = Field(None, description="The state of the accounts")


class BulkAction(BaseModel):
    """The result of an action on many tasks or accounts."""

    done: int = Field(description="The number of objects on which the action succeeded")
    refused: int = Field(
        description="The number of objects whose state, quota or provider did not allow the action"
    )
    more: bool = Field(
        description="True if the request stopped before it processed all matching objects. Then"
        " repeat the request with `cursor`"
    )
    cursor: str | None = Field(
        description="Pass it as `after` to continue; null if all matching objects were processed"
    )


def bulk_action(result: BulkResult) -> BulkAction:
    """Return the result of an action on many objects in the form of a response."""
    return BulkAction(
        done=result.done, refused=result.refused, more=result.more, cursor=result.cursor
    )


class Content(BaseModel):
    """An item of content. Download its bytes from `/raw`."""

    id: int = Field(description="The ID of the item")
    user_integration_id: UUID = Field(description="The ID of the account")
    integration_domain: str = Field(description="The domain of the integration")
    external_id: str = Field(
        description="The ID of the item at the source, unique within its account"
    )
    kind: str = Field(description="The kind of item, as the plugin defines it, such as `file`")
    parent: str | None = Field(
        description="The `external_id` of the parent item, or the name of another parent"
    )
    name: str | None = Field(description="The display name")
    external_timestamp: datetime | None = Field(description="The time of the item at the source")
    content_type: str | None = Field(description="The media type of the content")
    size: int = Field(description="The size of the content in bytes")
    hash: str | None = Field(description="The SHA-256 hash of the content, in hexadecimal")
    metadata: dict[str, Any] = Field(description="Further properties, as the plugin defines them")
    fingerprint: str | None = Field(
        description="The value by which the plugin recognizes an unchanged item"
    )
    created_at: datetime = Field(description="The time at which the item was first saved")
    updated_at: datetime = Field(description="The time of the last change in this database")
    deleted_at: datetime | None = Field(
        description="The time at which the item was marked deleted; null if it is not"
    )
    gone_at_source: datetime | None = Field(
        description=(
            "The time since which the item is gone at the source, if the account keeps such items;"
            " null if it is not"
        )
    )
    reread_at: datetime | None = Field(
        description=(
            "The time at which a reread last changed the item, without its provider; null if none"
            " did. `updated_at` has the time of the last other change"
        )
    )


class FoundContent(Content):
    """An item of a listing or a search."""

    snippet: str | None = Field(
        None,
        description=(
            "In a search: the part of the text that has the words, in one line; null if the item"
            " has no text. Absent without a search"
        ),
    )


class ThreadItem(Content):
    """An item of a thread, with its text."""

    text: str | None = Field(
        description="The text, at most 100,000 characters; null if the content is not text"
    )
    truncated: bool = Field(
        description="True if the item has more content. Download it from `/raw`"
    )


class ChangedContent(Content):
    """An item of the change feed."""

    text: str | None = Field(
        None,
        description=(
            "With `include=content`: the text, at most 100,000 characters; null if the content is"
            " not text. Otherwise absent"
        ),
    )
    truncated: bool | None = Field(
        None,
        description=(
            "With `include=content`: true if the item has more content. Download it from `/raw`."
            " Otherwise absent"
        ),
    )


class Change(BaseModel):
    """A change of content.

    An item that changed several times appears once, with its current state. Therefore the first
    change that a reader sees of an item may be `updated`.
    """

    change: Literal["created", "updated", "deleted", "erased"] = Field(
        description=(
            "The kind of change. `erased`: all content of the account was erased, and its items are"
            " not listed. Operators receive it, and the user who owned the account"
        )
    )
    user_integration_id: UUID = Field(description="The ID of the account")
    content: ChangedContent | None = Field(description="The item; null for `erased`")
    cause: Literal["sync", "reread"] = Field(
        description=(
            "`reread`: a reread made the latest change. `sync`: the change came from the provider."
            " To leave out rereads, use `rereads=false`. Do not filter by `cause`: an item with"
            " the cause `reread` may also have changed at the provider since your cursor"
        )
    )


class Changes(BaseModel):
    """A page of the change feed."""

    changes: list[Change] = Field(description="The changes, the oldest first")
    cursor: str = Field(
        description="Pass it as `after` in the next request. It is present even without changes"
    )
    more: bool = Field(
        description=(
            "True if more changes may follow: request the next page immediately, even if this page"
            " is empty"
        )
    )
    deletions_held: int = Field(
        description=(
            "The number of items, in all accounts of the caller, whose deletion waits for a"
            " person's decision. They are not listed as deleted"
        )
    )


class Erased(BaseModel):
    """The numbers of hidden and of deleted objects."""

    hidden: int = Field(description="The number of hidden accounts, which are deleted later")
    accounts: int = Field(description="The number of deleted accounts")
    rows: int = Field(description="The number of deleted rows")
    blobs: int = Field(description="The number of deleted blobs")


class Used(BaseModel):
    """Numbers of the tasks of a user. Workers add to them every few seconds."""

    polls: int = Field(description="The number of polls")
    tasks: int = Field(description="The number of tasks that ended")
    thread_seconds: float = Field(description="The seconds for which tasks held threads")
    bytes_in: int = Field(description="The size of the content that tasks returned")
    bytes_kept: int = Field(description="The part of it that was new or had changed")


class UserUse(Used):
    """The use of a user in the latest days."""

    user_id: str = Field(description="The ID of the user")


class UserDay(Used):
    """The use of a user on a day."""

    day: date = Field(description="The day (UTC)")


class QuotaUse(BaseModel):
    """A quota of a user, and its use."""

    used: int = Field(description="The use")
    most: int | None = Field(description="The quota; null: no bound")
    is_default: bool = Field(description="True if it is the quota of all users without their own")


class UserQuotas(BaseModel):
    """The quotas of a user."""

    user_id: str = Field(description="The ID of the user")
    accounts: QuotaUse = Field(description="Accounts in every state")
    bytes: QuotaUse = Field(description="The size of the kept content, deleted items included")
    runs: QuotaUse = Field(
        description="The runs that began today (UTC). They are counted while a quota bounds them"
    )
    runs_reset_at: datetime = Field(description="The time at which the next day begins")


NewQuota = Annotated[
    Annotated[int, Field(ge=0, le=MAX_QUOTA, strict=True)] | Literal["default"] | None,
    Field(description="A number; null: no bound; `default`: that of users without their own"),
]


class QuotaChange(_Request):
    """New quotas of a user; omitted ones stay."""

    accounts: NewQuota = None
    bytes: NewQuota = None
    runs: NewQuota = None


class Token(BaseModel):
    """A token, without its secret."""

    id: UUID = Field(description="The ID of the token")
    name: str = Field(description="The label")
    user_id: str | None = Field(
        description="The user for whose data it has its scopes; null for all data"
    )
    scopes: list[str] = Field(description="The permissions")
    created_at: datetime = Field(description="The time at which it was created")
    expires_at: datetime | None = Field(
        description="The time at which it expires; null if it does not"
    )
    last_used_at: datetime | None = Field(
        description="The time of the last request with it, to the minute"
    )
    revoked_at: datetime | None = Field(
        description="The time at which it was revoked; null if it was not"
    )


class CreatedToken(BaseModel):
    """A new token with its secret, which is shown once."""

    id: UUID = Field(description="The ID of the token")
    token: str = Field(description="The token. Store it like a password")
    scopes: list[Scope] = Field(description="The permissions")
    expires_at: datetime | None = Field(
        description="The time at which it expires; null if it does not"
    )


class AuditedAct(BaseModel):
    """An act in the audit trail."""

    id: int = Field(description="The ID of the entry")
    at: datetime = Field(description="The time of the act")
    act: str = Field(description="The act, such as `account.connect`")
    target_type: str = Field(description="The kind of the object, such as `account`")
    target_id: str = Field(description="The ID of the object")
    user_id: str | None = Field(
        description="The user whom the object belongs to; null for an object of operators"
    )
    actor_user_id: str | None = Field(
        description="The user of the token; null for an operator, a command or an unknown person"
    )
    channel: str | None = Field(
        description="The origin of the act: `api`, `dashboard`, `browser` or `command`"
    )
    actor: str | None = Field(
        description=(
            "For a command: the user of the operating system. For a person who signed in with the"
            " identity provider: their name"
        )
    )
    token_id: UUID | None = Field(description="The token of the request or of its session")
    address: str | None = Field(description="The address of the client")
    request_id: str | None = Field(description="The name of the request: its `X-Request-Id`")
    detail: dict[str, Any] = Field(
        description="Further facts, such as the names of changed fields. It has no values of fields"
    )


class AuditedActs(BaseModel):
    """A page of the audit trail."""

    acts: list[AuditedAct] = Field(description="The acts, the oldest first")
    cursor: str = Field(
        description="Pass it as `after` in the next request. It is present even without acts"
    )
    more: bool = Field(description="True if more acts may follow: request the next page")


class Authorization(BaseModel):
    """A link that connects an account in a browser."""

    url: str = Field(description="The address to open in the user's browser. It works once")
    expires_at: datetime = Field(description="The time at which the link expires")


class Health(BaseModel):
    """The health of the server and of the fleet."""

    status: Literal["ok", "degraded", "unavailable"] = Field(description="The overall status")
    checks: dict[str, CheckStatus] = Field(description="The status of each check")
