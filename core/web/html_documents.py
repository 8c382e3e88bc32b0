"""Items as HTML documents: a mail as a person saw it, without scripts and remote content.

The server makes a document for each request, from stored content, and does not keep it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from email.message import Message
from html import escape

from core.db.rows import Row
from core.errors import NotFound
from core.service.backend import Backend
from core.service.content import queries as content_queries
from core.service.content import reader as content_reader
from core.web import mail_preview
from core.web.downloads import HARMLESS, is_text, media_type
from core.web.mail_preview import Body, MailPreview
from core.web.problems import HttpProblem
from core.web.sanitizer import MAX_HTML_CHARS, Sanitizer

MAX_TEXT_CHARS = 500_000
"""The maximum number of characters of text in a document."""

MAIL = "message/rfc822"
HTML_TYPES = ("text/html", "application/xhtml+xml")

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'"
HEADERS = {
    **HARMLESS,
    "Content-Security-Policy": f"{_POLICY}; base-uri 'none'; frame-ancestors 'self'; sandbox",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "X-DNS-Prefetch-Control": "off",
    # Browsers block a sandboxed document that sets this policy to `same-origin`.
    "Cross-Origin-Opener-Policy": "unsafe-none",
}
"""Headers for untrusted HTML.

The HTML loads nothing and runs nothing, in a frame and in a tab of its own.
"""

# The bodies are the only untrusted text that is not escaped. Dashboard pages never contain them.
# The document repeats the policy, for products that store it or show it in a frame of their own.
_START = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}; base-uri 'none'">
<meta name="referrer" content="no-referrer"><title>Preview</title>
<style>
body {{ font: 15px/1.45 sans-serif; color: #111; background: #fff; margin: 12px;
  overflow-wrap: anywhere; }}
img {{ max-width: 100%; height: auto; }} pre {{ white-space: pre-wrap; }}
</style></head>
<body>"""
_END = "</body></html>\n"
TRUNCATED_NOTE = "<hr><p>Preview truncated.</p>"


@contextmanager
def slot(engine: Backend, user: str | None) -> Iterator[None]:
    """Bound the number of items that are parsed at one time.

    Args:
      engine: The backend.
      user: The user who reads; None for an operator.

    Raises:
      HttpProblem: Too many are being parsed.
    """
    if not engine.preview_slots.take(user):
        raise HttpProblem("previews-busy")
    try:
        yield
    finally:
        engine.preview_slots.release(user)


def of_item(engine: Backend, row: Row, user: str | None) -> str:
    """Return an item as a document.

    A message is shown from its source: its HTML with inline images, or its text. Other items are
    shown if they are HTML or text.

    Args:
      engine: The backend.
      row: The item, as a row of `core.service.content.queries.content`.
      user: The user who reads; None for an operator.

    Raises:
      NotFound: The item is neither mail, HTML nor text; or its blob does not exist.
      HttpProblem: Too many documents are being made.
    """
    with slot(engine, user):
        shown = source_of(engine, row) or row
        type = media_type(shown["content_type"])
        if type == MAIL:
            return of_mail(content_reader.read(engine, shown["id"]))
        data = read_start(engine, shown["id"], MAX_HTML_CHARS * 2)
        text = mail_preview.decode_text(data, charset(shown["content_type"]))
        if type in HTML_TYPES:
            bodies = [Body(text, True)]
        elif data and is_text(type, data):
            bodies = [Body(text, False)]
        else:
            raise NotFound("content-has-no-preview")
        return _document(MailPreview(bodies=bodies, truncated=shown["size"] > len(data)))


def of_mail(source: bytes | Iterable[bytes]) -> str:
    """Return the HTML of a mail that a person saw, as a document.

    The document runs no script and loads nothing: inline images are part of it, and remote images,
    links and forms are removed. A mail without HTML is shown as text.

    Args:
      source: The bytes of the mail, or an iterable of pieces.
    """
    return _document(mail_preview.read(source))


def source_of(engine: Backend, row: Row) -> Row | None:
    """Return the row with the source of a message; None if the item has no source."""
    with engine.database.connection() as conn:
        return content_queries.source(conn, row)


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


def _document(preview: MailPreview) -> str:
    sanitizer, room = Sanitizer(preview.images), MAX_TEXT_CHARS
    parts: list[str] = []
    truncated = preview.truncated
    for body in preview.bodies:
        if body.headers:
            parts.append(f"<hr>{_header_list(body.headers)}")
        if body.is_html:
            parts.append(f"<div>{sanitizer.clean(body.content)}</div>")
        elif body.content:
            parts.append(f'<div style="white-space: pre-wrap">{escape(body.content[:room])}</div>')
            truncated = truncated or len(body.content) > room
            room -= min(len(body.content), room)
    note = TRUNCATED_NOTE if truncated or sanitizer.is_truncated else ""
    return "".join((_START, *parts, note, _END))


def _header_list(headers: Iterable[tuple[str, str]]) -> str:
    return "".join(f"<div><b>{name}:</b> {escape(value)}</div>" for name, value in headers)
