"""The engine's exceptions for the error responses of Slack."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from core import (
    ConfigurationError,
    CredentialsInvalid,
    IntegrationError,
    PermanentError,
    RateLimited,
    SkipItem,
    Unavailable,
    retry_after,
)

SERVER_ERRORS = frozenset(
    {
        "internal_error",
        "fatal_error",
        "service_unavailable",
        "request_timeout",
        "team_added_to_org",
        "unknown_error",
    }
)
CREDENTIALS = frozenset(
    {
        "invalid_auth", "token_revoked", "account_inactive", "not_authed", "invalid_refresh_token",
        "invalid_grant", "org_login_required", "two_factor_setup_required",
        "team_access_not_granted", "user_removed_from_team",
    }
)  # fmt: skip
OPERATOR = frozenset(
    {"invalid_client_id", "bad_client_secret", "invalid_client", "not_allowed_token_type"}
)
UNREADABLE_CHANNEL = frozenset({"not_in_channel", "channel_not_found", "is_archived"})
REFUSED_CHANNEL = frozenset(
    {
        "channel_is_limited_access", "no_permission", "access_denied", "is_inactive",
        "restricted_action", "ekm_access_denied",
    }
)  # fmt: skip
"""The codes that refuse one channel, as the answer of a method that reads one."""

READS_CHANNEL = frozenset({"conversations.history", "conversations.replies", "conversations.join"})
UNREADABLE = UNREADABLE_CHANNEL | frozenset(
    {
        "thread_not_found", "message_not_found", "method_not_supported_for_channel_type",
        "channel_type_not_supported", "file_not_found", "file_deleted", "user_not_found",
        "user_not_visible", "bot_not_found",
    }
)  # fmt: skip


class TokenExpired(CredentialsInvalid):
    """The access token has expired, 12 hours after it was issued."""


class Unreadable(SkipItem):
    """The channel, thread, file or person cannot be read; `code` is Slack's error code."""

    def __init__(self, method: str, code: str) -> None:
        super().__init__(f"{method}: {code}")
        self.code = code


class InvalidCursor(PermanentError):
    """Slack no longer accepts the cursor."""


def meaning(
    method: str,
    code: str,
    status: int = 200,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> IntegrationError:
    """Return the exception for an error response; most of them have HTTP status 200.

    Args:
      method: The method's name.
      code: The response's `error`.
      status: The HTTP status. Default: 200.
      headers: The headers, with lower-case names. Default: none.
    """
    text = f"{method}: {code}" if status == 200 else f"{method}: HTTP {status}"
    if status == 429 or code in ("ratelimited", "rate_limited"):
        return RateLimited(text, retry_after=retry_after(headers), limit=method)
    if status >= 500 or status == 408 or code in SERVER_ERRORS:
        # Slack's methods fail one by one: the others of the account still work.
        return Unavailable(text, retry_after=retry_after(headers), limit=method)
    if code == "token_expired":
        return TokenExpired(text)
    if code in CREDENTIALS or status == 401:
        return CredentialsInvalid(text)
    if code in OPERATOR:
        return ConfigurationError(text)
    if code in UNREADABLE or (code in REFUSED_CHANNEL and method in READS_CHANNEL):
        return Unreadable(method, code)
    return InvalidCursor(text) if code == "invalid_cursor" else PermanentError(text)
