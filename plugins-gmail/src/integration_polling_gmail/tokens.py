"""Renewal of access tokens, with a refresh token or a service account's signature.

Sources: https://developers.google.com/identity/protocols/oauth2/web-server#offline and
https://developers.google.com/identity/protocols/oauth2/service-account. The library google-auth
signs. Its token requests are not used, because they sleep and retry in the worker's thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import httpx2
from google.auth import crypt, jwt

from core import (
    CredentialsInvalid,
    IntegrationError,
    RateLimited,
    TransientError,
    Unavailable,
    retry_after,
)
from integration_polling_gmail.account import Credentials, ServiceAccount
from integration_polling_gmail.refusals import (
    BY_CODE,
    KEY_UNREADABLE,
    OF_SERVICE_ACCOUNTS,
    Reason,
    code_of,
    reason_of,
)
from integration_polling_gmail.settings import GmailSettings

SCOPE = "https://www.googleapis.com/auth/gmail.readonly"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIENCE = "https://oauth2.googleapis.com/token"
ASSERTION_SECONDS = 3600
DEFAULT_EXPIRY_SECONDS = 3600
MAX_SIGN_IN_SECONDS = 400 * 86_400
NO_CLIENT = Reason(
    "no OAuth client is configured",
    "Set GMAIL_CLIENT_ID and GMAIL_CLIENT_SECRET, or give client_id and client_secret",
    is_configuration=True,
)


def client(credentials: Credentials, settings: GmailSettings) -> tuple[str, str]:
    """Return id and secret of the OAuth client that the refresh token belongs to.

    Raises:
      ConfigurationError: The client is not configured.
    """
    secret = credentials.client_secret or (
        None if credentials.client_id else settings.gmail_client_secret
    )
    id = credentials.client_id or settings.gmail_client_id
    if not id or secret is None:
        raise NO_CLIENT.error()
    return id, secret.get_secret_value()


def project(credentials: Credentials, settings: GmailSettings) -> str | None:
    """Return the Google Cloud project, whose quota several accounts share.

    Client ids begin with the project's number.
    """
    if credentials.service_account is not None:
        return project_of(credentials.service_account)
    id = credentials.client_id or settings.gmail_client_id
    return id.partition("-")[0] if id and credentials.refresh_token is not None else None


def project_of(key: ServiceAccount) -> str:
    """Return the Google Cloud project of a service account."""
    return key.project_id or key.client_email.partition("@")[2]


def renew(http: httpx2.Client, credentials: Credentials, settings: GmailSettings) -> Credentials:
    """Request a new access token, with one HTTP request and no retry.

    Returns:
      The credentials with the new token.

    Raises:
      CredentialsInvalid: The credentials were revoked or have expired, or cannot be renewed.
      ConfigurationError: Google rejects the OAuth client or the service account's key.
      RateLimited, TransientError, Unavailable: Google cannot issue a token now.
    """
    if credentials.service_account is not None:
        form = {
            "grant_type": JWT_BEARER,
            "assertion": _assertion(credentials.service_account, SCOPE, credentials.subject),
        }
    elif credentials.refresh_token is not None:
        id, secret = client(credentials, settings)
        token = credentials.refresh_token.get_secret_value()
        form = {
            "grant_type": "refresh_token",
            "refresh_token": token,
            "client_id": id,
            "client_secret": secret,
        }
    else:
        raise CredentialsInvalid(
            "the access token has expired, and cannot be renewed without a refresh token"
        )
    answer = _post(
        http,
        settings.google_token_url,
        form,
        is_service_account=credentials.service_account is not None,
        expires=credentials.refresh_token_expires,
    )
    rotated = answer.get("refresh_token")
    return credentials.with_token(
        answer["access_token"],
        _expiry(answer),
        rotated if isinstance(rotated, str) else None,
        _sign_in_expiry(answer) or credentials.refresh_token_expires,
    )


def granted(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the credentials from the response to an authorization code.

    Source:
    https://developers.google.com/identity/protocols/oauth2/web-server#exchange-authorization-code.
    The client is the operator's.

    Without a refresh token the result is empty. So the engine rejects the account now, and not
    after an hour.
    """
    if not answer.get("refresh_token"):
        return {}
    found = {name: answer[name] for name in ("refresh_token", "access_token") if answer.get(name)}
    if "access_token" in found:
        found["access_token_expires"] = _expiry(answer).isoformat()
    if (ends := _sign_in_expiry(answer)) is not None:
        found["refresh_token_expires"] = ends.isoformat()
    return found


def _expiry(answer: Mapping[str, Any]) -> datetime:
    given = answer.get("expires_in")
    seconds = given if isinstance(given, int) and 0 < given < 86_400 else DEFAULT_EXPIRY_SECONDS
    return datetime.now(UTC) + timedelta(seconds=seconds)


def _sign_in_expiry(answer: Mapping[str, Any]) -> datetime | None:
    """Return when the refresh token expires; None if it lasts.

    Google names it for apps in testing, and where a person has limited the access
    (https://developers.google.com/identity/protocols/oauth2/web-server#exchange-authorization-code).
    """
    given = answer.get("refresh_token_expires_in")
    if type(given) is not int or not 0 < given < MAX_SIGN_IN_SECONDS:
        return None
    return datetime.now(UTC) + timedelta(seconds=given)


def of_service_account(
    http: httpx2.Client,
    settings: GmailSettings,
    key: ServiceAccount,
    scope: str,
    subject: str | None = None,
) -> tuple[str, datetime]:
    """Request an access token for a service account.

    Args:
      http: The client for the request.
      settings: The operator's settings, for the address of the token endpoint.
      key: The key of the service account.
      scope: The scope of the token.
      subject: The user for whom the service account acts. Default: for itself.

    Returns:
      The token, and the time at which it expires.

    Raises:
      IntegrationError: As for `renew`.
    """
    form = {"grant_type": JWT_BEARER, "assertion": _assertion(key, scope, subject)}
    answer = _post(http, settings.google_token_url, form, is_service_account=True)
    return answer["access_token"], _expiry(answer)


def _assertion(key: ServiceAccount, scope: str, subject: str | None) -> str:
    try:
        signer = crypt.RSASigner.from_string(  # type: ignore[no-untyped-call]
            key.private_key.get_secret_value(), key.private_key_id
        )
    except Exception:  # noqa: BLE001  any exception about a bad key may show the key
        raise KEY_UNREADABLE.error() from None
    now = int(time.time())
    claims = {"iss": key.client_email, "scope": scope, "aud": AUDIENCE}
    if subject:
        claims["sub"] = subject
    signed: bytes = jwt.encode(  # type: ignore[no-untyped-call]
        signer, claims | {"iat": now, "exp": now + ASSERTION_SECONDS}
    )
    return signed.decode()


def probe(http: httpx2.Client, settings: GmailSettings) -> None:
    """Find out whether the token endpoint answers, without requesting a token.

    Raises:
      Unavailable: It does not answer, or answers with a server error.
    """
    response = _request(http, "GET", settings.google_token_url)
    # 501 rejects the method.
    if response.status_code >= 500 and response.status_code != 501:
        raise refusal(response.status_code, {}, response.headers)


def _request(http: httpx2.Client, method: str, url: str, **arguments: Any) -> httpx2.Response:
    try:
        return http.request(method, url, **arguments)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unavailable(f"cannot reach Google's token endpoint: {type(error).__name__}") from None


def _post(
    http: httpx2.Client,
    url: str,
    form: Mapping[str, str],
    *,
    is_service_account: bool,
    expires: datetime | None = None,
) -> dict[str, Any]:
    response = _request(http, "POST", url, data=dict(form))
    try:
        answer = json.loads(response.content)
    except (ValueError, RecursionError):
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    if response.status_code == 200 and isinstance(answer.get("access_token"), str):
        return answer
    raise refusal(
        response.status_code,
        answer,
        response.headers,
        is_service_account=is_service_account,
        expires=expires,
    )


def refusal(
    status: int,
    answer: Mapping[str, Any],
    headers: Mapping[str, str] = MappingProxyType({}),
    *,
    is_service_account: bool = False,
    expires: datetime | None = None,
) -> IntegrationError:
    """Return the exception for an error response of the token endpoint.

    Its codes are those of RFC 6749, section 5.2, and Google's own.

    Args:
      status: The HTTP status.
      answer: The body, as JSON; empty if it is not an object.
      headers: The headers. Default: none.
      is_service_account: True if a service account signed the request. Default: False.
      expires: The time at which the refresh token of an app in testing expires. Default: it lasts.
    """
    code, subtype = code_of(answer.get("error")), code_of(answer.get("error_subtype"))
    codes = " ".join(filter(None, (code, subtype)))
    text = " ".join(filter(None, (f"Google's token endpoint answered {status}", codes)))
    if status == 429 or code in ("rate_limit_exceeded", "slow_down"):
        return RateLimited(text, retry_after=retry_after(headers))
    if status >= 500 or code in ("internal_failure", "server_error", "temporarily_unavailable"):
        return Unavailable(text, retry_after=retry_after(headers))
    if status < 400:
        return TransientError(text)
    if code not in BY_CODE and code not in OF_SERVICE_ACCOUNTS and status not in (400, 401):
        return TransientError(f"{text}; a proxy may have answered")
    if not code:
        return TransientError(f"{text} without an error code; a proxy may have answered")
    reason = reason_of(
        answer,
        headers,
        is_service_account=is_service_account,
        expires=expires,
    )
    return reason.error(codes)
