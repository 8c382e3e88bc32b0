"""What comes back. Credentials are in none of these."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field

from core.service.fleet.health import CheckStatus
from core.states import AccountState, AccountStateReason, Lane, RunState, TaskState, Trigger

T = TypeVar("T")


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
