"""The health of the engine."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from core.service.backend import CheckStatus


class Health(BaseModel):
    """The health of the server and of the fleet."""

    status: Literal["ok", "degraded", "unavailable"] = Field(description="The overall status")
    checks: dict[str, CheckStatus] = Field(description="The status of each check")
