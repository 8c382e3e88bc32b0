"""Signing in at a provider, through its consent screen."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from core.rest.schemas.common import KeepOrMark, Minutes, Name, RequestBody, UserId
from core.states import Deletions
from core.web.dependencies import NO_NUL


class NewAuthorization(RequestBody):
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


class ConnectCode(RequestBody):
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


class Authorization(BaseModel):
    """A link that connects an account in a browser."""

    url: str = Field(description="The address to open in the user's browser. It works once")
    expires_at: datetime = Field(description="The time at which the link expires")
