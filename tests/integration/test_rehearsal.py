"""A person sees the description of an account before the engine stores it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr
from support.cloud import agree, cloud_of, confirm, consent
from support.dashboard import form

from core import (
    AccountIdentity,
    BaseIntegration,
    Bound,
    ConfigurationError,
    Context,
    Manifest,
    Rate,
    Rehearsal,
    RehearsalSection,
    Sample,
    TaskResult,
    TransientError,
)
from core.ledger import limit_overrides
from core.service.accounts import deadline
from core.service.accounts.check import bound_sentence
from core.settings import LimitOverride

SECRET = "hunter2-is-no-password"
HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e\nnext"
PLACE = "/integrations/shown/connect"
CHECK = "/v1/integrations/shown/check"
CONNECT = "/v1/user-integrations"

release = threading.Event()


class Config(BaseModel):
    does: str = "speak"


class Keys(BaseModel):
    password: SecretStr = SecretStr(SECRET)


class Shown(BaseIntegration[Config, Keys]):
    """An integration whose rehearsal is hostile, refuses, fails, or never ends."""

    manifest = Manifest("shown", "Shown", limits=[Rate("calls", 100, 60.0)])
    calls: list[str] = []

    def initialize(self) -> None:
        self.opened = True

    def check(self) -> AccountIdentity:
        self.calls.append("check")
        return AccountIdentity("me", "Me")

    def rehearse(self) -> Rehearsal:
        assert self.opened
        self.calls.append("rehearse")
        password = self.credentials.password.get_secret_value()
        sections: Any = [
            RehearsalSection(
                HOSTILE,
                {"Items": 1200, "Password": f"it is {password}"} | {f"f{n}": n for n in range(99)},
                [Sample(HOSTILE, n) for n in range(150)],
                7,
            )
        ] * 30
        match self.config.does:
            case "nothing":
                return Rehearsal()
            case "bound":
                return Rehearsal(bound=Bound(3_000, f"items{HOSTILE}", {"calls": 2}, True))
            case "refuse":
                return Rehearsal(sections, refusal=f"the folder {password} is empty.")
            case "configuration":
                raise ConfigurationError(f"no folder {password}", remedy="Choose another")
            case "transient":
                raise TransientError(f"no answer to {password}")
            case "crash":
                raise RuntimeError(f"a bug with {password}")
            case "mistype":
                return {"sections": []}  # type: ignore[return-value]
            case "hang":
                release.wait(60)
        return Rehearsal(sections, [f"{HOSTILE} {password}"] * 30)

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult()


@pytest.fixture
def integrations(provider):
    class Cloud(cloud_of(provider)):  # type: ignore[misc]
        def rehearse(self) -> Rehearsal:
            return Rehearsal([RehearsalSection("Mailbox", {"Owner": HOSTILE})])

    return (Shown, Cloud)


@pytest.fixture(autouse=True)
def calls():
    Shown.calls.clear()
    return Shown.calls


def accounts(desk) -> int:
    return desk.value("SELECT count(*) FROM user_integration")


def test_a_person_learns_how_long_the_first_copy_takes(api, desk) -> None:
    """The pace is that of the limits, with the operator's figures."""
    body = {"config": {"does": "bound"}}
    bound = api.user("ann").post(CHECK, json=body).json()["rehearsal"]["bound"]
    assert (bound["items"], bound["background"]) == (3_000, True)
    assert bound["noun"] == "items<script>alert(1)</script> [2J next"
    assert 45 < bound["per_minute"] < 50
    limit_overrides.change(desk.conn, "shown", "calls", LimitOverride(units=200))
    connected = api.user("ann").post(CONNECT, json=body | {"integration_domain": "shown"})
    assert 90 < connected.json()["rehearsal"]["bound"]["per_minute"] < 100


def test_the_bound_is_one_sentence() -> None:
    bound = Bound(20_000, "messages", {}, background=True, per_minute=285.0)
    assert bound_sentence(bound) == (
        "About 20,000 messages at 285 a minute: 1 h 10 min; new messages arrive in the meantime."
    )
    assert bound_sentence(Bound(50, "greetings")) == "About 50 greetings."


def test_a_check_shows_bounded_plain_lines_and_stores_nothing(api, desk, calls) -> None:
    answer = api.user("ann").post(CHECK, json={})
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert said["identity"] == {"id": "me", "name": "Me"}
    assert (len(said["rehearsal"]["sections"]), len(said["rehearsal"]["warnings"])) == (20, 20)
    section = said["rehearsal"]["sections"][0]
    assert (len(section["facts"]), len(section["sample"]), section["omitted"]) == (50, 100, 57)
    assert section["facts"]["Items"] == 1200
    assert section["facts"]["Password"] == "it is ***"
    assert max(line["level"] for line in section["sample"]) == 10
    assert section["title"] == "<script>alert(1)</script> [2J next"
    assert SECRET not in answer.text
    assert (calls, accounts(desk)) == (["check", "rehearse"], 0)


def test_the_answer_that_connects_an_account_has_the_rehearsal(api, desk) -> None:
    user, new = api.user("ann"), {"integration_domain": "shown"}
    answer = user.post(CONNECT, json=new)
    assert answer.status_code == 201, answer.text
    assert answer.json()["rehearsal"]["sections"][0]["facts"]["Items"] == 1200
    assert SECRET not in answer.text
    again = user.post(CONNECT, json=new | {"config": {"does": "nothing"}})
    assert (again.status_code, again.json()["rehearsal"]) == (200, None)
    assert user.get(f"{CONNECT}/{again.json()['id']}").json()["rehearsal"] is None


@pytest.mark.parametrize(
    ("does", "status", "code"),
    [
        ("refuse", 422, "rehearsal-refused"),
        ("configuration", 422, "config-rejected"),
        ("transient", 502, "provider-unavailable"),
        ("crash", 502, "rehearsal-failed"),
        ("mistype", 502, "rehearsal-failed"),
    ],
)
def test_an_account_that_fails_its_rehearsal_is_not_stored(api, desk, does, status, code) -> None:
    new = {"integration_domain": "shown", "config": {"does": does}}
    answer = api.user("ann").post(CONNECT, json=new)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert SECRET not in answer.text
    assert accounts(desk) == 0


def test_a_check_shows_the_facts_of_a_refused_account(api) -> None:
    said = api.admin.post(CHECK, json={"config": {"does": "refuse"}}).json()["rehearsal"]
    assert (said["refusal"], len(said["sections"])) == ("the folder *** is empty", 20)


def test_a_rehearsal_shares_the_deadline_of_the_check(api, desk, monkeypatch) -> None:
    monkeypatch.setattr(deadline, "CHECK_SECONDS", 1.0)
    new = {"integration_domain": "shown", "config": {"does": "hang"}}
    try:
        answer = api.admin.post(CONNECT, json=new | {"user_id": "ann"})
    finally:
        release.set()
    assert (answer.status_code, answer.json()["code"]) == (502, "rehearsal-timed-out")
    assert accounts(desk) == 0


def test_a_form_leads_to_a_page_that_shows_the_rehearsal(dashboard, desk, calls) -> None:
    browser = dashboard.sign_in("ann")
    page = browser.submit(PLACE, PLACE, {"name": "Mine", "interval": "7"})
    assert page.status_code == 200, page.text
    assert "1,200" in page.text
    assert "<script>alert" not in page.text
    assert SECRET not in page.text
    assert "\x1b" not in page.text
    assert (accounts(desk), calls) == (0, ["check", "rehearse"])
    assert SECRET not in str(desk.rows("SELECT oauth_flow::text FROM oauth_flow"))
    fields = form(page.text, "/oauth/confirm").fields
    assert dashboard.sign_in("ann").send("/oauth/confirm", fields).status_code == 403
    assert browser.send("/oauth/confirm", fields).status_code == 422, "the code works once"
    assert accounts(desk) == 0
    page = browser.submit(PLACE, PLACE, {"name": "Mine", "interval": "7"})
    done = browser.send("/oauth/confirm", form(page.text, "/oauth/confirm").fields)
    ((id, user, name, interval, limited),) = desk.rows("""
        SELECT id, user_id, name, poll_interval_minutes, public_hosts_only FROM user_integration
        """)
    assert done.headers["location"] == f"/accounts/{id}?flash=connected"
    assert (user, name, interval, limited) == ("ann", "Mine", 7, True)
    assert calls.count("rehearse") == 2, "the person had seen it"


def test_a_person_cancels_after_the_rehearsal(dashboard, desk) -> None:
    browser = dashboard.sign_in("ann")
    page = browser.submit(PLACE, PLACE, {})
    fields = form(page.text, "/oauth/confirm").fields
    assert "Nothing was stored" in browser.send("/oauth/cancel", fields).text
    assert browser.send("/oauth/confirm", fields).status_code == 422
    assert (accounts(desk), desk.value("SELECT count(*) FROM oauth_flow")) == (0, 0)


def test_a_form_whose_account_is_refused_says_why(dashboard, desk) -> None:
    browser = dashboard.sign_in("ann")
    page = browser.submit(PLACE, PLACE, {"config.does": "refuse"})
    assert (page.status_code, "Shown refuses this account" in page.text) == (422, True)
    assert form(page.text, PLACE).fields["config.does"] == "refuse"
    assert (accounts(desk), desk.value("SELECT count(*) FROM oauth_flow")) == (0, 0)


def test_a_form_without_a_rehearsal_stores_immediately(dashboard, desk, calls) -> None:
    answer = dashboard.sign_in("ann").submit(PLACE, PLACE, {"config.does": "nothing"})
    assert (answer.status_code, accounts(desk), calls.count("check")) == (303, 1, 1)


def test_the_page_for_confirmation_shows_the_rehearsal(product, browser, desk) -> None:
    back = consent(product.user("ann"), browser)
    page = browser.get(back)
    assert "Mailbox" in page.text
    assert "somebody sent you the link" in " ".join(page.text.split())
    assert accounts(desk) == 0
    done = browser.post(
        f"{product.url}/oauth/confirm", data=form(page.text, "/oauth/confirm").fields
    )
    assert "Account connected" in done.text
    assert accounts(desk) == 1


def test_a_sign_in_from_the_dashboard_shows_the_rehearsal(product, browser, desk) -> None:
    ann, connect = product.sign_in("ann"), "/integrations/cloud/connect"
    page = ann.send("/integrations/cloud/authorize", form(ann.get(connect).text, connect).fields)
    url = page.text.split('class="button primary" href="')[1].split('"')[0].replace("&amp;", "&")
    back = agree(browser, url).removeprefix(product.url)
    shown = ann.get(back)
    assert "Mailbox" in shown.text
    assert accounts(desk) == 0
    done = ann.send("/oauth/confirm", form(shown.text, "/oauth/confirm").fields)
    account = desk.value("SELECT id FROM user_integration")
    assert done.headers["location"] == f"/accounts/{account}?flash=connected"


def test_a_reconnection_has_no_rehearsal(product, browser, desk) -> None:
    user = product.user("ann")
    confirm(browser, consent(user, browser))
    account = str(desk.value("SELECT id FROM user_integration"))
    page = browser.get(consent(user, browser, user_integration_id=account))
    assert "Mailbox" not in page.text
    assert "replaces its credentials" in " ".join(page.text.split())
