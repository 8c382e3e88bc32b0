"""The preview of a mail: its headers, its body as text and as HTML, and its attachments.

Mails are untrusted. The size, the parts, the depth and the cost of parsing are bounded.
"""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.policy import Compat32
from typing import TypeAlias

from core.results.text import sanitize
from core.web.downloads import image_type

MAX_MESSAGE_BYTES = 5_000_000
"""The number of bytes of a mail that are parsed. The body precedes the attachments."""

MAX_BOUNDARY_COMPARISONS = 20_000_000
"""The maximum product of lines and boundaries.

The parser compares each line with the boundaries of all enclosing parts.
"""

MAX_DELIMITERS = 20_000
"""The maximum number of lines that may start a part.

The parser creates all parts before their number can be checked.
"""

MAX_PARTS = 500
MAX_DEPTH = 20
MAX_HEADER_CHARS = 8_000
MAX_PARAMETERS = 100
"""The maximum number of parameters in a `Content-*` header.

To find the end of each parameter, the parser reads the header again from its start.
"""

MAX_TEXT_CHARS = 200_000
MAX_IMAGE_BYTES = 3_000_000
"""The maximum total size of all inline images."""

SHOWN_HEADERS = ("From", "To", "Cc", "Subject", "Date")

# The decoders of these charsets are slow, or are not text decoders.
REFUSED_CHARSETS = {"punycode", "idna", "undefined", "unicode_escape", "raw_unicode_escape"}

_DELIMITER = re.compile(rb"[\r\n]--")

Part: TypeAlias = "Message[str, str]"


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


class _BoundedPolicy(Compat32):
    """A policy that limits headers: parsing parameters takes quadratic time."""

    def header_source_parse(self, sourcelines: Sequence[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(list(sourcelines))
        if name[:8].lower() == "content-":
            value = ";".join(value.split(";", MAX_PARAMETERS + 1)[: MAX_PARAMETERS + 1])
        return name[:MAX_HEADER_CHARS], value[:MAX_HEADER_CHARS]


def read(data: bytes) -> MailPreview | None:
    """Parse a mail; return None if the bytes are not a mail, or parsing would take too long.

    Args:
      data: The first `MAX_MESSAGE_BYTES` bytes of the mail.
    """
    # The parser accepts LF, CR and CRLF as line ends.
    lines = data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
    if (
        lines * (1 + data.lower().count(b"boundary")) > MAX_BOUNDARY_COMPARISONS
        or len(_DELIMITER.findall(data)) > MAX_DELIMITERS
    ):
        return None
    try:
        return _preview(
            message_from_bytes(data, policy=_BoundedPolicy()),
            truncated=len(data) >= MAX_MESSAGE_BYTES,
        )
    # Hostile mails can trigger parser bugs that raise any exception.
    except Exception:  # noqa: BLE001
        return None


def _preview(message: Part, *, truncated: bool) -> MailPreview:
    preview = MailPreview(headers=_headers(message), truncated=truncated)
    room = MAX_IMAGE_BYTES
    for part in _leaves(message):
        type = part.get_content_type()
        if part.get_content_disposition() != "attachment" and not part.is_multipart():
            if type == "text/plain" and preview.text is None:
                preview.text = _text(part)
                continue
            if type == "text/html" and preview.html is None:
                preview.html = _text(part)
                continue
            if (
                part.get("Content-ID")
                and type.startswith("image/")
                and (length := _add_image(preview, part, room))
            ):
                room -= length
                continue
        name = part.get_filename()
        preview.attachments.append((decode_header_text(name) if name else "(no name)", type[:200]))
    return preview


def _leaves(message: Part) -> Iterator[Part]:
    """Yield the parts with content, in order. An attached mail is one part."""
    pending, seen = [(message, 0)], 0
    while pending and seen < MAX_PARTS:
        part, depth = pending.pop()
        seen += 1
        payload = part.get_payload()
        if part.get_content_maintype() == "multipart" and isinstance(payload, list):
            if depth < MAX_DEPTH:
                pending.extend(
                    (child, depth + 1) for child in reversed(payload) if isinstance(child, Message)
                )
        else:
            yield part


def _headers(message: Part) -> list[tuple[str, str]]:
    return [
        (name, decode_header_text(message[name]))
        for name in SHOWN_HEADERS
        if message[name] is not None
    ]


def decode_header_text(value: object) -> str:
    """Return the text of a header, with valid encoded words (RFC 2047) decoded."""
    raw = str(value)[:MAX_HEADER_CHARS]
    try:
        text = str(make_header(decode_header(raw)))
    except (HeaderParseError, LookupError, ValueError):
        text = raw
    return sanitize(" ".join(text.split())[:1_000]) or ""


def _text(part: Part) -> str:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    return decode_text(data, part.get_content_charset())


def decode_text(data: bytes, charset: str | None) -> str:
    """Decode text in a named charset.

    An unknown charset is read as UTF-8. Undecodable bytes become U+FFFD.
    """
    try:
        codec = codecs.lookup(charset or "utf-8").name
        text = data.decode("utf-8" if codec in REFUSED_CHARSETS else codec, "replace")
    except (LookupError, ValueError):
        text = data.decode("utf-8", "replace")
    return sanitize(text) or ""


def _add_image(preview: MailPreview, part: Part, room: int) -> int:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    type = image_type(data[:32])
    if type is None or len(data) > room:
        return 0
    preview.images[str(part["Content-ID"]).strip().strip("<>")] = (
        f"data:{type};base64,{base64.b64encode(data).decode()}"
    )
    return len(data)
