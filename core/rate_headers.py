"""The headers by which a provider asks for a pause, and states how many requests it still allows.

A plugin reads them with `retry_after` and `response_time`, whichever HTTP library it uses.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

MAX_PAUSE_SECONDS = 86_400.0
"""The longest pause. A longer one is probably a header with another meaning."""

_YEARS = range(2004, 9000)
"""Plausible years of a response. Arithmetic with extreme dates overflows."""

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
# RFC 9110 allows digits only; some providers send fractions.
_NUMBER = re.compile(r"\d{1,400}(?:\.\d{1,400})?", re.ASCII)


class ResponseHeaders(Protocol):
    """The headers of a response: a mapping that ignores case, or one with lower-case names."""

    def get(self, name: str, default: str, /) -> Any:
        """Return the value of a header, or the default."""
        ...


def retry_after(headers: ResponseHeaders, now: datetime | None = None) -> float | None:
    """Return the seconds of the header `Retry-After` (RFC 9110, section 10.2.3).

    Args:
      headers: The headers of a response, with any case or with lower-case names.
      now: The time. Default: now. The response's own `Date` precedes it, because clocks differ.

    Returns:
      Seconds from 0 to 86,400; None if the header is missing or invalid.
    """
    value = headers.get("retry-after", "").strip()
    seconds = _number(value)
    if seconds is not None:
        return _bounded(seconds)
    at = _date(value)
    return None if at is None else _bounded((at - response_time(headers, now)).total_seconds())


def response_time(headers: ResponseHeaders, now: datetime | None = None) -> datetime:
    """Return the time at which the provider sent a response: its `Date`, or else the time now.

    Args:
      headers: The headers of a response, with any case or with lower-case names.
      now: The time, for a response without a plausible `Date`. Default: now.
    """
    at = _date(headers.get("date", ""))
    return at if at is not None and at.year in _YEARS else now or datetime.now(UTC)


def requests_left(headers: ResponseHeaders) -> float | None:
    """Return the number of requests that the provider still allows; None if it does not say."""
    found = [_number(headers.get(name, "").strip()) for name in _REMAINING]
    found += [float(number) for number, _ in _POLICY.findall(headers.get("ratelimit", ""))]
    return min((number for number in found if number is not None), default=None)


def pause_of(headers: ResponseHeaders, now: datetime | None = None) -> float | None:
    """Return the seconds until the provider allows requests again; None if it does not say.

    `Retry-After` precedes the reset of the usual rate-limit headers.

    Args:
      headers: The headers of a response.
      now: The time. Default: now. The response's own `Date` precedes it.
    """
    asked = retry_after(headers, now)
    if asked is not None:
        return asked
    now = response_time(headers, now)
    resets = [_number(headers.get(name, "").strip()) for name in _RESET]
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
    return float(value) if _NUMBER.fullmatch(value) else None


def _date(value: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
