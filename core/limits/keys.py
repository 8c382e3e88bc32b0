"""The limits of an account, with the operator's overrides, and the keys that count them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from core.errors import SettingsError
from core.integration.limits import BACKFILL_SHARE, Concurrency, Limit, Rate
from core.settings import LimitOverride

WHOLE_ACCOUNT = ""
"""The name of the limit, and of the breaker, of a complete account."""


def overridden(limits: Iterable[Limit], overrides: Mapping[str, LimitOverride]) -> list[Limit]:
    """Return the limits of a plugin with the overrides of `POLLING_LIMITS` applied.

    Raises:
      SettingsError: An override has a field that does not exist for the kind of its limit.
    """
    return [_override(limit, overrides.get(limit.name)) for limit in limits]


LOWERED_SECONDS = 3_600.0
"""Seconds for which a limit stays lowered after its provider refused more."""


def lowered(limits: Iterable[Limit], rows: Iterable[Mapping[str, Any]]) -> list[Limit]:
    """Return limits, lowered to the number that their providers allowed in the last hour.

    Args:
      limits: The limits, with the operator's overrides.
      rows: The JSON of the account's row, which keeps that number.
    """
    since = time.time() - LOWERED_SECONDS
    allowed = {
        row["name"]: int(row["lowered"]) for row in rows if row.get("lowered_at", 0.0) > since
    }
    return [
        replace(limit, tasks=max(min(limit.tasks, allowed[limit.name]), 1))
        if isinstance(limit, Concurrency) and limit.name in allowed
        else limit
        for limit in limits
    ]


def _override(limit: Limit, override: LimitOverride | None) -> Limit:
    if override is None:
        return limit
    values = override.model_dump(exclude_none=True)
    allowed = {"tasks"} if isinstance(limit, Concurrency) else {"units", "per", "backfill_share"}
    if set(values) - allowed:
        kind = type(limit).__name__
        raise SettingsError(
            "limit-override-invalid",
            limit=limit.name,
            kind=kind,
            allowed=" and ".join(sorted(allowed)),
        )
    return replace(limit, **values)


def to_json(limits: Iterable[Limit]) -> list[dict[str, Any]]:
    """Convert limits to the JSON of the account's row, for dispatchers without the plugin."""
    return [_row(limit) for limit in limits]


def _row(limit: Limit) -> dict[str, Any]:
    if isinstance(limit, Concurrency):
        return {"name": limit.name, "tasks": limit.tasks, "by": limit.by}
    row = {"name": limit.name, "units": limit.units, "per": limit.per, "by": limit.by}
    return row | {"backfill_share": limit.backfill_share}


def from_json(rows: Iterable[Mapping[str, Any]]) -> list[Limit]:
    """Convert the JSON of the account's row to limits."""
    return [_limit(row) for row in rows]


def _limit(row: Mapping[str, Any]) -> Limit:
    if "tasks" in row:
        return Concurrency(row["name"], row["tasks"], row["by"])
    share = row.get("backfill_share", BACKFILL_SHARE)  # the version before has none
    return Rate(row["name"], row["units"], row["per"], row["by"], share)


def limit_key(limit: Limit, *, domain: str, account_id: str, group: str | None) -> str:
    """Return the key that counts and blocks a limit.

    For an account without a group, `by="group"` counts the account alone.
    """
    if limit.by == "integration":
        return f"integration/{domain}/{limit.name}"
    if limit.by == "group" and group is not None:
        return f"group/{domain}/{group}/{limit.name}"
    return f"account/{account_id}/{limit.name}"


def account_key(account_id: str) -> str:
    """Return the key that blocks a complete account."""
    return f"account/{account_id}/{WHOLE_ACCOUNT}"


def exhausted(name: str) -> str:
    """Return the reason of a task, or of a block, that waits for units of a limit."""
    return f"rate limit {name!r} is exhausted"


def weight(limit: Limit, cost: Mapping[str, int]) -> int:
    """Return the units of a limit that one task takes.

    A task without a cost takes one unit of a `Concurrency` limit and none of a `Rate` limit.
    """
    return cost.get(limit.name, 1 if isinstance(limit, Concurrency) else 0)
