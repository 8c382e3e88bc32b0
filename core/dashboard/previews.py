"""Previews of content: text, images, HTML and mails."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from typing import Any, Literal

from core.dashboard import mail, sanitizer
from core.dashboard.mail import MailPreview
from core.service.backend import Backend
from core.service.content import reader as content_reader
from core.web.downloads import image_type, media_type
from core.web.problems import HttpProblem

MAX_TEXT_CHARS = 200_000
"""The number of bytes of a text that a page shows."""

SLOT_TIMEOUT_SECONDS = 10.0
"""Seconds that a preview waits for a slot."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; "
        "base-uri 'none'; frame-ancestors 'self'; sandbox"
    ),
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "X-DNS-Prefetch-Control": "off",
    # Browsers block a sandboxed document that sets this policy to `same-origin`.
    "Cross-Origin-Opener-Policy": "unsafe-none",
}
"""Headers for untrusted HTML.

The HTML loads nothing and runs nothing, in the preview frame and in a tab of its own.
"""

# The body is the only untrusted text that is not escaped. Dashboard pages never contain it.
DOCUMENT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Preview</title>
<style>
body {{ font: 15px/1.45 sans-serif; color: #111; background: #fff; margin: 12px;
  overflow-wrap: anywhere; }}
img {{ max-width: 100%; height: auto; }} pre {{ white-space: pre-wrap; }}
</style></head>
<body>{body}{end}</body></html>
"""
TRUNCATED_NOTE = "<hr><p>Preview truncated.</p>"

TEXT_TYPES = ("application/json", "application/xml", "application/javascript", "application/yaml")


@dataclass(frozen=True, slots=True)
class Preview:
    """The preview of an item.

    Attributes:
      kind: The kind of preview; `none` if the item can only be downloaded.
      text: The text to show. Templates escape it.
      mail: The parsed mail, if `kind` is `mail`.
      truncated: True if the item is longer than the preview.
    """

    kind: Literal["mail", "html", "image", "text", "none"]
    text: str | None = None
    mail: MailPreview | None = None
    truncated: bool = False


@contextmanager
def _slot(engine: Backend) -> Iterator[None]:
    if not engine.preview_slots.acquire(timeout=SLOT_TIMEOUT_SECONDS):
        raise HttpProblem("previews-busy")
    try:
        yield
    finally:
        engine.preview_slots.release()


def preview(engine: Backend, row: dict[str, Any]) -> Preview:
    """Return the preview of an item.

    Raises:
      NotFound: The item or its blob does not exist.
      HttpProblem: Too many previews are in progress.
    """
    with _slot(engine):
        return _preview(engine, row)


def _preview(engine: Backend, row: dict[str, Any]) -> Preview:
    type = media_type(row["content_type"])
    if type == "message/rfc822":
        mail_preview = mail.read(read_start(engine, row["id"], mail.MAX_MESSAGE_BYTES))
        text = mail_preview.text
        return Preview(
            "mail",
            text and text[:MAX_TEXT_CHARS],
            mail_preview,
            mail_preview.truncated or len(text or "") > MAX_TEXT_CHARS,
        )
    if type in ("text/html", "application/xhtml+xml"):
        return Preview("html")
    data = read_start(engine, row["id"], MAX_TEXT_CHARS + 1)
    if image_type(data):
        return Preview("image")
    if not data or not _is_text(type, data):
        return Preview("none")
    text = mail.decode_text(data[:MAX_TEXT_CHARS], charset(row["content_type"]))
    return Preview("text", text, truncated=len(data) > MAX_TEXT_CHARS)


def document(engine: Backend, row: dict[str, Any]) -> str | None:
    """Return the HTML of an item as a document without scripts or remote content.

    Returns:
      The document; None if the item has no HTML.

    Raises:
      NotFound: The item or its blob does not exist.
      HttpProblem: Too many previews are in progress.
    """
    with _slot(engine):
        return _document(engine, row)


def _document(engine: Backend, row: dict[str, Any]) -> str | None:
    type, images = media_type(row["content_type"]), {}
    if type == "message/rfc822":
        mail_preview = mail.read(read_start(engine, row["id"], mail.MAX_MESSAGE_BYTES))
        html, images = mail_preview.html, mail_preview.images
    elif type in ("text/html", "application/xhtml+xml"):
        html = mail.decode_text(
            read_start(engine, row["id"], sanitizer.MAX_HTML_CHARS * 2),
            charset(row["content_type"]),
        )
    else:
        html = None
    if html is None:
        return None
    body, truncated = sanitizer.sanitize(html, images)
    return DOCUMENT.format(body=body, end=TRUNCATED_NOTE if truncated else "")


def read_start(engine: Backend, id: int, max_bytes: int) -> bytes:
    """Return at most `max_bytes` bytes from the start of an item.

    Raises:
      NotFound: The item or its blob does not exist.
    """
    data = bytearray()
    for portion in content_reader.read(engine, id):
        data += portion[: max_bytes - len(data)]
        if len(data) >= max_bytes:
            break
    return bytes(data)


def charset(content_type: str | None) -> str | None:
    """Return the charset of a content type; None if it has none."""
    parsed: Message[str, str] = Message()
    parsed["Content-Type"] = " ".join((content_type or "")[:500].split())
    return parsed.get_content_charset()


def _is_text(type: str, data: bytes) -> bool:
    if b"\0" in data[:8_000]:
        return False
    if type.startswith("text/") or type in TEXT_TYPES or type.endswith(("+json", "+xml")):
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)  # the last character may be incomplete
    except UnicodeDecodeError:
        return False
    return True
