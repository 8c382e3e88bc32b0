"""Slack's markup `mrkdwn` as plain text: mentions, links, dates, emoji and entities.

Source: https://docs.slack.dev/messaging/formatting-message-text
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote

from integration_polling_slack import dates, emoji
from integration_polling_slack.emphasis import MARK, unmarked

Name = Callable[[str], str | None]
"""Returns the name of a user, channel or group with its sigil, or None."""

_MARKED = re.compile(r"<([^<>]*)>")
_TOKENS = re.compile(
    rf"<(?P<marked>[^<>]*)>|```(?P<block>.*?)```|`(?P<code>[^`\n]+)`|{emoji.PATTERN}|{MARK}",
    re.DOTALL,
)
_UNFORMATTED = re.compile(rf"<(?P<marked>[^<>]*)>|{emoji.PATTERN}")
_MARKS = ("*", "_", "~")
_LABELED = re.compile(r"<(@|#|!subteam\^)([A-Z0-9]{2,64})\|([^<>]+)>")
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))


def resolved(text: str, name: Name) -> str:
    """Return text with mentions as names, links written out, and entities as characters.

    Bold, italic and struck words and code lose their marks. Names of emoji become characters,
    except in code.
    """
    return unescaped(unmarked(text, _TOKENS, lambda found: _token(found, name), _MARKS))


def unformatted(text: str, name: Name) -> str:
    """Return a text as `resolved` does, but with all marks of bold words and of code.

    Slack does not format titles and topics, and texts for which an app disabled it.
    """

    def shown(found: re.Match[str]) -> str:
        marked = found["marked"]
        return emoji.matched(found) if marked is None else reference(marked, name)

    return unescaped(_UNFORMATTED.sub(shown, text))


def _token(found: re.Match[str], name: Name) -> str:
    marked, block, code = found["marked"], found["block"], found["code"]
    if marked is not None:
        return reference(marked, name)
    if block is not None:
        code = block.removeprefix("\n").removesuffix("\n")
    if code is not None:
        return _MARKED.sub(lambda inner: reference(inner[1], name), code)
    return emoji.matched(found)


def plain(text: str) -> str:
    """Return a text without markup, such as a title: emoji and entities as characters."""
    return unescaped(emoji.replaced(text))


def unescaped(text: str) -> str:
    """Return text with Slack's three entities as characters, once."""
    if "&" not in text:
        return text
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    return text


def escaped(text: str) -> str:
    """Return text with Slack's three entities, because it is unescaped later."""
    for entity, character in reversed(_ENTITIES):
        text = text.replace(character, entity)
    return text


def says(text: str, words: str) -> bool:
    """Return True if a text has these words, and not only as a part of other words."""
    return words in text and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def labels(text: object) -> dict[str, str]:
    """Return the names that a text itself gives to the ids that it mentions."""
    found = _LABELED.findall(text) if isinstance(text, str) else []
    return {
        id: unescaped(_with_sigil("#" if kind == "#" else "@", label)) for kind, id, label in found
    }


def linked(label: str, target: str) -> str:
    """Return a link as its label and address, or as one of them if both say the same."""
    address = re.sub(r"^(mailto|tel):", "", target)
    if not label or label == target:
        return address
    if not address or _same(label, target):
        return label if target.startswith(("tel:", "mailto:")) or not address else address
    return f"{label} ({address})"


def _same(label: str, target: str) -> bool:
    """Return True if a link's label says the same as its address."""
    if target.startswith("tel:"):
        digits = [re.sub(r"[^\d+]", "", one).removeprefix("+") for one in (label, target)]
        return digits[0] == digits[1]
    bare = [
        unquote(unescaped(one)).strip().removeprefix("mailto:").partition("?")[0]
        if target.startswith("mailto:")
        else re.sub(r"^[a-z]+://", "", unquote(unescaped(one)).strip())
        for one in (label, target)
    ]
    return bare[0].rstrip("/").casefold() == bare[1].rstrip("/").casefold()


def reference(marked: str, name: Name) -> str:
    """Return the text for a link, mention or date in angle brackets, still with entities."""
    target, _, label = marked.partition("|")
    if target[:1] in ("@", "#"):
        return _escaped_name(name(target[1:])) or _with_sigil(target[0], label) or target
    if target.startswith("!"):
        return _special(target[1:], label, name)
    return linked(emoji.replaced(label), target)


def _special(target: str, label: str, name: Name) -> str:
    """Return the text for a special mention: `!here`, `!subteam^S1` or `!date^…`."""
    word, *parts = target.split("^")
    rest = parts[0] if parts else ""
    if word == "subteam":
        return _escaped_name(name(rest)) or _with_sigil("@", label) or f"@{rest}"
    if word in ("here", "channel", "everyone", "group"):
        return f"@{word}"
    if word == "date":
        shown = dates.shown(rest, parts[1] if len(parts) > 1 else "{date}", label)
        return linked(shown, parts[2]) if len(parts) > 2 else shown or word
    return label or word


def _escaped_name(name: str | None) -> str:
    """Escape a name, because it is unescaped later with the rest of the text."""
    return escaped(name) if name else ""


def _with_sigil(sigil: str, label: str) -> str:
    return f"{sigil}{label.lstrip(sigil)}" if label else ""
