"""The engine's exceptions for the error responses of Google.

Source: https://developers.google.com/workspace/gmail/api/guides/handle-errors. The reason is in
`error.errors[].reason` in the older format, and in `error.details[].reason` in the newer one. Many
responses have both. A quota error may have status 403 or 429: only the reason tells it from a
policy error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from core import (
    CredentialsInvalid,
    IntegrationError,
    PermanentError,
    RateLimited,
    TransientError,
    Unavailable,
    response_time,
    retry_after,
)
from integration_polling_gmail import refusals
from integration_polling_gmail.refusals import Reason

QUOTA, PROJECT, USER = "quota", "project", "user"
"""The limits: units per user, units per Google Cloud project, concurrent requests per user."""

RATE_REASONS = frozenset(
    {"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "RATE_LIMIT_EXCEEDED"}
)
BY_REASON: Mapping[str, Reason] = {
    "insufficientPermissions": refusals.SCOPE_MISSING,
    "insufficientScopes": refusals.SCOPE_MISSING,
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT": refusals.SCOPE_MISSING,
    "accessNotConfigured": refusals.GMAIL_DISABLED,
    "SERVICE_DISABLED": refusals.GMAIL_DISABLED,
    "domainPolicy": refusals.DOMAIN_POLICY,
    "delegationDenied": refusals.DELEGATION_DENIED,
}
"""Reasons that apply to every call of an account, which stops instead of parking its tasks."""

BY_TEXT: Mapping[str, Reason] = {
    "metadata scope": refusals.METADATA_ONLY,
    "delegation denied": refusals.DELEGATION_DENIED,
    "mail service not enabled": refusals.NO_MAIL_SERVICE,
}
"""The same for parts of messages, where the reason is only `forbidden` or `failedPrecondition`.

A token with the scope `gmail.metadata` may not read mail, even if it has a sufficient scope too
(https://developers.google.com/workspace/gmail/api/auth/scopes).
"""

BACKEND_ERROR = "backendError"

MAX_TEXT_CHARS = 300
CONCURRENCY_PAUSE_SECONDS = 2.0

_RETRY_AFTER = re.compile(r"Retry after (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)")
_PACIFIC = timezone(timedelta(hours=-8))
"""Pacific standard time. In summer, midnight is an hour earlier; waiting longer is safe."""


class Unauthorized(CredentialsInvalid):
    """401: Google rejects the access token; a new one may work."""


class Missing(PermanentError):
    """404: the message, attachment or history does not exist."""


class Refused(PermanentError):
    """400 or 403 for a reason that may apply to one message, or to every call of the account."""


class BadRequest(PermanentError):
    """400: Google rejects a parameter, such as an expired page token."""


def meaning(status: int, body: bytes, headers: Mapping[str, str]) -> IntegrationError:
    """Return the exception for an error response.

    Args:
      status: The HTTP status.
      body: The body, which may be anything.
      headers: The headers. The plugin measures "Retry after" against their `Date`.
    """
    error = _error(body)
    reasons, text = _reasons(error), _text(error, status)
    if status == 429 or (status == 403 and reasons & (RATE_REASONS | {"dailyLimitExceeded"})):
        return _rate_limited(reasons, text, headers)
    if status == 408 or status >= 500 or BACKEND_ERROR in reasons:
        return Unavailable(text, retry_after=retry_after(headers))
    if status < 400 or status == 409:
        return TransientError(text)
    if not _is_googles(error, status):
        return Unavailable(
            f"{text}, but not in Google's format: another server, such as a proxy, answered",
            retry_after=retry_after(headers),
        )
    return _refusal(status, reasons, text)


def _is_googles(error: Mapping[str, Any], status: int) -> bool:
    """Return True for Google's own error object, which repeats the status.

    A proxy that answers 404 knows nothing about a message.
    """
    code = error.get("code")
    is_unrouted = status == 404 and "method not found" in str(error.get("message")).lower()
    return type(code) is int and code == status and not is_unrouted


def _refusal(status: int, reasons: set[str], text: str) -> IntegrationError:
    """Return the exception for an error of Google itself that does not pass."""
    if status == 401:
        return Unauthorized(text)
    if status in (400, 403) and (reason := _reason_of_account(reasons, text)) is not None:
        # The sentences after the first one are Google's advice.
        return reason.error(text.split(". ", maxsplit=1)[0].rstrip("."))
    if status == 404:
        return Missing(text)
    if status == 403 or "failedPrecondition" in reasons:
        return Refused(text)
    return BadRequest(text) if status == 400 else PermanentError(text)


def _reason_of_account(reasons: set[str], text: str) -> Reason | None:
    """Return the reason of a refusal that applies to every call of an account; None for others."""
    found = [reason for part, reason in BY_TEXT.items() if part in text.lower()]
    found += [reason for name, reason in BY_REASON.items() if name in reasons]
    return found[0] if found else None


def _error(body: bytes) -> Mapping[str, Any]:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return error if isinstance(error, dict) else {}


def _reasons(error: Mapping[str, Any]) -> set[str]:
    places = [
        entry
        for key in ("errors", "details")
        if isinstance(entries := error.get(key), list)
        for entry in entries
    ]
    return {
        str(place["reason"]) for place in places if isinstance(place, dict) and "reason" in place
    }


def _text(error: Mapping[str, Any], status: int) -> str:
    """Return one line of Google's message.

    The complete body is never shown: a proxy may repeat the request in it, with the token.
    """
    words = " ".join(str(error.get("message") or "").split())[:MAX_TEXT_CHARS]
    return f"Gmail answered {status}: {words}" if words else f"Gmail answered {status}"


def _rate_limited(reasons: set[str], text: str, headers: Mapping[str, str]) -> RateLimited:
    """Return the rate limit, with the longest of the pauses that text and headers name."""
    now, asked = response_time(headers), retry_after(headers)
    if "dailyLimitExceeded" in reasons:
        return RateLimited(
            f"{text}; the quota resets at midnight Pacific time",
            retry_after=max(_until_midnight(now), asked or 0.0),
            limit=PROJECT,
        )
    if "concurrent" in text.lower():
        pause = max(CONCURRENCY_PAUSE_SECONDS, asked or 0.0)
        return RateLimited(text, retry_after=pause, limit=USER)
    is_project = "per minute" in text and "per user" not in text
    pauses = [pause for pause in (_named_pause(text, now), asked) if pause is not None]
    return RateLimited(
        text, retry_after=max(pauses, default=None), limit=PROJECT if is_project else QUOTA
    )


def _named_pause(text: str, now: datetime) -> float | None:
    """Return the seconds until the time in the message, at least 1.

    Returns:
      The seconds; None if the message has no time. Then the engine's growing backoff applies.
    """
    if (found := _RETRY_AFTER.search(text)) is None:
        return None
    try:
        return max((datetime.fromisoformat(found[1]) - now).total_seconds(), 1.0)
    except ValueError:
        return None


def _until_midnight(now: datetime) -> float:
    """Return the seconds until midnight in Pacific time, when Google resets daily quotas."""
    there = now.astimezone(_PACIFIC)
    midnight = (there + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight.astimezone(UTC) - now).total_seconds()
