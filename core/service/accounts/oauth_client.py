"""The OAuth client of an integration: the consent screen, and the exchange of its codes.

The operator registers the client with the provider. The plugin's manifest describes the endpoints.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from core.egress import any_host
from core.errors import (
    ConfigurationError,
    CredentialsInvalid,
    InvalidInput,
    PollingError,
    WrongState,
)
from core.integration.base import Integration
from core.integration.limits import OAuth
from core.integration.operator import environment_value, operator_settings
from core.known_secrets import KNOWN
from core.service.accounts.check import one_line
from core.settings import Settings

if TYPE_CHECKING:
    from authlib.integrations.httpx_client import OAuth2Client

PROVIDER_TIMEOUT_SECONDS = 20.0

ERROR_CODE = re.compile(r"[a-z_]{1,60}")
"""The shape of an error code of a provider; another one is not repeated."""

START_AGAIN = "Start the sign-in again"

log = logging.getLogger(__name__)


def authorization_url(
    oauth: OAuth,
    redirect_uri: str,
    state: str,
    verifier: str,
    parameters: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return the address of the consent screen.

    Args:
      oauth: The manifest's description of the flow.
      redirect_uri: The address to which the provider redirects.
      state: The state of the flow.
      verifier: The verifier of PKCE.
      parameters: The parameters that the account's config calls for; they replace the
        manifest's. Default: none.

    Raises:
      WrongState: The operator has set no OAuth client.
    """
    with _client(oauth, redirect_uri) as client:
        url, _ = client.create_authorization_url(
            oauth.authorize_url,
            state=state,
            code_verifier=verifier,
            **{**oauth.extra, **parameters},
        )
    return str(url)


def exchange(
    integration: Integration, redirect_uri: str, code: str, verifier: str
) -> Mapping[str, Any]:
    """Exchange an authorization code for credentials.

    Args:
      integration: The integration.
      redirect_uri: The address to which the provider sent the browser.
      code: The authorization code.
      verifier: The PKCE verifier of the flow.

    Raises:
      InvalidInput: The provider refuses.
      PollingError: The provider is unavailable.
    """
    return _credentials(
        integration, _exchange(integration, oauth_of(integration), redirect_uri, code, verifier)
    )


def _exchange(
    integration: Integration, oauth: OAuth, redirect_uri: str, code: str, verifier: str
) -> Mapping[str, Any]:
    """Exchange the code for tokens. Errors omit the provider's text, which may hold a secret."""
    from authlib.integrations.base_client import OAuthError

    try:
        # The operator or the plugin sets this address, so any host is allowed.
        with any_host(), _client(oauth, redirect_uri) as client:
            proof = {"code_verifier": verifier} if oauth.pkce else {}
            token = client.fetch_token(
                oauth.token_url, code=code, grant_type="authorization_code", **proof
            )
    except OAuthError as error:
        answer = {"error": error.error, "error_description": error.description}
        raise refused(integration, answer | {"redirect_uri": redirect_uri}) from None
    except Exception as error:  # noqa: BLE001  a network error, or an invalid response
        raise PollingError("sign-in-failed", reason=type(error).__name__) from None
    return dict(token)


def refused(integration: Integration, answer: Mapping[str, Any]) -> InvalidInput:
    """Return the error for a refusal of the provider, in the plugin's words if it has any."""
    if (explained := explanation(integration, answer)) is not None:
        return explained
    code = str(answer.get("error"))
    reason = code if ERROR_CODE.fullmatch(code) else "an error"
    return InvalidInput("sign-in-refused", reason=reason, remedy=START_AGAIN)


def explanation(integration: Integration, answer: Mapping[str, Any]) -> InvalidInput | None:
    """Return the plugin's explanation of a refusal; None without one."""
    try:
        error = integration.explain_oauth_error(answer)
    except Exception as failure:  # noqa: BLE001  plugin code
        log.debug("explain_oauth_error failed: %s", type(failure).__name__)
        return None
    if not isinstance(error, CredentialsInvalid | ConfigurationError):
        return None
    reason, remedy = one_line(error.reason), one_line(error.remedy)
    return InvalidInput("sign-in-refused", reason=reason, remedy=remedy or START_AGAIN)


def _credentials(integration: Integration, token: Mapping[str, Any]) -> Mapping[str, Any]:
    """Convert the response with the plugin. Its exceptions and log lines may hold a token."""
    try:
        with KNOWN.scope(_tokens(token)):
            return integration.credentials_from_oauth(token)
    except Exception as error:  # noqa: BLE001  plugin code
        raise PollingError(
            "sign-in-answer-unreadable",
            integration=integration.manifest.name,
            reason=type(error).__name__,
        ) from None


def _tokens(response: Mapping[str, Any]) -> Iterator[str]:
    """Yield the tokens of a response, such as `access_token`, also those of nested objects."""
    for name, value in response.items():
        if isinstance(value, Mapping):
            yield from _tokens(value)
        elif isinstance(value, str) and name.endswith("token"):
            yield value


def _client(oauth: OAuth, redirect_uri: str) -> OAuth2Client:
    from authlib.integrations.httpx_client import OAuth2Client

    client_id, secret = (
        environment_value(oauth.client_id_setting),
        environment_value(oauth.client_secret_setting),
    )
    if client_id is None:
        raise WrongState("setting-missing", setting=oauth.client_id_setting)
    if secret is None and not oauth.pkce:
        raise WrongState("client-secret-missing", setting=oauth.client_secret_setting)
    return OAuth2Client(
        client_id,
        secret,
        token_endpoint_auth_method="client_secret_post" if secret else "none",
        scope=" ".join(oauth.scopes),
        redirect_uri=redirect_uri,
        code_challenge_method="S256" if oauth.pkce else None,
        timeout=PROVIDER_TIMEOUT_SECONDS,
    )


def missing_client(oauth: OAuth) -> list[str]:
    """Return the missing settings of the operator's OAuth client."""
    needed = [oauth.client_id_setting, *([] if oauth.pkce else [oauth.client_secret_setting])]
    return [name for name in needed if environment_value(name) is None]


def missing_settings(settings: Settings, integration: Integration) -> list[str] | None:
    """Return the missing settings without which accounts cannot be connected in a browser.

    The result is None if the integration does not support it.
    """
    oauth = integration.manifest.oauth
    if oauth is None:
        return None
    missing = missing_client(oauth)
    return missing if settings.public_url is not None else ["POLLING_PUBLIC_URL", *missing]


def oauth_of(integration: Integration) -> OAuth:
    """Return the integration's OAuth declaration, with the endpoints that the operator set."""
    manifest = integration.manifest
    if manifest.oauth is None:
        raise InvalidInput("sign-in-not-offered", domain=manifest.domain)
    named = manifest.oauth.settings_named
    values = (
        {
            setting.name: setting.value
            for setting in operator_settings(manifest.settings)
            if setting.name in named
        }
        if named
        else {}
    )
    urls = [
        url.format_map(values) for url in (manifest.oauth.authorize_url, manifest.oauth.token_url)
    ]
    return replace(manifest.oauth, authorize_url=urls[0], token_url=urls[1])
