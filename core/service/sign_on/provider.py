"""The identity provider: its endpoints, its keys, and calls to it.

A provider may hang, or send too much. Each call has a deadline, each answer has a bound, and the
process has a bound on its calls. They occupy no thread. No redirect is followed, because it could
take a secret to another server. The operator chooses the provider, so its address may be private.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import (
    BadSignatureError,
    ClaimError,
    InvalidClaimError,
    InvalidKeyIdError,
    JoseError,
)
from joserfc.jwk import JWKRegistry, Key, KeySet

from core.egress import any_host
from core.errors import PollingError, Refused
from core.http_session import trust
from core.public_addresses import is_confidential
from core.service.sign_on.roles import Claims
from core.settings import Settings

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512",
)  # fmt: skip
"""The accepted signatures: with a key that only the provider has. `none` and HMAC are not."""

KEY_TYPES = ("RSA", "EC")

CALL_SECONDS = 10.0
"""The deadline of one call to the provider."""

MAX_CALLS = 32
"""The sign-ins of one process that may wait for the provider. Further ones are refused."""

MAX_ANSWER_BYTES = 256 * 1024

MAX_KEYS = 64
"""The number of keys of the provider that are read."""

CACHE_SECONDS = 3_600.0
"""The age at which the endpoints and the keys of the provider are read again."""

REFETCH_SECONDS = 10.0
"""The age at which the keys are read again because they do not verify a signature."""

FAILURE_SECONDS = 5.0
"""The time for which a failed reading is not repeated."""

LEEWAY_SECONDS = 60
"""The tolerated difference between the clocks of the provider and of this server."""

MAX_SUBJECT_CHARS = 255
"""The length of a subject, as the specification bounds it."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class ProviderUnavailable(PollingError):
    """The provider does not answer, or its answer cannot be read."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The provider's description of itself.

    Attributes:
      token_auth: The method by which this server authenticates at the token endpoint.
      names_issuer: True if the provider returns its issuer with the code (RFC 9207).
    """

    authorization: str
    token: str
    keys: str
    userinfo: str | None
    end_session: str | None
    token_auth: str
    algorithms: tuple[str, ...]
    names_issuer: bool


@dataclass(frozen=True, slots=True)
class Tokens:
    """The provider's answer to a code. Both values are secrets."""

    id_token: str
    access_token: str | None


class Provider:
    """The provider of the settings.

    Args:
      settings: The settings, with an issuer and a client.
    """

    def __init__(self, settings: Settings) -> None:
        assert settings.oidc_issuer is not None
        assert settings.oidc_client_id is not None
        self.issuer: str = settings.oidc_issuer
        self.client_id: str = settings.oidc_client_id
        self._settings = settings
        self._endpoints = _Cached(self._read_endpoints)
        self._keys = _Cached(self._read_keys)
        self._calls = 0

    async def endpoints(self) -> Endpoints:
        """Return the endpoints.

        Raises:
          ProviderUnavailable: The provider does not answer, or its answer is invalid.
        """
        return await self._endpoints.get(CACHE_SECONDS)

    async def authorization_url(
        self, redirect_uri: str, *, state: str, nonce: str, verifier: str
    ) -> str:
        """Return the address of the provider's sign-in page.

        Raises:
          ProviderUnavailable: The provider does not answer, or its answer is invalid.
        """
        endpoints = await self.endpoints()
        async with self._client(endpoints, redirect_uri) as client:
            url, _ = client.create_authorization_url(
                endpoints.authorization, state=state, code_verifier=verifier, nonce=nonce
            )
        return str(url)

    async def exchange(self, redirect_uri: str, code: str, verifier: str) -> Tokens:
        """Exchange a code for tokens.

        Raises:
          Refused: The provider refuses the code.
          ProviderUnavailable: The provider does not answer, or its answer is invalid.
        """
        endpoints = await self.endpoints()
        async with self._calling(), self._client(endpoints, redirect_uri) as client:
            try:
                answer = await client.fetch_token(
                    endpoints.token,
                    code=code,
                    grant_type="authorization_code",
                    code_verifier=verifier,
                )
            except OAuthError as error:
                raise Refused("sign-on-refused", reason=error_word(error.error)) from None
        id_token, access_token = answer.get("id_token"), answer.get("access_token")
        if not isinstance(id_token, str):
            raise Refused("sign-on-answer-invalid", reason="it has no ID token")
        return Tokens(id_token, access_token if isinstance(access_token, str) else None)

    async def verified(self, tokens: Tokens, nonce: str) -> Claims:
        """Return the claims of an ID token.

        Raises:
          Refused: The token is not valid for this sign-in.
          ProviderUnavailable: The provider does not answer, or its answer is invalid.
        """
        reason = ""
        for max_age in (CACHE_SECONDS, REFETCH_SECONDS):
            keys = await self._keys.get(max_age)
            try:
                return self._claims(tokens, nonce, keys)
            except (InvalidKeyIdError, BadSignatureError) as error:
                reason = type(error).__name__  # the provider may have rotated its keys
            except ClaimError as error:
                raise Refused("sign-on-answer-invalid", reason=f"claim {error.claim}") from None
            except Exception as error:  # noqa: BLE001  the token may hold anything
                reason = type(error).__name__  # its text may quote the token
                break
        raise Refused("sign-on-answer-invalid", reason=reason)

    def _claims(self, tokens: Tokens, nonce: str, keys: _Keys) -> Claims:
        token = jwt.decode(tokens.id_token, keys.set, keys.algorithms)
        claims = CodeIDToken(
            token.claims,
            token.header,
            {
                "iss": {"essential": True, "value": self.issuer},
                "aud": {"essential": True, "value": self.client_id},
            },
            {
                "nonce": nonce,
                "client_id": self.client_id,
                "access_token": tokens.access_token,
            },
        )
        claims.validate(leeway=LEEWAY_SECONDS)
        if not 0 < len(claims["sub"]) <= MAX_SUBJECT_CHARS:
            raise InvalidClaimError("sub")
        return dict(claims)

    async def userinfo(self, tokens: Tokens, subject: str) -> Claims:
        """Return further claims about a person; empty if the provider has none.

        Raises:
          ProviderUnavailable: The provider does not answer.
        """
        url = (await self.endpoints()).userinfo
        if url is None or tokens.access_token is None:
            return {}
        async with self._calling(), _Client(verify=trust()) as client:
            headers = {"Authorization": f"Bearer {tokens.access_token}"}
            answer = await client.request("GET", url, headers=headers, withhold_token=True)
        if answer.status_code >= 500:
            raise _unavailable(f"HTTP {answer.status_code}")
        claims = _object(answer) if answer.status_code == 200 else {}
        # The answer could be about another person (OpenID Connect Core, section 5.3.4).
        return claims if claims.get("sub") == subject else {}

    async def _read_keys(self) -> _Keys:
        endpoints = await self.endpoints()
        return _Keys(_key_set(await self._document(endpoints.keys)), endpoints.algorithms)

    async def _document(self, url: str) -> dict[str, Any]:
        """Return a document of the provider."""
        async with self._calling(), _Client(verify=trust()) as client:
            answer = await client.request("GET", url, withhold_token=True)
        if answer.status_code != 200:
            raise _unavailable(f"HTTP {answer.status_code}")
        return _object(answer)

    def _client(self, endpoints: Endpoints, redirect_uri: str) -> _Client:
        return _Client(
            self.client_id,
            _secret(self._settings),
            token_endpoint_auth_method=endpoints.token_auth,
            scope=self._settings.oidc_scopes,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            verify=trust(),
        )

    @asynccontextmanager
    async def _calling(self) -> AsyncIterator[None]:
        """Count a call to the provider, and end it at its deadline.

        Raises:
          ServerUnavailable: Too many calls are in progress, or this one failed.
        """
        if self._calls >= MAX_CALLS:
            raise ProviderUnavailable("sign-on-busy")
        self._calls += 1
        try:
            async with asyncio.timeout(CALL_SECONDS):
                with any_host():
                    yield
        except (
            *(httpx2.HTTPError, httpx2.InvalidURL, OSError, TimeoutError, ValueError),
            RecursionError,  # deep JSON
        ) as error:
            raise _unavailable(type(error).__name__) from None
        finally:
            self._calls -= 1

    async def _read_endpoints(self) -> Endpoints:
        url = self.issuer.rstrip("/") + "/.well-known/openid-configuration"
        document = await self._document(url)
        if document.get("issuer") != self.issuer:
            raise _unavailable("its discovery document names another issuer")
        methods = document.get("token_endpoint_auth_methods_supported")
        offered = document.get("id_token_signing_alg_values_supported")
        auth = "none"
        if _secret(self._settings) is not None:
            is_post = isinstance(methods, list) and "client_secret_post" in methods
            auth = "client_secret_post" if is_post else "client_secret_basic"
        return Endpoints(
            authorization=_required(document, "authorization_endpoint"),
            token=_required(document, "token_endpoint"),
            keys=_required(document, "jwks_uri"),
            userinfo=_url(document, "userinfo_endpoint"),
            end_session=_url(document, "end_session_endpoint"),
            token_auth=auth,
            algorithms=tuple(
                name for name in ALGORITHMS if not isinstance(offered, list) or name in offered
            ),
            names_issuer=document.get("authorization_response_iss_parameter_supported") is True,
        )


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of the provider, and the algorithms of its signatures."""

    set: KeySet
    algorithms: tuple[str, ...]


class _Cached(Generic[T]):
    """A document of the provider, read by one request for all that need it.

    Args:
      load: Reads the document.
    """

    def __init__(self, load: Callable[[], Awaitable[T]]) -> None:
        self._load = load
        self._lock = asyncio.Lock()
        self._value: tuple[float, T] | None = None
        self._failure: tuple[float, PollingError] | None = None

    async def get(self, max_age: float) -> T:
        """Return the document, read at most `max_age` seconds ago.

        Raises:
          ProviderUnavailable: It cannot be read, or could not some seconds ago.
        """
        async with self._lock:
            if self._value is not None and _age(self._value[0]) <= max_age:
                return self._value[1]
            if self._failure is not None and _age(self._failure[0]) <= FAILURE_SECONDS:
                failed = self._failure[1]
                raise type(failed)(failed.code, **failed.fields)
            try:
                self._value = time.monotonic(), await self._load()
            except PollingError as error:
                if error.code != "sign-on-busy":
                    log.warning("cannot read a document of the identity provider: %s", error)
                    self._failure = time.monotonic(), error
                raise
            return self._value[1]


class _Client(AsyncOAuth2Client):  # type: ignore[misc]
    """A client that reads at most `MAX_ANSWER_BYTES` of an answer."""

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request, and return its response with the complete body."""
        request.headers["Accept-Encoding"] = "identity"
        response = await super().send(request, **options | {"stream": True})
        try:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise ValueError("the answer is compressed")
            body = bytearray()
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > MAX_ANSWER_BYTES:
                    raise ValueError("the answer is too large")
        finally:
            await response.aclose()
        return httpx2.Response(response.status_code, content=bytes(body), request=request)


def _key_set(document: Mapping[str, Any]) -> KeySet:
    """Return the keys that verify signatures. Keys that cannot be read are left out."""
    keys: list[Key] = []
    found = document.get("keys")
    for data in found[:MAX_KEYS] if isinstance(found, list) else ():
        if not isinstance(data, dict) or data.get("kty") not in KEY_TYPES:
            continue
        if data.get("use", "sig") != "sig":
            continue
        try:
            keys.append(JWKRegistry.import_key(data))
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    return KeySet(keys)


def _secret(settings: Settings) -> str | None:
    secret = settings.oidc_client_secret
    return secret.get_secret_value() or None if secret is not None else None


def _object(answer: httpx2.Response) -> dict[str, Any]:
    try:
        found = json.loads(answer.content)
    except (ValueError, RecursionError):
        raise _unavailable("its answer is not JSON") from None
    if not isinstance(found, dict):
        raise _unavailable("its answer is not a JSON object")
    return found


def _required(document: Mapping[str, Any], name: str) -> str:
    url = _url(document, name)
    if url is None:
        raise _unavailable(f"its discovery document has no valid {name}")
    return url


def _url(document: Mapping[str, Any], name: str) -> str | None:
    url = document.get(name)
    return url if isinstance(url, str) and is_confidential(url) else None


def error_word(code: object) -> str:
    """Return an error code of OAuth, or a word for anything else."""
    text = str(code)
    is_code = len(text) <= 60 and text.isascii() and text.replace("_", "").isalnum()
    return text if is_code else "an error"


def _unavailable(reason: str) -> ProviderUnavailable:
    return ProviderUnavailable("sign-on-unavailable", reason=reason)


def _age(at: float) -> float:
    return time.monotonic() - at
