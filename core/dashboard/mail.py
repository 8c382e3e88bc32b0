"""The preview of a mail: its headers, its body as text and as HTML, and its attachments.

`core.mail` parses it, as it does for plugins.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field

from core.mail import Mail, Part, decode
from core.mail import read as read_mail
from core.web.downloads import image_type

MAX_MESSAGE_BYTES = 5_000_000
"""The number of bytes of a mail that are parsed. The body precedes the attachments."""

MAX_PARTS = 500
MAX_HEADER_CHARS = 1_000
MAX_IMAGE_BYTES = 3_000_000
"""The maximum total size of all inline images."""

SHOWN_HEADERS = ("From", "To", "Cc", "Subject", "Date")


@dataclass(slots=True)
class MailPreview:
    """The parts of a mail that a page shows.

    Attributes:
      headers: Names and values of headers.
      text, html: The body; None if the mail has no body of this type.
      images: Inline images, as `data:` URLs by content ID.
      attachments: Names and content types of attachments.
      truncated: True if the mail is longer than the parsed part.
    """

    headers: list[tuple[str, str]] = field(default_factory=list)
    text: str | None = None
    html: str | None = None
    images: dict[str, str] = field(default_factory=dict)
    attachments: list[tuple[str, str]] = field(default_factory=list)
    truncated: bool = False


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


def read(data: bytes) -> MailPreview:
    """Parse a mail.

    Args:
      data: The first `MAX_MESSAGE_BYTES` bytes of the mail.
    """
    preview = MailPreview(truncated=len(data) >= MAX_MESSAGE_BYTES)
    images = _Images(preview)
    mail = read_mail(data, images.opened, images.closed)
    preview.headers = [
        (name, value[:MAX_HEADER_CHARS])
        for name in SHOWN_HEADERS
        if (value := mail.fields.text(name.lower())) is not None
    ]
    preview.html = _html(mail)
    has_plain = any(each.part.content_type != "text/html" for each in mail.texts)
    preview.text = mail.text if has_plain else None
    return preview


def _html(mail: Mail) -> str | None:
    """Return the mail's own HTML, without that of forwarded mails."""
    for each in mail.texts:
        if each.part.content_type == "text/html" and not each.part.message:
            return decode(bytes(each.data), each.part.charset, is_html=True).text
    return None


def decode_text(data: bytes, charset: str | None) -> str:
    """Decode text; a wrong or missing charset is guessed."""
    return decode(data, charset).text
