"""`ctx.http`: a session for HTTP requests of plugins.

It is a client of `httpx2` whose failures are the exceptions of the plugin API, and which follows
the rate limits that the provider states in its responses.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from ssl import SSLContext
from typing import Any

import httpx2

from core.errors import PermanentError, RateLimited, TransientError, Unavailable
from core.rate_headers import pause_of, requests_left, retry_after

TIMEOUT = httpx2.Timeout(60, connect=10)

MAX_BODY_BYTES = 64 * 1024 * 1024
"""The maximum size of a response body that is read at one time. `stream` has no bound."""

LIMIT = "limit"
"""The extension of a request that names its limit."""

BUSY = frozenset({502, 503, 504})
"""Statuses of a server that does not work now (RFC 9110, section 15.6)."""

OnPause = Callable[[str | None, float, str], None]
"""A function that is called with a limit (None: the account), the seconds of a pause, and why."""


class HttpSession(httpx2.Client):
    """A client of `httpx2` that keeps its connections, and raises the plugin API's exceptions.

    A request may name the limit that it uses: `http.get(url, extensions={"limit": "quota"})`.
    Otherwise its pauses hold for the complete account. The session does not follow redirects unless
    a request asks for it, because a redirect may send a token to another host. It repeats nothing.

    Each request may raise:

    * `RateLimited`: the provider asks for a pause: status 429, or 403 with no requests left. The
      pause is that of `Retry-After`, or else the reset of the usual rate-limit headers. A response
      with another status may say that no requests are left, too. The next request then raises
      `RateLimited`, without being sent.
    * `Unavailable`: the provider does not answer, or answers 502, 503 or 504.
    * `PermanentError`: the address is invalid, or the body exceeds 64 MiB; use `stream` for these.

    Every other response is returned. An exception names the host, and repeats no other part of an
    address, no header and no body, because they may contain secrets.

    Attributes:
      on_pause: Called when the provider states that a limit is exhausted. Default: nothing.
    """

    def __init__(
        self, on_pause: OnPause | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        silence()
        super().__init__(
            verify=trust(),
            timeout=TIMEOUT,
            headers={"User-Agent": "integration-polling"},
            follow_redirects=False,
        )
        self.on_pause = on_pause
        self._clock = clock
        self._until: dict[str | None, tuple[float, str]] = {}

    def build_request(self, method: str, url: httpx2.URL | str, **options: Any) -> httpx2.Request:
        """Build a request, with the parameters of `httpx2.Client.build_request`."""
        with _translated(method, "request"):
            return super().build_request(method, url, **options)

    def send(
        self, request: httpx2.Request, *, stream: bool = False, **options: Any
    ) -> httpx2.Response:
        """Send a request; see the class for its exceptions.

        Args:
          request: The request.
          stream: True to leave the body to the caller, who closes the response. Default: False.
          **options: `auth` and `follow_redirects`, as in `httpx2.Client.send`.

        Returns:
          The response.
        """
        limit = request.extensions.get(LIMIT)
        self._require_open(limit)
        with _translated(request.method, request.url.host):
            response = super().send(request, stream=True, **options)
        try:
            self._follow_limits(response, limit)
            if not stream:
                return _read(request, response)
        except BaseException:
            response.close()
            raise
        response.stream = _Body(request, response.stream)
        return response

    def _require_open(self, limit: str | None) -> None:
        """Raise RateLimited while the limit, or the complete account, is paused."""
        now = self._clock()
        self._until = {name: each for name, each in self._until.items() if each[0] > now}
        for name in (None, limit):
            if name in self._until:
                until, reason = self._until[name]
                raise RateLimited(reason, retry_after=until - now, limit=name)

    def _follow_limits(self, response: httpx2.Response, limit: str | None) -> None:
        """Raise the exception of a response that asks for a pause, or note the pause."""
        status, pause = response.status_code, pause_of(response.headers)
        exhausted = requests_left(response.headers) == 0
        host = response.request.url.host
        asked = retry_after(response.headers)
        if status == 429 or (status == 403 and (exhausted or asked is not None)):
            raise RateLimited(
                f"{host} asks for a pause (HTTP {status})", retry_after=pause, limit=limit
            )
        if status in BUSY:
            raise Unavailable(
                f"{host} is not available (HTTP {status})", retry_after=asked, limit=limit
            )
        if exhausted and pause:
            reason = f"{host} allows no more requests now"
            self._until[limit] = (self._clock() + pause, reason)
            if self.on_pause is not None:
                self.on_pause(limit, pause, reason)


class _Body(httpx2.SyncByteStream):
    """The body of a streamed response, with the exceptions of the plugin API."""

    def __init__(self, request: httpx2.Request, body: Any) -> None:
        self._request, self._body = request, body

    def __iter__(self) -> Iterator[bytes]:
        with _translated(self._request.method, self._request.url.host):
            yield from self._body

    def close(self) -> None:
        self._body.close()


@contextmanager
def _translated(method: str, host: str) -> Iterator[None]:
    """Turn errors of `httpx2` into exceptions of the plugin API, without their texts."""
    try:
        yield
    except (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError, httpx2.InvalidURL) as error:
        raise PermanentError(f"{method} {host}: invalid request ({_name(error)})") from None
    except (httpx2.TooManyRedirects, httpx2.DecodingError) as error:
        raise TransientError(f"{method} {host}: invalid response ({_name(error)})") from None
    except httpx2.RequestError as error:
        raise Unavailable(f"{method} {host}: no response ({_name(error)})") from None


def _name(error: Exception) -> str:
    return type(error).__name__


def _read(request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
    """Return the response with its body, which is read here."""
    body = bytearray()
    with _translated(request.method, request.url.host):
        for piece in response.iter_bytes():
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise PermanentError(
                    f"{request.method} {request.url.host}: the response has more than"
                    f" {MAX_BODY_BYTES // 2**20} MiB; the plugin must stream it"
                )
    response.close()
    headers = [
        (name, value)
        for name, value in response.headers.multi_items()
        # The body is decoded now.
        if name.lower() not in {"content-encoding", "content-length", "transfer-encoding"}
    ]
    read = httpx2.Response(
        response.status_code,
        headers=headers,
        content=bytes(body),
        request=response.request,
        extensions=response.extensions,
        history=response.history,
    )
    read.elapsed = response.elapsed
    return read


@lru_cache(maxsize=1)
def trust() -> SSLContext:
    """Return the TLS context of this process. Loading the certificates costs most of a client."""
    return httpx2.create_ssl_context()


def silence() -> None:
    """Let `httpx2` log warnings only: at INFO, it logs the address of each request."""
    logger = logging.getLogger("httpx2")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)
