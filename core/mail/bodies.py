"""The readable text of a mail: of alternatives, what a person would see."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from core.mail.budget import STEPS_OF_HTML, Budget
from core.mail.charsets import Decoded, Hints, decode
from core.mail.formats import text_of_calendar, text_of_enriched, unflowed
from core.mail.html_text import text_of_html
from core.mail.mime import Part

MAX_TEXT_BYTES = 1024 * 1024
"""The maximum number of bytes of one part to read; the source has the rest."""

MAX_TOTAL_BYTES = 4 * 1024 * 1024
"""The maximum number of bytes of all parts of a mail to read."""

STUB_CHARS = 600
_STUB = re.compile(
    r"\bhtml\b|browser|e-?mail\s?(?:client|program|reader)|mail reader"
    r"|\bview (?:this|it)\b.{0,40}(?:online|web)|web-?\s?(?:page|site|version)|online[- ]version"
    r"|version en ligne|navigateur|navegador|versi[o\u00f3]n (?:en l[i\u00ed]nea|web)"
    r"|nicht (?:korrekt )?(?:angezeigt|dargestellt)|n'affiche pas",
    re.IGNORECASE,
)
_WORDS = re.compile(r"\w{2,}")


@dataclass(slots=True)
class TextPart:
    """A text part, up to a maximum size; the parts of a mail share a budget."""

    part: Part
    room: int = MAX_TEXT_BYTES
    data: bytearray = field(default_factory=bytearray)
    is_cut: bool = False
    decoded: Decoded | None = None
    budget: Budget = field(default_factory=Budget)

    def write(self, data: bytes) -> None:
        """Append bytes, as far as there is room."""
        room = max(self.room - len(self.data), 0)
        self.data += data[:room]
        self.is_cut = self.is_cut or len(data) > room

    def read(self) -> str:
        """Return the decoded text, with LF as line end."""
        kind = self.part.content_type
        data = bytes(self.data)
        self.decoded = decode(data, self.part.charset, is_html=kind == "text/html",
            hints=Hints(budget=self.budget))  # fmt: skip
        if self.is_cut and self.decoded.replaced == 1 and self.decoded.text.endswith("\ufffd"):
            self.decoded = Decoded(self.decoded.text[:-1], self.decoded.charset, self.decoded.how)
        text = re.sub(r"\r{1,4}\n|\r", "\n", self.decoded.text)
        if kind == "text/html":
            found = text_of_html(text, max(self.budget.steps, 0) // STEPS_OF_HTML)
            self.budget.steps -= found.tokens * STEPS_OF_HTML
            self.is_cut = self.is_cut or found.is_cut
            return found.text
        if kind in ("text/enriched", "text/richtext"):
            text = text_of_enriched(text)
        elif kind == "text/calendar":
            text = text_of_calendar(text)
        elif self.part.flowed:
            text = unflowed(text, delsp=self.part.delsp)
        return text.strip()


def readable_text(parts: Iterable[TextPart]) -> str:
    """Join all texts in order; of alternatives, take the one that a person would see."""
    choices: defaultdict[str, list[TextPart]] = defaultdict(list)
    for part in parts:
        choices[part.part.choice].append(part)
    return "\n\n".join(filter(None, map(_chosen, choices.values())))


def _chosen(parts: list[TextPart]) -> str:
    texts: defaultdict[str, list[str]] = defaultdict(list)
    for part in parts:
        texts[part.part.content_type].append(part.read())
    joined = {kind: "\n\n".join(filter(None, found)) for kind, found in texts.items()}
    plain, rich = joined.pop("text/plain", ""), joined.pop("text/html", "")
    calendar = joined.pop("text/calendar", "")
    if plain and rich and is_stub(plain, rich):
        return rich
    return plain or rich or next(filter(None, joined.values()), "") or calendar


def is_stub(plain: str, rich: str) -> bool:
    """Return True if the plain text only says that the HTML has the message."""
    if len(plain) > STUB_CHARS:
        return False
    words, others = set(_WORDS.findall(plain.lower())), set(_WORDS.findall(rich.lower()))
    shared = len(words & others) / max(len(words), 1)
    if _STUB.search(plain):
        return shared < 0.6 and len(others) >= 2
    return shared < 0.3 and len(others) > 2 * len(words)
