"""What is sent. Unknown fields are refused, so that a typing error does not pass for a default."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from core.web.dependencies import NO_NUL

Words = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=NO_NUL)]
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=NO_NUL)
]
Minutes = Annotated[int, Field(ge=1, le=525_600)]


class _Request(BaseModel, extra="forbid", hide_input_in_errors=True):
    pass


class NewUserIntegration(_Request):
    """An account to connect."""

    integration_domain: Annotated[
        str, StringConstraints(min_length=1, max_length=63, pattern=NO_NUL)
    ]
    user_id: Words | None = Field(
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

    user_id: Words | None = Field(
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
