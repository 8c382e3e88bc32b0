"""Messages of Slack as rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from core import TaskOutput
from integration_polling_slack import raw, text, timestamps
from integration_polling_slack.mrkdwn import Name, unescaped
from integration_polling_slack.text import READER_VERSION, attached_files

Message = Mapping[str, Any]

MAX_PART_CHARS = 20_000
MAX_PART_CHARS_BY_NAME = {"blocks": 300_000, "attachments": 300_000, "reactions": 200_000}
"""The maximum size of a part of the metadata, in characters of JSON."""

MAX_METADATA_BYTES = 1_000_000
"""The maximum size of the metadata in bytes of ASCII JSON; the engine accepts 1 MiB."""

MAX_REACTIONS = 500
"""The maximum number of reactions of a row. Slack accepts 50 of a message."""

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
    "file",
    "pinned_to",
    "metadata",
    "assistant_app_thread",
)


_SHOWN = (
    "bot_id", "thread_ts", "subtype", "edited", "blocks", "attachments", "pinned_to", "room",
    "assistant_app_thread", "metadata",
)  # fmt: skip
"""The parts of a message that its metadata has unchanged."""

_FILE_VERSION = (
    "id", "mode", "name", "title", "size", "edit_timestamp", "updated", "file_access",
)  # fmt: skip

EMPTIED = "-"
"""The version of a thread that has lost all its replies. The delete guard may hold them."""


@dataclass(frozen=True, slots=True)
class Version:
    """The version of a message, kept as the row's fingerprint: `own|thread|`.

    Attributes:
      own: A digest of the message itself.
      thread: `latest_reply:reply_count` of the kept thread; empty without a thread, `-` if the
        thread has lost all its replies, `?` if the thread changed while it was read. With a `?` in
        front, the thread is to be read once more.
    """

    own: str
    thread: str = ""

    @classmethod
    def parse(cls, fingerprint: str | None) -> Version:
        """Return the parts of a fingerprint."""
        return cls(*[*(fingerprint or "").split("|"), ""][:2])

    def is_other(self, own: str) -> bool:
        """Return True if the message itself was kept in another version than `own`."""
        return self.own not in ("", own)

    def __str__(self) -> str:
        return f"{self.own}|{self.thread}|"


IsPerson = Callable[[str], bool]


def nobody(id: str) -> bool:  # noqa: ARG001
    """Return False, for messages without a directory of people."""
    return False


@dataclass(frozen=True, slots=True)
class Place:
    """A channel, with the workspace's address and the names of people and channels.

    Attributes:
      channel: The id in the rows' ids.
      url: The address of the workspace.
      name: Returns the name for an id.
      current: Slack's present id, if the channel's id has changed. Default: empty.
      is_person: Returns True for the id of a person who is not a bot. Default: nobody.
    """

    channel: str
    url: str
    name: Name
    current: str = ""
    is_person: IsPerson = nobody

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
    described: dict[str, Any] = {key: message[key] for key in _COMPARED if message.get(key)}
    if is_reply(message):
        # A reply that was also sent to the channel has two descriptions.
        described.pop("subtype", None)
    # Links to thumbnails and the like differ from call to call.
    described.pop("file", None)
    if isinstance(reactions := described.get("reactions"), list):
        described["reactions"] = [_without_order(one) for one in reactions]
    described["files"] = [_file_version(one) for one in attached_files(message)]
    if isinstance(room := message.get("room"), dict):
        described["room"] = [room.get(key) for key in ("date_end", "participant_history")]
    encoded = json.dumps(described, sort_keys=True).encode()
    return hashlib.blake2b(encoded, digest_size=9).hexdigest()


def _file_version(file: Mapping[str, Any]) -> list[Any]:
    """Return the parts of a file that can change. Slack may tell the address after the upload."""
    has_address = bool(file.get("url_private") or file.get("url_private_download"))
    return [file.get(key) for key in _FILE_VERSION] + ([] if has_address else ["no address"])


def _without_order(reaction: Any) -> Any:
    """Return a reaction with its people in one order: Slack's order may change."""
    users = reaction.get("users") if isinstance(reaction, dict) else None
    return {**reaction, "users": sorted(map(str, users))} if isinstance(users, list) else reaction


def thread_version(message: Message) -> str:
    """Return a value that changes with every new or deleted reply; empty without replies."""
    count = message.get("reply_count")
    return f"{message.get('latest_reply', '')}:{count}"[:80].replace("|", "") if count else ""


def thread_changed(before: str, now: str) -> bool:
    """Return True if a thread has changed since the version `before` was kept."""
    return now != ("" if before == EMPTIED else before)


def grown_since(before: str, now: str, least: int) -> str:
    """Return the newest known reply if a long thread has only grown; empty otherwise.

    Then the replies after that one are enough. A shorter thread is read completely, which also
    finds edited replies.

    Args:
      before: The version of the thread as it is kept.
      now: Its present version.
      least: The number of known replies from which a thread is long.
    """
    (old, _, known), (new, _, count) = before.partition(":"), now.partition(":")
    if not (timestamps.is_ts(old) and timestamps.is_ts(new) and known.isdigit()):
        return ""
    has_grown = timestamps.order(new) > timestamps.order(old) and count.isdigit()
    return old if has_grown and int(count) > int(known) >= least else ""


def reply_count(version: str) -> int:
    """Return the number of replies in a thread's version; 0 if it does not say."""
    count = version.partition(":")[2]
    return int(count) if count.isdigit() else 0


def settled_version(version: str, newest: str, count: int | None, before: str) -> str:
    """Return the version of a thread after reading it.

    A reply may arrive after the version was taken, and be deleted before the next look. The thread
    then has its old version again. So a thread with such a reply gets `?`, which equals no version.

    Slack may also answer without the newest replies for a moment. Then the thread is read once
    more. If they are still missing, Slack does not show them.

    Args:
      version: The thread's version before it was read.
      newest: The newest reply that was read; empty without one.
      count: The number of replies that were read; None if it is unknown.
      before: The version in the row so far.
    """
    latest = version.partition(":")[0]
    if not version or not timestamps.is_ts(latest):
        return "?" if newest and not version else version
    if newest and timestamps.order(newest) > timestamps.order(latest):
        return "?"
    is_late = not newest or timestamps.order(newest) < timestamps.order(latest)
    is_late = is_late or (count is not None and count < reply_count(version))
    return again(version) if is_late and before != again(version) else version


def again(version: str) -> str:
    """Return the version of a thread that the next look reads again."""
    return f"?{version.removeprefix('?')}"


def row(message: Message, place: Place, fingerprint: str | None) -> TaskOutput:
    """Return the message's row."""
    ts = message["ts"]
    parent = place.id(message["thread_ts"]) if is_reply(message) else place.channel
    name = f"{place.name(place.channel) or place.channel} {_author(message, place)}"
    return TaskOutput(
        place.id(ts), text.readable(message, place.name), kind="message", parent=parent,
        name=name[:MAX_NAME_CHARS], timestamp=timestamps.moment(ts), content_type="text/plain",
        metadata=_metadata(message, place), fingerprint=fingerprint,
    )  # fmt: skip


def reread(
    metadata: Mapping[str, Any],
    fingerprint: str | None,
    name: Name,
    is_person: IsPerson = nobody,
) -> TaskOutput | None:
    """Render a kept message again, without a call of Slack.

    Args:
      metadata: The metadata of the message's row.
      fingerprint: The fingerprint of the row, which stays.
      name: Returns the names of people, channels and groups, as kept in the state.
      is_person: See `Place`. Default: nobody.

    Returns:
      The row; None if the metadata does not have the message.
    """
    message, channel = raw.unpacked(metadata), metadata.get("channel")
    if message is None or not isinstance(channel, str) or not is_message(message):
        return None
    url, _, link = str(metadata.get("permalink") or "").partition("archives/")
    place = Place(channel, url, name, link.partition("/")[0], is_person)
    return row(message, place, fingerprint)


def _author(message: Message, place: Place) -> str:
    """Return the author's name: from the directory, else from the message (as for bots).

    An app may post with the token of a person. Then Slack shows the person.
    """
    name = place.name
    bot, profile = (message.get(key) for key in ("bot_profile", "user_profile"))
    user, comment = message.get("user"), message.get("comment")
    if not user and isinstance(comment, dict):
        user = comment.get("user")  # a comment on a file, before 2018
    is_shown = "bot_id" not in message or (
        not message.get("username") and place.is_person(str(user))
    )
    known = name(user) if isinstance(user, str) and is_shown else None
    said = [message.get("username")]
    said += [
        found.get(key)
        for found in (bot, profile)
        if isinstance(found, dict)
        for key in ("name", "real_name")
    ]
    named = next((f"@{unescaped(one)}" for one in said if isinstance(one, str) and one), None)
    return (
        known
        or named
        or name(str(message.get("bot_id")))
        or (name(user) if isinstance(user, str) else None)
        or f"@{user or message.get('bot_id')}"
    )


def _metadata(message: Message, place: Place) -> dict[str, Any]:
    """Return the row's metadata; `omitted` names the parts that were too large."""
    shown = {key: message.get(key) for key in _SHOWN} | {
        "channel": place.channel,
        "ts": message["ts"],
        "user": message.get("user") or message.get("bot_id"),
        "app_id": _app(message),
        "reactions": _reactions(message.get("reactions")),
        "permalink": _permalink(message, place),
        "files": _files(attached_files(message)),
    }
    present = {key: value for key, value in shown.items() if value}
    kept = {
        key: value
        for key, value in present.items()
        if raw.size(value) <= MAX_PART_CHARS_BY_NAME.get(key, MAX_PART_CHARS)
    }
    return _bounded(message, kept, [key for key in present if key not in kept])


def _bounded(message: Message, kept: dict[str, Any], omitted: list[str]) -> dict[str, Any]:
    """Return the metadata with the raw message, within the engine's limit."""
    for large in ("", "attachments", "blocks"):
        if large in kept:
            kept = {key: value for key, value in kept.items() if key != large}
            omitted = [*omitted, large]
        rest = raw.packed(message, kept)
        added: dict[str, Any] = {"reader": READER_VERSION, "raw": rest}
        if missing := [*omitted, *(["raw"] if rest is None else [])]:
            added["omitted"] = missing
        found = {**kept, **{key: value for key, value in added.items() if value is not None}}
        if len(json.dumps(found)) <= MAX_METADATA_BYTES:
            return found
    return {**kept, "omitted": [*omitted, "raw"]}


def _app(message: Message) -> Any:
    """Return the id of the app that posted a message."""
    profile = message.get("bot_profile")
    return message.get("app_id") or (profile.get("app_id") if isinstance(profile, dict) else None)


def _reactions(reactions: Any) -> list[dict[str, Any]]:
    """Return name, count and people of each reaction. If they are many, fewer people stay."""
    items = reactions[:MAX_REACTIONS] if isinstance(reactions, list) else []
    found = [one for one in items if isinstance(one, dict)]
    for most in (None, 20, 5, 0):
        kept = [_reaction(one, most) for one in found]
        if raw.size(kept) <= MAX_PART_CHARS:
            break
    return kept


def _reaction(reaction: Mapping[str, Any], most: int | None) -> dict[str, Any]:
    """Return a reaction with the first `most` of its people; None keeps all."""
    name, count, users = (reaction.get(key) for key in ("name", "count", "users"))
    count = count if type(count) is int and 0 <= count < 2**53 else None
    shown = {"name": name[:100] if isinstance(name, str) else None, "count": count}
    if not isinstance(users, list):
        return {**shown, "users": users} if most is None else shown
    return {**shown, "users": users[:most]} if most != 0 else shown


def _files(files: Any) -> list[dict[str, Any]]:
    """Return the identifying fields of files; the files' own rows have the rest."""
    found = files if isinstance(files, list) else []
    shown = ("id", "name", "title", "mimetype", "size", "mode")
    return [
        {key: one[key] for key in shown if one.get(key)} for one in found if isinstance(one, dict)
    ]


def _permalink(message: Message, place: Place) -> str:
    """Return the link to a message, as `chat.getPermalink` would at the cost of a call."""
    if not place.url:
        return ""
    channel = place.current or place.channel
    link = f"{place.url}archives/{channel}/p{message['ts'].replace('.', '')}"
    return f"{link}?thread_ts={message['thread_ts']}&cid={channel}" if is_reply(message) else link
