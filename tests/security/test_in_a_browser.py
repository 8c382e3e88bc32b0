"""Attacks that depend on a browser: its cookies, its origins and its redirects."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from support.browsing import MISSING, executable, launch
from support.cloud import cloud_of
from support.dashboard import Dashboard
from support.rest import serving
from support.tls import make_certificate, planting

from core.dashboard.app import Site
from core.service import sessions
from core.settings import Settings
from core.web.session_cookie import HOST_NAME, NAME

DOMAIN = "example.test"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if executable() is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        browser = launch(playwright, f"--host-resolver-rules=MAP *.{DOMAIN} 127.0.0.1")
        yield browser
        browser.close()


@pytest.fixture
def integrations(provider):
    # For a browser, `localhost` and `127.0.0.1` are two sites.
    provider.url = provider.url.replace("127.0.0.1", "localhost")
    return (cloud_of(provider),)


@pytest.fixture
def window(chromium):
    """Return `window()`, which opens a window of another person."""
    contexts = []

    def open_() -> Page:
        contexts.append(chromium.new_context(ignore_https_errors=True))
        return contexts[-1].new_page()

    yield open_
    for context in contexts:
        context.close()


def sign_in(page: Page, url: str, token: str) -> None:
    page.goto(f"{url}/sign-in")
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda address: "/sign-in" not in address)


def owners(conn):
    return conn.execute("SELECT user_id FROM user_integration").fetchall()


def link_of(page: Page, product: Dashboard) -> str:
    """Start a connection in the dashboard; return the link to the provider."""
    page.goto(f"{product.url}/integrations/cloud/connect")
    page.get_by_role("button", name="Connect in the browser").click()
    link = page.get_by_role("link", name="Continue to Cloud").get_attribute("href")
    assert link is not None
    return link


def test_a_person_connects_an_account_through_another_site(product, window, conn) -> None:
    """The browser sends the cookie of the session when it returns from the provider."""
    ann = window()
    sign_in(ann, product.url, product.token("ann"))
    link_of(ann, product)
    ann.get_by_role("link", name="Continue to Cloud").click()
    expect(ann.get_by_text("Account connected.")).to_be_visible()
    assert owners(conn) == [("ann",)]


@pytest.mark.parametrize("signed_in", [False, True], ids=["stranger", "signed in"])
def test_a_victim_who_follows_a_link_connects_nothing(product, window, conn, signed_in) -> None:
    mallory, victor = window(), window()
    sign_in(mallory, product.url, product.token("mallory"))
    if signed_in:
        sign_in(victor, product.url, product.token("victor"))
    answer = victor.goto(link_of(mallory, product))
    assert answer is not None
    assert answer.status == 403
    expect(victor.get_by_text("started in another browser")).to_be_visible()
    assert owners(conn) == []


@pytest.mark.parametrize(
    ("button", "shown", "stored"),
    [
        ("Connect to mallory", "Account connected", [("mallory",)]),
        ("Cancel", "Nothing was stored", []),
    ],
)
def test_a_person_decides_on_a_page(product, window, conn, button, shown, stored) -> None:
    begun = product.user("mallory").post("/v1/oauth/cloud/authorize", json={})
    victor = window()
    victor.goto(begun.json()["url"])
    expect(victor.get_by_role("heading", name="Confirm the connection")).to_be_visible()
    assert owners(conn) == []
    victor.get_by_role("button", name=button).click()
    expect(victor.get_by_text(shown)).to_be_visible()
    assert owners(conn) == stored


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Serve every host: these tests are about cookies."""
    return settings.model_copy(update={"allowed_hosts": ("*",)})


@pytest.fixture
def certificate(tmp_path):
    return make_certificate(tmp_path, f"*.{DOMAIN}")


@pytest.fixture
def secure(backend, certificate, monkeypatch) -> Iterator[Dashboard]:
    """Serve a dashboard over HTTPS, with a name of its own."""
    with serving(backend, Site, ssl_certfile=str(certificate)) as url:
        public = f"https://polling.{DOMAIN}:{url.rpartition(':')[2]}"
        monkeypatch.setattr(backend.settings, "public_url", public)
        yield Dashboard(backend, public)


def test_a_sibling_subdomain_cannot_replace_the_session(secure, certificate, window, conn) -> None:
    mallory = sessions.open_session(conn, secure.token("mallory"))
    cookies = [
        f"{name}={mallory}; Path=/; Secure{domain}"
        for name in (NAME, HOST_NAME)
        for domain in ("", f"; Domain={DOMAIN}")
    ]
    with planting(certificate, cookies) as port:
        sibling, victor = f"https://evil.{DOMAIN}:{port}/", window()
        victor.goto(sibling)
        planted = {cookie["name"] for cookie in victor.context.cookies(secure.url)}
        assert planted == {NAME}, "a sibling can set the plain name"
        victor.goto(f"{secure.url}/accounts")
        expect(victor.get_by_label("Token")).to_be_visible()
        sign_in(victor, secure.url, secure.token("victor"))
        victor.goto(sibling)
        victor.goto(f"{secure.url}/access")
        expect(victor.get_by_role("main").get_by_text("victor")).to_be_visible()
        (cookie,) = [c for c in victor.context.cookies(secure.url) if c["name"] == HOST_NAME]
        assert (cookie["secure"], cookie["httpOnly"], cookie["sameSite"]) == (True, True, "Lax")
        victor.get_by_role("button", name="Sign out everywhere").click()
        expect(victor.get_by_label("Token")).to_be_visible()
    left = conn.execute("SELECT t.user_id FROM session JOIN api_token t ON t.id = token_id")
    assert left.fetchall() == [("mallory",)]


def test_a_loopback_address_works_where_the_public_address_is_https(
    dashboard, window, monkeypatch
) -> None:
    """A browser treats loopback as secure, and accepts the cookie with the prefix there."""
    monkeypatch.setattr(dashboard.backend.settings, "public_url", f"https://polling.{DOMAIN}")
    page = window()
    sign_in(page, dashboard.url, dashboard.token("ann"))
    expect(page.get_by_role("heading", name="Accounts")).to_be_visible()
    assert [cookie["name"] for cookie in page.context.cookies()] == [HOST_NAME]
