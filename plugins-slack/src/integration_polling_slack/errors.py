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
INSTALL_AGAIN = "Install the app again, and store its new token"
ACCOUNT: Mapping[str, str] = MappingProxyType(
    {
        "account_inactive": "The person or the bot was deactivated, or the app was removed."
        " Install the app again, and store its new token",
        "accesslimited": "Allow the workers' network in the IP allowlist of the workspace",
        "enterprise_is_restricted": "Ask an administrator of the organization to approve the app",
        "invalid_auth": INSTALL_AGAIN,
        "invalid_grant": INSTALL_AGAIN,
        "invalid_refresh_token": INSTALL_AGAIN,
        "not_authed": INSTALL_AGAIN,
        "org_login_required": "The workspace is moving to an organization. Reconnect afterwards",
        "team_access_not_granted": "Ask an administrator to add the app to this workspace",
        "token_revoked": INSTALL_AGAIN,
        "two_factor_setup_required": "Set up two-factor authentication in Slack as the token's"
        " owner",
        "user_removed_from_team": "The token's owner was removed from the workspace. Use the token"
        " of a member",
    }
)
"""The codes that refuse the complete account, with the next step of a person."""

OPERATOR = frozenset(
    {"invalid_client_id", "bad_client_secret", "invalid_client", "not_allowed_token_type"}
)
UNREADABLE_CHANNEL = frozenset({"not_in_channel", "channel_not_found", "is_archived"})
REFUSED = frozenset(
    {
        "channel_is_limited_access", "no_permission", "access_denied", "is_inactive",
        "restricted_action", "ekm_access_denied", "external_channel_migrating", "not_allowed",
        "not_visible", "user_is_restricted", "user_is_ultra_restricted",
    }
)  # fmt: skip
"""The codes that refuse the subject of a call.

A method that reads a channel refuses this channel. `auth.test` refuses the account.
"""

OF_A_CHANNEL = (
    UNREADABLE_CHANNEL
    | REFUSED
    | {"method_not_supported_for_channel_type", "channel_type_not_supported"}
)
"""The codes with which a method that reads a channel refuses the channel, not a thread of it."""

READS_CHANNEL = frozenset(
    {
        "conversations.history", "conversations.info", "conversations.join",
        "conversations.members", "conversations.replies",
    }
)  # fmt: skip
SELECTS = frozenset({"conversations.list", "users.conversations", "conversations.join"})
"""The methods whose scope depends on the kind of channel. The other kinds do not need it."""

READS_ITEM = frozenset({"files.info", "users.info", "bots.info"})
"""The methods that may refuse one item with a code that refuses the account elsewhere."""

UNREADABLE = (OF_A_CHANNEL - REFUSED) | frozenset(
    {
        "thread_not_found", "message_not_found", "file_not_found", "file_deleted", "user_not_found",
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


class MissingScope(PermanentError):
    """The token lacks the scope for some kinds of channels."""


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
    if code == "team_access_not_granted" and method in READS_ITEM:
        return Unreadable(method, code)
    if code in ACCOUNT or status == 401:
        return CredentialsInvalid(text, remedy=ACCOUNT.get(code, ""))
    if code in REFUSED and method == "auth.test":
        return CredentialsInvalid(text, remedy=INSTALL_AGAIN)
    if code in OPERATOR:
        return ConfigurationError(text)
    if code == "missing_scope" and method in SELECTS:
        return MissingScope(text)
    if code in UNREADABLE or (code in REFUSED and method in READS_CHANNEL):
        return Unreadable(method, code)
    return InvalidCursor(text) if code == "invalid_cursor" else PermanentError(text)
