"""The readable text of a message: its plain text, or its HTML converted to text."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from html_text import etree_to_text
from lxml import etree, html

from integration_polling_gmail.charsets import clean, decoded
from integration_polling_gmail.headers import parameter
from integration_polling_gmail.mime import Part

MAX_TEXT_BYTES = 1024 * 1024
"""The maximum number of bytes of one part to read; the source has the rest."""

_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_UNREAD = (
    "head",
    "script",
    "style",
    "template",
    etree.Comment,
    etree.ProcessingInstruction,
    etree.Entity,
)

MAX_TOTAL_BYTES = 4 * 1024 * 1024
"""The maximum number of bytes of all parts of a message to read."""


@dataclass(slots=True)
class TextPart:
    """A text part, up to a maximum size.

    It does not hold its headers: as objects, the headers of a thousand parts take gigabytes.
    """

    choice: str
    is_html: bool
    charset: str | None
    room: int = MAX_TEXT_BYTES
    data: bytearray = field(default_factory=bytearray)

    @classmethod
    def of(cls, part: Part, room: int) -> Self:
        """Return an empty text part with room for this number of bytes."""
        charset = parameter(part.headers, "Content-Type", "charset")
        return cls(part.choice, part.content_type == "text/html", charset, room)

    def write(self, data: bytes) -> None:
        """Append bytes, as far as there is room."""
        self.data += data[: max(self.room - len(self.data), 0)]

    @property
    def text(self) -> str:
        """The decoded text, with LF as line end."""
        words = decoded(bytes(self.data), self.charset)
        return (
            (text_of_html(words) if self.is_html else words)
            .replace("\r\n", "\n")
            .replace("\r", "\n")
            .strip()
        )


def readable_text(parts: Iterable[TextPart]) -> str:
    """Join all texts in order; of alternatives, take the plain ones unless they are blank."""
    choices: defaultdict[str, list[TextPart]] = defaultdict(list)
    for part in parts:
        choices[part.choice].append(part)
    return "\n\n".join(filter(None, map(_chosen, choices.values())))


def _chosen(parts: list[TextPart]) -> str:
    plain = "\n\n".join(filter(None, (part.text for part in parts if not part.is_html)))
    return plain or "\n\n".join(filter(None, (part.text for part in parts if part.is_html)))


def text_of_html(source: str) -> str:
    """Convert HTML to text, with a line for each paragraph, list item and table row.

    Scripts, styles and hidden elements are left out. Without layout, the length of the result is
    bounded by the source's. Padding table columns to their width turned 38 kB into 40 MB.
    """
    # The text is decoded already, so the charset that the HTML declares is ignored.
    parser = html.HTMLParser(encoding="utf-8", huge_tree=True)
    try:
        tree = html.document_fromstring(
            source.encode("utf-8", "replace"), parser=parser, ensure_head_body=True
        )
    except (etree.LxmlError, ValueError, AssertionError):
        return ""
    etree.strip_elements(tree, *_UNREAD, with_tail=False)
    for element in [
        each
        for each in tree.iter()
        if "hidden" in each.attrib or _HIDDEN.search(each.get("style", ""))
    ]:
        element.clear(keep_tail=True)
    return clean(etree_to_text(tree))
