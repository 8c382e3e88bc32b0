"""Limits of providers, their use, and the accounts that wait."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt

from core.integration.limits import Concurrency, Scope
from core.rest.schemas.common import RequestBody
from core.service.fleet.limits import LimitUse
from core.settings import LimitOverride


class WaitingAccount(BaseModel):
    """An account that waits for a budget."""

    user_integration_id: UUID = Field(description="The ID of the account")
    name: str = Field(description="The name of the account")


class Budget(BaseModel):
    """The use of a limit by one account, by one group of accounts, or by all accounts."""

    key: str = Field(description="The account, the group or the integration that has the budget")
    used: int = Field(description="The units of the latest period, or the tasks in progress")
    left: int = Field(description="The units, or the tasks, that may still start")
    more_at: datetime | None = Field(
        description="The time at which more units are left; null if all are, and for tasks"
    )
    waiting: list[WaitingAccount] = Field(
        description="The first accounts that wait for it; with a user's token, only that user's"
    )
    waiting_accounts: int = Field(description="The number of accounts that wait for it")


class ProviderLimit(BaseModel):
    """A limit of an integration, with the operator's figures and its budgets in use."""

    integration_domain: str = Field(description="The integration")
    name: str = Field(description="The name of the limit")
    kind: Literal["rate", "concurrency"] = Field(
        description="`rate`: units in a period; `concurrency`: tasks at a time"
    )
    by: Scope = Field(description="Who has a budget: each account, each group, or all accounts")
    units: int | None = Field(description="The units in the period; null for `concurrency`")
    per: float | None = Field(description="The period in seconds; null for `concurrency`")
    backfill_share: float | None = Field(
        description="The share of the backfill while live tasks wait; null for `concurrency`"
    )
    tasks: int | None = Field(description="The tasks at a time; null for `rate`")
    is_changed: bool = Field(description="True if an operator has changed it with this API")
    budgets: list[Budget] = Field(description="The budgets of accounts with open runs")

    @classmethod
    def of(cls, use: LimitUse) -> Self:
        """Return a limit for a client."""
        limit = use.limit
        values: dict[str, Any] = dict.fromkeys(("units", "per", "backfill_share", "tasks"))
        if isinstance(limit, Concurrency):
            values |= {"kind": "concurrency", "tasks": limit.tasks}
        else:
            values |= {"kind": "rate", "units": limit.units, "per": limit.per}
            values |= {"backfill_share": limit.backfill_share}
        values |= {"integration_domain": use.domain, "name": limit.name, "by": limit.by}
        return cls(
            **values,
            is_changed=use.is_changed,
            budgets=[
                Budget(
                    key=budget.key,
                    used=budget.used,
                    left=budget.left,
                    more_at=budget.more_at,
                    waiting=[
                        WaitingAccount(user_integration_id=UUID(id), name=name)
                        for id, name in budget.waiting.items()
                    ],
                    waiting_accounts=budget.waiting_accounts,
                )
                for budget in use.budgets
            ],
        )


class LimitChange(RequestBody, json_schema_extra={"minProperties": 1}):
    """New figures of a limit; the others stay."""

    units: PositiveInt | None = Field(None, description="The units in the period", le=2**53)
    per: PositiveFloat | None = Field(None, description="The period in seconds", le=1e9)
    backfill_share: float | None = Field(
        None, ge=0, le=1, description="The share of the backfill while live tasks wait"
    )
    tasks: PositiveInt | None = Field(None, description="The tasks at a time", le=2**31 - 1)

    def override(self) -> LimitOverride:
        """Return the figures that are given."""
        return LimitOverride.model_validate(self.model_dump(exclude_none=True))
