"""Sign in through a browser on the person's own machine: a loopback redirect (RFC 8252).

The command line listens on a free port of 127.0.0.1, and the provider redirects the browser there.
The client is a native app, whose secret proves nothing (section 8.5). PKCE binds the code to this
process, and `state` binds the redirect to it.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from core.egress import any_host
from core.errors import InvalidInput, PollingError
from core.integration.base import Integration
from core.service.accounts.oauth_client import (
    authorization_url,
    exchange,
    explanation,
    missing_client,
    oauth_of,
    refused,
)

PREFLIGHT_SECONDS = 5.0
MAX_PAGE_CHARS = 64_000


@dataclass(frozen=True, slots=True)
class LoopbackSignIn:
    """A sign-in that waits for the browser.

    Attributes:
      url: The address of the consent screen.
      redirect_uri: The address to which the provider redirects the browser.
    """

    integration: Integration
    url: str
    redirect_uri: str
    state: str
    verifier: str

    def credentials(self, code: str) -> Mapping[str, Any]:
        """Exchange the code for the account's credentials.

        Raises:
          InvalidInput: The provider refuses.
          PollingError: The provider is unavailable.
        """
        return exchange(self.integration, self.redirect_uri, code, self.verifier)

    def code_in(self, address: str) -> str:
        """Return the authorization code in the address at which the browser ended.

        Args:
          address: The complete address, or its path and query.

        Raises:
          InvalidInput: The provider refused, or the address is not an answer to this sign-in; see
            `is_another`.
        """
        try:
            found = dict(parse_qsl(urlsplit(address.strip()).query))
        except ValueError:
            found = {}
        if not secrets.compare_digest(found.get("state", "").encode(), self.state.encode()):
            raise self._wrong("its state is another" if "state" in found else "it has no state")
        if "error" in found:
            answer = {"error": found["error"], "redirect_uri": self.redirect_uri}
            raise refused(self.integration, answer)
        if not found.get("code"):
            raise self._wrong("it has no code")
        return found["code"]

    def _wrong(self, problem: str) -> InvalidInput:
        address = f"{self.redirect_uri}/?"
        return InvalidInput("sign-in-address-wrong", problem=problem, address=address)


def is_another(error: PollingError) -> bool:
    """Return True if an address was not the answer to this sign-in. The right one may follow."""
    return error.code == "sign-in-address-wrong"


def is_offered(integration: Integration) -> bool:
    """Return True if the integration supports it, and the operator has set an OAuth client."""
    oauth = integration.manifest.oauth
    return oauth is not None and oauth.loopback and not missing_client(oauth)


def begin(integration: Integration, port: int) -> LoopbackSignIn:
    """Start a sign-in.

    A request without a person shows whether the provider accepts the client, because it shows a
    refusal only in the browser. An unavailable provider proves nothing: the browser may reach it.

    Args:
      integration: The integration.
      port: The port of 127.0.0.1 on which this process listens.

    Raises:
      InvalidInput: The integration does not support it, or the provider does not accept the client.
      SettingsError: The operator has set no OAuth client.
    """
    oauth = oauth_of(integration)
    if not oauth.loopback:
        raise InvalidInput("sign-in-without-loopback", domain=integration.manifest.domain)
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(64)
    redirect_uri = f"http://127.0.0.1:{port}"
    url = authorization_url(oauth, redirect_uri, state, verifier)
    if (refusal := explanation(integration, _preflight(url, redirect_uri))) is not None:
        raise refusal
    return LoopbackSignIn(integration, url, redirect_uri, state, verifier)


def _preflight(url: str, redirect_uri: str) -> Mapping[str, Any]:
    """Return the response of the consent screen to a client without a person."""
    import httpx2

    answer: dict[str, Any] = {"redirect_uri": redirect_uri}
    with contextlib.suppress(httpx2.HTTPError, httpx2.InvalidURL), any_host():
        response = httpx2.get(url, timeout=PREFLIGHT_SECONDS, follow_redirects=False)
        answer["redirect"] = response.headers.get("location", "")
        if response.status_code >= 400:
            answer["page"] = response.text[:MAX_PAGE_CHARS]
    return answer
