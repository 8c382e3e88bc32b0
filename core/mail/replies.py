"""New words, quoted history and signature of a mail's text, apart."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailparser_reply.parser import EmailMessage

MAX_REPLY_CHARS = 32 * 1024
"""The number of characters that are split: the patterns of the library may be slow on more."""

MAX_LINE_CHARS = 2_000
LANGUAGES = ["en", "de", "fr", "es", "it", "nl", "pl", "sv", "da", "cs", "ja", "ko", "zh"]

_MAY_QUOTE = re.compile(
    r"[:\uff1a][^\S\n]*$|original message"
    r"|^(?:[>*]|[^\S\n])*[^\W\d_]{0,20}[^\S\n]{0,3}[^\W\d_]{0,20}[^\S\n]{0,3}:",
    re.IGNORECASE | re.MULTILINE,
)
"""Marks of a line above quoted history: a label, a colon at its end, or Outlook's words."""


_BLANK_LINES = re.compile(r"(?:[^\S\n]*\n){4,}")
_QUOTE = re.compile(r"[ \t]*>")
_WRITER = re.compile(r"\d|@")
_PHONE = re.compile(
    r"^[ \t]*((?:Von (?:meinem|unterwegs)\b.{0,30}gesendet|Envoy\u00e9 de mon .{1,30}"
    r"|Enviado (?:do meu|desde) .{1,30}|Inviato da(?:l mio)? .{1,30}|Wys\u0142ane z .{1,30}"
    r"|\u041e\u0442\u043f\u0440\u0430\u0432\u043b\u0435\u043d\u043e"
    r" (?:\u0441|\u0438\u0437) .{1,40})\.?)\s*\Z",
    re.MULTILINE,
)
"""Signatures of telephones that the library does not know."""


class _Message(EmailMessage):  # type: ignore[misc]  # the library has no types
    """A message with the library's patterns, built once and not for each mail."""

    HEADER_REGEX = EmailMessage("", LANGUAGES).HEADER_REGEX
    SIGNATURE_REGEX = EmailMessage("", LANGUAGES, keep_hyphen_lists=True).SIGNATURE_REGEX
    DISCLAIMERS_REGEX = EmailMessage("", LANGUAGES).DISCLAIMERS_REGEX


class _WithoutHistory(_Message):
    """A message in whose text no line may stand above quoted history."""

    HEADER_REGEX = re.compile(r"(?!)")


@dataclass(frozen=True, slots=True)
class Reply:
    """The parts of a text.

    Attributes:
      new: The words of this mail alone, without quotes and signature.
      signature: The signature; empty if there is none.
      is_split: True if the text has more than new words.
    """

    new: str
    signature: str = ""
    is_split: bool = False


def split_reply(text: str) -> Reply:
    """Split a text into new words, history and signature. Long texts are not split."""
    own, mark, _ = text.partition("---------- Forwarded message ----------\n")
    if len(own) > MAX_REPLY_CHARS or any(len(line) > MAX_LINE_CHARS for line in own.split("\n")):
        return Reply(text)
    # The library takes quadratic time on runs of blank lines.
    own = _BLANK_LINES.sub("\n\n\n", own)
    rest = _without_quotes(own)
    phone = _PHONE.search(rest)
    rest = rest[: phone.start()] if phone else rest
    kind = _Message if _MAY_QUOTE.search(rest) else _WithoutHistory
    try:
        replies = kind(rest, LANGUAGES).read().replies
    # The library has patterns for many languages, and mail is hostile.
    except Exception:  # noqa: BLE001
        return Reply(text)
    if not replies:
        return Reply(text)
    new, signature = (replies[0].body or "").strip(), (replies[0].signatures or "").strip()
    signature = phone[1] if phone and not signature else signature
    return Reply(new, signature, bool(mark) or new != own.strip())


def _without_quotes(text: str) -> str:
    """Return a text without quoted lines and the lines that introduce them, in any language.

    Answers below and between quotes are new words. A text of nothing else stays as it is.
    """
    found: list[str] = []
    quoting = False
    for line in text.split("\n"):
        if not _QUOTE.match(line):
            quoting = False
            found.append(line)
        elif not quoting:
            quoting = True
            _drop_introduction(found)
    rest = "\n".join(found)
    return rest if rest.strip() else text


def _drop_introduction(lines: list[str]) -> None:
    """Remove `On Monday, Bob wrote:` from the end: a colon, and a date or an address before it."""
    last = len(lines) - 1
    while last >= 0 and not lines[last].strip():
        last -= 1
    if last < 0 or not lines[last].rstrip().endswith((":", "\uff1a")):
        return
    first = last
    if last and lines[last - 1].strip() and re.search(r"\d", lines[last]) is None:
        first = last - 1  # the date is in the line before
    if _WRITER.search(" ".join(lines[first : last + 1])):
        del lines[first:]
