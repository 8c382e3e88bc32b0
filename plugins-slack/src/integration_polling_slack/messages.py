"""Messages of Slack as rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core import TaskOutput
from integration_polling_slack import text, timestamps
from integration_polling_slack.text import Name

Message = Mapping[str, Any]

MAX_PART_CHARS = 20_000
MAX_PART_CHARS_BY_NAME = {"blocks": 300_000, "attachments": 300_000}
"""The maximum size of a part of the metadata, in characters of JSON; a row may have 1 MiB."""

MAX_NAME_CHARS = 200
"""The maximum number of characters of a row's name."""

_COMPARED = (
    "text",
    "user",
    "username",
    "bot_id",
    "subtype",
    "edited",
    "reactions",
    "blocks",
    "attachments",
    "files",
)


EMPTIED = "-"
"""The version of a thread that has lost all its replies. The delete guard may hold them."""


@dataclass(frozen=True, slots=True)
class Version:
    """The version of a message, kept as the row's fingerprint: `own|thread|replies`.

    Attributes:
      own: A digest of the message itself.
      thread: `latest_reply:reply_count` of the kept thread; empty without a thread, `-` if the
        thread has lost all its replies, `?` if the thread changed while it was read.
      replies: The timestamps of the replies, if there are at most 100.
    """

    own: str
    thread: str = ""
    replies: str = ""

    @classmethod
    def parse(cls, fingerprint: str | None) -> Version:
        """Return the parts of a fingerprint."""
        return cls(*[*(fingerprint or "").split("|"), "", ""][:3])

    def __str__(self) -> str:
        return f"{self.own}|{self.thread}|{self.replies}"


@dataclass(frozen=True, slots=True)
class Place:
    """A channel, with the workspace's address and the names of people and channels."""

    channel: str
    url: str
    name: Name

    def id(self, ts: str) -> str:
        """Return a message's id. Timestamps are unique only within a channel."""
        return f"{self.channel}:{ts}"


def is_message(value: Message) -> bool:
    """Return True if the object is a message with a valid timestamp."""
    return timestamps.is_ts(value.get("ts")) and value.get("type", "message") == "message"


def is_reply(message: Message) -> bool:
    """Return True if the message is a reply in the thread of another message."""
    return timestamps.is_ts(message.get("thread_ts")) and message["thread_ts"] != message["ts"]


def own_version(message: Message) -> str:
    """Return a digest of the parts of a message that can change."""
    described = {key: message[key] for key in _COMPARED if message.get(key)}
    if is_reply(message):
        # A reply that was also sent to the channel has two descriptions.
        described.pop("subtype", None)
    if isinstance(described.get("files"), list):
        # Links to thumbnails and the like differ from call to call.
        described["files"] = [
            (one.get("id"), one.get("mode")) for one in described["files"] if isinstance(one, dict)
        ]
    encoded = json.dumps(described, sort_keys=True).encode()
    return hashlib.blake2b(encoded, digest_size=9).hexdigest()


def thread_version(message: Message) -> str:
    """Return a value that changes with every new or deleted reply; empty without replies."""
    count = message.get("reply_count")
    return f"{message.get('latest_reply', '')}:{count}"[:80].replace("|", "") if count else ""


def thread_changed(before: str, now: str) -> bool:
    """Return True if a thread has changed since the version `before` was kept."""
    return now != ("" if before == EMPTIED else before)


def settled_version(version: str, newest: str) -> str:
    """Return the version of a thread after reading it, given its newest reply.

    A reply may arrive after the version was taken, and be deleted before the next look. The thread
    then has its old version again. So a thread with such a reply gets `?`, which equals no version.
    """
    latest = version.partition(":")[0]
    if not newest or (version and not timestamps.is_ts(latest)):
        return version
    is_newer = not version or timestamps.order(newest) > timestamps.order(latest)
    return "?" if is_newer else version


def row(message: Message, place: Place, fingerprint: str) -> TaskOutput:
    """Return the message's row."""
    ts = message["ts"]
    parent = place.id(message["thread_ts"]) if is_reply(message) else place.channel
    name = f"{place.name(place.channel) or place.channel} {_author(message, place.name)}"
    return TaskOutput(
        place.id(ts), text.readable(message, place.name), kind="message", parent=parent,
        name=name[:MAX_NAME_CHARS], timestamp=timestamps.moment(ts), content_type="text/plain",
        metadata=_metadata(message, place), fingerprint=fingerprint,
    )  # fmt: skip


def _author(message: Message, name: Name) -> str:
    """Return the author's name: from the directory, else from the message (as for bots)."""
    user, bot, profile = (message.get(key) for key in ("user", "bot_profile", "user_profile"))
    known = name(user) if isinstance(user, str) and "bot_id" not in message else None
    said = [message.get("username")]
    said += [
        found.get(key)
        for found in (bot, profile)
        if isinstance(found, dict)
        for key in ("name", "real_name")
    ]
    named = next((f"@{one}" for one in said if isinstance(one, str) and one), None)
    return (
        known
        or named
        or (name(user) if isinstance(user, str) else None)
        or f"@{user or message.get('bot_id')}"
    )


def _metadata(message: Message, place: Place) -> dict[str, Any]:
    kept = {
        "channel": place.channel,
        "ts": message["ts"],
        "user": message.get("user") or message.get("bot_id"),
        "thread_ts": message.get("thread_ts"),
        "subtype": message.get("subtype"),
        "reactions": _reactions(message.get("reactions")),
        "edited": message.get("edited"),
        "permalink": _permalink(message, place),
        "files": _files(message.get("files")),
        "blocks": message.get("blocks"),
        "attachments": message.get("attachments"),
    }
    return {
        key: value
        for key, value in kept.items()
        if value and len(json.dumps(value)) <= MAX_PART_CHARS_BY_NAME.get(key, MAX_PART_CHARS)
    }


def _reactions(reactions: Any) -> list[dict[str, Any]]:
    """Return name, count and listed users of each reaction."""
    found = reactions if isinstance(reactions, list) else []
    return [
        {key: one.get(key) for key in ("name", "count", "users")}
        for one in found
        if isinstance(one, dict)
    ]


def _files(files: Any) -> list[dict[str, Any]]:
    """Return the identifying fields of files; the files' own rows have the rest."""
    found = files if isinstance(files, list) else []
    shown = ("id", "name", "mimetype", "size", "mode")
    return [
        {key: one[key] for key in shown if one.get(key)} for one in found if isinstance(one, dict)
    ]


def _permalink(message: Message, place: Place) -> str:
    """Return the link to a message, as `chat.getPermalink` would at the cost of a call."""
    if not place.url:
        return ""
    link = f"{place.url}archives/{place.channel}/p{message['ts'].replace('.', '')}"
    return (
        f"{link}?thread_ts={message['thread_ts']}&cid={place.channel}"
        if is_reply(message)
        else link
    )
