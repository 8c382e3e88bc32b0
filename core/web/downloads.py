"""What is kept, sent as bytes.

It comes from outside: a browser shall run none of it, and guess nothing about it.
"""

from __future__ import annotations

import itertools
import re
from typing import Any
from urllib.parse import quote

from fastapi.responses import StreamingResponse

from core.service.backend import Backend
from core.service.content import reader as content_reader

HARMLESS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}

_MEDIA_TYPE = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
)
MAX_NAME_CHARS = 255

IMAGES = (
    ("image/png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("image/jpeg", re.compile(rb"\xff\xd8\xff")),
    ("image/gif", re.compile(rb"GIF8[79]a")),
    ("image/webp", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("image/avif", re.compile(rb"....ftypavi[fs]", re.DOTALL)),
)
"""How they begin (https://mimesniff.spec.whatwg.org/#image-type-pattern-matching-algorithm).

SVG is none: it can hold scripts.
"""


def download(
    engine: Backend, row: dict[str, Any], *, image: bool = False, typed: bool = True
) -> StreamingResponse:
    """An item's bytes, as a download that no browser shows in place.

    Parameters:
      row: The item, as `core.service.content.queries.content` gives it.
      image: Show it in place if it begins as a raster image does, whatever it is said to be.
      typed: Name the type that it is said to be. To a page of the same site, what is named a script
        could be one.

    Raises:
      NotFound: It is gone, or its blob is.
    """
    portions = content_reader.read(engine, row["id"])
    first = next(portions, b"")  # what is missing is told before the answer begins
    shown = image_type(first) if image else None
    headers = {
        **HARMLESS,
        "Content-Disposition": "inline"
        if shown
        else _disposition(row["name"] or row["external_id"]),
    }
    if shown:
        headers["Cross-Origin-Opener-Policy"] = (
            "unsafe-none"  # a browser opens nothing that is both sandboxed and apart
        )
    # As a header: of a media type, its charset would be made up.
    headers["Content-Type"] = shown or media_type(row["content_type"] if typed else None)
    if row["hash"]:
        headers["ETag"] = f'"{row["hash"]}"'
    return StreamingResponse(itertools.chain([first], portions), headers=headers)


def image_type(beginning: bytes) -> str | None:
    """The type of a raster image that begins like this; None if it is none that is shown."""
    return next((name for name, pattern in IMAGES if pattern.match(beginning)), None)


def media_type(declared: str | None) -> str:
    """Return the media type without its parameters; `application/octet-stream` if it is invalid."""
    match = _MEDIA_TYPE.match((declared or "").strip())
    return match[0].lower() if match else "application/octet-stream"


def _disposition(name: str) -> str:
    """Percent-encode everything that is not plain, so that a name cannot end the header's value.

    https://www.rfc-editor.org/rfc/rfc6266
    """
    last = re.split(r"[/\\]", name)[-1][:MAX_NAME_CHARS].encode("utf-8", "replace")
    return f"attachment; filename*=UTF-8''{quote(last, safe='') or 'content'}"
