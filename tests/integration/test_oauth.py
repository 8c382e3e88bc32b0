"""Connecting in a browser, against a provider of our own over real HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx2
import pytest
from pydantic import BaseModel, SecretStr
from pydantic_settings import BaseSettings

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
from core.ledger import dispatching
from core.plugins import get_registry
from core.service.accounts.oauth import may_redirect, oauth_of
from core.settings import Settings

CLIENT, SECRET = "the-client", "the-client-secret"
RING_START = "00000000-0000-0000-0000-000000000000"


class Provider(ThreadingHTTPServer):
    """Gives out codes and tokens as RFC 6749 and 7636 say, each code once."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.codes, self.tokens, self.person, self.broken, self.takes_pkce = (
            {},
            {},
            "ann",
            False,
            True,
        )
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Provider

    def log_message(self, *arguments) -> None: ...

    def do_GET(self) -> None:
        """The consent screen; the person always agrees."""
        asked = dict(parse_qsl(urlsplit(self.path).query))
        assert asked["response_type"] == "code"
        code = secrets.token_urlsafe()
        self.server.codes[code] = asked | {"person": self.server.person}
        back = {"code": code, "state": asked["state"]}
        self.send_response(302)
        self.send_header("Location", f"{asked['redirect_uri']}?{urlencode(back)}")
        self.end_headers()

    def do_POST(self) -> None:
        """The token endpoint."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        given = {name: values[0] for name, values in parse_qs(body).items()}
        asked = self.server.codes.pop(given.get("code"), None)
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

    def answer(self, status: int, body) -> None:
        encoded = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)


@pytest.fixture
def provider(monkeypatch):
    with Provider() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("CLOUD_CLIENT_ID", CLIENT)
        monkeypatch.setenv("CLOUD_CLIENT_SECRET", SECRET)
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def integrations(provider):
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

        def check(self) -> AccountIdentity:
            person = provider.tokens.get(self.credentials.access_token.get_secret_value())
            if person is None:
                raise CredentialsInvalid("unknown token")
            return AccountIdentity(person, person)

        def start(self, ctx: Context) -> TaskResult:
            return TaskResult()

    return (Cloud,)


@pytest.fixture
def product(api, monkeypatch):
    """The API where browsers reach it."""
    monkeypatch.setattr(api.backend.settings, "public_url", api.url)
    monkeypatch.setattr(
        api.backend.settings, "redirect_urls", ("https://app.example.org/connected",)
    )
    return api


@pytest.fixture
def browser():
    with httpx2.Client(follow_redirects=False, timeout=60, trust_env=False) as client:
        yield client


def consent(client, browser, **more):
    """The address at which the provider sends the browser back."""
    begun = client.post("/v1/oauth/cloud/authorize", json=more)
    assert begun.status_code == 201, begun.text
    return browser.get(begun.json()["url"]).headers["location"]


def test_a_person_connects_an_account(product, browser, provider, desk) -> None:
    user = product.user("u")
    begun = user.post(
        "/v1/oauth/cloud/authorize",
        json={"name": "mine", "redirect_to": "https://app.example.org/connected?a=1"},
    )
    asked = dict(parse_qsl(urlsplit(begun.json()["url"]).query))
    assert (asked["client_id"], asked["scope"], asked["access_type"]) == (
        CLIENT,
        "read list",
        "offline",
    )
    assert SECRET not in begun.text
    back = browser.get(browser.get(begun.json()["url"]).headers["location"])
    assert (back.status_code, back.headers["referrer-policy"]) == (303, "no-referrer")
    (account,) = user.get("/v1/user-integrations").json()["items"]
    assert (
        back.headers["location"]
        == f"https://app.example.org/connected?a=1&user_integration_id={account['id']}"
    )
    assert (account["name"], account["identity"], account["sync_status"]) == (
        "mine",
        "ann",
        "active",
    )
    (token,) = provider.tokens
    assert token not in user.get("/v1/user-integrations").text
    assert token not in desk.value("SELECT credentials FROM user_integration")


def test_a_state_works_once(product, browser, desk) -> None:
    back = consent(product.user("u"), browser)
    assert browser.get(back).text.startswith("Account connected")
    again = browser.get(back)
    assert (again.status_code, again.headers["content-type"]) == (422, "application/problem+json")
    assert desk.value("SELECT count(*) FROM oauth_flow") == 0


def test_a_state_ends(product, browser, desk) -> None:
    back = consent(product.user("u"), browser)
    desk.conn.execute("UPDATE oauth_flow SET expires_at = now() - interval '1 second'")
    assert browser.get(back).status_code == 422
    assert desk.value("SELECT count(*) FROM user_integration") == 0


def test_a_state_made_up_is_refused(product, browser) -> None:
    assert browser.get(f"{product.url}/v1/oauth/callback?state=made-up&code=x").status_code == 422


def test_a_stolen_code_is_of_no_use_in_another_flow(product, browser, desk) -> None:
    """PKCE: the code belongs to the verifier of the flow that it was given for."""
    first, second = (consent(product.user(name), browser) for name in ("u", "attacker"))
    code = dict(parse_qsl(urlsplit(first).query))["code"]
    state = dict(parse_qsl(urlsplit(second).query))["state"]
    answer = browser.get(
        f"{product.url}/v1/oauth/callback?{urlencode({'state': state, 'code': code})}"
    )
    assert (answer.status_code, code in answer.text) == (400, False)
    assert desk.value("SELECT count(*) FROM user_integration") == 0


def test_nothing_of_the_flow_lies_open_in_the_database(product, browser, desk) -> None:
    back = consent(product.user("u"), browser)
    rows = str(desk.rows("SELECT oauth_flow::text, encode(state_digest, 'escape') FROM oauth_flow"))
    assert dict(parse_qsl(urlsplit(back).query))["state"] not in rows


def test_a_secret_in_the_wrong_place_is_not_kept_in_clear(product, browser, desk) -> None:
    user, misplaced = product.user("u"), {"password": SECRET}
    browser.get(consent(user, browser))
    account = str(desk.value("SELECT id FROM user_integration"))
    for more in ({}, {"user_integration_id": account}):
        user.post("/v1/oauth/cloud/authorize", json={"config": misplaced} | more)
    assert SECRET not in str(desk.rows("SELECT oauth_flow::text FROM oauth_flow"))


def test_the_code_is_exchanged_where_the_operator_says(
    product, browser, provider, integrations, monkeypatch, desk
) -> None:
    class CloudSettings(BaseSettings):
        cloud_url: str = "http://127.0.0.1:9/nobody"

    (cloud,) = integrations
    oauth = replace(
        cloud.manifest.oauth, token_url="{CLOUD_URL}/token", authorize_url="{CLOUD_URL}/authorize"
    )
    monkeypatch.setattr(
        cloud, "manifest", replace(cloud.manifest, oauth=oauth, settings=CloudSettings)
    )
    monkeypatch.setenv("CLOUD_URL", provider.url)
    assert browser.get(consent(product.user("u"), browser)).text.startswith("Account connected")
    assert desk.value("SELECT count(*) FROM user_integration") == 1


def test_an_endpoint_that_names_no_setting_is_the_plugins_mistake(provider) -> None:
    oauth = OAuth(
        f"{provider.url}/authorize",
        "{CLOUD_URL}/token",
        ["read"],
        "CLOUD_CLIENT_ID",
        "CLOUD_CLIENT_SECRET",
    )
    with pytest.raises(ValueError, match="CLOUD_URL"):
        Manifest("cloud", "Cloud", oauth=oauth)


@pytest.mark.parametrize(
    ("domain", "name", "given", "token_url"),
    [
        (
            "slack",
            "SLACK_API_URL",
            "https://proxy.example.org/slack",
            "https://proxy.example.org/slack/oauth.v2.access",
        ),
        ("slack", "SLACK_API_URL", None, "https://slack.com/api/oauth.v2.access"),
        (
            "gmail",
            "GOOGLE_TOKEN_URL",
            "https://proxy.example.org/token",
            "https://proxy.example.org/token",
        ),
        ("gmail", "GOOGLE_TOKEN_URL", None, "https://oauth2.googleapis.com/token"),
    ],
)
def test_the_endpoints_of_gmail_and_slack(domain, name, given, token_url, monkeypatch) -> None:
    monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv(name, given)
    assert oauth_of(get_registry().get(domain)).token_url == token_url


def test_who_says_no_is_sent_back_with_the_reason(product, browser) -> None:
    back = consent(product.user("u"), browser, redirect_to="https://app.example.org/connected")
    state = dict(parse_qsl(urlsplit(back).query))["state"]
    refused = browser.get(f"{product.url}/v1/oauth/callback?state={state}&error=access_denied")
    assert refused.headers["location"] == "https://app.example.org/connected?error=access_denied"


def test_a_provider_that_is_broken_is_no_error_of_ours(product, browser, provider, caplog) -> None:
    provider.broken = True
    answer = browser.get(consent(product.user("u"), browser))
    assert (answer.status_code, SECRET in answer.text + caplog.text) == (400, False)


def test_an_answer_that_a_plugin_cannot_read_is_no_error_of_ours(
    product, browser, integrations, monkeypatch, caplog
) -> None:
    def unread(cls, token):
        raise KeyError(token["access_token"])

    monkeypatch.setattr(integrations[0], "credentials_from_oauth", classmethod(unread))
    answer = browser.get(consent(product.user("u"), browser))
    assert (answer.status_code, answer.text) == (
        400,
        "Connection failed: unavailable. Start again.",
    )
    assert "KeyError" not in caplog.text


def test_a_provider_that_refuses_pkce(
    product, browser, provider, integrations, monkeypatch
) -> None:
    """It is asked without: by the secret alone."""
    provider.takes_pkce = False
    (cloud,) = integrations
    plain = replace(cloud.manifest, oauth=replace(cloud.manifest.oauth, pkce=False))
    assert browser.get(consent(product.user("u"), browser)).status_code == 400
    monkeypatch.setattr(cloud, "manifest", plain)
    assert browser.get(consent(product.user("u"), browser)).status_code == 200


def test_reconnecting_lets_the_interrupted_run_go_on(product, browser, desk, provider) -> None:
    user = product.user("u")
    browser.get(consent(user, browser))
    account = desk.value("SELECT id FROM user_integration")
    run = desk.run(account)
    desk.conn.execute(
        "UPDATE user_integration SET sync_status = 'error', status_reason = 'credentials'"
    )
    assert dispatching.waiting(desk.conn, "cloud", RING_START, 10) == []
    provider.person = "somebody else"
    other = browser.get(consent(user, browser, user_integration_id=str(account)))
    assert (other.status_code, other.text) == (400, "Connection failed: refused. Start again.")
    provider.person = "ann"
    assert browser.get(consent(user, browser, user_integration_id=str(account))).status_code == 200
    assert desk.rows("SELECT sync_status, credentials_version FROM user_integration") == [
        ("active", 2)
    ]
    (waiting,) = dispatching.waiting(desk.conn, "cloud", RING_START, 10)
    assert waiting.account == str(account)
    assert [dispatch.run_id for dispatch in desk.claim(domain="cloud")] == [str(run)]


def test_nobody_begins_for_another(product, browser, desk) -> None:
    browser.get(consent(product.user("u"), browser))
    account = str(desk.value("SELECT id FROM user_integration"))
    foreign = product.user("v")
    assert foreign.post("/v1/oauth/cloud/authorize", json={"user_id": "u"}).status_code == 403
    assert (
        foreign.post("/v1/oauth/cloud/authorize", json={"user_integration_id": account}).status_code
        == 404
    )
    assert product.admin.post("/v1/oauth/cloud/authorize", json={}).status_code == 422
    assert (
        product.admin.post(
            "/v1/oauth/cloud/authorize", json={"user_integration_id": account}
        ).status_code
        == 201
    )
    assert foreign.post("/v1/oauth/locked/authorize", json={}).status_code == 422


def test_what_an_operator_has_not_set_is_named(product, monkeypatch) -> None:
    monkeypatch.delenv("CLOUD_CLIENT_ID")
    answer = product.user("u").post("/v1/oauth/cloud/authorize", json={})
    assert answer.status_code >= 400
    assert "CLOUD_CLIENT_ID" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://app.example.org/connected", True),
        ("https://app.example.org/connected/here?x=1", True),
        ("https://api.example.org/done", True),
        ("https://app.example.org/connectedevil", False),
        ("https://app.example.org/", False),
        ("https://app.example.org/connected/../evil", False),
        ("https://app.example.org/connected/%2e%2e/evil", False),
        ("https://app.example.org/connected/..%2fevil", False),
        ("http://app.example.org/connected", False),
        ("https://app.example.org:444/connected", False),
        ("https://app.example.org@evil.example/connected", False),
        ("https://x@app.example.org/connected", False),
        ("https://evil.example/connected", False),
        ("//app.example.org/connected", False),
        ("https://app.example.org\\@evil.example/connected", False),
        ("https://app.example.org/connected\r\nX: y", False),
        ("https://app.example.org/connected#x", False),
        ("javascript:alert(1)", False),
        ("https://app.example.org:99999/connected", False),
        ("https://[/connected", False),
        ("", False),
    ],
)
def test_where_a_browser_may_be_sent(url, allowed) -> None:
    settings = Settings(
        _env_file=None,
        redirect_urls="https://app.example.org/connected",
        public_url="https://api.example.org",
    )
    assert may_redirect(settings, url) is allowed
