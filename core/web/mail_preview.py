"""The preview of a mail: its headers, its body as a person saw it, and its attachments.

`core.mail` parses it, as it does for plugins.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from core.mail import Fields, Mail, Part, TextPart, decode, readable_text, text_of_html
from core.mail import read as read_mail
from core.web.downloads import image_type

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""The number of bytes of a mail that are parsed, as a stream."""

MAX_PARSE_SECONDS = 5.0
"""The processor time after which no more of a mail is parsed: millions of tiny parts are slow."""

PORTION_BYTES = 64 * 1024

MAX_BODIES = 50
"""The maximum number of bodies in a document, forwarded mails included."""

MAX_PARTS = 500
MAX_HEADER_CHARS = 1_000
MAX_IMAGE_BYTES = 3_000_000
"""The maximum total size of all inline images."""

SHOWN_HEADERS = ("From", "To", "Cc", "Subject", "Date")


@dataclass(frozen=True, slots=True)
class Body:
    """A part of the mail that a person saw.

    Attributes:
      content: Untrusted HTML, or text.
      is_html: True for HTML.
      headers: The headers of the forwarded mail that begins here.
    """

    content: str
    is_html: bool
    headers: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class MailPreview:
    """The parts of a mail that a page shows.

    Attributes:
      headers: Names and values of headers.
      text: The readable text; None if all of it comes from HTML.
      bodies: The parts that a person saw, in order; HTML rather than its alternatives.
      images: Inline images, as `data:` URLs by content ID.
      attachments: Names and content types of attachments.
      truncated: True if the mail is longer than the parsed part.
    """

    headers: list[tuple[str, str]] = field(default_factory=list)
    text: str | None = None
    bodies: list[Body] = field(default_factory=list)
    images: dict[str, str] = field(default_factory=dict)
    attachments: list[tuple[str, str]] = field(default_factory=list)
    truncated: bool = False

    @property
    def html(self) -> str | None:
        """The untrusted HTML of the mail; None if it has none."""
        found = [body.content for body in self.bodies if body.is_html]
        return "\n".join(found) if found else None


@dataclass(slots=True)
class _Images:
    """Collects inline images, and the names of all other files."""

    preview: MailPreview
    room: int = MAX_IMAGE_BYTES
    data: dict[str, bytearray] = field(default_factory=dict)

    def opened(self, part: Part) -> Callable[[bytes], object] | None:
        """Return the function that takes an image's bytes; None for other files."""
        if not part.content_id or not part.content_type.startswith("image/"):
            return None
        data = self.data[part.id] = bytearray()

        def take(piece: bytes) -> None:
            if len(data) <= self.room:
                data.extend(piece)

        return take

    def closed(self, part: Part) -> None:
        """Add an image or a file to the preview."""
        data = bytes(self.data.pop(part.id, b""))
        type = image_type(data[:32])
        if type is not None and part.content_id and len(data) <= self.room:
            self.room -= len(data)
            encoded = base64.b64encode(data).decode()
            self.preview.images[part.content_id] = f"data:{type};base64,{encoded}"
        elif len(self.preview.attachments) < MAX_PARTS:
            name = part.filename or "(no name)"
            self.preview.attachments.append((name, part.content_type[:200]))


def read(source: bytes | Iterable[bytes]) -> MailPreview:
    """Parse a mail, at most `MAX_MESSAGE_BYTES` bytes for at most `MAX_PARSE_SECONDS`.

    Args:
      source: The bytes of the mail, or an iterable of pieces.
    """
    preview = MailPreview()
    images = _Images(preview)
    pieces = (source,) if isinstance(source, bytes) else source
    mail = read_mail(_beginning(preview, pieces), images.opened, images.closed)
    preview.headers = _headers(mail.fields)
    preview.bodies = list(_bodies(mail))
    preview.truncated = preview.truncated or len(preview.bodies) > MAX_BODIES or bool(mail.cut)
    del preview.bodies[MAX_BODIES:]
    has_plain = any(each.part.content_type != "text/html" for each in mail.texts)
    preview.text = mail.text if has_plain else None
    return preview


def _beginning(preview: MailPreview, pieces: Iterable[bytes]) -> Iterator[bytes]:
    room, end = MAX_MESSAGE_BYTES, time.thread_time() + MAX_PARSE_SECONDS
    for piece in pieces:
        for start in range(0, len(piece), PORTION_BYTES):
            portion = piece[start : start + PORTION_BYTES]
            yield portion[:room]
            if len(portion) > room or time.thread_time() > end:
                preview.truncated = True
                return
            room -= len(portion)


def _headers(fields: Fields) -> list[tuple[str, str]]:
    return [
        (name, value[:MAX_HEADER_CHARS])
        for name in SHOWN_HEADERS
        if (value := fields.text(name.lower())) is not None
    ]


def _bodies(mail: Mail) -> Iterator[Body]:
    """Yield the bodies of the mail, then those of forwarded mails."""
    yield from _shown(each for each in mail.texts if not each.part.message)
    for id, fields in sorted(mail.forwarded.items()):
        own = list(_shown(each for each in mail.texts if each.part.message == id))
        first = own[0] if own else Body("", False)
        yield replace(first, headers=_headers(fields))
        yield from own[1:]


def _shown(parts: Iterable[TextPart]) -> Iterator[Body]:
    """Yield what a person saw of these parts: of alternatives, the HTML."""
    choices: dict[str, list[TextPart]] = {}
    for part in parts:
        choices.setdefault(part.part.choice, []).append(part)
    for alternatives in choices.values():
        rich = [html for each in alternatives if (html := _html(each)) is not None]
        if rich:
            yield from (Body(html, True) for html in rich)
        elif text := readable_text(alternatives):
            yield Body(text, False)


def _html(part: TextPart) -> str | None:
    """Return a part's HTML; None if it has none, or shows neither words nor images."""
    if part.part.content_type != "text/html":
        return None
    html = decode(bytes(part.data), part.part.charset, is_html=True).text
    found = text_of_html(html)
    return html if found.text.strip() or found.is_cut or "<img" in html.lower() else None


def decode_text(data: bytes, charset: str | None) -> str:
    """Decode text; a wrong or missing charset is guessed."""
    return decode(data, charset).text
