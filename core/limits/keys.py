"""The limits of an account, with the operator's own figures, and the keys that count them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from core.errors import SettingsError
from core.integration.limits import Concurrency, Limit, Rate
from core.settings import LimitOverride

WHOLE_ACCOUNT = ""
"""The limit name under which a whole account is blocked."""


def overridden(limits: Iterable[Limit], overrides: Mapping[str, LimitOverride]) -> list[Limit]:
    """The plugin's limits with the figures of `POLLING_LIMITS` in place of its own."""
    return [_override(limit, overrides.get(limit.name)) for limit in limits]


def _override(limit: Limit, override: LimitOverride | None) -> Limit:
    if override is None:
        return limit
    values = override.model_dump(exclude_none=True)
    allowed = {"tasks"} if isinstance(limit, Concurrency) else {"units", "per"}
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
    """As the account's row keeps them, for dispatchers that do not have the plugin."""
    return [_row(limit) for limit in limits]


def _row(limit: Limit) -> dict[str, Any]:
    if isinstance(limit, Concurrency):
        return {"name": limit.name, "tasks": limit.tasks, "by": limit.by}
    return {"name": limit.name, "units": limit.units, "per": limit.per, "by": limit.by}


def from_json(rows: Iterable[Mapping[str, Any]]) -> list[Limit]:
    """The other way."""
    return [Concurrency(**row) if "tasks" in row else Rate(**row) for row in rows]


def limit_key(limit: Limit, *, domain: str, account_id: str, group: str | None) -> str:
    """What a limit is counted and blocked under.

    Without a group, `by="group"` counts the account alone.
    """
    if limit.by == "integration":
        return f"integration/{domain}/{limit.name}"
    if limit.by == "group" and group is not None:
        return f"group/{domain}/{group}/{limit.name}"
    return f"account/{account_id}/{limit.name}"


def account_key(account_id: str) -> str:
    """What a whole account is blocked under."""
    return f"account/{account_id}/{WHOLE_ACCOUNT}"


def weight(limit: Limit, cost: Mapping[str, int]) -> int:
    """Units of a limit that one task takes.

    A `Concurrency` counts every task once unless the task says otherwise.
    """
    return cost.get(limit.name, 1 if isinstance(limit, Concurrency) else 0)
