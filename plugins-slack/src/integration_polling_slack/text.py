"""The text of a message as a person reads it.

Source: https://docs.slack.dev/messaging/formatting-message-text
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Name = Callable[[str], str | None]
"""Returns the name of a user, channel or group with its sigil, or None."""

DEEPEST = 20
"""The maximum nesting of blocks to read; Slack's own blocks are nested at most 5 deep."""

_MARKED = re.compile(r"<([^<>]*)>")
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))


def readable(message: Mapping[str, Any], name: Name) -> str:
    """Return the message's text; if it is empty, the text of its blocks or of its attachments."""
    text, attachments = message.get("text"), message.get("attachments")
    if isinstance(text, str) and text:
        return resolved(text, name)
    parts = (
        [_of_attachment(one, name) for one in attachments] if isinstance(attachments, list) else []
    )
    return _of_blocks(message.get("blocks"), name) or "\n".join(filter(None, parts))


def resolved(text: str, name: Name) -> str:
    """Return text with mentions as names, links written out, and entities as characters."""
    return _unescaped(_MARKED.sub(lambda found: _resolve(found[1], name), text))


def _unescaped(text: str) -> str:
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    return text


def _resolve(marked: str, name: Name) -> str:
    target, _, label = marked.partition("|")
    if target[:1] in ("@", "#"):
        return _escaped(name(target[1:])) or _with_sigil(target[0], label) or target
    if target.startswith("!"):
        return _special(target[1:], label, name)
    address = target.removeprefix("mailto:")
    if not label or label in (target, address, target.partition("://")[2].rstrip("/")):
        return address
    return f"{label} ({address})"


def _special(target: str, label: str, name: Name) -> str:
    """Return the text for a special mention: `!here`, `!subteam^S1` or `!date^…`."""
    word, _, rest = target.partition("^")
    if word == "subteam":
        return _escaped(name(rest.partition("^")[0])) or _with_sigil("@", label) or f"@{rest}"
    if word in ("here", "channel", "everyone"):
        return f"@{word}"
    return label or word


def _escaped(name: str | None) -> str:
    """Escape a name, because it is unescaped later with the rest of the text."""
    return (name or "").replace("&", "&amp;")


def _with_sigil(sigil: str, label: str) -> str:
    return f"{sigil}{label.lstrip(sigil)}" if label else ""


def _of_attachment(attachment: Any, name: Name) -> str:
    if not isinstance(attachment, dict):
        return ""
    words = [attachment.get(key) for key in ("pretext", "title", "text")]
    found = [resolved(word, name) for word in words if isinstance(word, str) and word]
    fallback = attachment.get("fallback")
    if not found and isinstance(fallback, str):
        found = [resolved(fallback, name)]
    return "\n".join(found) or _of_blocks(attachment.get("blocks"), name)


def _of_blocks(blocks: Any, name: Name) -> str:
    if not isinstance(blocks, list):
        return ""
    return "\n".join(
        text for block in blocks if (text := "".join(_pieces(block, name, DEEPEST)).strip())
    )


def _pieces(element: Any, name: Name, depth: int) -> Iterator[str]:
    """Yield the words of a block and of its elements, in order."""
    if not isinstance(element, dict) or depth == 0:
        return
    kind, text = element.get("type"), element.get("text")
    mention = {"user": "user_id", "channel": "channel_id", "usergroup": "usergroup_id"}.get(
        str(kind)
    )
    if mention is not None:
        id = str(element.get(mention))
        yield name(id) or id
    elif kind == "broadcast":
        yield f"@{element.get('range')}"
    elif kind == "link" and not text:
        yield str(element.get("url", ""))
    elif isinstance(text, str):
        yield resolved(text, name) if kind == "mrkdwn" else text
    elif isinstance(text, dict):
        yield from _pieces(text, name, depth - 1)
    below = element.get("elements", element.get("fields"))
    for child in below if isinstance(below, list) else []:
        yield from _pieces(child, name, depth - 1)
        if kind not in ("rich_text_section", "rich_text_preformatted", "rich_text_quote"):
            yield "\n"
