"""One sign-in: its start, and its end after the provider has redirected the browser here."""

from __future__ import annotations

import hmac
import json
import secrets
import time
from dataclasses import asdict, dataclass
from urllib.parse import urlencode, urlsplit, urlunsplit

from core.errors import InvalidInput, Refused, VaultError, WrongState
from core.service.authorization import Person
from core.service.backend import Backend
from core.service.sign_on.provider import LEEWAY_SECONDS, Provider, error_word
from core.service.sign_on.roles import name_of, role_of, verified_email
from core.settings import Settings

START = "/sign-in/oidc"
CALLBACK = "/sign-in/oidc/callback"
SIGNED_OUT = "/sign-in"

MINUTES = 10
"""The number of minutes within which the person has to sign in at the provider."""

MAX_NEXT_CHARS = 500
"""The length of a path to which a sign-in returns. It is in the cookie."""


@dataclass(frozen=True, slots=True)
class _Flow:
    """The values with which a sign-in continues.

    Attributes:
      state: Binds the redirect to this browser.
      nonce: Binds the ID token to this sign-in.
      verifier: Binds the code to this sign-in (PKCE).
      begun: The time of the start, in seconds since the epoch.
    """

    issuer: str
    state: str
    nonce: str
    verifier: str
    next_path: str
    begun: float


@dataclass(frozen=True, slots=True)
class Returned:
    """The parameters with which the provider has redirected the browser."""

    state: str
    code: str | None
    error: str | None
    issuer: str | None


async def start(backend: Backend, provider: Provider, next_path: str) -> tuple[str, str]:
    """Start a sign-in.

    Args:
      backend: The backend.
      provider: The identity provider.
      next_path: The path of this site that the browser opens after the sign-in.

    Returns:
      The address of the provider's page, and the value of the cookie.

    Raises:
      WrongState: The operator has set no public URL.
      ProviderUnavailable: The provider does not answer, or its answer is invalid.
    """
    redirect_uri = _own(backend.settings, CALLBACK)
    flow = _Flow(
        provider.issuer,
        state=secrets.token_urlsafe(32),
        nonce=secrets.token_urlsafe(32),
        verifier=secrets.token_urlsafe(64),
        next_path=next_path if len(json.dumps(next_path)) <= MAX_NEXT_CHARS else "/",
        begun=time.time(),
    )
    url = await provider.authorization_url(
        redirect_uri, state=flow.state, nonce=flow.nonce, verifier=flow.verifier
    )
    return url, backend.vault.seal_text(json.dumps(asdict(flow)))


async def finish(
    backend: Backend, provider: Provider, cookie: str | None, returned: Returned
) -> tuple[Person, str]:
    """End a sign-in.

    Args:
      backend: The backend.
      provider: The identity provider.
      cookie: The value of the browser's cookie; None without one.
      returned: The parameters of the redirect.

    Returns:
      The person, and the path that the browser opens next.

    Raises:
      InvalidInput: The sign-in began in another browser, or too long ago.
      Refused: The provider refuses the sign-in, its answer is invalid, or the person has no role.
      WrongState: The operator has set no public URL.
      ProviderUnavailable: The provider does not answer.
    """
    redirect_uri = _own(backend.settings, CALLBACK)
    flow = _open(backend, cookie)
    if flow is None or flow.issuer != provider.issuer:
        raise InvalidInput("sign-on-outdated")
    if not hmac.compare_digest(flow.state.encode(), returned.state.encode("utf-8", "replace")):
        raise InvalidInput("sign-on-outdated")
    # Another provider may try to pass on its answer as one of this provider (RFC 9207).
    endpoints = await provider.endpoints()
    names_issuer = endpoints.names_issuer or returned.issuer is not None
    if names_issuer and returned.issuer != provider.issuer:
        raise Refused("sign-on-answer-invalid", reason="it names another issuer")
    if returned.code is None:
        raise Refused("sign-on-refused", reason=error_word(returned.error or "an error"))
    tokens = await provider.exchange(redirect_uri, returned.code, flow.verifier)
    claims = await provider.verified(tokens, flow.nonce)
    role, named = role_of(backend.settings, claims), claims
    if role is None:
        # Each document stands for itself: an address of one is not verified by the other.
        further = await provider.userinfo(tokens, claims["sub"])
        role = role_of(backend.settings, further)
        named = further if verified_email(further) and not verified_email(claims) else claims
    if role is None:
        raise Refused("sign-on-without-role", name=name_of(named))
    return Person(provider.issuer, claims["sub"], name_of(named), role), flow.next_path


async def sign_out_url(backend: Backend, provider: Provider) -> str | None:
    """Return the address at which a browser signs out of the provider; None if it has none.

    Raises:
      WrongState: The operator has set no public URL.
      ProviderUnavailable: The provider does not answer.
    """
    url = (await provider.endpoints()).end_session
    if url is None:
        return None
    parts = urlsplit(url)
    params = {
        "client_id": provider.client_id,
        "post_logout_redirect_uri": _own(backend.settings, SIGNED_OUT),
    }
    query = "&".join(filter(None, [parts.query, urlencode(params)]))
    return urlunsplit(parts._replace(query=query))


def _open(backend: Backend, cookie: str | None) -> _Flow | None:
    """Return the sign-in of a cookie; None if it has none, or if it began too long ago."""
    if cookie is None:
        return None
    try:
        flow = _Flow(**json.loads(backend.vault.open_text(cookie)))
    except (VaultError, ValueError, TypeError):
        return None
    age = time.time() - flow.begun
    return flow if -LEEWAY_SECONDS <= age <= MINUTES * 60 else None


def _own(settings: Settings, path: str) -> str:
    """Return the public address of a path of this server."""
    if settings.public_url is None:
        raise WrongState("public-url-missing")
    return settings.public_url.rstrip("/") + path
