"""New words, quoted history and signature of a mail's text, apart."""

from __future__ import annotations

from dataclasses import dataclass

from mailparser_reply import EmailReplyParser

MAX_REPLY_CHARS = 32 * 1024
"""The number of characters that are split: the patterns of the library may be slow on more."""

MAX_LINE_CHARS = 2_000
LANGUAGES = ["en", "de", "fr", "es", "it", "nl", "pl", "sv", "da", "cs", "ja", "ko", "zh"]


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
    try:
        replies = EmailReplyParser(languages=LANGUAGES).read(own).replies
    # The library has patterns for many languages, and mail is hostile.
    except Exception:  # noqa: BLE001
        return Reply(text)
    if not replies:
        return Reply(text)
    new, signature = (replies[0].body or "").strip(), (replies[0].signatures or "").strip()
    return Reply(new, signature, bool(mark) or new != own.strip())
