"""The words that a message shows of its files: titles, previews of code, and e-mails.

Source: https://docs.slack.dev/reference/objects/file-object
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

from integration_polling_slack import mrkdwn
from integration_polling_slack.blocks import Blocks
from integration_polling_slack.mrkdwn import linked, plain, says

File = Mapping[str, Any]

_SNIPPETS = ("snippet", "space", "post", "docs")
"""The modes of files whose first lines a message shows."""

_UNESCAPED = re.compile(r"[<>]|&(?!(?:amp|lt|gt);)")
_TAG = re.compile(r"/?[a-z][a-z0-9]*")
_HIDDEN = ("head", "script", "style", "title")
_LINES = ("br", "div", "h1", "h2", "h3", "h4", "h5", "h6", "li", "p", "table", "tr")


def words(file: File, body: str, blocks: Blocks) -> Iterator[str]:
    """Yield what Slack shows of a file, unless the text above says it already.

    Args:
      file: The file object.
      body: The text above it.
      blocks: Renders texts.
    """
    if file.get("mode") == "tombstone":
        yield "This file was deleted."
    if file.get("mode") == "email" or file.get("filetype") == "email":
        shown = list(_email(file))
    else:
        shown = [_plain(file, "title") or _plain(file, "name"), _plain(file, "alt_txt")]
        if file.get("mode") in _SNIPPETS:
            shown.append(_literal(file, "preview_plain_text") or _literal(file, "preview"))
    comment = file.get("initial_comment")
    shown.append(blocks.resolved(comment.get("comment")) if isinstance(comment, dict) else "")
    shown.append(_transcript(file))
    yield from (one for one in dict.fromkeys(shown) if one and not says(body, one))


def _plain(file: File, key: str) -> str:
    value = file.get(key)
    return plain(value) if isinstance(value, str) else ""


def _literal(file: File, key: str) -> str:
    """Return a text in which emoji names are not emoji, such as code.

    Slack escapes some of these texts. A text with an unescaped character is not escaped.
    """
    value = file.get(key)
    if not isinstance(value, str):
        return ""
    return value if _UNESCAPED.search(value) else mrkdwn.unescaped(value)


def _email(file: File) -> Iterator[str]:
    """Yield title, people, text and enclosures of an e-mail that was posted to a channel."""
    yield _literal(file, "title") or _literal(file, "name")
    for key in ("alt_txt", "subject"):
        yield _literal(file, key)
    yield from _envelope(file)
    texts = [_literal(file, key) for key in ("plain_text", "preview_plain_text", "preview")]
    yield next(filter(None, texts), "") or _of_html(file.get("simplified_html"))
    enclosed = file.get("attachments")
    for one in enclosed if isinstance(enclosed, list) else []:
        yield _literal(one, "filename") if isinstance(one, dict) else ""


def _envelope(file: File) -> Iterator[str]:
    """Yield the sender and the recipients of an e-mail."""
    for key, word in (("from", "From"), ("to", "To"), ("cc", "Cc")):
        people = file.get(key)
        found = [
            one for one in (people if isinstance(people, list) else []) if isinstance(one, dict)
        ]
        named = [
            linked(_literal(one, "name"), _literal(one, "address")) or _literal(one, "original")
            for one in found
        ]
        if any(named):
            yield f"{word}: {', '.join(filter(None, named))}"


def _transcript(file: File) -> str:
    """Return the transcript of a voice message, as far as Slack shows it."""
    found = file.get("transcription")
    preview = found.get("preview") if isinstance(found, dict) else None
    return _literal(preview, "content") if isinstance(preview, dict) else ""


def _of_html(markup: object) -> str:
    """Return the words of the simple HTML that Slack makes of an e-mail, in linear time."""
    first, *parts = markup.split("<") if isinstance(markup, str) else [""]
    found, hidden = [first], ""
    for part in parts:
        tag, _, words = part.partition(">")
        name = (_TAG.match(tag.lower()) or [""])[0]
        hidden = "" if name == f"/{hidden}" else hidden or (name if name in _HIDDEN else "")
        found += ["\n"] if name.removeprefix("/") in _LINES else []
        found += [words.replace("\n", " ")] if not hidden else []
    lines = (" ".join(line.split()) for line in html.unescape("".join(found)).split("\n"))
    return "\n".join(filter(None, lines))
