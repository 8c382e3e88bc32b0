"""Downloads of content. Content is untrusted: browsers must not run it or guess its type."""

from __future__ import annotations

import codecs
import itertools
import re
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.datastructures import Headers

from core.service.backend import Backend
from core.service.content import reader as content_reader
from core.web.problems import AccessEnded, HttpProblem, problem
from core.web.representations import is_known

AUTHORIZATION_SECONDS = 15.0
"""The interval at which a download checks that its reader may still read, in seconds."""

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

TEXT_TYPES = ("application/json", "application/xml", "application/javascript", "application/yaml")

IMAGES = (
    ("image/png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("image/jpeg", re.compile(rb"\xff\xd8\xff")),
    ("image/gif", re.compile(rb"GIF8[79]a")),
    ("image/webp", re.compile(rb"RIFF....WEBP", re.DOTALL)),
    ("image/avif", re.compile(rb"....ftypavi[fs]", re.DOTALL)),
)
"""The signatures of raster images.

Source: https://mimesniff.spec.whatwg.org/#image-type-pattern-matching-algorithm. SVG is excluded
because it can contain scripts.
"""


_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


def download(
    request: Request,
    engine: Backend,
    row: dict[str, Any],
    allowed: Callable[[], bool],
    *,
    image: bool = False,
    typed: bool = True,
) -> Response:
    """Return the bytes of an item as a download that browsers do not display.

    A request may name a range of bytes, and the validator of bytes that it has already.

    Args:
      request: The request.
      engine: The backend.
      row: The item, as a row of `core.service.content.queries.content`.
      allowed: A function that returns True while the reader may read the item. A download lasts as
        long as its reader wants.
      image: Allow display if the bytes start like a raster image. The declared type has no
        effect. Default: False.
      typed: Send the declared content type. Use False for pages of the same site, which could load
        a declared script. Default: True.

    Raises:
      NotFound: The item or its blob does not exist.
    """
    body = content_reader.find(engine, row["id"])
    tag = f'"{body.hash}"' if body.hash else None
    if tag is not None and is_known(request.headers, tag):
        return Response(status_code=304, headers={**HARMLESS, "ETag": tag})
    wanted = _range(request.headers, body.size, tag)
    if wanted is not None and wanted[0] >= wanted[1]:
        missing = {"Content-Range": f"bytes */{body.size}", "Accept-Ranges": "bytes"}
        return problem(HttpProblem("range-not-satisfiable"), headers=missing)
    start, end = wanted or (0, body.size)
    portions = body.read(*wanted) if wanted is not None else body.read()
    first = next(portions, b"")  # a missing blob must raise before the response starts
    shown = image_type(first) if image and start == 0 else None
    headers = {
        **HARMLESS,
        "Content-Disposition": "inline"
        if shown
        else _disposition(row["name"] or row["external_id"]),
    }
    if shown:
        # Browsers block a sandboxed document that sets this policy to `same-origin`.
        headers["Cross-Origin-Opener-Policy"] = "unsafe-none"
    # Starlette adds a charset to `media_type`; a header is sent unchanged.
    headers["Content-Type"] = shown or media_type(row["content_type"] if typed else None)
    headers |= {"Accept-Ranges": "bytes", "Content-Length": str(end - start)}
    if tag is not None:
        headers["ETag"] = tag
    if wanted is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{body.size}"
    sent = _while_allowed(itertools.chain([first], portions), allowed)
    return StreamingResponse(sent, 200 if wanted is None else 206, headers=headers)


def _range(request: Headers, size: int, tag: str | None) -> tuple[int, int] | None:
    """Return the first byte that a request wants, and the one after the last.

    None: it wants all bytes. A server may send all for several ranges, and does so for an unknown
    range, and for a range of other bytes (https://www.rfc-editor.org/rfc/rfc9110#section-14.2). A
    range without bytes is one that the item does not have.
    """
    match = _RANGE.fullmatch(request.get("range", "").strip())
    if match is None or match.groups() == ("", "") or request.get("if-range", tag) != tag:
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size


def _while_allowed(portions: Iterator[bytes], allowed: Callable[[], bool]) -> Iterator[bytes]:
    """Yield portions, and end the connection if the reader may no longer read."""
    checked_at = time.monotonic()
    for portion in portions:
        if time.monotonic() - checked_at >= AUTHORIZATION_SECONDS:
            if not allowed():
                raise AccessEnded
            checked_at = time.monotonic()
        yield portion


def image_type(beginning: bytes) -> str | None:
    """Return the type of a raster image by its first bytes; None for all other data."""
    return next((name for name, pattern in IMAGES if pattern.match(beginning)), None)


def media_type(declared: str | None) -> str:
    """Return the media type without its parameters; `application/octet-stream` if it is invalid."""
    match = _MEDIA_TYPE.match((declared or "").strip())
    return match[0].lower() if match else "application/octet-stream"


def is_text(type: str, data: bytes) -> bool:
    """Return True if data of a declared media type is text, by its first bytes."""
    if b"\0" in data[:8_000]:
        return False
    if type.startswith("text/") or type in TEXT_TYPES or type.endswith(("+json", "+xml")):
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)  # the last character may be incomplete
    except UnicodeDecodeError:
        return False
    return True


def _disposition(name: str) -> str:
    """Return a `Content-Disposition` with an encoded name, which cannot end the header value.

    https://www.rfc-editor.org/rfc/rfc6266
    """
    last = re.split(r"[/\\]", name)[-1][:MAX_NAME_CHARS].encode("utf-8", "replace")
    return f"attachment; filename*=UTF-8''{quote(last, safe='') or 'content'}"
