"""Refusals of Google: a sentence and a remedy for each reason.

They come from the token endpoint, the consent screen, the Gmail API and the Directory API.

Sources: RFC 6749, section 5.2; https://developers.google.com/identity/protocols/oauth2#expiration;
https://developers.google.com/identity/protocols/oauth2/service-account#error-codes. The texts of
`error_description` are not documented; those below are quoted in public reports, such as
googleapis/google-api-php-client#1429 for the clock.

An `error_description` may repeat the request, so no text of the answer is shown. Only codes are.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl, urlsplit

from core import ConfigurationError, CredentialsInvalid, IntegrationError
from integration_polling_gmail.account import KEY_FILE, other_file

MAX_SKEW_SECONDS = 300.0
"""The difference to Google's clock above which the clock is named as the reason."""

RECONNECT = "Sign in again: connect the account once more"
PUBLISH = (
    "publish the OAuth app (Google Auth Platform, Audience, Publish app); an app in testing signs"
    " people out after seven days"
)
_CODE = re.compile(r"[a-z_]{1,80}")
"""The format of Google's error codes. Other text may be the request, repeated by a proxy."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason why Google gives no access.

    Attributes:
      text: The reason, as a sentence without a full stop.
      remedy: The next step of a person.
      is_configuration: True if new credentials alone do not help.
    """

    text: str
    remedy: str
    is_configuration: bool = False

    def error(self, code: str = "") -> ConfigurationError | CredentialsInvalid:
        """Return the exception that stops the account.

        Args:
          code: The code or the sentence in Google's answer. Default: none.
        """
        text = f"{self.text} ({code})" if code else self.text
        kind = ConfigurationError if self.is_configuration else CredentialsInvalid
        return kind(text, remedy=self.remedy)


ENDED = Reason(
    "Google has ended this sign-in: it expired, or was revoked",
    f"{RECONNECT}. If it ended after seven days, {PUBLISH}",
)
TESTING_ENDED = Reason(
    "Google has ended this sign-in after the seven days of an OAuth app in testing",
    f"First {PUBLISH}. Then sign in again",
)
REAUTHENTICATE = Reason(
    "the Google Workspace requires people to sign in again at intervals, and this one is over",
    "Sign in again, or ask the administrator of the Workspace to trust this app (Security, Google"
    " Cloud session control, exempt trusted apps)",
)
UNKNOWN_CLIENT = Reason(
    "Google does not know this OAuth client, or its secret is wrong",
    "Copy the client's ID and secret again (Google Auth Platform, Clients) to GMAIL_CLIENT_ID and"
    " GMAIL_CLIENT_SECRET, or to the account's credentials",
    is_configuration=True,
)
ENDED_CLIENT = Reason(
    "the OAuth client was deleted or disabled",
    "Create a new client of the same type (Google Auth Platform, Clients), set its ID and secret,"
    " and sign in again",
    is_configuration=True,
)
OTHER_CLIENT = Reason(
    "this OAuth client may not use this sign-in: it was issued to another client",
    "Set the client's ID and secret with which the sign-in was made, or sign in again",
    is_configuration=True,
)
WEB_CLIENT = Reason(
    "this OAuth client is of type Web application, and a sign-in from the command line needs one of"
    " type Desktop app",
    "Create a client of type Desktop app (Google Auth Platform, Clients, Create client), and set"
    " its ID and secret as GMAIL_CLIENT_ID and GMAIL_CLIENT_SECRET",
    is_configuration=True,
)
REDIRECT = Reason(
    "this OAuth client does not allow a redirect to this server",
    "Use a client of type Web application, and add the address of this server with"
    " /v1/oauth/callback to its redirect URIs",
    is_configuration=True,
)
POLICY = Reason(
    "the administrator of the Google Workspace does not allow this app",
    "Ask the administrator to allow the OAuth client's ID (Admin console, Security, API controls,"
    " App access control), then sign in again",
)
OTHER_ORGANIZATION = Reason(
    "the OAuth app is internal to another Google Workspace",
    "Sign in with an account of that Workspace, or make the app external (Google Auth Platform,"
    " Audience)",
)
NOT_DELEGATED = Reason(
    "the service account has no domain-wide delegation for the scope gmail.readonly",
    "In the Admin console (Security, API controls, Domain-wide delegation), add the service"
    " account's client ID with the scope https://www.googleapis.com/auth/gmail.readonly; Google may"
    " need some minutes",
    is_configuration=True,
)
DIRECTORY_NOT_DELEGATED = Reason(
    "the service account has no domain-wide delegation for the scope admin.directory.user.readonly",
    "In the Admin console (Security, API controls, Domain-wide delegation), add the scope"
    " https://www.googleapis.com/auth/admin.directory.user.readonly to the service account's client"
    " ID, or name the members yourself",
    is_configuration=True,
)
NOT_AN_ADMINISTRATOR = Reason(
    "the user in `subject` may not list the users of this Google Workspace",
    "Give the address of an administrator as `subject`, or name the members yourself",
    is_configuration=True,
)
DIRECTORY_DISABLED = Reason(
    "the Admin SDK API is disabled in the service account's Google Cloud project",
    "Enable it (APIs & Services, Library, Admin SDK API), or name the members yourself",
    is_configuration=True,
)
NO_KEY = Reason(
    "an organization needs the key of a service account with domain-wide delegation",
    'Give the credentials {"service_account": …, "subject": "administrator@example.com"}',
    is_configuration=True,
)
NO_SUBJECT = Reason(
    "the users cannot be listed without an administrator",
    "Give the address of an administrator as `subject`, or name the members yourself",
    is_configuration=True,
)
WRONG_SUBJECT = Reason(
    "the mailbox in `subject` does not exist in this Google Workspace",
    "Correct `subject`: the primary address of a user of the Workspace that granted the delegation",
)
CLOCK = Reason(
    "Google rejects the signature's times: the clock of this machine is wrong",
    "Synchronize the clock (NTP), then try again",
    is_configuration=True,
)
KEY_REJECTED = Reason(
    "Google rejects the key of the service account: it was deleted, or belongs to another account",
    "Create a new JSON key for the service account (IAM & Admin, Service accounts, Keys), and give"
    " that file",
)
KEY_INCOMPLETE = Reason(
    "the key file of the service account is incomplete: client_email or private_key is missing",
    "Give the JSON key file as Google made it, without changes",
    is_configuration=True,
)
KEY_UNREADABLE = Reason(
    "the private key of the service account is invalid: it cannot be read",
    "Give the JSON key file as Google made it, without changes",
    is_configuration=True,
)
UNKNOWN_SERVICE_ACCOUNT = Reason(
    "the service account does not exist: it was deleted, or its address is wrong",
    "Create a new JSON key for an existing service account, and give that file",
)
MAILBOX_ENDED = Reason(
    "the Google account was deleted or suspended",
    "Ask the administrator to restore the account, or disconnect it",
)
SCOPE_MISSING = Reason(
    "this sign-in does not include the scope gmail.readonly",
    "Sign in again, and leave the box for Gmail ticked on the consent screen",
)
METADATA_ONLY = Reason(
    "this sign-in includes the scope gmail.metadata, with which Google returns no text",
    "Sign in again without the scope gmail.metadata",
)
GMAIL_DISABLED = Reason(
    "the Gmail API is disabled in the Google Cloud project of the client",
    "Enable it (APIs & Services, Library, Gmail API), and try again after some minutes",
    is_configuration=True,
)
DOMAIN_POLICY = Reason(
    "the administrator of the Google Workspace has disabled Gmail for apps",
    "Ask the administrator to allow it (Admin console, Apps, Google Workspace, Gmail, End user"
    " access), then try again",
    is_configuration=True,
)
NO_MAIL_SERVICE = Reason(
    "this user of the Google Workspace has no Gmail",
    "Ask the administrator to switch Gmail on for the user (Admin console, Apps, Google Workspace,"
    " Gmail, Service status), then try again",
    is_configuration=True,
)
DELEGATION_DENIED = Reason(
    "the service account may not read this mailbox",
    "Correct `subject`: a mailbox of the Workspace that granted the domain-wide delegation",
    is_configuration=True,
)
DENIED = Reason("access was denied on the consent screen", "Sign in again, and allow the access")
CODE_USED = Reason(
    "the code of this sign-in was already used, or has expired",
    "Start the sign-in again, and finish it within ten minutes",
)
OTHER = Reason("Google does not accept these credentials", RECONNECT)
OTHER_SIGNATURE = Reason(
    "Google does not accept the signature of the service account",
    "Check `subject`, the key and the delegation: docs/how-to/gmail.md",
)

BY_CODE: Mapping[str, Reason] = {
    "invalid_rapt": REAUTHENTICATE,
    "rapt_required": REAUTHENTICATE,
    "invalid_client": UNKNOWN_CLIENT,
    "deleted_client": ENDED_CLIENT,
    "disabled_client": ENDED_CLIENT,
    "unauthorized_client": OTHER_CLIENT,
    "redirect_uri_mismatch": WEB_CLIENT,
    "admin_policy_enforced": POLICY,
    "org_internal": OTHER_ORGANIZATION,
    "access_denied": DENIED,
    "invalid_grant": ENDED,
}

OF_SERVICE_ACCOUNTS: Mapping[str, Reason] = {
    "unauthorized_client": NOT_DELEGATED,
    "access_denied": NOT_DELEGATED,
    "invalid_scope": NOT_DELEGATED,
    "invalid_client": UNKNOWN_SERVICE_ACCOUNT,
    "invalid_grant": OTHER_SIGNATURE,
}
"""The same codes where a service account signs."""

SHOWN = (
    "redirect_uri_mismatch",
    "invalid_client",
    "deleted_client",
    "disabled_client",
    "org_internal",
    "admin_policy_enforced",
)
"""Codes that Google shows in the browser, without a redirect to the client."""

BY_TEXT: tuple[tuple[str, Reason], ...] = (
    ("invalid_rapt", REAUTHENTICATE),
    ("short-lived token", CLOCK),
    ("reasonable timeframe", CLOCK),
    ("iat and exp", CLOCK),
    ("used too early", CLOCK),
    ("invalid jwt signature", KEY_REJECTED),
    ("no valid verifier", KEY_REJECTED),
    ("invalid email or user id", WRONG_SUBJECT),
    ("not a valid email", WRONG_SUBJECT),
    ("account not found", UNKNOWN_SERVICE_ACCOUNT),
    ("account has been deleted", MAILBOX_ENDED),
    ("account has been disabled", MAILBOX_ENDED),
    ("account restricted", MAILBOX_ENDED),
    ("invalid jwt", KEY_REJECTED),
)
"""Parts of `error_description` for `invalid_grant`, in lower case; the first that is contained."""


def reason_of(
    answer: Mapping[str, object],
    headers: Mapping[str, str],
    *,
    is_service_account: bool,
    expires: datetime | None,
) -> Reason:
    """Return the reason in an error response of the token endpoint.

    Args:
      answer: The response.
      headers: Its headers. `Date` shows whether this machine's clock is wrong.
      is_service_account: True if a service account signed the request.
      expires: The time at which the refresh token of an app in testing expires; None otherwise.
    """
    code, subtype = code_of(answer.get("error")), code_of(answer.get("error_subtype"))
    if subtype in BY_CODE:
        return BY_CODE[subtype]
    if code == "invalid_grant":
        text = str(answer.get("error_description") or "").lower()
        if (found := next((reason for part, reason in BY_TEXT if part in text), None)) is not None:
            return CLOCK if found is KEY_REJECTED and is_skewed(headers) else found
        if is_service_account and is_skewed(headers):
            return CLOCK
        if expires is not None and expires <= datetime.now(UTC):
            return TESTING_ENDED
    if is_service_account:
        return OF_SERVICE_ACCOUNTS.get(code) or BY_CODE.get(code) or OTHER_SIGNATURE
    return BY_CODE.get(code) or OTHER


def explained(answer: Mapping[str, object]) -> IntegrationError | None:
    """Return the reason why Google refused a sign-in in the browser; None for an unknown code.

    Google's consent screen shows some refusals only in the browser, at an address whose parameter
    `authError` contains the code, as base64 of a protocol buffer. Its format is not documented:
    an unknown answer refuses nothing.

    Args:
      answer: The error; see `BaseIntegration.explain_oauth_error`.
    """
    code = code_of(answer.get("error")) or _shown_code(answer)
    reason = CODE_USED if code == "invalid_grant" else BY_CODE.get(code)
    # The command line's redirect has no path. A server may be at 127.0.0.1, too.
    if reason is WEB_CLIENT and urlsplit(str(answer.get("redirect_uri"))).path.strip("/"):
        reason = REDIRECT
    return reason.error(code) if reason is not None else None


def _shown_code(answer: Mapping[str, object]) -> str:
    """Return the known code in Google's page for a client that it refuses, or in its address."""
    query = dict(parse_qsl(urlsplit(str(answer.get("redirect") or "")).query))
    text = query.get("authError", "").replace("+", "-").replace("/", "_")
    shown = base64.urlsafe_b64decode(text[: len(text) // 4 * 4]).decode("latin-1")
    shown += query.get("error", "") + str(answer.get("page") or "")
    return next((code for code in SHOWN if code in shown), "")


def is_skewed(headers: Mapping[str, str]) -> bool:
    """Return True if the header `Date` and this machine's clock are far apart."""
    try:
        date = parsedate_to_datetime(headers.get("date", ""))
        return abs((date - datetime.now(UTC)).total_seconds()) > MAX_SKEW_SECONDS
    except (ValueError, TypeError, IndexError, OverflowError):
        return False


def code_of(value: object) -> str:
    """Return an error code; an empty string for other text."""
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def no_key(credentials: object) -> Reason:
    """Return the refusal of credentials of an organization that have no valid key.

    It names the kind of file, if the credentials or their `service_account` are one of Google's.
    """
    inner = credentials.get("service_account") if isinstance(credentials, Mapping) else None
    if (found := other_file(credentials)) is KEY_FILE:
        return replace(NO_KEY, text=f"this is {found.text} alone, without `subject`")
    if found is None and (found := other_file(inner)) is KEY_FILE:
        return KEY_INCOMPLETE
    if found is None:
        return NO_KEY
    return replace(NO_KEY, text=f"{NO_KEY.text}, and this is {found.text}")
