"""Accounts are connected with forms, and in the browser."""

from __future__ import annotations

from datetime import date
from html import unescape
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import BaseModel, Field, SecretStr, field_validator
from support.dashboard import form
from support.rest import SECRET

from core import AccountIdentity, BaseIntegration, Context, Manifest, OAuth, TaskResult
from core.plugins import Quarantined

XSS = '"><script>alert(1)</script>'


class Inner(BaseModel):
    private_key: SecretStr


class Config(BaseModel):
    name: str = Field("me", max_length=80, description=f"Whose account {XSS}")
    pages: int = Field(3, ge=1, le=9)
    mood: Literal["good", "bad"] = "good"
    kinds: list[Literal["a", "b", "c"]] = ["a"]
    labels: list[str] = []
    since: date | None = None
    rates: dict[str, float] = Field(default_factory=dict)
    is_on: bool = True

    @field_validator("labels")
    @classmethod
    def _no_stars(cls, value: list[str]) -> list[str]:
        if "*" in value:
            raise ValueError("a label is not a pattern")
        return value


class Keys(BaseModel):
    password: Annotated[SecretStr, Field(description="Of the service")]
    service: Inner | None = None

    @field_validator("password")
    @classmethod
    def _says_too_much(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value().startswith("bad"):
            raise ValueError(f"{value.get_secret_value()} is not a password")
        return value


class Various(BaseIntegration[Config, Keys]):
    manifest = Manifest("various", "Various", docs="javascript:alert(1)")

    def check(self) -> AccountIdentity:
        return AccountIdentity(self.config.name, self.config.name)

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult()


class Cloud(BaseIntegration[Config, Keys]):
    manifest = Manifest(
        "cloud",
        "Cloud",
        docs="https://cloud.example/docs",
        oauth=OAuth(
            "https://cloud.example/authorize",
            "https://cloud.example/token",
            ["read"],
            "CLOUD_ID",
            "CLOUD_SECRET",
        ),
    )

    def check(self) -> AccountIdentity:
        return AccountIdentity("me", "me")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult()


@pytest.fixture
def integrations():
    return (Various, Cloud)


PLACE = "/integrations/various/connect"


def test_an_account_is_connected_by_its_form(dashboard, desk) -> None:
    browser = dashboard.sign_in()
    fields = {
        "config.name": "someone", "config.pages": "5", "config.mood": "bad",
        "config.kinds": ["a", "c"], "config.labels": "one\r\n\r\ntwo ",
        "config.since": "2026-01-31", "config.rates": '{"x": 0.5}', "config.is_on": None,
        "credentials.password": SECRET, "name": "Mine", "interval": "7", "user": "ann",
    }  # fmt: skip
    answer = browser.submit(PLACE, PLACE, fields)
    assert answer.status_code == 303, answer.text
    ((id, user, name, interval, config, limited),) = desk.rows("""
        SELECT id, user_id, name, poll_interval_minutes, config, public_hosts_only
        FROM user_integration
        """)
    assert answer.headers["location"] == f"/accounts/{id}?flash=connected"
    assert (user, name, interval, limited) == ("ann", "Mine", 7, False)
    assert config == {
        "name": "someone", "pages": 5, "mood": "bad", "kinds": ["a", "c"], "labels": ["one", "two"],
        "since": "2026-01-31", "rates": {"x": 0.5}, "is_on": False,
    }  # fmt: skip
    assert "Account connected." in browser.get(answer.headers["location"]).text


def test_an_unchanged_form_has_the_defaults(dashboard, desk) -> None:
    answer = dashboard.sign_in("ann").submit(PLACE, PLACE, {"credentials.password": SECRET})
    assert answer.status_code == 303
    config = desk.value("SELECT config FROM user_integration")
    assert config == Config().model_dump(mode="json")
    ((user, name, interval, limited),) = desk.rows(
        "SELECT user_id, name, poll_interval_minutes, public_hosts_only FROM user_integration"
    )
    assert (user, name, interval, limited) == ("ann", "me", 15, True)
    again = dashboard.sign_in("ann").submit(PLACE, PLACE, {"credentials.password": SECRET})
    assert again.headers["location"].endswith("?flash=connected-again")


def test_a_user_connects_accounts_for_themselves_only(dashboard, desk) -> None:
    browser = dashboard.sign_in("ann")
    assert "user" not in form(browser.get(PLACE).text, PLACE).fields
    assert (
        browser.submit(PLACE, PLACE, {"credentials.password": SECRET, "user": "bob"}).status_code
        == 303
    )
    assert desk.rows("SELECT user_id FROM user_integration") == [("ann",)]


def test_errors_are_shown_beside_their_fields_and_the_input_is_kept(dashboard, desk) -> None:
    browser = dashboard.sign_in()
    wrong = {
        "config.pages": "10", "config.mood": "worse", "config.kinds": ["b"], "config.labels": "*",
        "config.since": "yesterday", "config.rates": "{", "config.name": XSS,
        "credentials.password": "", "name": "Kept", "interval": "7",
    }  # fmt: skip
    answer = browser.submit(PLACE, PLACE, wrong)
    assert answer.status_code == 422
    assert "<script>alert" not in answer.text
    shown = form(answer.text, PLACE)
    assert {name for name, one in shown.attributes.items() if one.get("aria-invalid")} == {
        "config.rates", "credentials.password"
    }  # fmt: skip
    answer = browser.submit(PLACE, PLACE, wrong | {"config.rates": "{}"})
    shown = form(answer.text, PLACE)
    assert {name for name, one in shown.attributes.items() if one.get("aria-invalid")} == {
        "config.pages", "config.mood", "config.labels", "config.since", "credentials.password"
    }  # fmt: skip
    for name in (
        "config.pages",
        "config.labels",
        "config.rates",
        "config.name",
        "config.kinds",
        "name",
        "interval",
    ):
        assert shown.fields[name] == (wrong | {"config.rates": "{}", "config.kinds": "b"})[name], (
            name
        )
    assert "a label is not a pattern" in answer.text
    described = shown.attributes["config.pages"]["aria-describedby"].split()
    assert all(f'id="{one}"' in answer.text for one in described)
    assert desk.value("SELECT count(*) FROM user_integration") == 0


@pytest.mark.parametrize("interval", ["0", "-1", "x", "1.5", "525601", "9" * 5000])
def test_an_invalid_interval_is_refused(dashboard, interval) -> None:
    answer = dashboard.sign_in().submit(
        PLACE, PLACE, {"credentials.password": SECRET, "interval": interval}
    )
    assert (answer.status_code, "enter an integer from 1 to 525,600" in answer.text) == (422, True)
    assert form(answer.text, PLACE).attributes["interval"]["aria-invalid"] == "true"


@pytest.mark.parametrize("password", ["bad-" + SECRET, "wrong-" + SECRET, "down-" + SECRET])
def test_no_page_repeats_a_secret(dashboard, password, caplog) -> None:
    browser = dashboard.sign_in()
    for place, more in [
        ("/integrations/locked/connect", {}),
        (PLACE, {"config.pages": "0", "credentials.service": f'{{"private_key": "{password}"}}'}),
        (PLACE, {"config.pages": "0", "credentials.service": f'{{"private_key": {password}'}),
    ]:
        answer = browser.submit(place, place, {"credentials.password": password} | more)
        assert answer.status_code in (422, 502), answer.text
        assert SECRET not in answer.text
        assert form(answer.text, place).fields["credentials.password"] == ""
    assert SECRET not in caplog.text


def test_the_answer_of_the_provider_is_shown_above_the_form(dashboard) -> None:
    place = "/integrations/locked/connect"
    fields = {"credentials.password": "wrong", "config.mood": "kept"}
    answer = dashboard.sign_in().submit(place, place, fields)
    assert answer.status_code == 422
    assert "Locked rejects the credentials" in answer.text
    assert form(answer.text, place).fields["config.mood"] == "kept"


def test_the_page_lists_the_integrations_to_connect(dashboard, monkeypatch) -> None:
    monkeypatch.setattr(
        dashboard.backend.registry,
        "quarantined",
        [Quarantined("torn", "torn-plugin", f"ImportError: {XSS}")],
    )
    page = dashboard.sign_in().get("/integrations").text
    assert all(
        f"/integrations/{domain}/connect" in page
        for domain in ("various", "cloud", "locked", "caller")
    )
    assert 'href="https://cloud.example/docs" rel="noreferrer noopener"' in page
    assert "javascript:" not in page + dashboard.sign_in().get(PLACE).text
    assert "ImportError" in page
    assert "<script>alert" not in page
    assert "torn" not in dashboard.sign_in("ann").get("/integrations").text
    assert dashboard.sign_in().get("/integrations/torn/connect").status_code == 404


# In the browser
# --------------------------------------------------------------------------------------------------

CLOUD = "/integrations/cloud/connect"


@pytest.fixture
def public(dashboard, monkeypatch):
    """Return a dashboard whose operator has an OAuth client and a public address."""
    monkeypatch.setenv("CLOUD_ID", "client")
    monkeypatch.setattr(dashboard.backend.settings, "public_url", dashboard.url)
    return dashboard


def test_without_a_client_there_is_no_sign_in_at_the_provider(dashboard) -> None:
    page = dashboard.sign_in().get(CLOUD).text
    assert "Connect in the browser" not in page
    assert "<code>POLLING_PUBLIC_URL</code>, <code>CLOUD_ID</code>" in page
    assert "CLOUD_ID" not in dashboard.sign_in("ann").get(CLOUD).text
    answer = dashboard.sign_in().post("/integrations/cloud/authorize")
    assert answer.status_code == 409
    assert "does not know its public address" in answer.text


def test_connecting_in_the_browser_leads_through_a_link_to_the_provider(public, desk) -> None:
    browser = public.sign_in("ann")
    fields = form(browser.get(CLOUD).text, CLOUD).fields | {
        "config.pages": "4",
        "name": "Mine",
        "interval": "9",
    }
    answer = browser.send("/integrations/cloud/authorize", fields)
    assert answer.status_code == 200
    link = unescape(answer.text.split('class="button primary" href="')[1].split('"')[0])
    asked = {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}
    assert link.startswith("https://cloud.example/authorize?")
    assert asked["redirect_uri"] == f"{public.url}/v1/oauth/callback"
    ((user, name, interval, config, back, limited),) = desk.rows("""
        SELECT user_id, name, poll_interval_minutes, config, redirect_to, public_hosts_only
        FROM oauth_flow
        """)
    assert (user, name, interval, config["pages"], limited) == ("ann", "Mine", 9, 4, True)
    assert back == f"{public.url}/integrations/connected?domain=cloud"
    returned = browser.get("/v1/oauth/callback", state=asked["state"], error="access_denied")
    assert returned.headers["location"] == f"{back}&error=access_denied"
    page = browser.get(returned.headers["location"].removeprefix(public.url)).text
    assert "Access was denied, by you or by the provider." in page
    assert f'href="{CLOUD}"' in page


def test_an_invalid_config_is_not_sent_to_the_provider(public, desk) -> None:
    answer = public.sign_in().post(
        "/integrations/cloud/authorize", {"config.pages": "0", "credentials.password": SECRET}
    )
    assert answer.status_code == 422
    assert SECRET not in answer.text
    assert desk.value("SELECT count(*) FROM oauth_flow") == 0


def test_an_account_is_reconnected_in_the_browser(public, desk) -> None:
    account = desk.account("me", domain="cloud", user_id="ann")
    browser, place = public.sign_in("ann"), f"/accounts/{account}"
    answer = browser.submit(f"{place}/credentials", f"{place}/authorize")
    assert "Continue to Cloud" in answer.text
    assert desk.value("SELECT user_integration_id FROM oauth_flow") == account
    assert (
        desk.value("SELECT redirect_to FROM oauth_flow")
        == f"{public.url}/integrations/connected?account={account}"
    )
    back = browser.get("/integrations/connected", account=account, user_integration_id=account)
    assert back.headers["location"] == f"{place}?flash=reconnected"
    failed = browser.get("/integrations/connected", account=account, error="refused").text
    assert f'href="{place}/credentials"' in failed


def test_the_return_page_shows_nothing_about_accounts_of_others(public, desk) -> None:
    account = desk.account("secret-name", user_id="owner")
    answer = public.sign_in("ann").get("/integrations/connected", user_integration_id=account)
    assert (answer.status_code, "secret-name" in answer.text) == (404, False)
    odd = public.sign_in("ann").get("/integrations/connected", error=XSS, domain=XSS)
    assert "<script>alert" not in odd.text
