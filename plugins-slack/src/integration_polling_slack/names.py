"""Names of people, channels and groups by id, in shards of state, for rendering messages."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from zlib import crc32

from pydantic import BaseModel

from core import Context

SHARDS = 64
"""The number of shards. In a workspace of 100,000 people, a shard has about 50 kB."""

LONGEST = 80
"""The maximum number of characters of a name, which is also Slack's limit."""


_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def is_id(value: object) -> bool:
    """Return True if the value has the format of an id of a person, channel, group or file."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


class Shard(BaseModel):
    """Names with their sigil, by id: `@Ann`, `#general`."""

    names: dict[str, str] = {}


class Names:
    """Looks up names for one task, one shard at a time."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._shards: dict[str, dict[str, str]] = {}

    def get(self, id: str) -> str | None:
        """Return the name for an id, or None."""
        partition = _partition(id)
        if partition not in self._shards:
            self._shards[partition] = _read(self._ctx, partition)
        return self._shards[partition].get(id)


def changed(ctx: Context, names: Mapping[str, str]) -> dict[str, BaseModel | None]:
    """Return the shards that these names change, as state for a result."""
    parts: dict[str, dict[str, str]] = {}
    for id, name in names.items():
        parts.setdefault(_partition(id), {})[id] = name[:LONGEST]
    before = {partition: _read(ctx, partition) for partition in parts}
    return {
        partition: Shard(names={**before[partition], **part})
        for partition, part in parts.items()
        if not part.items() <= before[partition].items()
    }


def of_user(user: Mapping[str, Any]) -> str:
    """Return the name that Slack shows: the display name, else the full name, else the handle."""
    profile = user.get("profile")
    found = profile if isinstance(profile, dict) else {}
    shown = (
        found.get("display_name"),
        found.get("real_name"),
        user.get("real_name"),
        user.get("name"),
    )
    return (
        f"@{next((name for name in shown if isinstance(name, str) and name), user.get('id', '?'))}"
    )


def _read(ctx: Context, partition: str) -> dict[str, str]:
    shard = ctx.state(partition, Shard)
    return shard.names if shard is not None else {}


def _partition(id: str) -> str:
    return f"names/{crc32(id.encode()) % SHARDS:02d}"
