"""The text of a message as a person sees it in Slack.

It is a pure function of the message and of the known names, so that kept messages can be rendered
again without Slack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from integration_polling_slack import file_words, secondary
from integration_polling_slack.blocks import DEEPEST, Blocks
from integration_polling_slack.mrkdwn import Name, plain, resolved, says

__all__ = ["DEEPEST", "READER_VERSION", "Name", "attached_files", "readable", "resolved"]

READER_VERSION = 5
"""The version of this renderer. It grows with each change of its results."""

MAX_FORWARDS = 5
"""The maximum depth of forwarded messages in forwarded messages."""

Message = Mapping[str, Any]

_SENTENCES = {
    "channel_join": "joined the channel",
    "group_join": "joined the channel",
    "channel_leave": "left the channel",
    "group_leave": "left the channel",
    "channel_archive": "archived the channel",
    "group_archive": "archived the channel",
    "channel_unarchive": "restored the channel",
    "group_unarchive": "restored the channel",
    "channel_convert_to_private": "made the channel private",
    "channel_convert_to_public": "made the channel public",
    "channel_topic": "set the channel topic: {topic}",
    "group_topic": "set the channel topic: {topic}",
    "channel_purpose": "set the channel description: {purpose}",
    "group_purpose": "set the channel description: {purpose}",
    "channel_name": "renamed the channel from {old_name} to {name}",
    "group_name": "renamed the channel from {old_name} to {name}",
    "pinned_item": "pinned an item to this channel",
    "unpinned_item": "unpinned an item from this channel",
    "bot_add": "added an integration to this channel",
    "bot_remove": "removed an integration from this channel",
    "huddle_thread": "A huddle started",
    "sh_room_created": "A huddle started",
    "sh_room_shared": "shared a call",
    "tombstone": "This message was deleted.",
    "channel_canvas_updated": "updated the channel canvas",
    "tabbed_canvas_updated": "updated a canvas",
    "document_mention": "mentioned people in a canvas",
}
"""The sentences that Slack shows for subtypes whose messages may lack a text.

Source: https://docs.slack.dev/reference/events/message
"""

_TITLED = (
    "assistant_app_thread", "canvas", "document", "channel_canvas", "item", "list", "workflow",
    "reminder",
)  # fmt: skip


def readable(message: Message, name: Name) -> str:
    """Return the message's text: blocks if there are any, else its text; then what is attached.

    Args:
      message: The message, as Slack returned it.
      name: Returns the names of people, channels and groups.
    """
    return _readable(message, name, MAX_FORWARDS)


def _readable(message: Message, name: Name, depth: int) -> str:
    if depth <= 0:
        return ""
    blocks = Blocks(name, message.get("text"))
    shown = blocks.unformatted if message.get("mrkdwn") is False else blocks.resolved
    body = blocks.all(message.get("blocks")) or shown(message.get("text"))
    found = [body or _sentence(message, blocks), *_about(message, blocks, body)]
    attachments = message.get("attachments")
    for one in attachments if isinstance(attachments, list) else []:
        said = "\n".join(found)
        found.append(
            secondary.words(one, blocks, said, lambda inner: _readable(inner, name, depth - 1))
        )
    for file in attached_files(message):
        found += file_words.words(file, "\n".join(found), blocks)
    return "\n".join(filter(None, found))


def attached_files(message: Message) -> list[dict[str, Any]]:
    """Return the files of a message itself; before 2018 there was one, in `file`."""
    several = message.get("files")
    found = several if isinstance(several, list) and several else [message.get("file")]
    return [one for one in found if isinstance(one, dict)]


def _sentence(message: Message, blocks: Blocks) -> str:
    """Return Slack's sentence for a message of a subtype without text."""
    pattern = _SENTENCES.get(str(message.get("subtype")), "")
    room = message.get("room")
    if isinstance(room, dict) and room.get("call_family") not in (None, "", "huddle"):
        pattern = pattern.replace("A huddle", "A call")
    if not pattern:
        return ""
    keys = ("topic", "purpose", "old_name", "name")
    return pattern.format_map({key: blocks.unformatted(message.get(key)) for key in keys}).rstrip(
        ": "
    )


def _about(message: Message, blocks: Blocks, body: str) -> Iterator[str]:
    """Yield what Slack shows beside the text: titles, callers, comments, the inviting person."""
    for key in _TITLED:
        part = message.get(key)
        if isinstance(part, dict):
            titles = [part.get("title"), part.get("name")]
            found = [plain(one) for one in titles if isinstance(one, str) and one]
            found.append(blocks.all(part.get("title_blocks")))
            yield from (one for one in found[:1] if one and not says(body, one))
    comment = message.get("comment")
    if isinstance(comment, dict):
        said = blocks.resolved(comment.get("comment"))
        yield said if not says(body, said) else ""
    inviter = message.get("inviter")
    if isinstance(inviter, str) and (named := blocks.name(inviter)) and named not in body:
        yield f"invited by {named}"
    if isinstance(room := message.get("room"), dict):
        yield from _room(room, blocks, body)


def _room(room: Message, blocks: Blocks, body: str) -> Iterator[str]:
    """Yield name, people and length of a huddle or call."""
    title = room.get("name")
    if isinstance(title, str) and not says(body, plain(title)):
        yield plain(title)
    people = room.get("participant_history") or room.get("participants")
    ids = [one for one in (people if isinstance(people, list) else []) if isinstance(one, str)]
    if ids:
        yield f"Participants: {', '.join(blocks.name(id) or f'@{id}' for id in ids)}"
    start, end = (room.get(key) for key in ("date_start", "date_end"))
    if type(start) is int and type(end) is int and 0 < start < end:
        yield f"Duration: {max(1, round((end - start) / 60))} min"
