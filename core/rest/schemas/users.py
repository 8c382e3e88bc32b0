"""Users: their use and their quotas."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, PlainValidator
from pydantic_core import PydanticCustomError

from core.ledger.quotas import MAX_QUOTA
from core.rest.schemas.common import RequestBody


class Used(BaseModel):
    """Numbers of the tasks of a user. Workers add to them every few seconds."""

    polls: int = Field(description="The number of polls")
    tasks: int = Field(description="The number of tasks that ended")
    thread_seconds: float = Field(description="The seconds for which tasks held threads")
    bytes_in: int = Field(description="The size of the content that tasks returned")
    bytes_kept: int = Field(description="The part of it that was new or had changed")


class UserUse(Used):
    """The use of a user in the latest days."""

    user_id: str = Field(description="The ID of the user")


class UserDay(Used):
    """The use of a user on a day."""

    day: date = Field(description="The day (UTC)")


class QuotaUse(BaseModel):
    """A quota of a user, and its use."""

    used: int = Field(description="The use")
    most: int | None = Field(description="The quota; null: no bound")
    is_default: bool = Field(description="True if it is the quota of all users without their own")


class UserQuotas(BaseModel):
    """The quotas of a user."""

    user_id: str = Field(description="The ID of the user")
    accounts: QuotaUse = Field(description="Accounts in every state")
    bytes: QuotaUse = Field(description="The size of the kept content, deleted items included")
    runs: QuotaUse = Field(
        description="The runs that began today (UTC). They are counted while a quota bounds them"
    )
    runs_reset_at: datetime = Field(description="The time at which the next day begins")


def _quota(value: object) -> int | str | None:
    # A number such as 5.0 is an integer in JSON Schema.
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    if number is None or number == "default":
        return number
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= MAX_QUOTA:
        return number
    raise PydanticCustomError(
        "quota", "must be an integer from 0 to {most}, null or 'default'", {"most": MAX_QUOTA}
    )


NewQuota = Annotated[
    int | Literal["default"] | None,
    PlainValidator(
        _quota,
        json_schema_input_type=Annotated[int, Field(ge=0, le=MAX_QUOTA)]
        | Literal["default"]
        | None,
    ),
    Field(description="A number; null: no bound; `default`: that of users without their own"),
]


class QuotaChange(RequestBody):
    """New quotas of a user; omitted ones stay."""

    accounts: NewQuota = None
    bytes: NewQuota = None
    runs: NewQuota = None
