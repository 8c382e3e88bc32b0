"""The words of a message's attachments: unfurled links, forwarded messages, cards of old apps.

Source: https://docs.slack.dev/legacy/legacy-messaging/legacy-secondary-message-attachments
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from integration_polling_slack import dates, mrkdwn, records
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
        _formatted(attachment, "pretext", attachment.get("pretext"), blocks),
        _author(attachment, blocks),
        _title(attachment, blocks, body),
        *_forwarded(attachment, blocks, message),
        *_fields(attachment, blocks),
        message({key: attachment[key] for key in _NESTED if attachment.get(key)}),
        *records.lines(attachment, blocks),
        *_entity(attachment, blocks),
        *_actions(attachment.get("actions")),
    ]
    shown, footer = _once(found), blocks.unformatted(attachment.get("footer"))
    if not shown and not footer:
        shown = [_fallback(attachment, blocks, body)]
    return "\n".join(filter(None, [*shown, _below(attachment, footer)]))


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
    title, link = blocks.unformatted(attachment.get("title")), attachment.get("title_link")
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
    return list(filter(None, map(message, inner))) or [
        _formatted(attachment, "text", attachment.get("text"), blocks)
    ]


def _formatted(attachment: Message, part: str, text: object, blocks: Blocks) -> str:
    """Return a part of an attachment. Slack formats the parts that `mrkdwn_in` names, and messages.

    Args:
      attachment: The attachment.
      part: The name of the part in `mrkdwn_in`.
      text: The text in the part.
      blocks: Renders texts.
    """
    named = attachment.get("mrkdwn_in")
    is_named = isinstance(named, list) and part in named
    is_message = attachment.get("is_share") or attachment.get("is_msg_unfurl")
    return blocks.resolved(text) if is_named or is_message else blocks.unformatted(text)


def _fields(attachment: Message, blocks: Blocks) -> list[str]:
    fields, found = attachment.get("fields"), list[str]()
    for one in fields if isinstance(fields, list) else []:
        if isinstance(one, dict):
            title, value = blocks.unformatted(one.get("title")), one.get("value")
            value = str(value) if isinstance(value, str | int | float) else ""
            shown = _formatted(attachment, "fields", value, blocks)
            separator = ": " if title and shown and not title.endswith(":") else " "
            found.append(f"{title}{separator}{shown}".strip())
    return found


def _entity(attachment: Message, blocks: Blocks) -> list[str]:
    """Return the card of an app: a preview or a work object.

    Source: https://docs.slack.dev/messaging/work-objects-implementation
    """
    for key in ("entity_payload", "work_object_entity", "entity", "preview"):
        payload = attachment.get(key)
        if isinstance(payload, dict):
            attributes = payload.get("attributes", payload)
            return [blocks.of(attributes), *records.fields_of(payload, blocks)]
    return []


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
    fallback = blocks.unformatted(attachment.get("fallback"))
    if fallback and fallback != NO_PREVIEW:
        return fallback
    addresses = [attachment.get(key) for key in ("image_url", "from_url", "original_url")]
    found = next((mrkdwn.unescaped(one) for one in addresses if isinstance(one, str) and one), "")
    return "" if found in body else found


def _below(attachment: Message, footer: str) -> str:
    """Return the line below an attachment: its footer and date."""
    ts = attachment.get("ts")
    day = dates.formatted(ts, "{date_short}") if ts else ""
    return " | ".join(filter(None, [footer, day]))
