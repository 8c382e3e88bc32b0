"""`ctx.http`: a session for HTTP requests of plugins.

It is a client of `httpx2` whose failures are the exceptions of the plugin API, and which follows
the rate limits that the provider states in its responses.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from ssl import SSLContext
from typing import Any

import httpx2

from core.errors import PermanentError, RateLimited, TransientError, Unavailable

TIMEOUT = httpx2.Timeout(60, connect=10)

MAX_BODY_BYTES = 64 * 1024 * 1024
"""The maximum size of a response body that is read at one time. `stream` has no bound."""

MAX_PAUSE_SECONDS = 86_400.0
"""The longest pause. A longer one is probably a header with another meaning."""

LIMIT = "limit"
"""The extension of a request that names its limit."""

BUSY = frozenset({502, 503, 504})
"""Statuses of a server that does not work now (RFC 9110, section 15.6)."""

_EPOCH, _EPOCH_MS = 1e9, 1e12
"""A reset of this or more is a point in time since 1970, in seconds or in milliseconds.

GitHub sends such a point. The IETF's draft has the number of seconds from now:
https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
"""

_REMAINING = ("ratelimit-remaining", "x-ratelimit-remaining", "x-rate-limit-remaining")
_RESET = ("ratelimit-reset", "x-ratelimit-reset", "x-rate-limit-reset")
# draft-ietf-httpapi-ratelimit-headers: `RateLimit: "default";r=0;t=30`, and before version 8
# `RateLimit: limit=100, remaining=0, reset=30`.
_POLICY = re.compile(r"\b(?:r|remaining)=(\d+)\b[^,]*?(?:[;,]\s*(?:t|reset)=(\d+))?", re.ASCII)

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
        _silence()
        super().__init__(
            verify=_trust(),
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
        exhausted = left(response.headers) == 0
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


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds of `Retry-After` (RFC 9110, section 10.2.3), or None.

    Args:
      headers: The headers of a response.
      now: The time. Default: now. The response's own `Date` precedes it, because clocks differ.
    """
    value = headers.get("retry-after", "").strip()
    seconds = _number(value)
    if seconds is not None:
        return _bounded(seconds)
    at = _date(value)
    if at is None:
        return None
    now = _date(headers.get("date", "")) or now or datetime.now(UTC)
    return _bounded((at - now).total_seconds())


def left(headers: Mapping[str, str]) -> float | None:
    """Return the number of requests that the provider still allows; None if it does not say."""
    found = [_number(headers.get(name, "")) for name in _REMAINING]
    found += [float(number) for number, _ in _POLICY.findall(headers.get("ratelimit", ""))]
    return min((number for number in found if number is not None), default=None)


def pause_of(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Return the seconds until the provider allows requests again; None if it does not say.

    Args:
      headers: The headers of a response.
      now: The time. Default: now. The response's own `Date` precedes it.
    """
    asked = retry_after(headers, now)
    if asked is not None:
        return asked
    now = _date(headers.get("date", "")) or now or datetime.now(UTC)
    resets = [_number(headers.get(name, "")) for name in _RESET]
    resets += [
        float(reset)
        for number, reset in _POLICY.findall(headers.get("ratelimit", ""))
        if reset and float(number) == 0
    ]
    seconds = [_from_now(number, now) for number in resets if number is not None]
    return _bounded(max(seconds)) if seconds else None


def _from_now(reset: float, now: datetime) -> float:
    if reset < _EPOCH:
        return reset
    return (reset / 1000 if reset >= _EPOCH_MS else reset) - now.timestamp()


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), MAX_PAUSE_SECONDS)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _date(value: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


@lru_cache(maxsize=1)
def _trust() -> SSLContext:
    """Return the TLS context of this process. Loading the certificates costs most of a client."""
    return httpx2.create_ssl_context()


def _silence() -> None:
    """Let `httpx2` log warnings only: at INFO, it logs the address of each request."""
    logger = logging.getLogger("httpx2")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)
