"""Previews of content on the page of an item: text, images, HTML and mails."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from core.db.rows import Row
from core.errors import NotFound
from core.service.backend import Backend
from core.service.content import reader as content_reader
from core.web import mail_preview
from core.web.downloads import image_type, is_text, media_type
from core.web.html_documents import HTML_TYPES, MAIL, charset, read_start, slot, source_of
from core.web.mail_preview import MailPreview

MAX_TEXT_CHARS = 200_000
"""The number of bytes of a text that a page shows."""


@dataclass(frozen=True, slots=True)
class Preview:
    """The preview of an item.

    Attributes:
      kind: The kind of preview; `none` if the item can only be downloaded.
      text: The text to show. Templates escape it.
      new_text: The new words of a message alone; None if the text has no history or signature.
      mail: The parsed mail, if `kind` is `mail`.
      truncated: True if the item is longer than the preview.
    """

    kind: Literal["mail", "html", "image", "text", "none"]
    text: str | None = None
    new_text: str | None = None
    mail: MailPreview | None = None
    truncated: bool = False


def preview(engine: Backend, row: dict[str, Any], user: str | None) -> Preview:
    """Return the preview of an item; of a message, with the HTML of its source.

    Args:
      engine: The backend.
      row: The item, as a row of `core.service.content.queries.content`.
      user: The user who reads; None for an operator.

    Raises:
      NotFound: The item or its blob does not exist.
      HttpProblem: Too many previews are in progress.
    """
    source = source_of(engine, row)
    with slot(engine, user):
        found = _preview(engine, row)
        if source is None or media_type(source["content_type"]) != MAIL:
            return found
        return _with_source(engine, found, row, source)


def _with_source(engine: Backend, text: Preview, row: Row, source: Row) -> Preview:
    """Return the preview of a message: its kept text, with the HTML and files of its source."""
    try:
        mail = mail_preview.read(content_reader.read(engine, source["id"]))
    except NotFound:
        return text  # the blob is missing; the page of the source says so
    new = row["metadata"].get("new_text")
    return replace(text, kind="mail", mail=mail, new_text=new if isinstance(new, str) else None)


def _preview(engine: Backend, row: dict[str, Any]) -> Preview:
    type = media_type(row["content_type"])
    if type == MAIL:
        mail = mail_preview.read(content_reader.read(engine, row["id"]))
        text = mail.text
        return Preview(
            "mail",
            text and text[:MAX_TEXT_CHARS],
            None,
            mail,
            mail.truncated or len(text or "") > MAX_TEXT_CHARS,
        )
    if type in HTML_TYPES:
        return Preview("html")
    data = read_start(engine, row["id"], MAX_TEXT_CHARS + 1)
    if image_type(data):
        return Preview("image")
    if not data or not is_text(type, data):
        return Preview("none")
    text = mail_preview.decode_text(data[:MAX_TEXT_CHARS], charset(row["content_type"]))
    return Preview("text", text, truncated=len(data) > MAX_TEXT_CHARS)
