"""Schemas of requests and responses. No response holds credentials."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from core.service.fleet.health import CheckStatus
from core.states import AccountState, AccountStateReason, Lane, RunState, TaskState, Trigger
from core.web.dependencies import NO_NUL

T = TypeVar("T")
UserId = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=NO_NUL)]
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=NO_NUL)
]
Minutes = Annotated[int, Field(ge=1, le=525_600)]


class _Request(BaseModel, extra="forbid", hide_input_in_errors=True):
    """Base of request bodies: an unknown field is an error, so that a typo is not ignored."""


class NewUserIntegration(_Request):
    """An account to connect."""

    integration_domain: Annotated[
        str, StringConstraints(min_length=1, max_length=63, pattern=NO_NUL)
    ]
    user_id: UserId | None = Field(
        None, description="Whose it is. Needed with an operator's token; a user's token has one"
    )
    name: Name | None = Field(None, description="For people. Default: as the provider calls it")
    config: dict[str, Any] = Field(
        default_factory=dict, description="As the integration's `config_schema` says"
    )
    credentials: dict[str, Any] = Field(
        default_factory=dict,
        description="As the integration's `credentials_schema` says. They never come back",
    )
    poll_interval_minutes: Minutes | None = Field(None, description="Default: 15")


class UserIntegrationChanges(_Request):
    """What to change; what is left out stays."""

    name: Name | None = None
    config: dict[str, Any] | None = Field(None, description="The whole new config")
    credentials: dict[str, Any] | None = Field(
        None, description="New credentials: the account goes on where it stopped"
    )
    poll_interval_minutes: Minutes | None = None


class Sync(_Request):
    """How to sync."""

    allow_deletions: bool = Field(
        False, description="Also delete what the guard would hold for a person"
    )


class NewAuthorization(_Request):
    """A person who is about to connect an account in a browser."""

    user_id: UserId | None = Field(
        None, description="Whose account it will be. Needed with an operator's token"
    )
    user_integration_id: UUID | None = Field(
        None, description="Reconnect this account, and no other"
    )
    name: Name | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    poll_interval_minutes: Minutes | None = None
    redirect_to: Annotated[str, StringConstraints(max_length=2_000, pattern=NO_NUL)] | None = Field(
        None,
        description=(
            "Where the browser goes afterwards: below `POLLING_PUBLIC_URL` or one of"
            " `POLLING_REDIRECT_URLS`"
        ),
    )


class Page(BaseModel, Generic[T]):
    """Some of a listing."""

    items: list[T]
    cursor: str | None = Field(
        description="Give it as `after` for the next page; null after the last one"
    )


class Integration(BaseModel):
    """A kind of service that accounts can be connected of."""

    domain: str
    name: str
    version: str | None
    docs: str | None
    oauth: bool = Field(description="Whether accounts are connected in a browser, by `/v1/oauth`")
    config_schema: dict[str, Any] = Field(description="JSON schema of `config`")
    credentials_schema: dict[str, Any] = Field(description="JSON schema of `credentials`")


class Wait(BaseModel):
    """Something that keeps an account from going on."""

    reason: str
    until: datetime | None


class UserIntegration(BaseModel):
    """One user's connected account of an integration."""

    id: UUID
    user_id: str
    integration_domain: str
    name: str
    identity: str = Field(description="Whose account it is at the provider")
    config: dict[str, Any]
    sync_status: AccountState
    status_reason: AccountStateReason | None = Field(description="Of an error")
    status_detail: str | None
    poll_interval_minutes: int
    next_sync_at: datetime | None
    last_sync_at: datetime | None
    consecutive_failures: int
    resync_due: bool
    created_at: datetime
    updated_at: datetime


class HeldDeletion(BaseModel):
    """An unusually large deletion, held until a person confirms it.

    `/sync` with `allow_deletions` confirms it.
    """

    parent: str | None
    since: datetime | None
    until: datetime | None
    vanished: int
    total: int
    created_at: datetime


class Totals(BaseModel):
    """What is kept of an account."""

    items: int
    deleted: int
    bytes: int
    held: list[HeldDeletion]


class UserIntegrationInFull(UserIntegration):
    """One account, with what it waits for."""

    waits: list[Wait] = Field(description="Empty while it simply works")
    totals: Totals | None = Field(
        description="Only with `totals=true`: counting takes its time in a large account"
    )


class Identity(BaseModel):
    """Whose account the credentials open."""

    id: str
    name: str


class State(BaseModel):
    """What the plugin remembers between runs."""

    partition: str
    value: Any
    version: int
    updated_at: datetime


class Run(BaseModel):
    """One sync of one account. Counts are final once it has ended."""

    id: UUID
    user_integration_id: UUID
    integration_domain: str
    lane: Lane
    trigger: Trigger
    state: RunState
    started_at: datetime
    finished_at: datetime | None
    tasks_done: int
    tasks_parked: int
    outputs_saved: int
    outputs_unchanged: int
    outputs_deleted: int
    error: str | None


class RunInFull(Run):
    """One run, with its counts as they are now."""

    tasks_known: int = Field(description="Known so far: more may come while it runs")
    tasks_queued: int
    tasks_ready: int
    waits: list[Wait]


class Requested(BaseModel):
    """The run that was asked for: a new one, or the one that was open."""

    run_id: UUID
    new: bool


class Task(BaseModel):
    """One step of a run."""

    id: int
    run_id: UUID
    user_integration_id: UUID
    integration_domain: str
    lane: Lane
    parent_id: int | None
    retry_of: int | None
    retried_as: int | None
    type: str
    payload: dict[str, Any]
    state: TaskState
    priority: int
    available_at: datetime | None
    attempts: int
    crashes: int
    snoozes: int
    reason: str | None
    errors: list[dict[str, Any]] | None
    outputs_saved: int
    outputs_unchanged: int
    outputs_deleted: int
    followups: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Retried(BaseModel):
    """The tasks that go on in place of a parked one."""

    tasks: list[int]


class Content(BaseModel):
    """One item that is kept; its bytes are at `/raw`."""

    id: int
    user_integration_id: UUID
    integration_domain: str
    external_id: str = Field(description="The item's id at the source, unique in its account")
    kind: str
    parent: str | None = Field(
        description="The `external_id`, or the name of the place, it belongs to"
    )
    name: str | None
    external_timestamp: datetime | None
    content_type: str | None
    size: int
    hash: str | None = Field(description="SHA-256, in hexadecimal")
    metadata: dict[str, Any]
    fingerprint: str | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


class Change(BaseModel):
    """One change of content.

    A reader may hear of an item by `updated` first: what changes twice is told once, as it is now.
    """

    change: Literal["created", "updated", "deleted", "erased"] = Field(
        description=(
            "`erased`, which operators are told: everything of the account is gone, without a trace"
            " of its items"
        )
    )
    user_integration_id: UUID
    content: Content | None


class Changes(BaseModel):
    """A part of the change feed."""

    changes: list[Change]
    cursor: str = Field(
        description=(
            "Keep it, and give it as `after` the next time. It is there even if nothing changed"
        )
    )
    more: bool = Field(
        description=(
            "Whether to ask again at once; a page may be empty, as others' changes are passed over"
        )
    )


class Erased(BaseModel):
    """What is gone."""

    accounts: int
    rows: int
    blobs: int


class Authorization(BaseModel):
    """Where to send the person's browser."""

    url: str
    expires_at: datetime


class Health(BaseModel):
    """Whether it works, and what needs a look."""

    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, CheckStatus]
