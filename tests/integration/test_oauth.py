"""Connecting in a browser, against a local provider over real HTTP."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlencode

import pytest
from pydantic_settings import BaseSettings
from support.cloud import CLIENT, PRODUCT, SECRET, cloud_of, confirm, consent, query

from core import Manifest, OAuth
from core.ledger import dispatching
from core.plugins import get_registry
from core.service.accounts.oauth_client import oauth_of
from core.service.accounts.redirects import may_redirect
from core.settings import Settings


@pytest.fixture
def integrations(provider):
    return (cloud_of(provider),)


def test_a_person_connects_an_account(product, browser, provider, desk) -> None:
    user = product.user("u")
    begun = user.post(
        "/v1/oauth/cloud/authorize", json={"name": "mine", "redirect_to": f"{PRODUCT}?a=1"}
    )
    asked = query(begun.json()["url"])
    assert (asked["client_id"], asked["scope"], asked["access_type"]) == (
        CLIENT,
        "read list",
        "offline",
    )
    assert SECRET not in begun.text
    back = browser.get(browser.get(begun.json()["url"]).headers["location"])
    assert (back.status_code, back.headers["referrer-policy"]) == (303, "no-referrer")
    there = query(back.headers["location"])
    assert back.headers["location"].startswith(f"{PRODUCT}?a=1&connect_code=")
    assert user.get("/v1/user-integrations").json()["items"] == []
    answer = user.post("/v1/oauth/redeem", json={"connect_code": there["connect_code"]})
    assert answer.status_code == 201, answer.text
    (account,) = user.get("/v1/user-integrations").json()["items"]
    assert answer.json()["id"] == account["id"]
    assert (account["name"], account["identity"], account["sync_status"]) == (
        "mine",
        "ann",
        "active",
    )
    (token,) = provider.tokens
    assert token not in user.get("/v1/user-integrations").text
    assert token not in desk.value("SELECT credentials FROM user_integration")


def test_a_sign_in_state_can_be_used_once(product, browser, desk) -> None:
    back = consent(product.user("u"), browser)
    assert "Account connected" in confirm(browser, back).text
    again = browser.get(back)
    assert again.status_code == 422
    assert "invalid, already used, or expired" in again.text
    assert desk.value("SELECT count(*) FROM oauth_flow") == 0


def test_an_expired_sign_in_state_is_refused(product, browser, desk) -> None:
    back = consent(product.user("u"), browser)
    desk.conn.execute("UPDATE oauth_flow SET expires_at = now() - interval '1 second'")
    assert browser.get(back).status_code == 422
    assert desk.value("SELECT count(*) FROM user_integration") == 0


def test_a_forged_sign_in_state_is_refused(product, browser) -> None:
    assert browser.get(f"{product.url}/v1/oauth/callback?state=made-up&code=x").status_code == 422


def test_a_stolen_code_is_refused_in_another_flow(product, browser, desk) -> None:
    """With PKCE, the code belongs to the verifier of the flow for which it was issued."""
    first, second = (consent(product.user(name), browser) for name in ("u", "attacker"))
    code, state = query(first)["code"], query(second)["state"]
    answer = browser.get(
        f"{product.url}/v1/oauth/callback?{urlencode({'state': state, 'code': code})}"
    )
    assert (answer.status_code, code in answer.text) == (400, False)
    assert desk.value("SELECT count(*) FROM user_integration") == 0


def test_the_database_stores_no_state_in_plain_text(product, browser, desk) -> None:
    back = consent(product.user("u"), browser)
    rows = str(desk.rows("SELECT oauth_flow::text, encode(state_digest, 'escape') FROM oauth_flow"))
    assert query(back)["state"] not in rows


def test_a_misplaced_secret_is_not_stored_in_plain_text(product, browser, desk) -> None:
    user, misplaced = product.user("u"), {"password": SECRET}
    confirm(browser, consent(user, browser))
    account = str(desk.value("SELECT id FROM user_integration"))
    for more in ({}, {"user_integration_id": account}):
        user.post("/v1/oauth/cloud/authorize", json={"config": misplaced} | more)
    assert SECRET not in str(desk.rows("SELECT oauth_flow::text FROM oauth_flow"))


def test_the_operator_decides_where_the_code_is_exchanged(
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
    assert "Account connected" in confirm(browser, consent(product.user("u"), browser)).text
    assert desk.value("SELECT count(*) FROM user_integration") == 1


def test_an_endpoint_that_names_no_setting_makes_the_manifest_invalid(provider) -> None:
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
def test_settings_change_the_token_endpoints_of_gmail_and_slack(
    domain, name, given, token_url, monkeypatch
) -> None:
    monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv(name, given)
    assert oauth_of(get_registry().get(domain)).token_url == token_url


def test_a_person_who_refuses_is_redirected_with_the_reason(product, browser) -> None:
    back = consent(product.user("u"), browser, redirect_to="https://app.example.org/connected")
    state = query(back)["state"]
    refused = browser.get(f"{product.url}/v1/oauth/callback?state={state}&error=access_denied")
    assert refused.headers["location"] == "https://app.example.org/connected?error=access_denied"


def test_an_error_of_the_provider_is_not_a_server_error(product, browser, provider, caplog) -> None:
    provider.broken = True
    answer = browser.get(consent(product.user("u"), browser))
    assert (answer.status_code, SECRET in answer.text + caplog.text) == (400, False)


def test_an_answer_that_a_plugin_cannot_read_is_not_a_server_error(
    product, browser, integrations, monkeypatch, caplog
) -> None:
    def unread(cls, token):
        raise KeyError(token["access_token"])

    monkeypatch.setattr(integrations[0], "credentials_from_oauth", classmethod(unread))
    answer = browser.get(consent(product.user("u"), browser))
    assert (answer.status_code, "The provider is unavailable" in answer.text) == (400, True)
    assert "KeyError" not in caplog.text


def test_a_plugin_can_connect_to_a_provider_without_pkce(
    product, browser, provider, integrations, monkeypatch
) -> None:
    """The API then connects without PKCE, with the client secret alone."""
    provider.takes_pkce = False
    (cloud,) = integrations
    plain = replace(cloud.manifest, oauth=replace(cloud.manifest.oauth, pkce=False))
    assert browser.get(consent(product.user("u"), browser)).status_code == 400
    monkeypatch.setattr(cloud, "manifest", plain)
    assert browser.get(consent(product.user("u"), browser)).status_code == 200


def test_an_interrupted_run_resumes_after_reconnecting(product, browser, desk, provider) -> None:
    user = product.user("u")
    confirm(browser, consent(user, browser))
    account = desk.value("SELECT id FROM user_integration")
    run = desk.run(account)
    desk.conn.execute(
        "UPDATE user_integration SET sync_status = 'error', status_reason = 'credentials'"
    )
    assert dispatching.look(desk.conn, "cloud", 10).accounts == []
    provider.person = "somebody else"
    other = confirm(browser, consent(user, browser, user_integration_id=str(account)))
    assert (other.status_code, "belong to a different account" in other.text) == (400, True)
    provider.person = "ann"
    again = confirm(browser, consent(user, browser, user_integration_id=str(account)))
    assert again.status_code == 200
    assert desk.rows("SELECT sync_status, credentials_version FROM user_integration") == [
        ("active", 2)
    ]
    (waiting,) = dispatching.look(desk.conn, "cloud", 10).accounts
    assert waiting.account == str(account)
    assert [dispatch.run_id for dispatch in desk.claim(domain="cloud")] == [str(run)]


def test_a_user_connects_only_their_own_accounts(product, browser, desk) -> None:
    confirm(browser, consent(product.user("u"), browser))
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
def test_a_browser_is_redirected_to_allowed_urls_only(url, allowed) -> None:
    settings = Settings(
        _env_file=None,
        redirect_urls="https://app.example.org/connected",
        public_url="https://api.example.org",
    )
    assert may_redirect(settings, url) is allowed


def test_a_missing_setting_is_a_conflict_without_names_of_environment_variables(
    product, monkeypatch
) -> None:
    user = product.user("u")
    monkeypatch.delenv("CLOUD_CLIENT_ID")
    answers = [user.post("/v1/oauth/cloud/authorize", json={})]
    monkeypatch.setattr(product.backend.settings, "public_url", None)
    answers.append(user.post("/v1/oauth/cloud/authorize", json={}))
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [
        (409, "setting-missing"),
        (409, "public-url-missing"),
    ]
    for answer in answers:
        assert "POLLING_" not in answer.text
        assert "CLOUD_" not in answer.text
