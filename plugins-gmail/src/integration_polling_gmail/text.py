"""What a person reads of a message: its plain text, or its HTML turned into text."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from inscriptis import Inscriptis
from lxml import etree, html

from integration_polling_gmail.charsets import clean, decoded
from integration_polling_gmail.headers import parameter
from integration_polling_gmail.mime import Part

MOST_TEXT = 1024 * 1024
"""Bytes of one part that are read; the source has the rest."""

_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)

MOST_IN_ALL = 4 * 1024 * 1024
"""Bytes of all parts of a message that are read."""


@dataclass(slots=True)
class TextPart:
    """A part to be read, as far as it is kept."""

    part: Part
    room: int = MOST_TEXT
    data: bytearray = field(default_factory=bytearray)

    def write(self, data: bytes) -> None:
        self.data += data[: max(self.room - len(self.data), 0)]

    @property
    def is_html(self) -> bool:
        return self.part.content_type == "text/html"

    @property
    def text(self) -> str:
        """In Unicode, with plain line ends."""
        words = decoded(bytes(self.data), parameter(self.part.headers, "Content-Type", "charset"))
        return (text_of_html(words) if self.is_html else words).replace("\r\n", "\n").replace("\r", "\n").strip()


def readable_text(parts: Iterable[TextPart]) -> str:
    """All texts in order; of alternatives the plain ones, unless they are blank."""
    choices: defaultdict[str, list[TextPart]] = defaultdict(list)
    for part in parts:
        choices[part.part.choice].append(part)
    return "\n\n".join(filter(None, map(_chosen, choices.values())))


def _chosen(parts: list[TextPart]) -> str:
    plain = "\n\n".join(filter(None, (part.text for part in parts if not part.is_html)))
    return plain or "\n\n".join(filter(None, (part.text for part in parts if part.is_html)))


def text_of_html(source: str) -> str:
    """HTML as text: paragraphs, lists and tables laid out, without scripts and styles."""
    try:
        # An encoding of its own: what the HTML claims is the transport's business, and was undone.
        parser = html.HTMLParser(encoding="utf-8", huge_tree=True)
        tree = html.document_fromstring(source.encode("utf-8", "replace"), parser=parser, ensure_head_body=True)
    except (etree.LxmlError, ValueError, AssertionError):
        return ""
    _plain_styles(tree)
    try:
        return clean(Inscriptis(tree).get_text())
    except Exception:  # noqa: BLE001  RecursionError on deep nesting, and what odd attributes make it raise
        etree.strip_elements(tree, "script", "style", with_tail=False)
        return clean(" ".join(" ".join(tree.itertext(tag=etree.Element)).split()))


def _plain_styles(tree: html.HtmlElement) -> None:
    """Of styles only this counts: what is hidden stays hidden. A margin could ask for a gigabyte of blank lines."""
    for element in tree.iter(etree.Element):
        if (style := element.attrib.pop("style", None)) and _HIDDEN.search(style):
            element.attrib["style"] = "display:none"
