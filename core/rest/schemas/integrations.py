"""Integrations, their pauses and outages."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from core.rest.schemas.common import RequestBody
from core.web.timestamps import StoredTimestamp


class Integration(BaseModel):
    """An installed integration: a kind of service whose accounts can be connected."""

    integration_domain: str = Field(description="The unique name of the integration, such as `ftp`")
    name: str = Field(description="The display name")
    version: str | None = Field(description="The version of the plugin")
    docs: str | None = Field(description="The address of the documentation")
    oauth: bool = Field(
        description="True if accounts can be connected in a browser with `/v1/oauth`"
    )
    paused_at: datetime | None = Field(
        description="The time since when an operator has paused all accounts; null if it is not"
        " paused"
    )
    paused_until: datetime | None = Field(
        description="The time at which the pause ends by itself; null if there is no such time"
    )
    config_schema: dict[str, Any] = Field(description="The JSON schema of `config`")
    credentials_schema: dict[str, Any] = Field(description="The JSON schema of `credentials`")


class IntegrationPause(RequestBody):
    """The pause of an integration."""

    until: StoredTimestamp | None = Field(
        None,
        description="The time at which the pause ends by itself. Default: never",
    )


class Outage(BaseModel):
    """An integration, or one limit of it, that does not answer some of its accounts."""

    integration_domain: str = Field(description="The integration")
    limit: str | None = Field(
        description="The limit that does not answer, such as one method; null for all of it"
    )
    since: datetime = Field(description="The time of the first failure")
    next_try: datetime = Field(description="The time of the next probe")
    accounts: int = Field(description="The number of accounts that get no answer")
    active_accounts: int = Field(description="The number of active accounts of the integration")
    tasks: int = Field(
        description="The number of tasks that wait. Above 100,000, they are not counted"
    )
    sentence: str = Field(description="The outage as a sentence for people")
