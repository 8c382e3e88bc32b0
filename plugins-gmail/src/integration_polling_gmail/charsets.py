"""Decoding of mail in any declared charset. No function raises."""

from __future__ import annotations

import codecs
from functools import lru_cache

REFUSED = frozenset(
    {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "mbcs", "oem"}
)
"""Python codecs that mail does not use as charsets; some take quadratic time."""

_LONE_SURROGATES = dict.fromkeys(range(55296, 57344), "�")
_UNFIT = _LONE_SURROGATES | {0: None}


@lru_cache(maxsize=1_000)
def codec(charset: str) -> str | None:
    """Return Python's name for a charset; None if it is unknown."""
    try:
        name = codecs.lookup(charset.strip("\"' ")).name
        b"0".decode(name, "replace")  # LookupError for codecs of another kind, such as rot13
    except (LookupError, ValueError, UnicodeError):
        return None
    # Mail declared as ASCII often has another charset.
    return None if name.replace("-", "_") in REFUSED or name == "ascii" else name


def decoded(data: bytes, charset: str | None) -> str:
    """Return text without NUL and lone surrogates.

    Args:
      data: The bytes.
      charset: The declared charset. If it is unknown or missing, the bytes are read as UTF-8, or as
        Windows-1252 if they are not valid UTF-8.
    """
    name = codec(charset[:100]) if charset else None
    if name is not None:
        return clean(data.decode(name, "replace"))
    try:
        return clean(data.decode("utf-8"))
    except UnicodeDecodeError:
        return clean(data.decode("cp1252", "replace"))


def clean(text: str) -> str:
    """Return text without the characters that JSON and PostgreSQL cannot store."""
    return text.translate(_UNFIT) if "\0" in text or not text.isprintable() else text
