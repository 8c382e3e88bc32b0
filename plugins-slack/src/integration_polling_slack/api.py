"""Calls of the Slack Web API: one request each, without retries, sleeping or redirects."""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from pydantic import SecretStr
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from core import CredentialsInvalid, IntegrationError, TransientError
from integration_polling_slack.account import Credentials, SlackSettings, tokens
from integration_polling_slack.errors import meaning

TIMEOUT_SECONDS = 30
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""The maximum size of a response in bytes. A longer one is truncated to invalid JSON."""

_WORD = re.compile(r"[A-Za-z0-9_:.,-]{1,200}")
# The SDK's own logger writes tokens at DEBUG.
_SILENT = logging.Logger("slack_sdk", logging.CRITICAL + 1)  # noqa: LOG001


class NoRedirects(HTTPRedirectHandler):
    """Fails with the status of a redirect, instead of sending the token to another address."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Refuse the redirect: urllib raises HTTPError."""


class _Client(WebClient):
    """Slack's client without redirects: urllib would send the token to any host."""

    def _perform_urllib_http_request_internal(self, url: str, req: Request) -> dict[str, Any]:
        with opener(self.proxy).open(req, timeout=self.timeout) as response:
            body = response.read(MAX_ANSWER_BYTES).decode("utf-8", "replace")
            return {"status": response.status, "headers": response.headers, "body": body}


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to a call, without characters that cannot be stored.

    Attributes:
      data: The JSON object.
      headers: The headers, by lower-case name.
    """

    data: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def cursor(self) -> str:
        """The cursor of the next page; empty on the last one."""
        metadata = self.data.get("response_metadata")
        cursor = metadata.get("next_cursor") if isinstance(metadata, dict) else None
        return cursor if isinstance(cursor, str) else ""

    def items(self, name: str) -> list[dict[str, Any]]:
        """Return a list of objects.

        Raises:
          TransientError: The response does not have it.
        """
        found = self.data.get(name)
        if not isinstance(found, list):
            raise TransientError(f"unexpected response from Slack: no list of {name}")
        return [item for item in found if isinstance(item, dict)]


def opener(proxy: str | None = None) -> OpenerDirector:
    """Return an opener that does not follow redirects.

    Args:
      proxy: The address of a proxy. Default: the proxy of the environment.
    """
    return build_opener(
        NoRedirects, *([ProxyHandler({"http": proxy, "https": proxy})] if proxy else [])
    )


def call(settings: SlackSettings, token: SecretStr, method: str, **arguments: Any) -> Answer:
    """Call a method.

    Args:
      settings: The operator's settings, for Slack's address.
      token: The access token.
      method: The method's name, such as `conversations.history`.
      **arguments: Its arguments; None and empty texts are left out.

    Raises:
      IntegrationError: The exception for Slack's error; see `integration_polling_slack.errors`.
    """
    given = {name: value for name, value in arguments.items() if value not in (None, "")}
    return _answered(_client(settings, token.get_secret_value()), method, params=given)


def not_renewable() -> CredentialsInvalid:
    """Return the error for an expired token without a refresh token."""
    return CredentialsInvalid(
        "the token has expired: the app rotates its tokens, and there is no refresh token",
        remedy="Paste the new access token (`xoxe.xoxb-…` or `xoxe.xoxp-…`) and its refresh token"
        " (`xoxe-1-…`) from the app's page OAuth & Permissions",
    )


def renew(settings: SlackSettings, credentials: Credentials) -> Credentials:
    """Return a new access token and refresh token. This revokes the old refresh token.

    Source: https://docs.slack.dev/authentication/using-token-rotation

    Raises:
      CredentialsInvalid: The refresh token is missing, or Slack rejects it.
      ConfigurationError: The operator's client id or secret is wrong.
    """
    if credentials.refresh_token is None:
        raise not_renewable()
    form = {
        "grant_type": "refresh_token",
        "refresh_token": credentials.refresh_token.get_secret_value(),
    }
    auth = {
        "client_id": settings.client_id,
        "client_secret": settings.client_secret.get_secret_value(),
    }
    found = tokens(_answered(_client(settings, None), "oauth.v2.access", data=form, auth=auth).data)
    if "refresh_token" not in found:
        raise TransientError("oauth.v2.access: unexpected response without tokens")
    return Credentials(
        token=SecretStr(found["token"]), refresh_token=SecretStr(found["refresh_token"])
    )


def _client(settings: SlackSettings, token: str | None) -> WebClient:
    return _Client(
        token, settings.api_url, timeout=TIMEOUT_SECONDS, logger=_SILENT, retry_handlers=[]
    )


def _answered(client: WebClient, method: str, **arguments: Any) -> Answer:
    try:
        response = client.api_call(method, **arguments)
    except SlackApiError as error:
        raise _refused(method, error) from None
    except (
        OSError,
        HTTPException,
        SlackClientError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        # The error's text may contain the request.
        raise TransientError(f"{method}: no valid response ({type(error).__name__})") from None
    if not isinstance(response.data, dict):
        raise TransientError(f"{method}: the response is not a JSON object")
    return Answer(storable(response.data), _lower(response.headers))


def _refused(method: str, error: SlackApiError) -> IntegrationError:
    """Return the exception for a response that is not `ok`.

    It repeats only text in the format of Slack's error codes.
    """
    status, headers, data = (
        error.response.status_code,
        _lower(error.response.headers),
        error.response.data,
    )
    found: dict[str, Any] = data if isinstance(data, dict) else {}
    code, scope = (str(found.get(key, "")) for key in ("error", "needed"))
    if status == 200 and not _WORD.fullmatch(code):
        return TransientError(f"{method}: the response is not from Slack's API")
    meant = meaning(method, code, status, headers)
    if code == "missing_scope" and _WORD.fullmatch(scope):
        return type(meant)(f"{meant}; required scope: {scope}")
    return meant


def _lower(headers: Mapping[str, Any]) -> dict[str, str]:
    return {name.lower(): str(value) for name, value in headers.items()}


def storable(value: Any) -> Any:
    """Return the JSON value with only characters and numbers that can be stored.

    PostgreSQL, UTF-8 and JSON cannot represent NULs, lone surrogates and infinite numbers.
    """
    try:
        encoded = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:  # a UnicodeEncodeError too
        return _mended(value)
    return _mended(value) if b"\\u0000" in encoded else value


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    return [_mended(item) for item in value] if isinstance(value, list) else value
