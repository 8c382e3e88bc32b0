"""Signing in with an identity provider, which is another site for the browser."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator

import pytest
from support.browsing import House, Window
from support.deployment import make_deployment
from support.fleet import Fleet
from support.identity_provider import IdentityProvider, providing
from support.ports import free_port
from support.servers import Servers
from support.waiting import until

from core.service.sign_on import flow


@pytest.fixture(scope="module")
def identity_provider() -> Iterator[IdentityProvider]:
    with providing() as provider:
        # For a browser, `localhost` and `127.0.0.1` are two sites.
        provider.url = provider.url.replace("127.0.0.1", "localhost")
        provider.asks = True
        yield provider


@pytest.fixture(scope="module")
def house(
    server_pair: Servers,
    tmp_path_factory: pytest.TempPathFactory,
    identity_provider: IdentityProvider,
) -> Iterator[House]:
    """Start an installation whose people sign in with the provider."""
    home = tmp_path_factory.mktemp("sign-on")
    servers = server_pair.start()
    deployment = make_deployment(servers.postgres.url, servers.valkey.url, home, "sign-on")
    url = f"http://127.0.0.1:{(port := free_port())}"
    identity_provider.redirect_uri = url + flow.CALLBACK
    settings = identity_provider.settings(
        public_url=url, oidc_roles=json.dumps({"ops": "operator", "watchers": "viewer"})
    )
    fleet = Fleet(deployment, home)
    command = ["-c", "from core.cli import main; main()", "serve", "--port", str(port)]
    fleet.start(
        [sys.executable, *command],
        **{f"POLLING_{name.upper()}": value for name, value in settings.items()},
    )
    try:
        until(lambda: re.search("The dashboard is at", fleet.says()), "the dashboard starts", 60)
        yield House(deployment, fleet, url)
    finally:
        fleet.end()
        deployment.queues.close()


@pytest.fixture
def person(browser, house, identity_provider) -> Iterator[Window]:
    window = Window.open(browser, house, sites=(identity_provider.url,))
    identity_provider.person = {
        "sub": "ann-1", "groups": ["ops"], "email": "ann@example.org", "email_verified": True,
    }  # fmt: skip
    identity_provider.ended.clear()
    yield window
    window.page.context.close()


def sign_in(window: Window) -> None:
    window.page.get_by_role("link", name="Sign in with localhost").click()
    window.sees("Sign in at the provider")
    window.page.get_by_role("link", name="Continue").click()


def test_a_person_signs_in_and_out(house, person, identity_provider) -> None:
    person.go("/runs")
    sign_in(person)
    person.sees(person.heading("Runs"))
    assert person.page.url == f"{house.url}/runs"
    person.sees(person.page.get_by_role("link", name="Access (ann@example.org)"))
    (cookie,) = person.page.context.cookies()
    assert (cookie["name"], cookie["sameSite"]) == ("polling_session", "Lax")
    person.press("Sign out")
    person.sees("Signed out at the provider")
    assert identity_provider.ended == [
        {"client_id": "polling", "post_logout_redirect_uri": f"{house.url}/sign-in"}
    ]
    person.page.get_by_role("link", name="Back").click()
    person.sees(person.page.get_by_label("Token"))
    assert person.page.context.cookies() == []
    person.go("/runs")
    assert "/sign-in" in person.page.url
    person.is_quiet()


def test_a_viewer_has_no_button_that_acts(house, person, identity_provider) -> None:
    identity_provider.person["groups"] = ["watchers"]
    person.go("/accounts")
    sign_in(person)
    person.sees(person.heading("Accounts"))
    for path in ("/", "/accounts", "/runs", "/integrations", "/users", "/access"):
        person.go(path)
        buttons = set(person.page.get_by_role("button").all_inner_texts())
        assert buttons <= {"Sign out", "Sign out everywhere", "Apply", "Show"}, (path, buttons)
    assert person.page.get_by_role("link", name="Content", exact=True).count() == 0
    person.is_quiet()
    person.go("/content", 403)
    person.sees("lacks a scope")


def test_a_person_without_a_role_is_told_so(person, identity_provider) -> None:
    identity_provider.person["groups"] = []
    person.go("/sign-in")
    sign_in(person)
    person.sees("has no role on this server")
    assert person.page.context.cookies() == []


def test_the_back_button_does_not_sign_in_again(person) -> None:
    person.go("/sign-in")
    sign_in(person)
    person.sees(person.page.get_by_role("link", name="Access (ann@example.org)"))
    person.press("Sign out")
    person.sees("Signed out at the provider")
    person.page.go_back()
    person.page.go_back()
    assert not [
        cookie
        for cookie in person.page.context.cookies()
        if cookie["name"].endswith("polling_session")
    ]
