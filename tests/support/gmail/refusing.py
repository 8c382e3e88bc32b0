"""Each reason why Google gives no access: the fake produces it, and the texts for a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from support.gmail.server import FakeGmail, Rule
from support.gmail.service_accounts import service_account

Produce = Callable[[FakeGmail], Mapping[str, Any]]
"""Makes the fake refuse, and returns the credentials to connect with."""


@dataclass(frozen=True)
class Refusal:
    """A reason, and words of its sentence and of its remedy.

    Attributes:
      produce: Makes a fake that refuses nothing refuse, and returns the credentials.
      later: True if there is nothing to correct.
    """

    name: str
    produce: Produce
    says: str
    remedy: str
    later: bool = False

    def refuse(self, gmail: FakeGmail) -> Mapping[str, Any]:
        """Make the fake refuse for this reason alone, and return the credentials."""
        gmail.tokens.refusal, gmail.tokens.headers, gmail.rules = None, {}, []
        return self.produce(gmail)


def delegated(**changes: str) -> dict[str, Any]:
    return {"service_account": service_account(**changes), "subject": "owner@example.com"}


def token(gmail: FakeGmail, **more: Any) -> dict[str, Any]:
    return {"refresh_token": gmail.tokens.new_refresh_token()} | more


def _user(status: int, error: str, text: str = "", **more: Any) -> Produce:
    def produce(gmail: FakeGmail) -> Mapping[str, Any]:
        gmail.tokens.refusal = status, {"error": error, "error_description": text} | more
        return token(gmail)

    return produce


def _service(status: int, error: str, text: str) -> Produce:
    def produce(gmail: FakeGmail) -> Mapping[str, Any]:
        gmail.tokens.refusal = status, {"error": error, "error_description": text}
        return delegated()

    return produce


def _revoked(gmail: FakeGmail) -> Mapping[str, Any]:
    given = token(gmail)
    gmail.tokens.revoke()
    return given


def _testing(gmail: FakeGmail) -> Mapping[str, Any]:
    given = token(gmail, refresh_token_expires=(datetime.now(UTC) - timedelta(1)).isoformat())
    gmail.tokens.revoke()
    return given


def _skewed(gmail: FakeGmail) -> Mapping[str, Any]:
    now = datetime.now(UTC) + timedelta(hours=2)
    gmail.tokens.headers = {"Date": format_datetime(now, usegmt=True)}
    gmail.tokens.refusal = 400, {"error": "invalid_grant", "error_description": "Bad Request"}
    return delegated()


def _api(status: int, reason: str, message: str) -> Produce:
    """Refuse each call of the Gmail API, with valid credentials."""
    rule = {"path": "/gmail/", "status": status, "reason": reason, "message": message}

    def produce(gmail: FakeGmail) -> Mapping[str, Any]:
        gmail.rules = [Rule(rule)]
        return token(gmail)

    return produce


def _proxy(gmail: FakeGmail) -> Mapping[str, Any]:
    gmail.tokens.refusal = 403, b"<html>Forbidden</html>"  # type: ignore[assignment]
    return token(gmail)


SHORT_LIVED = (
    "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
    " Check your iat and exp values in the JWT claim."
)
NOT_AUTHORIZED = (
    "Client is unauthorized to retrieve access tokens using this method, or client not authorized"
    " for any of the scopes requested."
)

REFUSALS = [
    Refusal("revoked", _revoked, "expired, or was revoked", "Sign in again"),
    Refusal("testing", _testing, "seven days of an OAuth app in testing", "publish the OAuth app"),
    Refusal(
        "rapt",
        _user(400, "invalid_grant", "reauth related error (invalid_rapt)",
              error_subtype="invalid_rapt"),
        "requires people to sign in again", "exempt trusted apps",
    ),
    Refusal(
        "client", _user(401, "invalid_client", "The OAuth client was not found."),
        "does not know this OAuth client", "GMAIL_CLIENT_ID and GMAIL_CLIENT_SECRET",
    ),
    Refusal(
        "deleted client", _user(401, "deleted_client"), "client was deleted or disabled",
        "Create a new client",
    ),
    Refusal(
        "other client", _user(401, "unauthorized_client", "Unauthorized"),
        "issued to another client", "sign in again",
    ),
    Refusal(
        "policy", _user(400, "admin_policy_enforced"), "administrator", "App access control",
    ),
    Refusal(
        "delegation", _service(401, "unauthorized_client", NOT_AUTHORIZED),
        "no domain-wide delegation", "Domain-wide delegation",
    ),
    Refusal(
        "subject", _service(400, "invalid_grant", "Invalid email or User ID"),
        "mailbox in `subject` does not exist", "Correct `subject`",
    ),
    Refusal(
        "clock", _service(400, "invalid_grant", SHORT_LIVED), "clock of this machine is wrong",
        "Synchronize the clock",
    ),
    Refusal("skew", _skewed, "clock of this machine is wrong", "Synchronize the clock"),
    Refusal(
        "key", _service(400, "invalid_grant", "Invalid JWT Signature."),
        "rejects the key of the service account", "Create a new JSON key",
    ),
    Refusal(
        "unreadable key", lambda _: delegated(private_key="not-a-key-at-all"),
        "private key of the service account is invalid", "JSON key file",
    ),
    Refusal(
        "no service account", _service(400, "invalid_grant", "Invalid grant: account not found"),
        "service account does not exist", "existing service account",
    ),
    Refusal(
        "ended mailbox", _service(400, "invalid_grant", "Account has been deleted"),
        "Google account was deleted or suspended", "restore the account",
    ),
    Refusal(
        "other organization", _user(400, "org_internal"), "internal to another Google Workspace",
        "Sign in with an account of that Workspace",
    ),
    Refusal(
        "unknown reason", _user(400, "a_new_reason"), "does not accept these credentials",
        "Sign in again",
    ),
    Refusal(
        "unknown signature", _service(400, "invalid_grant", "Something else"),
        "does not accept the signature", "Check `subject`, the key and the delegation",
    ),
    Refusal(
        "scope",
        _api(403, "insufficientPermissions", "Request had insufficient authentication scopes."),
        "does not include the scope gmail.readonly", "leave the box for Gmail ticked",
    ),
    Refusal(
        "metadata", _api(403, "forbidden", "Metadata scope doesn't allow format RAW"),
        "the scope gmail.metadata, with which", "without the scope gmail.metadata",
    ),
    Refusal(
        "disabled API",
        _api(403, "accessNotConfigured", "Gmail API has not been used in project 1 before or it is"
             " disabled. Enable it by visiting https://console.example/ then retry."),
        "the Gmail API is disabled", "Enable it (APIs & Services",
    ),
    Refusal(
        "domain policy",
        _api(403, "domainPolicy", "The domain administrators have disabled Gmail apps."),
        "has disabled Gmail for apps", "End user access",
    ),
    Refusal(
        "no Gmail", _api(400, "failedPrecondition", "Mail service not enabled"),
        "has no Gmail", "Service status",
    ),
    Refusal(
        "delegation denied", _api(403, "forbidden", "Delegation denied for owner@example.com"),
        "may not read this mailbox", "a mailbox of the Workspace that granted",
    ),
    Refusal(
        "server error", _user(503, ""), "token endpoint answered 503", "nothing to correct", True
    ),
    Refusal("proxy", _proxy, "a proxy may have answered", "nothing to correct", True),
]  # fmt: skip
"""All reasons except a missing network, for which a test changes the address."""
