"""The parts that several resources share."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, Field, StringConstraints

from core.accounts import MAX_POLL_INTERVAL_MINUTES
from core.service.runs.parked import BulkResult
from core.web.dependencies import NO_NUL

T = TypeVar("T")

UserId = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=NO_NUL)]

Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=NO_NUL)
]

Minutes = Annotated[int, Field(ge=1, le=MAX_POLL_INTERVAL_MINUTES)]

KeepOrMark = Field(
    None,
    description=(
        "The treatment of items that disappear at the source. `mark`: they are marked deleted."
        " `keep`: they stay, and `gone_at_source` says since when they are gone. Default: `mark`,"
        " or the current choice of an existing account"
    ),
)


class RequestBody(BaseModel, extra="forbid", hide_input_in_errors=True):
    """Base of request bodies: an unknown field is an error, so that typos are not ignored."""


class Page(BaseModel, Generic[T]):
    """A page of a list."""

    items: list[T] = Field(description="The items of this page")
    cursor: str | None = Field(
        description="Pass it as `after` to get the next page; null on the last page"
    )


class BulkAction(BaseModel):
    """The result of an action on many tasks or accounts."""

    done: int = Field(description="The number of objects on which the action succeeded")
    refused: int = Field(
        description="The number of objects whose state, quota or provider did not allow the action"
    )
    more: bool = Field(
        description="True if the request stopped before it processed all matching objects. Then"
        " repeat the request with `cursor`"
    )
    cursor: str | None = Field(
        description="Pass it as `after` to continue; null if all matching objects were processed"
    )


def bulk_action(result: BulkResult) -> BulkAction:
    """Return the result of an action on many objects in the form of a response."""
    return BulkAction(
        done=result.done, refused=result.refused, more=result.more, cursor=result.cursor
    )
