"""Marks of emphasis, such as the asterisks of `*bold*`: people see the style, not the marks."""

from __future__ import annotations

import re
from collections.abc import Callable, Container

MARK = r"(?P<mark>\n|\*+|_+|~+)"
"""A run of marks in a pattern of tokens; emphasis ends with its line."""


def unmarked(
    text: str,
    tokens: re.Pattern[str],
    shown: Callable[[re.Match[str]], str],
    marks: Container[str],
    within_words: Container[str] = (),
) -> str:
    """Return a text with its tokens as people see them, and without its marks of emphasis.

    The time is proportional to the length of the text.

    Args:
      text: The text.
      tokens: Matches what is not emphasis, such as links and code, and `MARK`.
      shown: Returns the text for a token.
      marks: The runs that begin and end emphasis.
      within_words: The runs that also do so within words. Default: none.
    """
    pieces, opened, end = list[str](), dict[str, int](), 0
    for found in tokens.finditer(text):
        pieces.append(text[end : found.start()])
        end = found.end()
        mark = found["mark"]
        if mark is None:
            pieces.append(shown(found))
            continue
        before, after = text[max(found.start() - 1, 0) : found.start()], text[end : end + 1]
        is_inside = mark in within_words
        if mark == "\n":
            opened.clear()
        elif mark not in marks:
            pass
        elif mark in opened and before.strip() and (is_inside or not after.isalnum()):
            pieces[opened.pop(mark)] = mark = ""
        elif after.strip() and (is_inside or not before.isalnum()):
            opened[mark] = len(pieces)
        pieces.append(mark)
    return "".join([*pieces, text[end:]])
