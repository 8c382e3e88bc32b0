"""Gmail accounts are connected: every surface says why not, and `polling connect` signs in."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2
import pytest
from integration_polling_gmail import Gmail
from support.cli import Cli
from support.cloud import PRODUCT
from support.dashboard import form
from support.gmail import FakeGmail
from support.gmail.refusing import REFUSALS, token

from core.settings import Settings

CONNECT = "/integrations/gmail/connect"
NO_PORT = "http://127.0.0.1:9/token"


@pytest.fixture
def gmail(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGmail]:
    with FakeGmail() as fake:
        for name, value in fake.environment.items():
            monkeypatch.setenv(name, value)
        yield fake


@pytest.fixture
def integrations() -> Sequence[Any]:
    return (Gmail,)


@pytest.fixture
def cli(settings: Settings, gmail: FakeGmail, tmp_path: Path) -> Cli:
    database, redis = settings.database_url, settings.redis_url
    assert database is not None
    assert redis is not None
    found = Cli(
        tmp_path,
        forked=True,
        DATABASE_URL=database.get_secret_value(),
        REDIS_URL=redis.get_secret_value(),
        POLLING_SECRET_KEYS=settings.secret_keys[0].get_secret_value(),
    )
    found.env |= {"POLLING_REDIS_NAMESPACE": settings.redis_namespace, "BROWSER": "true"}
    return found


def test_rest_says_why_an_account_is_not_connected(api, gmail: FakeGmail) -> None:
    client = api.admin
    for refusal in REFUSALS:
        body = {"integration_domain": "gmail", "user_id": "ann"}
        body["credentials"] = refusal.refuse(gmail)
        answer = client.post("/v1/user-integrations", json=body)
        assert answer.status_code == (502 if refusal.later else 422), refusal.name
        assert refusal.says in answer.json()["detail"], refusal.name
        assert refusal.remedy in answer.text, refusal.name


def test_without_a_network_rest_and_the_dashboard_say_that_nothing_is_to_correct(
    dashboard, api, gmail: FakeGmail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_TOKEN_URL", NO_PORT)
    body = {"integration_domain": "gmail", "user_id": "ann", "credentials": token(gmail)}
    answer = api.admin.post("/v1/user-integrations", json=body)
    assert answer.status_code == 502
    assert "nothing to correct" in answer.text
    path = CONNECT
    given = {f"credentials.{name}": value for name, value in token(gmail).items()}
    page = dashboard.sign_in().submit(path, path, given)
    assert page.status_code == 502
    assert "nothing to correct" in unescape(page.text)


def test_rest_says_when_a_sign_in_ends(api, gmail: FakeGmail) -> None:
    gmail.tokens.testing = True
    body = {"integration_domain": "gmail", "credentials": token(gmail), "user_id": "ann"}
    answer = api.admin.post("/v1/user-integrations", json=body)
    assert answer.status_code == 201
    assert "publish the OAuth app" in answer.json()["notice"]


def test_the_dashboard_says_when_a_sign_in_ends(dashboard, api, gmail: FakeGmail) -> None:
    gmail.tokens.testing = True
    browser, path = dashboard.sign_in(), CONNECT
    given = {f"credentials.{name}": value for name, value in token(gmail).items()}
    page = browser.get(browser.submit(path, path, given).headers["location"]).text
    assert "Google ends this sign-in on" in page
    assert "publish the OAuth app" in page
    [account] = api.admin.get("/v1/user-integrations").json()["items"]
    assert "publish the OAuth app" in account["notice"]
    gmail.tokens.testing = False
    shown = f"/accounts/{account['id']}"
    again = {f"credentials.{name}": value for name, value in token(gmail).items()}
    assert browser.submit(f"{shown}/credentials", f"{shown}/credentials", again).status_code == 303
    assert "Google ends this sign-in" not in browser.get(shown).text


def test_the_dashboard_says_why_an_account_is_not_connected(dashboard, gmail: FakeGmail) -> None:
    browser = dashboard.sign_in()
    path = CONNECT
    for refusal in REFUSALS:
        given = {
            f"credentials.{name}": json.dumps(value) if isinstance(value, dict) else value
            for name, value in refusal.refuse(gmail).items()
        }
        page = browser.submit(path, path, given)
        assert page.status_code == (502 if refusal.later else 422), refusal.name
        text = unescape(page.text)
        assert refusal.says in text, (refusal.name, text)
        assert refusal.remedy in text, (refusal.name, text)


def test_commands_say_why_an_account_is_not_connected(cli: Cli, gmail: FakeGmail) -> None:
    for refusal in REFUSALS:
        given = json.dumps(refusal.refuse(gmail))
        error = cli.fails("connect", "gmail", "--credentials", "-", given=given)
        sentence, remedy = error.splitlines()
        assert refusal.says in sentence, refusal.name
        assert refusal.remedy in remedy, refusal.name
    cli.env["GOOGLE_TOKEN_URL"] = NO_PORT
    error = cli.fails("connect", "gmail", "--credentials", "-", given='{"refresh_token": "x"}')
    assert "nothing to correct" in error


# In a browser, through the dashboard and REST

SIGN_INS = [
    (
        "invalid_client",
        "does not know this OAuth client",
        "GMAIL_CLIENT_ID and GMAIL_CLIENT_SECRET",
    ),
    ("deleted_client", "client was deleted or disabled", "Create a new client"),
    ("unauthorized_client", "issued to another client", "or sign in again"),
    ("redirect_uri_mismatch", "does not allow a redirect", "client of type Web application"),
    ("admin_policy_enforced", "administrator of the Google Workspace", "App access control"),
    ("org_internal", "internal to another Google Workspace", "account of that Workspace"),
    ("invalid_rapt", "requires people to sign in again", "exempt trusted apps"),
    ("invalid_grant", "already used, or has expired", "Start the sign-in again"),
]
"""Codes of Google's token endpoint, and words of the sentence and of the remedy."""


def state_of(url: str) -> str:
    return dict(parse_qsl(urlsplit(url).query))["state"]


def test_rest_says_why_a_sign_in_failed(product, browser, gmail: FakeGmail) -> None:
    user = product.user("ann")
    for code, says, remedy in SIGN_INS:
        gmail.tokens.refusal = 400, {"error": code}
        begun = user.post("/v1/oauth/gmail/authorize", json={"redirect_to": PRODUCT})
        callback = {"state": state_of(begun.json()["url"]), "code": "x"}
        back = browser.get(f"{product.url}/v1/oauth/callback", params=callback)
        connect_code = dict(parse_qsl(urlsplit(back.headers["location"]).query))["connect_code"]
        answer = user.post("/v1/oauth/redeem", json={"connect_code": connect_code})
        assert answer.status_code == 422, code
        assert says in answer.json()["detail"], code
        assert remedy in answer.json()["next_step"], code


@pytest.mark.parametrize("place", ["token endpoint", "consent screen"])
def test_the_dashboard_says_why_a_sign_in_failed(product, gmail: FakeGmail, place: str) -> None:
    browser = product.sign_in("ann")
    for code, says, remedy in SIGN_INS:
        gmail.tokens.refusal = 400, {"error": code}
        fields = form(browser.get(CONNECT).text, CONNECT).fields
        answer = browser.send("/integrations/gmail/authorize", fields)
        link = unescape(answer.text.split('class="button primary" href="')[1].split('"')[0])
        given = {"code": "x"} if place == "token endpoint" else {"error": code}
        page = browser.get("/v1/oauth/callback", state=state_of(link), **given)
        assert page.status_code == 400, code
        assert says in unescape(page.text), code
        assert remedy in unescape(page.text), code


# In a browser, from the command line


class Person:
    """`polling connect gmail --headless`, and the browser of a person on another machine."""

    def __init__(self, cli: Cli, *words: str) -> None:
        self.process = cli.start(
            "connect", "gmail", *words, stdin=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.lines: list[str] = []

    def address(self) -> str:
        """Wait for the address of the consent screen."""
        assert self.process.stdout is not None
        while not self.lines or "/authorize?" not in self.lines[-1]:
            line = self.process.stdout.readline()
            assert line, self.lines
            self.lines.append(line)
        return self.lines[-1].strip()

    def ends(self, code: int, given: str | None = None) -> str:
        """Wait for the end of the command, and return its output."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(given or "")
            self.process.stdin.close()
            with self.process.stdout as out:
                rest = out.read()
            self.process.wait(60)
        finally:
            self.process.kill()
        assert self.process.returncode == code, (self.lines, rest)
        return " ".join("".join([*self.lines, rest]).split())


def consent(url: str) -> str:
    """Agree at the consent screen, and return the address at which the browser ends."""
    return httpx2.get(url, trust_env=False).headers["location"]


def test_a_person_signs_in_through_the_browser(cli: Cli, gmail: FakeGmail) -> None:
    person = Person(cli, "--name", "mail")
    asked = dict(parse_qsl(urlsplit(person.address()).query))
    redirect = urlsplit(asked["redirect_uri"])
    assert (redirect.scheme, redirect.hostname) == ("http", "127.0.0.1")
    assert asked["code_challenge_method"] == "S256"
    assert (asked["access_type"], asked["prompt"]) == ("offline", "consent")
    landed = httpx2.get(consent(person.address()), trust_env=False)
    assert "Return to the terminal" in landed.text
    assert "Connected: account" in person.ends(0)
    shown = cli.ok("accounts", "show", "mail").out
    assert gmail.mailbox.address in shown


def test_only_the_answer_to_this_sign_in_ends_it(cli: Cli, gmail: FakeGmail) -> None:
    person = Person(cli)
    ending = consent(person.address())
    parts = urlsplit(ending)
    base = f"http://{parts.netloc}/"
    for wrong in (
        {},
        {"code": ["x"]},
        {"code": ["x"], "state": ["y"]},
        {"error": ["access_denied"]},
    ):
        answer = httpx2.get(base + "?" + urlencode(wrong, doseq=True), trust_env=False)
        assert answer.status_code == 404
    assert httpx2.get(base + "favicon.ico", trust_env=False).status_code == 404
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", parts.port or 0), timeout=5).close()
    assert httpx2.get(ending, trust_env=False).status_code == 200
    assert "Connected" in person.ends(0)


def test_a_person_without_a_browser_pastes_the_address(cli: Cli, gmail: FakeGmail) -> None:
    person = Person(cli, "--headless")
    ending = consent(person.address())
    wrong = ending.replace("state=", "state=x")
    said = person.ends(0, f"what is this\n{wrong}\n{ending}\n")
    assert "ssh -L" in said
    assert said.count("this is not the address") == 2
    assert "Connected" in said


def test_a_web_client_is_refused_before_the_browser_opens(cli: Cli, gmail: FakeGmail) -> None:
    gmail.tokens.kind = "web"
    error = cli.fails("connect", "gmail")
    assert "is of type Web application" in error
    assert "Create a client of type Desktop app" in error


def test_an_unknown_client_is_refused_before_the_browser_opens(cli: Cli, gmail: FakeGmail) -> None:
    cli.env["GMAIL_CLIENT_ID"] = "1-unknown.apps.googleusercontent.com"
    assert "does not know this OAuth client" in cli.fails("connect", "gmail")


@pytest.mark.parametrize(
    ("denied", "says"),
    [("access_denied", "denied on the consent screen"), ("admin_policy_enforced", "administrator")],
)
def test_a_refusal_in_the_browser_reaches_the_person(
    cli: Cli, gmail: FakeGmail, denied: str, says: str
) -> None:
    person = Person(cli)
    ending = consent(person.address()).split("?")[0]
    state = dict(parse_qsl(urlsplit(person.lines[-1]).query))["state"]
    page = httpx2.get(f"{ending}?{urlencode({'error': denied, 'state': state})}", trust_env=False)
    assert says in page.text
    assert says in person.ends(1)


def test_a_refused_code_reaches_the_person(cli: Cli, gmail: FakeGmail) -> None:
    person = Person(cli)
    ending = consent(person.address())
    gmail.tokens.refusal = 401, {"error": "invalid_client"}
    httpx2.get(ending, trust_env=False)
    assert "does not know this OAuth client" in person.ends(1)


def test_without_a_client_a_person_is_told_what_to_set(cli: Cli, gmail: FakeGmail) -> None:
    cli.env["GMAIL_CLIENT_ID"] = ""
    done = cli("connect", "gmail")
    assert done.code == 1
    assert "GMAIL_CLIENT_ID" in done.err
    assert "GMAIL_CLIENT_ID" in cli.fails("connect", "gmail", "--headless")


def test_the_port_can_be_chosen_for_a_tunnel(cli: Cli, gmail: FakeGmail) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    person = Person(cli, "--headless", "--port", str(port))
    ending = consent(person.address())
    assert urlsplit(ending).port == port
    httpx2.get(ending, trust_env=False)
    assert f"ssh -L {port}:127.0.0.1:{port}" in person.ends(0)
