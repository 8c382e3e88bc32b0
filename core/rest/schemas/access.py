"""Tokens, and the audit trail."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from core.rest.schemas.common import RequestBody, UserId
from core.scopes import MAX_TOKEN_DAYS, Role, Scope
from core.web.dependencies import NO_NUL


class NewToken(RequestBody):
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
