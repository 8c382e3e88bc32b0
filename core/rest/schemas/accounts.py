"""User integrations: accounts, their checks and their states."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from core.rest.schemas.common import KeepOrMark, Minutes, Name, RequestBody, UserId
from core.rest.schemas.deletions import HeldDeletion
from core.rest.schemas.runs import Owed, Wait, Why
from core.states import AccountState, AccountStateReason, Deletions
from core.web.dependencies import NO_NUL


class NewUserIntegration(RequestBody):
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


class UserIntegrationChanges(RequestBody):
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


class Bound(BaseModel):
    """The size of the first copy."""

    items: int = Field(description="The number of items, about")
    noun: str = Field(description="Their name in the plural")
    background: bool = Field(description="True if new items arrive while the first copy loads")
    per_minute: float | None = Field(
        description="The fastest pace that the limits allow; null if none bounds it"
    )


class Rehearsal(BaseModel):
    """A description of an account before it is connected, in the plugin's words."""

    sections: list[RehearsalSection] = Field(description="The facts; at most 20 sections")
    warnings: list[str] = Field(description="Facts to which a person should agree")
    refusal: str | None = Field(
        description="The reason why this account cannot be connected; null if it can"
    )
    bound: Bound | None = Field(description="The size of the first copy; null if it is unknown")


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
    why: Why = Field(description="The cause of the wait, with numbers")
    totals: Totals | None = Field(
        description="Present with `totals=true` only, because counting a large account is slow"
    )


class Identity(BaseModel):
    """The account at the provider to which the credentials give access."""

    id: str = Field(description="The ID of the account at the provider")
    name: str = Field(description="The name of the account at the provider")


class NewCheck(RequestBody):
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


class UserIntegrationFilter(RequestBody, json_schema_extra={"minProperties": 1}):
    """Conditions on accounts. Null: any value. At least one is required."""

    user_id: UserId | None = Field(
        None, description="The user of the accounts. With a user's token, it is always that user"
    )
    integration_domain: str | None = Field(
        None, max_length=63, pattern=NO_NUL, description="The integration of the accounts"
    )
    sync_status: AccountState | None = Field(None, description="The state of the accounts")


class Erased(BaseModel):
    """The numbers of hidden and of deleted objects."""

    hidden: int = Field(description="The number of hidden accounts, which are deleted later")
    accounts: int = Field(description="The number of deleted accounts")
    rows: int = Field(description="The number of deleted rows")
    blobs: int = Field(description="The number of deleted blobs")
