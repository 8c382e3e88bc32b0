"""Text of header fields: encoded words (RFC 2047) beside raw bytes of any charset."""

from __future__ import annotations

import re
from itertools import groupby, islice

from core.mail.charsets import Hints, codecs_of, decode
from core.mail.transfer import decode_base64

MAX_TEXT_BYTES = 256 * 1024
"""The maximum length of a field that is decoded as text."""

MAX_WORDS = 5_000
"""The maximum number of encoded words of one field; further ones stay encoded."""

_FOLD = re.compile(rb"(?<![\r\n])[\r\n]++(?=[ \t]|\Z)")
_WORD = re.compile(
    rb"=\?([^?\s=*\x00-\x1f]{0,60})(?:\*[^?\s]{0,60})?\?([BbQq])\?(.*?)"
    rb"(?:\?=(?![0-9A-F]{2}[^?\s=]*(?:=[0-9A-F]{2}[^?\s=]*)*\?=)|\??\Z)",
    re.DOTALL,
)
_SPECIAL = re.compile(rb"[\x00\x1b]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_SPACE = re.compile(r"\s+")
_HEX = re.compile(rb"=([0-9A-Fa-f]{2})")

Piece = tuple[bytes, str | None]
"""Bytes, and the label of their charset; None for raw bytes."""


def unfolded(raw: bytes) -> bytes:
    """Return the raw value of a field in one line."""
    return _FOLD.sub(b"", raw).replace(b"\r", b" ").replace(b"\n", b" ")


def readable(raw: bytes, hints: Hints | None = None) -> str:
    """Return the raw value of a field as text in one line.

    Args:
      raw: The bytes of the value, folded or not.
      hints: Charsets to try for raw bytes that are not UTF-8, and the budget. Default: none.
    """
    return one_line(decode_words(raw[:MAX_TEXT_BYTES], hints))


def one_line(text: str) -> str:
    """Return text without control characters and repeated blanks."""
    return _SPACE.sub(" ", _CONTROL.sub(" ", text)).strip()


def decode_words(raw: bytes, hints: Hints | None = None) -> str:
    """Decode all encoded words; a word that is broken does not affect the others."""
    if b"=?" not in raw and raw.isascii() and not _SPECIAL.search(raw):
        return unfolded(raw).decode("ascii")
    pieces = _pieces(unfolded(raw))
    return "".join(
        _decoded([data for data, _ in group], label, hints)
        for label, group in groupby(pieces, key=lambda piece: piece[1])
    )


def _pieces(value: bytes) -> list[Piece]:
    pieces: list[Piece] = []
    end = 0
    if b"=?" in value:
        for word in islice(_WORD.finditer(value), MAX_WORDS):
            between = value[end : word.start()]
            # Blanks between two words belong to neither of them (RFC 2047, section 6.2).
            if between and not (pieces and pieces[-1][1] is not None and not between.strip()):
                pieces.append((between, None))
            pieces.append(_word(word))
            end = word.end()
    if end < len(value):
        pieces.append((value[end:], None))
    return pieces


def _word(word: re.Match[bytes]) -> Piece:
    text = word[3]
    if word[2] in b"Bb":
        data = decode_base64(text)
        if not data and text.strip():
            return word[0], None
    else:
        data = _HEX.sub(_byte, text.replace(b"_", b" "))
    return data, word[1].decode("latin-1").lower()


def _byte(escape: re.Match[bytes]) -> bytes:
    return bytes((int(escape[1], 16),))


def _decoded(parts: list[bytes], label: str | None, hints: Hints | None) -> str:
    """Decode the parts together, because senders split words within characters."""
    whole = b"".join(parts)
    if label is None:
        return decode(whole, None, hints=hints).text
    if len(parts) > 1 and any(_fits(whole, codec) for codec in codecs_of(label)):
        return decode(whole, label).text
    if len(parts) > 1 and all(any(_fits(part, c) for c in codecs_of(label)) for part in parts):
        return "".join(decode(part, label).text for part in parts)
    return decode(whole, label, hints=hints).text


def _fits(data: bytes, codec: str) -> bool:
    try:
        data.decode(codec)
    except (UnicodeError, LookupError, ValueError):
        return False
    return True
