"""A mail, as far as it is shown: its heading, its body as text and as HTML, and what is attached.

Mails are made by anybody. What is read of one is bounded in size, in parts and in depth, as is the
work of taking it apart.
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
"""Of a mail; its body stands before what is attached."""

MAX_BOUNDARY_COMPARISONS = 20_000_000
"""Lines by boundaries: the parser compares each line with the boundaries of all parts around it."""

MAX_DELIMITERS = 20_000
"""Lines that may begin a part: the parser makes all of them, before any are counted."""

MAX_PARTS = 500
MAX_DEPTH = 20
MAX_HEADER_CHARS = 8_000
MAX_PARAMETERS = 100
"""Of a header about a part; finding where each ends reads the header up to there again."""

MAX_TEXT_CHARS = 200_000
MAX_IMAGE_BYTES = 3_000_000
"""Of all inline images together."""

HEADINGS = ("From", "To", "Cc", "Subject", "Date")

# Their decoders are slow, or do something else than decoding.
NO_CHARSETS = {"punycode", "idna", "undefined", "unicode_escape", "raw_unicode_escape"}

_DELIMITER = re.compile(rb"[\r\n]--")

Part: TypeAlias = "Message[str, str]"


@dataclass(slots=True)
class MailPreview:
    """A mail.

    Attributes:
      headings: What it says of itself, by name.
      text, html: Its body; None if it has none of this kind.
      images: Its inline images, as `data:` URLs by their content ids.
      attachments: Names and types.
      cut: Whether there is more than what was read.
    """

    headings: list[tuple[str, str]] = field(default_factory=list)
    text: str | None = None
    html: str | None = None
    images: dict[str, str] = field(default_factory=dict)
    attachments: list[tuple[str, str]] = field(default_factory=list)
    cut: bool = False


class _Bounded(Compat32):
    """Parsing a header's parameters takes the square of its length."""

    def header_source_parse(self, sourcelines: Sequence[str]) -> tuple[str, str]:
        name, value = super().header_source_parse(list(sourcelines))
        if name[:8].lower() == "content-":
            value = ";".join(value.split(";", MAX_PARAMETERS + 1)[: MAX_PARAMETERS + 1])
        return name[:MAX_HEADER_CHARS], value[:MAX_HEADER_CHARS]


def read(data: bytes) -> MailPreview | None:
    """Parse these bytes as a mail; None if they are not one, or parsing would take too long.

    Parameters:
      data: Its beginning, if it is longer than `MAX_MESSAGE_BYTES`.
    """
    # To the parser a line ends by either, or by both together.
    lines = data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
    if (
        lines * (1 + data.lower().count(b"boundary")) > MAX_BOUNDARY_COMPARISONS
        or len(_DELIMITER.findall(data)) > MAX_DELIMITERS
    ):
        return None
    try:
        return _letter(
            message_from_bytes(data, policy=_Bounded()), cut=len(data) >= MAX_MESSAGE_BYTES
        )
    # The parser has faults of many kinds, and mails are made to find them.
    except Exception:  # noqa: BLE001
        return None


def _letter(message: Part, *, cut: bool) -> MailPreview:
    letter = MailPreview(headings=_headings(message), cut=cut)
    room = MAX_IMAGE_BYTES
    for part in _leaves(message):
        type = part.get_content_type()
        if part.get_content_disposition() != "attachment" and not part.is_multipart():
            if type == "text/plain" and letter.text is None:
                letter.text = _text(part)
                continue
            if type == "text/html" and letter.html is None:
                letter.html = _text(part)
                continue
            if (
                part.get("Content-ID")
                and type.startswith("image/")
                and (length := _add_image(letter, part, room))
            ):
                room -= length
                continue
        name = part.get_filename()
        letter.attachments.append((decoded(name) if name else "(no name)", type[:200]))
    return letter


def _leaves(message: Part) -> Iterator[Part]:
    """The parts that hold something, in their order; a mail in a mail is one of them."""
    waiting, seen = [(message, 0)], 0
    while waiting and seen < MAX_PARTS:
        part, depth = waiting.pop()
        seen += 1
        payload = part.get_payload()
        if part.get_content_maintype() == "multipart" and isinstance(payload, list):
            if depth < MAX_DEPTH:
                waiting.extend(
                    (one, depth + 1) for one in reversed(payload) if isinstance(one, Message)
                )
        else:
            yield part


def _headings(message: Part) -> list[tuple[str, str]]:
    return [(name, decoded(message[name])) for name in HEADINGS if message[name] is not None]


def decoded(value: object) -> str:
    """A header for people: encoded words (RFC 2047) decoded, if they can be."""
    raw = str(value)[:MAX_HEADER_CHARS]
    try:
        text = str(make_header(decode_header(raw)))
    except (HeaderParseError, LookupError, ValueError):
        text = raw
    return sanitize(" ".join(text.split())[:1_000]) or ""


def _text(part: Part) -> str:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    return decode(data, part.get_content_charset())


def decode(data: bytes, charset: str | None) -> str:
    """Decode text in a named charset.

    An unknown charset is read as UTF-8, and unreadable bytes become U+FFFD.
    """
    try:
        found = codecs.lookup(charset or "utf-8").name
        text = data.decode("utf-8" if found in NO_CHARSETS else found, "replace")
    except (LookupError, ValueError):
        text = data.decode("utf-8", "replace")
    return sanitize(text) or ""


def _add_image(letter: MailPreview, part: Part, room: int) -> int:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    type = image_type(data[:32])
    if type is None or len(data) > room:
        return 0
    letter.images[str(part["Content-ID"]).strip().strip("<>")] = (
        f"data:{type};base64,{base64.b64encode(data).decode()}"
    )
    return len(data)
