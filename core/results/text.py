"""Sanitize external text for PostgreSQL, which stores neither NUL nor unpaired surrogates."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from core.errors import ResultInvalid

UNSTORABLE = "a NUL byte or an unpaired surrogate"
"""The characters that PostgreSQL cannot store, in the words of error messages."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_UNSTORABLE_ESCAPED = re.compile(r"\\u(?:0000|d[89a-f])")
# It also matches an escaped backslash and a surrogate pair, so that no part of them matches alone.
_ESCAPES = re.compile(
    r"\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\u0000|\\ud[89a-f][0-9a-f]{2}"
)

_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":"), sort_keys=True).encode


def is_storable(text: str) -> bool:
    """Return True if PostgreSQL can store the text."""
    return _UNSTORABLE.search(text) is None


def sanitize(text: str | None) -> str | None:
    """Replace each character that PostgreSQL cannot store by U+FFFD.

    Use it for names and other text that people read, not for ids and other text that is compared.
    """
    return None if text is None else _UNSTORABLE.sub("\ufffd", text)


def encode_json(value: Any, what: str) -> str:
    """Serialize a value to ASCII JSON with sorted keys, so that equal values give equal texts.

    Args:
      value: The value.
      what: The name of the value in the message.

    Raises:
      ResultInvalid: The value cannot be serialized, or contains NaN or an infinity.
    """
    try:
        return _encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ResultInvalid(f"{what} is not valid JSON: {error}") from None


def decode_json(encoded: str, what: str) -> Any:
    """Parse JSON.

    Args:
      encoded: The JSON text.
      what: The name of the value in the message.

    Raises:
      ResultInvalid: The value is nested too deeply.
    """
    try:
        return json.loads(encoded)
    except RecursionError as error:
        raise ResultInvalid(f"{what} is not valid JSON: {error}") from None


def json_text(value: Any) -> str:
    """Serialize a validated value to JSON, several times as fast as the standard library."""
    try:
        return to_json(value).decode()
    except PydanticSerializationError:
        # The value is nested deeper than pydantic allows, or has an unpaired surrogate, which
        # PostgreSQL rejects.
        return json.dumps(value)


def is_storable_json(encoded: str) -> bool:
    """Return True if PostgreSQL can store the text of `encode_json` as `jsonb`."""
    if _UNSTORABLE_ESCAPED.search(encoded) is None:
        return True
    return not any(_is_unstorable(match[0]) for match in _ESCAPES.finditer(encoded))


def sanitize_json(encoded: str) -> str:
    """Sanitize every string and key in the text of `encode_json`."""
    return _ESCAPES.sub(lambda match: r"\ufffd" if _is_unstorable(match[0]) else match[0], encoded)


def _is_unstorable(escape: str) -> bool:
    """Return True for a NUL or an unpaired surrogate, and not for a pair or a backslash."""
    return len(escape) == len(r"\u0000")
