"""The message as Slack returned it, kept in its row's metadata so that it can be rendered again.

`raw` has only what the metadata does not already have under the same key. A raw message that is too
large for plain JSON is compressed.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

Message = Mapping[str, Any]

MAX_PLAIN_CHARS = 50_000
"""The maximum size of a raw message as plain JSON, in characters."""

MAX_PACKED_CHARS = 300_000
"""The maximum size of a compressed raw message."""

MAX_UNPACKED_BYTES = 64 * 1024 * 1024
"""The maximum size of a raw message after decompression; Slack's own limits are far lower."""

_PREFIX = "zlib:"
_DERIVED = ("permalink", "reader", "raw", "omitted", "files", "reactions", "user")
"""The keys of the metadata that are not the message's own, or only a part of it."""

_LEFT_OUT = ("reactions",)
"""Parts of a message that no text shows, and that have a row or a summary of their own."""


def size(value: Any) -> int:
    """Return the size of a JSON value in characters, not in escapes."""
    return len(json.dumps(value, ensure_ascii=False))


def packed(message: Message, shown: Mapping[str, Any]) -> dict[str, Any] | str | None:
    """Return the parts of a message that a row's other metadata lacks; None if too large.

    Args:
      message: The message.
      shown: The row's other metadata.
    """
    same = {key for key in shown if key not in _DERIVED and message.get(key) == shown[key]}
    rest = {
        key: _files(value) if key == "files" else value
        for key, value in message.items()
        if key not in same and key not in _LEFT_OUT
    }
    encoded = json.dumps(rest, ensure_ascii=False)
    if len(encoded) <= MAX_PLAIN_CHARS:
        return rest
    compressed = base64.b64encode(zlib.compress(encoded.encode(), 9)).decode()
    return _PREFIX + compressed if len(compressed) <= MAX_PACKED_CHARS else None


def unpacked(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the message that a row's metadata keeps; None if it does not keep it."""
    rest = metadata.get("raw")
    if isinstance(rest, str) and rest.startswith(_PREFIX):
        rest = _decompressed(rest.removeprefix(_PREFIX))
    if not isinstance(rest, dict):
        return None
    own = {key: value for key, value in metadata.items() if key not in _DERIVED}
    reactions = metadata.get("reactions")
    message = {**own, **({"reactions": reactions} if reactions else {}), **rest}
    message.pop("channel", None)
    return message


def _decompressed(text: str) -> Any:
    try:
        inflate = zlib.decompressobj()
        return json.loads(inflate.decompress(base64.b64decode(text), MAX_UNPACKED_BYTES))
    except (ValueError, zlib.error):
        return None


def _files(files: Any) -> Any:
    """Return files without the addresses of their thumbnails, which a text never shows."""
    if not isinstance(files, list):
        return files
    return [
        {key: value for key, value in one.items() if not key.startswith(("thumb_", "deanimate"))}
        if isinstance(one, dict)
        else one
        for one in files
    ]
