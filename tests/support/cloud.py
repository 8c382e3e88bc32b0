"""A provider with OAuth, an integration of it, and the steps of a browser at both."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx2
import pytest
from pydantic import BaseModel, SecretStr

from core import (
    AccountIdentity,
    BaseIntegration,
    Context,
    CredentialsInvalid,
    Manifest,
    NoFields,
    OAuth,
    TaskResult,
)
from support.dashboard import Dashboard, form

CLIENT, SECRET = "the-client", "the-client-secret"
PRODUCT = "https://app.example.org/connected"
"""A page of the product that connects accounts."""


class Provider(ThreadingHTTPServer):
    """A provider that issues codes and tokens as RFC 6749 and 7636 specify, each code once."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.codes: dict[str, dict[str, str]] = {}
        self.tokens: dict[str, str] = {}
        self.person, self.broken, self.takes_pkce = "ann", False, True
        self.visits = self.exchanges = 0
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Provider

    def log_message(self, *arguments: Any) -> None: ...

    def do_GET(self) -> None:
        """Answer the consent screen; the person always agrees."""
        self.server.visits += 1
        asked = dict(parse_qsl(urlsplit(self.path).query))
        assert asked["response_type"] == "code"
        code = secrets.token_urlsafe()
        self.server.codes[code] = asked | {"person": self.server.person}
        back = {"code": code, "state": asked["state"]}
        self.send_response(302)
        self.send_header("Location", f"{asked['redirect_uri']}?{urlencode(back)}")
        self.end_headers()

    def do_POST(self) -> None:
        """Answer the token endpoint."""
        self.server.exchanges += 1
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        given = {name: values[0] for name, values in parse_qs(body).items()}
        asked = self.server.codes.pop(given.get("code", ""), None)
        if not self.server.takes_pkce and "code_verifier" in given:
            return self.answer(400, {"error": "invalid_request"})
        challenge = base64.urlsafe_b64encode(
            hashlib.sha256(given.get("code_verifier", "").encode()).digest()
        ).rstrip(b"=")
        right = (
            asked is not None
            and (asked.get("code_challenge_method") == "S256") is self.server.takes_pkce
            and asked.get("code_challenge", challenge.decode()) == challenge.decode()
            and (given["client_id"], given["client_secret"]) == (asked["client_id"], SECRET)
            and given["redirect_uri"] == asked["redirect_uri"]
        )
        if self.server.broken:
            return self.answer(500, {"secret": SECRET})
        if not right:
            return self.answer(
                400, {"error": "invalid_grant", "error_description": given.get("code")}
            )
        token = secrets.token_urlsafe()
        self.server.tokens[token] = asked["person"]
        return self.answer(
            200,
            {"access_token": token, "refresh_token": "r", "token_type": "Bearer", "expires_in": 60},
        )

    def answer(self, status: int, body: Any) -> None:
        encoded = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)


@contextmanager
def serving_provider() -> Iterator[Provider]:
    """Run a provider."""
    with Provider() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setenv("CLOUD_CLIENT_ID", CLIENT)
    monkeypatch.setenv("CLOUD_CLIENT_SECRET", SECRET)
    with serving_provider() as server:
        yield server


def cloud_of(provider: Provider) -> type[BaseIntegration[Any, Any]]:
    """Return an integration of this provider."""

    class Tokens(BaseModel):
        access_token: SecretStr
        refresh_token: SecretStr

    class Cloud(BaseIntegration[NoFields, Tokens]):
        manifest = Manifest(
            "cloud",
            "Cloud",
            oauth=OAuth(
                f"{provider.url}/authorize",
                f"{provider.url}/token",
                ["read", "list"],
                "CLOUD_CLIENT_ID",
                "CLOUD_CLIENT_SECRET",
                {"access_type": "offline"},
            ),
        )

        @classmethod
        def credentials_from_oauth(cls, token: Mapping[str, Any]) -> Mapping[str, Any]:
            """Log the response, as a careless plugin does."""
            logging.getLogger("cloud").error("the response: %s", token)
            return super().credentials_from_oauth(token)

        def check(self) -> AccountIdentity:
            person = provider.tokens.get(self.credentials.access_token.get_secret_value())
            if person is None:
                raise CredentialsInvalid("unknown token")
            return AccountIdentity(person, person)

        def start(self, ctx: Context) -> TaskResult:
            return TaskResult()

    return Cloud


@pytest.fixture
def product(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> Dashboard:
    """Return the server with the public URL at which browsers reach it."""
    monkeypatch.setattr(dashboard.backend.settings, "public_url", dashboard.url)
    monkeypatch.setattr(dashboard.backend.settings, "redirect_urls", (PRODUCT,))
    return dashboard


@pytest.fixture
def browser() -> Iterator[httpx2.Client]:
    with httpx2.Client(follow_redirects=False, timeout=60, trust_env=False, verify=False) as client:
        yield client


def consent(client: httpx2.Client, browser: httpx2.Client, **more: Any) -> str:
    """Start a connection, and agree; return the address to which the provider redirects."""
    begun = client.post("/v1/oauth/cloud/authorize", json=more)
    assert begun.status_code == 201, begun.text
    return agree(browser, begun.json()["url"])


def agree(browser: httpx2.Client, url: str) -> str:
    """Agree at the provider; return the address to which it redirects."""
    address: str = browser.get(url).headers["location"]
    return address


def query(url: str) -> dict[str, str]:
    """Return the query of an address."""
    return dict(parse_qsl(urlsplit(url).query))


def confirm(browser: httpx2.Client, back: str, action: str = "/oauth/confirm") -> httpx2.Response:
    """Open the page for confirmation, and press its button."""
    page = browser.get(back)
    if page.status_code != 200:
        return page
    shown = form(page.text, "/oauth/confirm")
    return browser.post(httpx2.URL(back).join(action), data=shown.fields)
