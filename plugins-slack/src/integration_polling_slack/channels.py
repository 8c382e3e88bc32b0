"""Channels as they are listed, chosen and kept."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from core import TaskOutput
from integration_polling_slack.account import ChannelType, Config
from integration_polling_slack.names import Names, is_id

PARENT = "channels"
"""The parent of channels' rows."""

TYPES: Mapping[ChannelType, str] = {
    "public": "public_channel",
    "private": "private_channel",
    "im": "im",
    "mpim": "mpim",
}
LONGEST = 1_000
"""Characters of a topic or purpose."""


class Ref(BaseModel):
    """What a run has to know of a channel."""

    id: str
    name: str
    type: ChannelType
    is_member: bool = True
    is_archived: bool = False
    updated: int = 0
    created: int = 0
    topic: str = ""
    purpose: str = ""

    @property
    def archived(self) -> str:
        """The version of the settings in which it is archived; empty if it is not.

        Nothing is posted without a new one.
        """
        return str(self.updated) if self.is_archived else ""

    @property
    def may_be_joined(self) -> bool:
        return self.type == "public" and not self.is_archived

    def is_readable(self, *, is_bot: bool) -> bool:
        """Return whether the token may read it.

        People read public channels without joining, bots do not.
        """
        return self.is_member or (self.type == "public" and not is_bot)

    def row(self, unreadable: str | None) -> TaskOutput:
        """The channel's row; `unreadable` is Slack's error code if reading it fails."""
        return TaskOutput(
            self.id, kind="channel", parent=PARENT, name=self.name,
            timestamp=datetime.fromtimestamp(self.created, UTC) if self.created else None,
            metadata={
                "type": self.type, "is_archived": self.is_archived, "topic": self.topic,
                "purpose": self.purpose, "unreadable": unreadable,
            },
        )  # fmt: skip


class Refs(BaseModel):
    """One page of the channels' listing."""

    refs: list[Ref]


class Absent(BaseModel):
    """Channels of the config that are not there."""

    names: list[str] = []


class Followed(BaseModel):
    """Channels that are kept and were listed the last time, and the types that were asked for."""

    ids: list[str] = []
    types: list[ChannelType] = []

    def vanished(self, listed: Container[str], types: list[ChannelType]) -> list[str]:
        """Those that are listed no more, though their type still is."""
        return [id for id in self.ids if id not in listed] if self.types == types else []


class People(BaseModel):
    """When people were listed last, and how many pages that took."""

    listed_at: datetime
    pages: int


class Workspace(BaseModel):
    """Whose token it is."""

    url: str = ""
    is_bot: bool = True


def refs(items: Iterable[Mapping[str, Any]], names: Names) -> list[Ref]:
    """The channels of a page; those without an id are none."""
    return [_ref(item, names) for item in items if is_id(item.get("id"))]


def _ref(item: Mapping[str, Any], names: Names) -> Ref:
    id, kind = item["id"], _type(item)
    name = item.get("name") if isinstance(item.get("name"), str) else None
    shown = f"#{name or id}"
    if kind == "im":
        user = str(item.get("user", ""))
        shown = names.get(user) or f"@{user}"
    return Ref(
        id=id, name=shown[:100], type=kind, is_archived=bool(item.get("is_archived")),
        is_member=bool(item.get("is_member", True)) or kind in ("im", "mpim"),
        created=_number(item.get("created"), 2**33), updated=_number(item.get("updated"), 2**53),
        topic=_value(item.get("topic")), purpose=_value(item.get("purpose")),
    )  # fmt: skip


def _type(item: Mapping[str, Any]) -> ChannelType:
    if item.get("is_im"):
        return "im"
    if item.get("is_mpim"):
        return "mpim"
    return "private" if item.get("is_private") or item.get("is_group") else "public"


def _number(said: Any, below: int) -> int:
    return said if type(said) is int and 0 <= said < below else 0


def _value(said: Any) -> str:
    value = said.get("value") if isinstance(said, dict) else None
    return value[:LONGEST] if isinstance(value, str) else ""


def chosen(found: Iterable[Ref], config: Config) -> tuple[list[Ref], set[str]]:
    """The channels to keep, and the names in the config that no channel has."""
    wanted = {_plain(name) for name in config.channels}
    if not wanted:
        return list(found), set()
    kept = [ref for ref in found if {_plain(ref.id), _plain(ref.name)} & wanted]
    return kept, wanted - {_plain(word) for ref in kept for word in (ref.id, ref.name)}


def vanished_row(id: str) -> TaskOutput:
    """Mark a channel that is no longer listed.

    It was deleted, or is private and the token's owner is not a member.
    """
    return TaskOutput.update(id, metadata={"unreadable": "channel_not_found"})


def missing_row(name: str) -> TaskOutput:
    """Shows a channel of the config that is not there, or that the token cannot see."""
    return TaskOutput(
        missing_id(name),
        kind="channel",
        parent=PARENT,
        name=name,
        metadata={"unreadable": "not found"},
    )


def missing_id(name: str) -> str:
    return f"missing:{name}"


def _plain(name: str) -> str:
    return name.strip().lstrip("#@").casefold()
