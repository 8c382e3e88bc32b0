"""Channels: their listing, selection and rows."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Container, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic import BaseModel

from core import TaskOutput
from integration_polling_slack.account import ChannelType, Config
from integration_polling_slack.names import handle, is_id
from integration_polling_slack.selection import Selected, plain, select

PARENT = "channels"
"""The parent of the channels' rows."""

TYPES: Mapping[ChannelType, str] = {
    "public": "public_channel",
    "private": "private_channel",
    "im": "im",
    "mpim": "mpim",
}
_GROUP = re.compile(r"mpdm-(.+)-\d+")
LONGEST = 1_000
"""The maximum number of characters of a topic or purpose."""


class Ref(BaseModel):
    """The description of a channel.

    Attributes:
      id: The channel's id.
      name: The name with its sigil: `#general`, or `@Ann` for a direct message.
      type: The kind of channel.
      is_member: True if the token's owner is a member. Default: True.
      is_archived: True if the channel is archived. Default: False.
      updated: The time of the last change of its settings, in milliseconds. Default: 0.
      created: The time at which it was created, in Unix seconds. Default: 0.
      topic, purpose: The texts that describe it. Default: empty.
      current: Slack's present id, if the id has changed; rows keep the first one. Default: empty.
      canvases: The ids of the channel's own canvases. Default: none.
      user: The partner's id in a direct message. Default: empty.
      previous: The names that it had before. Default: none.
    """

    id: str
    name: str
    type: ChannelType
    is_member: bool = True
    is_archived: bool = False
    updated: int = 0
    created: int = 0
    topic: str = ""
    purpose: str = ""
    current: str = ""
    canvases: list[str] = []
    previous: list[str] = []
    user: str = ""

    @property
    def words(self) -> set[str]:
        """The words by which a config names the channel now."""
        return {plain(word) for word in (self.id, self.name, self.current, self.user) if word}

    @property
    def mark(self) -> str:
        """The properties that a channel keeps when its id changes; empty if they are unknown."""
        return f"{self.created}:{self.name}" if self.created else ""

    @property
    def archived(self) -> str:
        """The version of the settings if the channel is archived; empty if it is not.

        Without a new version, no message can have been posted.
        """
        return str(self.updated) if self.is_archived else ""

    @property
    def may_be_joined(self) -> bool:
        """True if a bot can join the channel."""
        return self.type == "public" and not self.is_archived

    def is_readable(self, *, is_bot: bool) -> bool:
        """Return True if the token may read the channel.

        Users can read public channels without joining them; bots cannot.
        """
        return self.is_member or (self.type == "public" and not is_bot)

    def row(
        self,
        unreadable: str | None,
        copied_back_to: str | None = None,
        fresh_within: int | None = None,
    ) -> TaskOutput:
        """Return the channel's row.

        Args:
          unreadable: Slack's error code, or None.
          copied_back_to: The time of the oldest message of an incomplete copy. Default: None.
          fresh_within: The minutes within which polls find a new message. Default: each poll asks
            for new messages, or the bound is not known yet.
        """
        return TaskOutput(
            self.id, kind="channel", parent=PARENT, name=self.name,
            timestamp=datetime.fromtimestamp(self.created, UTC) if self.created else None,
            metadata={
                "type": self.type, "is_archived": self.is_archived, "topic": self.topic,
                "purpose": self.purpose, "unreadable": unreadable,
                "copied_back_to": copied_back_to, "fresh_within_minutes": fresh_within,
            },
        )  # fmt: skip


class Refs(BaseModel):
    """A page of the channel list."""

    refs: list[Ref]


class Absent(BaseModel):
    """Channels of the config that do not exist."""

    names: list[str] = []


class Followed(BaseModel):
    """Channels that are kept and were in the last listing, and the types of that listing.

    Attributes:
      marks: `Ref.mark` of each channel, by id.
      kinds: The type of each channel that was ever kept, by id.
      members: The channels that the token's owner was a member of.
      listed_at: The time of the last list of all channels.
      selection: `selection` of the config at that time.
      words: The channel that each word of the config names; see `Selected.by_word`.
    """

    ids: list[str] = []
    marks: dict[str, str] = {}
    types: list[ChannelType] = []
    kinds: dict[str, ChannelType] = {}
    members: list[str] = []
    listed_at: datetime | None = None
    selection: str = ""
    words: dict[str, str] = {}

    def of(self, kinds: Container[ChannelType]) -> list[str]:
        """Return the channels of these types."""
        return [id for id in self.ids if self.kinds.get(id) in kinds]

    def named(self, config: Config) -> set[str]:
        """Return the followed channels that words of the config name, and not only patterns."""
        return {self.words.get(word, "") for word in map(plain, config.channels)} & {*self.ids}

    def vanished(
        self, listed: Container[str], types: list[ChannelType], lost: Collection[ChannelType]
    ) -> list[str]:
        """Return the channels that a new listing of the same types no longer has.

        Args:
          listed: The ids in the new listing.
          types: The types of the config.
          lost: The types that the token may not list.
        """
        if self.types != types:
            return []
        unlisted = [id for id in self.ids if id not in listed]
        return [id for id in unlisted if not lost or self.kinds.get(id) not in (None, *lost)]

    def listed(self, time: datetime, selected: Selected, config: Config) -> Followed:
        """Return the value after a list of all channels at this time."""
        written = set(map(plain, [*config.channels, *config.exclude]))
        words = {word: id for word, id in self.words.items() if word in written}
        return self.model_copy(update={"listed_at": time, "words": words | selected.by_word})

    def including(self, ref: Ref) -> Followed:
        """Return the value with a channel that was read alone."""
        others = [id for id in self.members if id != ref.id]
        return self.model_copy(
            update={
                "ids": sorted({*self.ids, ref.id}),
                "marks": self.marks | {ref.id: ref.mark},
                "kinds": self.kinds | {ref.id: ref.type},
                "members": sorted([*others, *([ref.id] if ref.is_member else [])]),
            }
        )

    def after(
        self,
        wanted: Iterable[Ref],
        config: Config,
        *,
        lost: Collection[ChannelType],
        is_complete: bool,
    ) -> Followed:
        """Return the value after a list of all channels, or of the bot's own channels.

        Args:
          wanted: The listed channels to keep.
          config: The account's config.
          lost: The types that the token may not list. Their channels stay.
          is_complete: True after a list of all channels.
        """
        refs = {ref.id: ref for ref in wanted}
        stay = self.of(lost) if is_complete else self.ids
        marks = {id: self.marks.get(id, "") for id in stay}
        marks |= {id: ref.mark for id, ref in refs.items()}
        return self.model_copy(
            update={
                "ids": sorted(marks),
                "marks": marks,
                "types": config.types,
                "kinds": self.kinds | {id: ref.type for id, ref in refs.items()},
                "members": sorted(id for id, ref in refs.items() if ref.is_member),
                "selection": selection(config),
            }
        )


class People(BaseModel):
    """The time of the last listing of people, and its number of pages."""

    listed_at: datetime
    pages: int


class Restricted(BaseModel):
    """The state of an app that Slack limits as a distributed one, although the config says no.

    Attributes:
      noticed_at: The time of the last answer that showed it.
    """

    noticed_at: datetime


class Workspace(BaseModel):
    """The workspace's address, and the kind of the token's owner.

    Attributes:
      moved: Slack's present ids of channels whose id has changed, by the id in their rows.
      lacks_reactions: True if the app sends events, and the token lacks the scope for those of
        reactions.
      searches: True if a person's token may search for messages.
    """

    url: str = ""
    is_bot: bool = True
    moved: dict[str, str] = {}
    lacks_reactions: bool = False
    searches: bool = False


def moved(listed: Iterable[Ref], before: Followed, known: Mapping[str, str]) -> dict[str, str]:
    """Return the present ids of channels whose id has changed, by the id in their rows.

    Slack gives a channel a new id when it is shared, or moves to or from an Enterprise
    organization. No method tells the old id. A followed channel that is no longer listed is the new
    channel that was created in the same second and has the same name.

    Source: https://docs.slack.dev/reference/events/channel_id_changed
    """
    refs = {ref.id: ref for ref in listed}
    result = {first: now for first, now in known.items() if first not in refs}
    taken = {*before.ids, *result.values()}
    for first in before.ids:
        mark = before.marks.get(first)
        if mark and result.get(first, first) not in refs:
            found = [ref.id for ref in refs.values() if ref.mark == mark and ref.id not in taken]
            if len(found) == 1:
                result[first] = found[0]
    return result


def with_first_ids(listed: Iterable[Ref], moves: Mapping[str, str]) -> list[Ref]:
    """Return channels with the ids of their rows."""
    first = {now: id for id, now in moves.items()}
    return [
        ref.model_copy(update={"id": first[ref.id], "current": ref.id}) if ref.id in first else ref
        for ref in listed
    ]


class HasNames(Protocol):
    """A source of names by id."""

    def get(self, id: str, /) -> str | None:
        """Return the name for an id, or None."""
        ...


def refs(items: Iterable[Any], names: HasNames) -> list[Ref]:
    """Return the channels of a page that have a valid id."""
    return [_ref(one, names) for one in items if isinstance(one, dict) and is_id(one.get("id"))]


def _ref(item: Mapping[str, Any], names: HasNames) -> Ref:
    id, kind = item["id"], _type(item)
    name = item.get("name") if isinstance(item.get("name"), str) else None
    shown = f"#{name or id}"
    if kind == "im":
        user = str(item.get("user", ""))
        shown = names.get(user) or f"@{user}"
    if kind == "mpim" and (people := _people(name, names)):
        shown = people
    return Ref(
        id=id, name=shown[:100], type=kind, is_archived=bool(item.get("is_archived")),
        is_member=bool(item.get("is_member", True)) or kind in ("im", "mpim"),
        created=_number(item.get("created"), 2**33), updated=_number(item.get("updated"), 2**53),
        topic=_value(item.get("topic")), purpose=_value(item.get("purpose")),
        canvases=_canvases(item.get("properties")), previous=_texts(item.get("previous_names")),
        user=str(item.get("user")) if kind == "im" and is_id(item.get("user")) else "",
    )  # fmt: skip


def _texts(values: Any) -> list[str]:
    return [one for one in values if isinstance(one, str)] if isinstance(values, list) else []


def _people(name: str | None, names: HasNames) -> str:
    """Return the people of a group message, whose name is like `mpdm-ann--bob-1`."""
    found = _GROUP.fullmatch(name or "")
    handles = found[1].split("--") if found else []
    return ", ".join(names.get(handle(one)) or f"@{one}" for one in handles)


def _canvases(properties: Any) -> list[str]:
    """Return the ids of the canvas and of the canvas tabs of a channel."""
    if not isinstance(properties, dict):
        return []
    tabs = [properties.get("tabs"), properties.get("tabz")]
    entries = [one for some in tabs if isinstance(some, list) for one in some]
    held = [properties.get("canvas")]
    held += [one.get("data") for one in entries if isinstance(one, dict)]
    ids = [one.get("file_id") for one in held if isinstance(one, dict) and not one.get("is_empty")]
    return list(dict.fromkeys(str(id) for id in ids if is_id(id)))


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


def selection(config: Config) -> str:
    """Return the part of the config that selects channels, as text."""
    return json.dumps([config.channels, config.exclude, config.types, config.deselected])


def choose(found: Iterable[Ref], config: Config, before: Followed) -> Selected:
    """Return the selection among the channels of a list."""
    return select(found, config.channels, config.exclude, before.words)


def deselected(
    kept: Iterable[str], listed: Container[str], wanted: Container[str], now: Followed
) -> list[str]:
    """Return the kept channels that the config no longer selects.

    Args:
      kept: The ids of the channels' rows.
      listed: The channels in the list of all channels.
      wanted: The channels to keep.
      now: The channels that are kept, by the present config.
    """
    return sorted(
        id
        for id in kept
        if id not in wanted
        and (id in listed or (id in now.kinds and now.kinds[id] not in now.types))
    )


def vanished_row(id: str) -> TaskOutput:
    """Return an update that marks a channel as no longer listed.

    The channel was deleted, or is private and the token's owner is not a member.
    """
    return TaskOutput.update(id, metadata={"unreadable": "channel_not_found"})


def without_scope(id: str) -> TaskOutput:
    """Return an update that marks a channel whose type the token may no longer list."""
    return TaskOutput.update(id, metadata={"unreadable": "missing_scope"})


def missing_row(name: str) -> TaskOutput:
    """Return a row for a channel of the config that is missing, or invisible to the token."""
    return TaskOutput(
        missing_id(name),
        kind="channel",
        parent=PARENT,
        name=name,
        metadata={"unreadable": "not found"},
    )


def missing_id(name: str) -> str:
    """Return the id of such a row."""
    return f"missing:{name}"
