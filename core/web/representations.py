"""The representation of a response: validators, conditional requests, compression, and `HEAD`.

Only complete JSON responses get a validator here. Downloads have their own, the hash of the item
(`core.web.downloads`).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

T = TypeVar("T")

MIN_COMPRESSED_BYTES = 1_000
"""Smaller bodies are sent as they are."""

MAX_INLINE_BYTES = 32 * 1024
"""Larger parts are hashed and compressed in a thread, so that other requests do not wait."""

LEVEL = 4
"""The level of compression: the text of a page takes a third of the time of level 9."""

COMPRESSIBLE = (
    *("application/json", "application/problem+json", "application/jsonl"),
    *("text/csv", "text/plain", "text/html"),
)

_GZIP = 16 + zlib.MAX_WBITS
"""The format of gzip: https://docs.python.org/3/library/zlib.html#zlib.compressobj."""


class Head:
    """Middleware that answers `HEAD` with the head of the response to `GET`.

    Args:
      app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request; leave out the body of the response to `HEAD`."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] != "http.response.body":
                await send(message)
                return
            await send({"type": "http.response.body", "body": b""})
            if message.get("more_body", False):
                raise ClientDisconnect  # do not produce the rest

        # Only `GET` has ranges: https://www.rfc-editor.org/rfc/rfc9110#section-14.2
        headers = [each for each in scope["headers"] if each[0] != b"range"]
        get = {**scope, "method": "GET", "headers": headers}
        try:
            await self.app(get, receive, send_head)
        finally:
            if "route" in get:
                scope["route"] = get["route"]  # traces name it


class Representations:
    """Middleware that adds validators to JSON responses, and compresses text.

    Args:
      app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, and adapt its response."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await self.app(scope, receive, _Response(scope, send).send)


class _Response:
    """One response on its way to the client."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._request = Headers(scope=scope)
        self._method: str = scope["method"]
        self._send = send
        self._start: Message = {}
        self._compressor: zlib._Compress | None = None

    async def send(self, message: Message) -> None:
        """Send a message of the response."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        if message["type"] != "http.response.body":
            await self._send(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._start:
            body = await self._begin(body, more)
        elif self._compressor is not None:
            body = await self._compressed(body, more)
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _begin(self, body: bytes, more: bool) -> bytes:
        """Send the start of the response; return the first part of its body."""
        start, self._start = self._start, {}
        headers = MutableHeaders(scope=start)
        type = headers.get("content-type", "").partition(";")[0]
        if type == "application/json" and not more and _is_validated(self._method, start):
            digest = await _off_loop(body, lambda: hashlib.sha256(body).hexdigest())
            # Weak, because the compressed body has the same validator (RFC 9110, section 8.8.3).
            revision = headers.get("etag", "").removeprefix("W/").strip('"')
            headers["ETag"] = f'W/"{digest[:32]}{"." if revision else ""}{revision}"'
            if is_known(self._request, headers["ETag"]):
                start["status"], body = 304, b""
                del headers["content-length"], headers["content-type"]
        if type in COMPRESSIBLE:
            headers.add_vary_header("Accept-Encoding")
            if start["status"] != 304 and self._wants_gzip(headers, body, more):
                self._compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP)
                body = await self._compressed(body, more)
                headers["Content-Encoding"] = "gzip"
                del headers["content-length"]
                if not more:
                    headers["Content-Length"] = str(len(body))
        await self._send(start)
        return body

    def _wants_gzip(self, headers: Headers, body: bytes, more: bool) -> bool:
        # A part of a file is a part of its plain bytes.
        is_plain = not {"content-encoding", "content-range", "accept-ranges"} & set(headers)
        is_large = more or len(body) >= MIN_COMPRESSED_BYTES
        return is_plain and is_large and _accepts_gzip(self._request.get("accept-encoding", ""))

    async def _compressed(self, part: bytes, more: bool) -> bytes:
        compressor = self._compressor
        assert compressor is not None

        def compress() -> bytes:
            end = zlib.Z_SYNC_FLUSH if more else zlib.Z_FINISH
            return compressor.compress(part) + compressor.flush(end)

        return await _off_loop(part, compress)


def _is_validated(method: str, start: Message) -> bool:
    return method == "GET" and start["status"] == 200


def _accepts_gzip(header: str) -> bool:
    for part in header.lower().split(","):
        coding, _, weight = part.replace(" ", "").partition(";")
        if coding in ("gzip", "x-gzip"):
            return weight not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def is_known(request: Headers, tag: str) -> bool:
    """Return True if a request has the representation with this validator already."""
    known = request.get("if-none-match")
    if known is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in known.split(",")]
    return "*" in tags or tag.removeprefix("W/") in tags


async def _off_loop(part: bytes, work: Callable[[], T]) -> T:
    """Work on a part of a body; on a large one in a thread."""
    return work() if len(part) <= MAX_INLINE_BYTES else await run_in_threadpool(work)
