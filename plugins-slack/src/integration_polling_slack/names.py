"""Names of people, channels and groups by id, in shards of state, for rendering messages."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Protocol, TypeGuard, TypeVar
from zlib import crc32

from pydantic import BaseModel

from core import Context
from integration_polling_slack.mrkdwn import unescaped

SHARDS = 64
"""The number of shards. In a workspace of 100,000 people, a shard has about 50 kB."""

DIRECTORY, STRANGERS = "names", "strangers"
"""The partitions: names of listed people and channels, and of people who were looked up."""

_BUILT_IN = {"USLACKBOT": "@Slackbot"}

LONGEST = 80
"""The maximum number of characters of a name, which is also Slack's limit."""


M = TypeVar("M", bound=BaseModel)

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


def is_id(value: object) -> TypeGuard[str]:
    """Return True if the value has the format of an id of a person, channel, group or file."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None


class Shard(BaseModel):
    """Names with their sigil, by id: `@Ann`, `#general`.

    Attributes:
      names: The names by id.
      bots: The ids among them that are, or may be, bots.
    """

    names: dict[str, str] = {}
    bots: list[str] = []


class HasState(Protocol):
    """A source of the account's state: the context of a task, or a kept item of a reread."""

    def state(self, partition: str, model: type[M], /) -> M | None:
        """Return the value of a state partition, or None if it is empty."""
        ...


class Names:
    """Looks up names for one task, one shard at a time. The directory precedes strangers."""

    def __init__(self, ctx: HasState) -> None:
        self._ctx = ctx
        self._shards: dict[str, Shard] = {}

    def get(self, id: str) -> str | None:
        """Return the name for an id, or None."""
        listed = self._shard(id, DIRECTORY).names.get(id) or _BUILT_IN.get(id)
        return listed or self._shard(id, STRANGERS).names.get(id) or None

    def is_person(self, id: str) -> bool:
        """Return True if the id is that of a listed person who is not a bot."""
        shard = self._shard(id, DIRECTORY)
        return id in shard.names and id not in shard.bots

    def is_asked(self, id: str) -> bool:
        """Return True if the name is known, or if Slack did not know it when asked."""
        return self.get(id) is not None or id in self._shard(id, STRANGERS).names

    def learn(self, names: Mapping[str, str]) -> None:
        """Add the names of strangers for the rest of the task; an empty name is unknown."""
        for id, name in names.items():
            shard = self._shard(id, STRANGERS)
            named = Shard(names={**shard.names, id: name[:LONGEST]})
            self._shards[_partition(id, STRANGERS)] = named

    def _shard(self, id: str, kind: str) -> Shard:
        partition = _partition(id, kind)
        if partition not in self._shards:
            self._shards[partition] = _read(self._ctx, partition)
        return self._shards[partition]


def changed(
    ctx: Context,
    names: Mapping[str, str],
    kind: str = DIRECTORY,
    bots: Collection[str] = (),
) -> dict[str, BaseModel | None]:
    """Return the shards that these names change, as state for a result.

    Args:
      ctx: The task's context.
      names: The names by id.
      kind: The partition. Default: that of listed people and channels.
      bots: The ids among them that are, or may be, bots. Default: none.
    """
    parts: dict[str, dict[str, str]] = {}
    for id, name in names.items():
        parts.setdefault(_partition(id, kind), {})[id] = name[:LONGEST]
    result: dict[str, BaseModel | None] = {}
    for partition, part in parts.items():
        before = _read(ctx, partition)
        marked = sorted({*before.bots} - part.keys() | {id for id in part if id in bots})
        now = Shard(names={**before.names, **part}, bots=marked)
        if now != before:
            result[partition] = now
    return result


def no_strangers() -> dict[str, BaseModel | None]:
    """Return the state that lets each stranger be looked up again."""
    return {f"{STRANGERS}/{shard:02d}": None for shard in range(SHARDS)}


def handle(name: str) -> str:
    """Return the key under which the name of a person is kept by handle."""
    return f"@{name}"


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
    name = next((one for one in shown if isinstance(one, str) and one), user.get("id", "?"))
    return f"@{unescaped(name)}"


def _read(ctx: HasState, partition: str) -> Shard:
    return ctx.state(partition, Shard) or Shard()


def _partition(id: str, kind: str) -> str:
    return f"{kind}/{crc32(id.encode()) % SHARDS:02d}"
