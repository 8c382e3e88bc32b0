"""The words of a message's attachments: unfurled links, forwarded messages, cards of old apps.

Source: https://docs.slack.dev/legacy/legacy-messaging/legacy-secondary-message-attachments
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from integration_polling_slack import dates, mrkdwn
from integration_polling_slack.blocks import Blocks
from integration_polling_slack.mrkdwn import linked, plain

Message = Mapping[str, Any]

NO_PREVIEW = "[no preview available]"
"""The fallback text that Slack gives to attachments with blocks."""

_NESTED = ("blocks", "attachments", "files", "file")


def words(attachment: Any, blocks: Blocks, body: str, message: Callable[[Message], str]) -> str:
    """Return the text of an attachment, as Slack shows it below the message.

    Args:
      attachment: The attachment.
      blocks: Renders the blocks of the message.
      body: The text above it. An address in it is not repeated.
      message: Renders a forwarded message.
    """
    if not isinstance(attachment, dict):
        return ""
    found = [
        blocks.resolved(attachment.get("pretext")),
        _author(attachment, blocks),
        _title(attachment, blocks, body),
        *_forwarded(attachment, blocks, message),
        *_fields(attachment.get("fields"), blocks),
        message({key: attachment[key] for key in _NESTED if attachment.get(key)}),
        blocks.of(_entity(attachment)),
        *_actions(attachment.get("actions")),
    ]
    shown = _once(found)
    if not shown:
        shown = [_fallback(attachment, blocks, body)]
    return "\n".join(filter(None, [*shown, _footer(attachment, blocks)]))


def _once(parts: Iterable[str]) -> list[str]:
    """Return the parts that have a line that those above do not have."""
    shown, lines = list[str](), set[str]()
    for part in filter(None, parts):
        if not lines.issuperset(part.split("\n")):
            shown.append(part)
            lines.update(part.split("\n"))
    return shown


def _text(attachment: Message, key: str) -> str:
    value = attachment.get(key)
    return plain(value) if isinstance(value, str) else ""


def _author(attachment: Message, blocks: Blocks) -> str:
    """Return the service and the author, as in the line above an attachment."""
    service, author, below = (
        _text(attachment, key) for key in ("service_name", "author_name", "author_subname")
    )
    author = author or blocks.name(str(attachment.get("author_id"))) or ""
    link = attachment.get("author_link")
    is_message = attachment.get("is_share") or attachment.get("is_msg_unfurl")
    if author and isinstance(link, str) and not is_message:
        author = linked(author, mrkdwn.unescaped(link))
    named = [one for one in (service, author, below) if one]
    return " ".join(dict.fromkeys(named))


def _title(attachment: Message, blocks: Blocks, body: str) -> str:
    title, link = blocks.resolved(attachment.get("title")), attachment.get("title_link")
    address = mrkdwn.unescaped(link) if isinstance(link, str) else ""
    return linked(title, address) if title and address and address not in body else title


def _forwarded(attachment: Message, blocks: Blocks, message: Callable[[Message], str]) -> list[str]:
    """Return the text of an attachment; of a forwarded message, that of its blocks."""
    outer = attachment.get("message_blocks")
    inner = [
        one["message"]
        for one in (outer if isinstance(outer, list) else [])
        if isinstance(one, dict) and isinstance(one.get("message"), dict)
    ]
    return list(filter(None, map(message, inner))) or [blocks.resolved(attachment.get("text"))]


def _fields(fields: Any, blocks: Blocks) -> list[str]:
    found = list[str]()
    for one in fields if isinstance(fields, list) else []:
        if isinstance(one, dict):
            title, value = blocks.resolved(one.get("title")), one.get("value")
            shown = blocks.resolved(str(value)) if isinstance(value, str | int | float) else ""
            separator = ": " if title and shown and not title.endswith(":") else " "
            found.append(f"{title}{separator}{shown}".strip())
    return found


def _entity(attachment: Message) -> Any:
    """Return the attributes of a work object: https://docs.slack.dev/messaging/work-objects."""
    for key in ("entity_payload", "work_object_entity", "entity"):
        payload = attachment.get(key)
        if isinstance(payload, dict):
            return payload.get("attributes", payload)
    return None


def _actions(actions: Any) -> list[str]:
    """Return the labels of buttons, and of menus their chosen options, else their labels."""
    labels = []
    for one in actions if isinstance(actions, list) else []:
        if isinstance(one, dict):
            options = one.get("selected_options")
            chosen = [
                _text(option, "text")
                for option in (options if isinstance(options, list) else [])
                if isinstance(option, dict)
            ]
            label = ", ".join(filter(None, chosen)) or _text(one, "text")
            labels.append(linked(label, mrkdwn.unescaped(str(one.get("url") or ""))))
    return [" | ".join(filter(None, labels))]


def _fallback(attachment: Message, blocks: Blocks, body: str) -> str:
    """Return the text for an attachment without words: its fallback, else its address."""
    fallback = blocks.resolved(attachment.get("fallback"))
    if fallback and fallback != NO_PREVIEW:
        return fallback
    addresses = [attachment.get(key) for key in ("image_url", "from_url", "original_url")]
    found = next((mrkdwn.unescaped(one) for one in addresses if isinstance(one, str) and one), "")
    return "" if found in body else found


def _footer(attachment: Message, blocks: Blocks) -> str:
    footer, ts = blocks.resolved(attachment.get("footer")), attachment.get("ts")
    day = dates.formatted(ts, "{date_short}") if ts else ""
    return " | ".join(filter(None, [footer, day]))
