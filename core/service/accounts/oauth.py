"""Connect an account in a browser, through the provider's consent screen (OAuth).

The flow is OAuth 2.0 (RFC 6749), with PKCE (RFC 7636) wherever the provider supports it.

A request with a token starts a flow; a browser without a token finishes it. The browser presents
the state: 256 random bits that work once, for ten minutes. The database holds only their digest.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import UUID

from core.accounts import store
from core.db.rows import fetch
from core.egress import any_host
from core.errors import InvalidInput, NotFound, PollingError, SettingsError
from core.integration.base import Integration
from core.integration.limits import OAuth
from core.integration.operator import environment_value, operator_settings
from core.service.accounts import actions as account_actions
from core.service.accounts.validation import Values, config_of, stored
from core.service.backend import Backend
from core.settings import Settings
from core.states import Deletions

if TYPE_CHECKING:
    from authlib.integrations.httpx_client import OAuth2Client

CALLBACK = "/v1/oauth/callback"
FLOW_MINUTES = 10
PROVIDER_TIMEOUT_SECONDS = 20.0

CREATE_FLOW = """
INSERT INTO oauth_flow (
    state_digest, integration_domain, user_id, user_integration_id, name, poll_interval_minutes,
    deletions, config, verifier, redirect_to, public_hosts_only, expires_at
)
VALUES (
    %(state)s, %(domain)s, %(user_id)s, %(account)s, %(name)s, %(interval)s,
    %(deletions)s, %(config)s, %(verifier)s, %(redirect_to)s, %(public_only)s,
    now() + %(minutes)s * interval '1 minute'
)
RETURNING expires_at
"""
# The statement deletes the row that it reads. If two browsers return with the same OAuth state,
# only the first one continues.
CLAIM_FLOW = """
DELETE FROM oauth_flow WHERE state_digest = %(state)s
RETURNING integration_domain, user_id, user_integration_id, name, poll_interval_minutes,
    deletions, config, verifier, redirect_to, public_hosts_only, expires_at > now() AS valid
"""

_CODE = re.compile(r"[a-z_]{1,60}")


@dataclass(frozen=True, slots=True)
class StartedAuthorization:
    """The address of the consent screen, and when the flow expires."""

    url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class FinishedAuthorization:
    """The result of a connection attempt: an account or the code of an error.

    Attributes:
      redirect_to: The address that the browser opens next, if the request set one.
    """

    account: UUID | None
    error: str | None
    redirect_to: str | None

    @property
    def url(self) -> str | None:
        """The address that the browser opens next, with the result in its query."""
        if self.redirect_to is None:
            return None
        outcome = (
            {"user_integration_id": str(self.account)}
            if self.account
            else {"error": self.error or "failed"}
        )
        parts = urlsplit(self.redirect_to)
        query = [*parse_qsl(parts.query, keep_blank_values=True), *outcome.items()]
        return urlunsplit(parts._replace(query=urlencode(query)))


def start(
    backend: Backend,
    domain: str,
    *,
    user_id: str,
    account: UUID | None = None,
    name: str | None = None,
    config: Values | None = None,
    interval_minutes: int | None = None,
    deletions: Deletions | None = None,
    redirect_to: str | None = None,
    public_only: bool = False,
) -> StartedAuthorization:
    """Start a flow for a user.

    Parameters:
      account: The only account that the flow may reconnect; its config stays. Default: any account
        that the user chooses at the provider.
      deletions: The treatment of content that disappears at the source. Default: `mark`, or the
        choice of the existing account.
      redirect_to: The address that the browser opens at the end.

    Raises:
      NotFound: The integration does not exist, or the user has no such account.
      InvalidInput: The integration does not support OAuth, `redirect_to` is not allowed, or the
        config is invalid.
      SettingsError: The operator has set no OAuth client, or no public URL.
    """
    account_actions.require_text(user_id=user_id, name=name)
    integration = backend.registry.get(domain)
    oauth = oauth_of(integration)
    kept: Values = {}  # unencrypted: the account stores its config in clear, too
    if account is None:
        kept = stored(config_of(integration, config or {}))
    else:
        _require_account(backend, account, domain, user_id)
    if redirect_to is not None and not may_redirect(backend.settings, redirect_to):
        raise InvalidInput("redirect-not-allowed")
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(64)
    with _client(backend.settings, oauth) as client:
        url, _ = client.create_authorization_url(
            oauth.authorize_url, state=state, code_verifier=verifier, **dict(oauth.extra)
        )
    params: dict[str, Any] = {
        "state": _digest(state),
        "domain": domain,
        "user_id": user_id,
        "account": account,
    }
    params |= {
        "name": name,
        "interval": interval_minutes,
        "deletions": deletions,
        "config": json.dumps(kept),
    }
    params |= {
        "verifier": backend.vault.seal_text(verifier),
        "redirect_to": redirect_to,
        "public_only": public_only,
    }
    with backend.database.connection() as conn:
        row = fetch(conn, CREATE_FLOW, params | {"minutes": FLOW_MINUTES})[0]
    return StartedAuthorization(str(url), row["expires_at"])


def finish(
    backend: Backend, *, state: str, code: str | None, error: str | None
) -> FinishedAuthorization:
    """Exchange the authorization code, and store or reconnect the account.

    Raises:
      InvalidInput: The state is unknown, already used, or expired.
    """
    with backend.database.connection() as conn:
        flows = fetch(conn, CLAIM_FLOW, {"state": _digest(state)})
    if not flows or not flows[0]["valid"]:
        raise InvalidInput("sign-in-link-invalid")
    flow = flows[0]
    if code is None:
        return FinishedAuthorization(
            None, error if error and _CODE.fullmatch(error) else "failed", flow["redirect_to"]
        )
    try:
        return FinishedAuthorization(_connect(backend, flow, code), None, flow["redirect_to"])
    except NotFound:
        return FinishedAuthorization(None, "not_found", flow["redirect_to"])
    except InvalidInput:
        return FinishedAuthorization(None, "refused", flow["redirect_to"])
    except PollingError:
        return FinishedAuthorization(None, "unavailable", flow["redirect_to"])


def _connect(backend: Backend, flow: Mapping[str, Any], code: str) -> UUID:
    integration = backend.registry.get(flow["integration_domain"])
    token = _exchange(
        backend, oauth_of(integration), code, backend.vault.open_text(flow["verifier"])
    )
    credentials = _credentials(integration, token)
    public_only = flow["public_hosts_only"]
    if flow["user_integration_id"] is not None:
        account: UUID = flow["user_integration_id"]
        _require_account(backend, account, flow["integration_domain"], flow["user_id"])
        account_actions.reconnect(
            backend, account, credentials=credentials, public_only=public_only
        )
        return account
    connected = account_actions.connect(
        backend,
        flow["integration_domain"],
        config=flow["config"],
        credentials=credentials,
        user_id=flow["user_id"],
        name=flow["name"],
        interval_minutes=flow["poll_interval_minutes"],
        deletions=None if flow["deletions"] is None else Deletions(flow["deletions"]),
        public_only=public_only,
    )
    backend.wake()
    return connected.id


def _exchange(backend: Backend, oauth: OAuth, code: str, verifier: str) -> Mapping[str, Any]:
    """Exchange the code for tokens. Errors omit the provider's text, which may hold a secret."""
    from authlib.integrations.base_client import OAuthError

    try:
        # The operator or the plugin sets this address, so any host is allowed.
        with any_host(), _client(backend.settings, oauth) as client:
            proof = {"code_verifier": verifier} if oauth.pkce else {}
            token = client.fetch_token(
                oauth.token_url, code=code, grant_type="authorization_code", **proof
            )
    except OAuthError as error:
        kind = error.error if _CODE.fullmatch(str(error.error)) else "an error"
        raise InvalidInput("sign-in-refused", reason=kind) from None
    except Exception as error:  # noqa: BLE001  a network error, or an invalid response
        raise PollingError("sign-in-failed", reason=type(error).__name__) from None
    return dict(token)


def _credentials(integration: Integration, token: Mapping[str, Any]) -> Mapping[str, Any]:
    """Convert the response with the plugin. Its exceptions may hold a token."""
    try:
        return integration.credentials_from_oauth(token)
    except Exception as error:  # noqa: BLE001  plugin code
        raise PollingError(
            "sign-in-answer-unreadable",
            integration=integration.manifest.name,
            reason=type(error).__name__,
        ) from None


def _client(settings: Settings, oauth: OAuth) -> OAuth2Client:
    from authlib.integrations.httpx_client import OAuth2Client

    if settings.public_url is None:
        raise SettingsError("public-url-missing")
    client_id, secret = (
        environment_value(oauth.client_id_setting),
        environment_value(oauth.client_secret_setting),
    )
    if client_id is None:
        raise SettingsError("setting-missing", setting=oauth.client_id_setting)
    if secret is None and not oauth.pkce:
        raise SettingsError("client-secret-missing", setting=oauth.client_secret_setting)
    return OAuth2Client(
        client_id,
        secret,
        token_endpoint_auth_method="client_secret_post" if secret else "none",
        scope=" ".join(oauth.scopes),
        redirect_uri=settings.public_url.rstrip("/") + CALLBACK,
        code_challenge_method="S256" if oauth.pkce else None,
        timeout=PROVIDER_TIMEOUT_SECONDS,
    )


def missing_settings(settings: Settings, integration: Integration) -> list[str] | None:
    """Return the missing settings without which accounts cannot be connected in a browser.

    The result is None if the integration does not support it.
    """
    oauth = integration.manifest.oauth
    if oauth is None:
        return None
    needed = [oauth.client_id_setting, *([] if oauth.pkce else [oauth.client_secret_setting])]
    missing = [name for name in needed if environment_value(name) is None]
    return missing if settings.public_url is not None else ["POLLING_PUBLIC_URL", *missing]


def may_redirect(settings: Settings, url: str) -> bool:
    """Return True if a redirect to this address is allowed.

    The address must have the scheme, host and port of an allowed address, and the same path or a
    path below it.
    """
    if not url.isascii() or not url.isprintable() or "\\" in url or " " in url:
        return False
    allowed = [*settings.redirect_urls, *([settings.public_url] if settings.public_url else [])]
    return any(_below(url, base) for base in allowed)


def _below(url: str, allowed: str) -> bool:
    try:
        target, base = urlsplit(url), urlsplit(allowed)
        same = (target.scheme, target.hostname, target.port) == (
            base.scheme,
            base.hostname,
            base.port,
        )
    except ValueError:
        return False
    if (
        not same
        or target.scheme not in ("https", "http")
        or "@" in target.netloc
        or target.fragment
    ):
        return False
    path, segments = base.path.rstrip("/"), re.split(r"/|%2f", target.path, flags=re.IGNORECASE)
    dotted = any(segment.lower().replace("%2e", ".") in (".", "..") for segment in segments)
    return not dotted and (target.path == path or target.path.startswith(f"{path}/"))


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


def _require_account(backend: Backend, account: UUID, domain: str, user_id: str) -> None:
    with backend.database.connection() as conn:
        existing = store.load(conn, account)
    if (existing.integration_domain, existing.user_id) != (domain, user_id):
        raise NotFound("account-not-found", account=account)


def _digest(state: str) -> bytes:
    return hashlib.sha256(state.encode("utf-8", "surrogatepass")).digest()
