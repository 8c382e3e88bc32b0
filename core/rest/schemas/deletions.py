"""Held deletions."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, Field

from core.states import HoldSource, ShownHeldState


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
