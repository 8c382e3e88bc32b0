"""An OpenID Connect provider on a real port, which tests make lie, hang and vanish.

It keeps the rules that it does not break on purpose: it knows its client, its redirect URI and
PKCE, and a code works once.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from support.waiting import until

CLIENT, CLIENT_SECRET = "polling", "a-secret-of-the-client"

Claims = dict[str, Any]
Answer = Callable[[Request], Response]

CONSENT = """<!doctype html><html lang="en"><head><title>Provider</title></head><body>
<h1>Sign in at the provider</h1><a href="{url}">Continue</a></body></html>"""
ENDED = """<!doctype html><html lang="en"><head><title>Provider</title></head><body>
<h1>Signed out at the provider</h1><a href="{url}">Back</a></body></html>"""


@cache
def rsa(kid: str = "rsa-1") -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})


@cache
def ec(kid: str = "ec-1") -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid, "use": "sig"})


@dataclass
class IdentityProvider:
    """A running provider.

    Attributes:
      url: Its address, which is its issuer.
      person: The claims about the person who signs in next.
      key: The key that signs, with the algorithm `algorithm`.
      published: The keys that it publishes. Default: the key that signs.
      change: Changes the claims of an ID token before it is signed.
      sign: Makes an ID token of its claims. Default: with `key`.
      answers: Answers by path, instead of the usual ones.
      hangs: Paths that answer only when the provider stops.
      asks: True to ask the person before the redirect, as a page.
      userinfo: The claims of the userinfo endpoint, besides `sub`.
      requests: The number of requests by path.
    """

    url: str = ""
    person: Claims = field(default_factory=dict)
    key: RSAKey | ECKey = field(default_factory=rsa)
    algorithm: str = "RS256"
    published: list[RSAKey | ECKey] | None = None
    change: Callable[[Claims], None] = lambda claims: None
    sign: Callable[[Claims], str] | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    hangs: set[str] = field(default_factory=set)
    asks: bool = False
    userinfo: Claims = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    redirect_uri: str = ""
    requests: dict[str, int] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)
    issued: list[str] = field(default_factory=list)
    ended: list[dict[str, str]] = field(default_factory=list)
    stopping: bool = False

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return the settings of a server that signs people in here."""
        return {
            "oidc_issuer": self.url,
            "oidc_client_id": CLIENT,
            "oidc_client_secret": CLIENT_SECRET,
        } | more

    def application(self) -> Starlette:
        routes = {
            "/.well-known/openid-configuration": self._discovery,
            "/authorize": self._authorize,
            "/token": self._token,
            "/keys": self._keys,
            "/userinfo": self._userinfo,
            "/logout": self._logout,
        }
        return Starlette(
            routes=[
                Route(path, self._counted(path, answer), methods=["GET", "POST"])
                for path, answer in routes.items()
            ]
        )

    def _counted(self, path: str, answer: Any) -> Any:
        async def endpoint(request: Request) -> Response:
            self.requests[path] = self.requests.get(path, 0) + 1
            while path in self.hangs and not self.stopping:
                await asyncio.sleep(0.02)
            if path in self.answers:
                return self.answers[path](request)
            response: Response = await answer(request)
            return response

        return endpoint

    async def _discovery(self, _: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize?realm=polling",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "userinfo_endpoint": f"{self.url}/userinfo",
                "end_session_endpoint": f"{self.url}/logout",
                "id_token_signing_alg_values_supported": ["RS256", "ES256"],
                "authorization_response_iss_parameter_supported": True,
            }
            | self.metadata
        )

    async def _authorize(self, request: Request) -> Response:
        params = dict(request.query_params)
        assert params["realm"] == "polling"
        assert params["response_type"] == "code"
        assert params["client_id"] == CLIENT
        assert params["redirect_uri"] == self.redirect_uri, params["redirect_uri"]
        assert params["code_challenge_method"] == "S256"
        assert min(len(params[name]) for name in ("state", "nonce", "code_challenge")) >= 43
        assert params["state"] != params["nonce"]
        code = secrets.token_urlsafe(16)
        self.codes[code] = params
        query = urlencode({"code": code, "state": params["state"], "iss": self.url})
        back = f"{self.redirect_uri}?{query}"
        if self.asks:
            return HTMLResponse(CONSENT.format(url=back.replace("&", "&amp;")))
        return RedirectResponse(back, 302)

    async def _token(self, request: Request) -> Response:
        form = {
            name: values[0] for name, values in parse_qs((await request.body()).decode()).items()
        }
        basic = base64.b64encode(f"{CLIENT}:{CLIENT_SECRET}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {basic}":
            return JSONResponse({"error": "invalid_client"}, 401)
        self.used.append(form.get("code", "-"))
        began = self.codes.pop(self.used[-1], None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            began is None
            or form.get("grant_type") != "authorization_code"
            or form.get("redirect_uri") != began["redirect_uri"]
            or challenge != began["code_challenge"]
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": CLIENT,
            "sub": "ann-1",
            "iat": now,
            "exp": now + 300,
            "nonce": began["nonce"],
        } | self.person
        self.change(claims)
        token = self.signed(claims) if self.sign is None else self.sign(claims)
        self.issued.append(token)
        return JSONResponse(
            {"access_token": "access", "token_type": "Bearer", "expires_in": 300, "id_token": token}
        )

    def signed(self, claims: Claims) -> str:
        header = {"alg": self.algorithm, "kid": self.key.kid}
        return jwt.encode(header, claims, self.key, algorithms=[self.algorithm])

    async def _keys(self, _: Request) -> Response:
        keys = [self.key] if self.published is None else self.published
        return JSONResponse(KeySet(list(keys)).as_dict(private=False))

    async def _userinfo(self, request: Request) -> Response:
        if request.headers.get("authorization") != "Bearer access":
            return JSONResponse({}, 401)
        return JSONResponse({"sub": self.person.get("sub", "ann-1")} | self.userinfo)

    async def _logout(self, request: Request) -> Response:
        self.ended.append(dict(request.query_params))
        back = request.query_params.get("post_logout_redirect_uri", "")
        return HTMLResponse(ENDED.format(url=back))


@contextmanager
def providing() -> Iterator[IdentityProvider]:
    """Run a provider."""
    provider = IdentityProvider()
    config = uvicorn.Config(
        provider.application(), "127.0.0.1", 0, log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive(), "the provider has started")
        port = server.servers[0].sockets[0].getsockname()[1]
        provider.url = f"http://127.0.0.1:{port}"
        yield provider
    finally:
        provider.stopping = True
        server.should_exit = True
        thread.join(20)


@pytest.fixture
def identity_provider() -> Iterator[IdentityProvider]:
    with providing() as provider:
        yield provider
