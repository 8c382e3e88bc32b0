"""Text from outside, made fit for PostgreSQL, which holds neither NUL nor lone surrogates."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from core.errors import ResultInvalid

_UNFIT = re.compile("[\x00\ud800-\udfff]")
_UNFIT_ESCAPED = re.compile(r"\\u(?:0000|d[89a-f])", re.IGNORECASE)


def fits(text: str) -> bool:
    """Whether PostgreSQL can hold it as text."""
    return _UNFIT.search(text) is None


def mended(text: str | None) -> str | None:
    """Replace what PostgreSQL and UTF-8 cannot hold by U+FFFD.

    Use it for names and the like, where a readable form suffices.
    """
    return None if text is None else _UNFIT.sub("\ufffd", text)


def encode_json(value: Any, what: str) -> str:
    """JSON text without NaN, its keys sorted: equal values give equal texts.

    Raises:
      ResultInvalid: It is no JSON.
    """
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"), sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise ResultInvalid(f"{what} is no JSON: {error}") from None


def json_text(value: Any) -> str:
    """Serialize validated JSON, several times as fast as the standard library."""
    try:
        return to_json(value).decode()
    # Nested deeper than it goes, or a lone surrogate, which PostgreSQL will refuse.
    except PydanticSerializationError:
        return json.dumps(value)


def holds_unfit(encoded: str) -> bool:
    """Whether JSON text may contain NUL or a lone surrogate.

    Astral characters are pairs and say yes as well.
    """
    return _UNFIT_ESCAPED.search(encoded) is not None


def mended_json(value: Any) -> Any:
    """JSON with every string and key mended."""
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, dict):
        return {mended(str(key)): mended_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [mended_json(item) for item in value]
    return value
