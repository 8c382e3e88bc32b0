"""Organizations and their members."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from core.rest.schemas.common import Minutes, RequestBody


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


class NewOrganization(RequestBody):
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
