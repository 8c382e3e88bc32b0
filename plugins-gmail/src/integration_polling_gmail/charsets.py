"""Bytes of mail as text, whatever charset they claim. Nothing raises."""

from __future__ import annotations

import codecs
from functools import lru_cache

REFUSED = frozenset(
    {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "mbcs", "oem"}
)
"""Codecs of Python that are no charsets of mail; some take quadratic time."""

_LONE_SURROGATES = dict.fromkeys(range(55296, 57344), "�")
_UNFIT = _LONE_SURROGATES | {0: None}


@lru_cache(maxsize=1_000)
def codec(charset: str) -> str | None:
    """Python's name for a charset; None where there is none."""
    try:
        name = codecs.lookup(charset.strip("\"' ")).name
        b"0".decode(name, "replace")  # LookupError for codecs that are no charsets, such as rot13
    except (LookupError, ValueError, UnicodeError):
        return None
    # ASCII is what mail claims that is something else.
    return None if name.replace("-", "_") in REFUSED or name == "ascii" else name


def decoded(data: bytes, charset: str | None) -> str:
    """Text without NUL and lone surrogates.

    Parameters:
      charset: As the mail claims it. Unknown or missing: UTF-8 where it fits, otherwise
        Windows-1252.
    """
    name = codec(charset[:100]) if charset else None
    if name is not None:
        return clean(data.decode(name, "replace"))
    try:
        return clean(data.decode("utf-8"))
    except UnicodeDecodeError:
        return clean(data.decode("cp1252", "replace"))


def clean(text: str) -> str:
    """Without what JSON and PostgreSQL cannot hold."""
    return text.translate(_UNFIT) if "\0" in text or not text.isprintable() else text
