"""Content and the change feed."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field


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


class ContentItem(Content):
    """An item of content, with the state of its text."""

    text_problem: str | None = Field(
        description=(
            "Why the search does not find the text of a file, such as `it is encrypted`; null if it"
            " does, or if the text has not been read yet"
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
