"""Subscriptions and their messages."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from core.rest.schemas.common import Name, RequestBody, UserId
from core.service.subscriptions import MAX_URL_CHARS
from core.states import SubscriptionChannel, SubscriptionKind
from core.web.dependencies import NO_NUL

Text = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=NO_NUL)]


class NewSubscription(RequestBody):
    """A subscription to add."""

    kind: SubscriptionKind = Field(
        SubscriptionKind.CONTENT,
        description="`content`: the latest state of each item. `operations`: conditions (none yet)",
    )
    channel: SubscriptionChannel = Field(
        SubscriptionChannel.WEBHOOK,
        description="The way to the receiver. Content needs `webhook`",
    )
    address: str = Field(
        min_length=1,
        max_length=MAX_URL_CHARS,
        description="The receiver, such as the URL of a webhook. A user's webhook needs HTTPS",
    )
    name: Name | None = Field(None, description="A label. Default: the host of the receiver")
    user_id: UserId | None = Field(
        None,
        description=(
            "The user whose accounts it covers. Default with an operator's token: all users. With a"
            " user's token: that user"
        ),
    )
    user_integration_id: UUID | None = Field(
        None, description="Deliver only items or conditions of this account. Default: of all"
    )
    integration_domain: Text | None = Field(
        None, description="Deliver only items or conditions of this integration. Default: of all"
    )
    only_kind: Text | None = Field(
        None, description="Deliver only items or conditions of this kind. Default: of all kinds"
    )
    start: Literal["beginning", "now"] = Field(
        "beginning",
        description="`beginning`: deliver all kept items first. `now`: only later changes",
    )


class Subscription(BaseModel):
    """A subscription, without its secrets."""

    id: UUID = Field(description="The ID of the subscription")
    name: str = Field(description="The label")
    kind: str = Field(description="`content` or `operations`")
    channel: str = Field(description="The way to the receiver: `webhook`, `slack` or `email`")
    user_id: str | None = Field(description="The user whose accounts it covers; null for all users")
    user_integration_id: UUID | None = Field(description="The only account; null for all accounts")
    integration_domain: str | None = Field(
        description="The only integration; null for all integrations"
    )
    only_kind: str | None = Field(
        description="The only kind of items or of conditions; null for all kinds"
    )
    address: str = Field(description="The receiver, without its secrets")
    state: str = Field(
        description=(
            "`active`, `failing` (the latest attempt failed), or `paused` by a person or after a"
            " long failure"
        )
    )
    reason: str | None = Field(description="Why it fails, or why the engine paused it")
    state_since: datetime = Field(description="The time since when it has this state")
    failing_since: datetime | None = Field(
        description="The time of the first failure after the latest success; null without one"
    )
    delivered_at: datetime | None = Field(description="The time of the latest success")
    created_at: datetime = Field(description="The time at which it was added")


class Delivery(BaseModel):
    """A message that was not delivered yet. A message is deleted after its delivery."""

    id: int = Field(description="The ID of the message")
    type: str = Field(description="The type of the message, such as `test`")
    data: dict[str, Any] = Field(description="Its body")
    state: str = Field(description="`waiting`, or `failed` after its last attempt")
    attempts: int = Field(description="The number of failed attempts")
    error: str | None = Field(description="Why the latest attempt failed")
    created_at: datetime = Field(description="The time at which it was stored, or replayed")
    due_at: datetime = Field(description="The time of the next attempt")
    failed_at: datetime | None = Field(description="The time at which the engine gave it up")


class SubscriptionWithDeliveries(Subscription):
    """A subscription, and its messages that were not delivered yet."""

    deliveries: list[Delivery] = Field(description="At most 100 messages, the failed ones first")


class AddedSubscription(BaseModel):
    """A new subscription with its signing secret, which is shown once."""

    id: UUID = Field(description="The ID of the subscription")
    secret: str | None = Field(
        description=(
            "The secret with which the receiver checks signatures. Store it like a password. Null"
            " if the channel has none"
        )
    )


class Tested(BaseModel):
    """A message of the type `test` that waits for its delivery."""

    delivery_id: int = Field(description="The ID of the message")


class Replayed(BaseModel):
    """The messages that are delivered again."""

    messages: int = Field(description="Their number")
