"""What of an item can be shown, and how."""

from __future__ import annotations

import codecs
import threading
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
"""Bytes that are shown in the page."""

MAX_CONCURRENT_PREVIEWS = 2
PATIENCE_SECONDS = 10.0
"""How many mails are parsed concurrently, and how many seconds other mails wait for that.

A mail that was made to be slow takes seconds of the interpreter.
"""

_slots = threading.BoundedSemaphore(MAX_CONCURRENT_PREVIEWS)

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; "
        "base-uri 'none'; frame-ancestors 'self'; sandbox"
    ),
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "X-DNS-Prefetch-Control": "off",
    # Of its own accord a browser refuses to open what is both sandboxed and apart.
    "Cross-Origin-Opener-Policy": "unsafe-none",
}
"""Headers for HTML from outside.

It loads nothing and runs nothing, in the page's frame and when it is opened by itself.
"""

# The only text from outside that is not escaped; it is never part of a page of ours.
DOCUMENT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Preview</title>
<style>
body {{ font: 15px/1.45 sans-serif; color: #111; background: #fff; margin: 12px;
  overflow-wrap: anywhere; }}
img {{ max-width: 100%; height: auto; }} pre {{ white-space: pre-wrap; }}
</style></head>
<body>{body}{end}</body></html>
"""
CUT = "<hr><p>It goes on; this is as much as is shown here.</p>"

TEXT_TYPES = ("application/json", "application/xml", "application/javascript", "application/yaml")


@dataclass(frozen=True, slots=True)
class Preview:
    """How an item is shown.

    Attributes:
      kind: `none`: as a download only.
      text: To be shown as it stands, escaped.
      letter: Of a mail.
      cut: Whether there is more.
    """

    kind: Literal["mail", "html", "image", "text", "none"]
    text: str | None = None
    letter: MailPreview | None = None
    cut: bool = False


@contextmanager
def _slot() -> Iterator[None]:
    if not _slots.acquire(timeout=PATIENCE_SECONDS):
        raise HttpProblem("previews-busy")
    try:
        yield
    finally:
        _slots.release()


def preview(engine: Backend, row: dict[str, Any]) -> Preview:
    """What can be shown of this item.

    Raises:
      NotFound: It is gone, or its blob is.
      Refused: Too many are being looked at.
    """
    with _slot():
        return _preview(engine, row)


def _preview(engine: Backend, row: dict[str, Any]) -> Preview:
    type = media_type(row["content_type"])
    if type == "message/rfc822":
        letter = mail.read(beginning(engine, row["id"], mail.MAX_MESSAGE_BYTES))
        if letter is not None:
            text = letter.text
            return Preview(
                "mail",
                text and text[:MAX_TEXT_CHARS],
                letter,
                letter.cut or len(text or "") > MAX_TEXT_CHARS,
            )
    if type in ("text/html", "application/xhtml+xml"):
        return Preview("html")
    data = beginning(engine, row["id"], MAX_TEXT_CHARS + 1)
    if image_type(data):
        return Preview("image")
    if not data or not _is_text(type, data):
        return Preview("none")
    shown = mail.decode(data[:MAX_TEXT_CHARS], charset(row["content_type"]))
    return Preview("text", shown, cut=len(data) > MAX_TEXT_CHARS)


def document(engine: Backend, row: dict[str, Any]) -> str | None:
    """The item's HTML as a page without scripts or remote content; None if it has none.

    Raises:
      NotFound: It is gone, or its blob is.
      Refused: Too many are being looked at.
    """
    with _slot():
        return _document(engine, row)


def _document(engine: Backend, row: dict[str, Any]) -> str | None:
    type, images = media_type(row["content_type"]), {}
    if type == "message/rfc822":
        letter = mail.read(beginning(engine, row["id"], mail.MAX_MESSAGE_BYTES))
        html = letter.html if letter is not None else None
        images = letter.images if letter is not None else {}
    elif type in ("text/html", "application/xhtml+xml"):
        html = mail.decode(
            beginning(engine, row["id"], sanitizer.LONGEST * 2), charset(row["content_type"])
        )
    else:
        html = None
    if html is None:
        return None
    body, cut = sanitizer.sanitize(html, images)
    return DOCUMENT.format(body=body, end=CUT if cut else "")


def beginning(engine: Backend, id: int, most: int) -> bytes:
    """An item's first bytes.

    Raises:
      NotFound: It is gone, or its blob is.
    """
    found = bytearray()
    for portion in content_reader.read(engine, id):
        found += portion[: most - len(found)]
        if len(found) >= most:
            break
    return bytes(found)


def charset(content_type: str | None) -> str | None:
    """The charset that a content type names, if it names one."""
    parsed: Message[str, str] = Message()
    parsed["Content-Type"] = " ".join((content_type or "")[:500].split())
    return parsed.get_content_charset()


def _is_text(type: str, data: bytes) -> bool:
    if b"\0" in data[:8_000]:
        return False
    if type.startswith("text/") or type in TEXT_TYPES or type.endswith(("+json", "+xml")):
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)  # its last character may be cut
    except UnicodeDecodeError:
        return False
    return True
