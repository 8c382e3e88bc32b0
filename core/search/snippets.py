"""The part of a text that shows the words of a query."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from core.search.words import words

MAX_TEXT_CHARS = 20_000
"""The characters of a text that are read to find the words."""

BEFORE, AFTER = 60, 180
"""The characters before and after the first word."""


def snippet(text: str, shown: Sequence[str]) -> str | None:
    """Return the part of a text around the most words of a query, in one line.

    Args:
      text: The text. Only the first `MAX_TEXT_CHARS` characters are read.
      shown: The words, folded.

    Returns:
      The part; the first characters if the text lacks the words; None for an empty text.
    """
    text = text[:MAX_TEXT_CHARS]
    places = list(_places(text, shown))
    start = max(places, key=lambda place: _near(place, places), default=0)
    first = max(0, start - BEFORE)
    if first:
        first = text.find(" ", first, start) + 1 or first
    part = " ".join(text[first : start + AFTER].split())
    end = "…" if start + AFTER < len(text) else ""
    return f"{'…' if first else ''}{part}{end}" if part else None


def marked(text: str, shown: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a snippet, each with True if it is a word of the query."""
    place = 0
    for word in words(text):
        if word.start >= place and any(word.folded.startswith(start) for start in shown):
            yield text[place : word.start], False
            yield text[word.start : word.end], True
            place = word.end
    yield text[place:], False


def _places(text: str, shown: Sequence[str]) -> Iterator[int]:
    wanted = [start for start in shown if start]
    if not wanted:
        return
    if text.isascii():
        pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, wanted))})", re.IGNORECASE)
        yield from (found.start() for found in pattern.finditer(text))
        return
    for word in words(text):
        if any(word.folded.startswith(start) for start in wanted):
            yield word.start


def _near(place: int, places: Sequence[int]) -> int:
    return sum(place <= other < place + AFTER for other in places[:500])
