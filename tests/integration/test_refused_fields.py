"""A plugin refuses one field of an account: each surface shows the reason at this field."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, SecretStr
from support.dashboard import form

from core import (
    AccountIdentity,
    BaseIntegration,
    ConfigurationError,
    Context,
    CredentialsInvalid,
    Destination,
    Manifest,
    Rehearsal,
    TaskResult,
)
from core.egress import EgressRefused
from core.service.accounts import deadline
from core.testing import Harness

SECRET = "hunter2-is-no-password"
PLACE = "/integrations/choosy/connect"
CHECK = "/v1/integrations/choosy/check"
CONNECT = "/v1/user-integrations"


class Config(BaseModel):
    folder: str = "inbox"
    host: Annotated[str, Destination()] = "files.example.org"
    port: Annotated[int, Destination()] = 21


class Keys(BaseModel):
    user: str = "me"
    password: SecretStr = SecretStr(SECRET)


class Choosy(BaseIntegration[Config, Keys]):
    """An integration that refuses what its folder names."""

    manifest = Manifest("choosy", "Choosy")

    def check(self) -> AccountIdentity:
        self._refuse("check")
        return AccountIdentity("me", "Me")

    def rehearse(self) -> Rehearsal:
        self._refuse("rehearse")
        return Rehearsal()

    def _refuse(self, step: str) -> None:
        part, _, field = self.config.folder.partition(" ")
        password = self.credentials.password.get_secret_value()
        if part == step:
            raise ConfigurationError(f"no folder {password}.", field="folder")
        if part == "config":
            raise ConfigurationError(f"not with {password}", remedy="Choose another", field=field)
        if part == "credentials":
            raise CredentialsInvalid("unknown name", field=field)
        if part == "private":
            raise EgressRefused("a private address")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult()


@pytest.fixture
def integrations() -> tuple[Any, ...]:
    return (Choosy,)


def errors(answer: Any) -> list[tuple[str, str]]:
    assert answer.status_code == 422, answer.text
    assert SECRET not in answer.text
    return [(each["where"], each["message"]) for each in answer.json().get("errors", ())]


@pytest.mark.parametrize(
    ("folder", "where", "message", "detail"),
    [
        ("config host", "body.config.host", "not with ***. Choose another", "host: not with ***"),
        ("check", "body.config.folder", "no folder ***", "folder: no folder ***"),
        ("rehearse", "body.config.folder", "no folder ***", "folder: no folder ***"),
        ("credentials user", "body.credentials.user", "unknown name", "user: unknown name"),
    ],
)
def test_rest_names_the_refused_field(
    api: Any, folder: str, where: str, message: str, detail: str
) -> None:
    new = {"integration_domain": "choosy", "config": {"folder": folder}, "user_id": "ann"}
    for answer in (
        api.admin.post(CONNECT, json=new),
        api.admin.post(CHECK, json={"config": {"folder": folder}}),
    ):
        assert errors(answer) == [(where, message)]
        assert detail in answer.json()["detail"]


@pytest.mark.parametrize("field", ["", "nothing", "password"])
def test_a_field_that_the_config_does_not_have_is_ignored(api: Any, field: str) -> None:
    body = {"config": {"folder": f"config {field}"}}
    answer = api.admin.post(CHECK, json=body)
    assert errors(answer) == []
    assert answer.json()["detail"] == "the config does not work: not with ***"


def test_rest_names_the_fields_that_the_model_refuses(api: Any) -> None:
    body = {"config": {"port": "many", "host": 7}, "credentials": {"user": ["me"]}}
    assert errors(api.admin.post(CHECK, json=body)) == [
        ("body.config.host", "must be a valid string"),
        ("body.config.port", "Enter an integer."),
    ]


def test_a_host_that_a_user_cannot_reach_is_an_error_of_the_host(
    api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason stays hidden: a user could explore the network of the engine."""
    monkeypatch.setattr(deadline, "UNREACHABLE_SECONDS", 0.1)
    new = {"integration_domain": "choosy", "config": {"folder": "private"}}
    answer = api.user("ann").post(CONNECT, json=new)
    assert answer.json()["code"] == "host-unreachable"
    text = "the host cannot be reached, or is not on the public internet"
    assert errors(answer) == [("body.config.host", text)]


@pytest.mark.parametrize(
    ("folder", "name", "text"),
    [
        ("config host", "config.host", "not with ***. Choose another"),
        ("credentials user", "credentials.user", "unknown name"),
        ("rehearse", "config.folder", "no folder ***"),
    ],
)
def test_the_form_shows_the_reason_at_the_field(
    dashboard: Any, folder: str, name: str, text: str
) -> None:
    page = dashboard.sign_in("ann").submit(PLACE, PLACE, {"config.folder": folder})
    assert page.status_code == 422
    inputs = form(page.text, PLACE).attributes
    marked = [each for each, given in inputs.items() if given.get("aria-invalid")]
    assert marked == [name]
    error = f"{inputs[name]['id']}-error"
    assert error in (inputs[name]["aria-describedby"] or "")
    assert page.text.split(f'id="{error}">')[1].split("<")[0] == text
    assert "Correct the marked fields" in page.text
    assert SECRET not in page.text


@pytest.mark.parametrize("page", ["settings", "credentials"])
def test_a_form_without_the_field_shows_the_complete_error(
    dashboard: Any, desk: Any, page: str
) -> None:
    browser = dashboard.sign_in("ann")
    part = "credentials user" if page == "settings" else "config host"
    vault, stored = dashboard.backend.vault, {"folder": part}
    account = desk.account(
        "me", domain="choosy", user_id="ann", config=stored, credentials=vault.seal(Keys())
    )
    place = f"/accounts/{account}/{page}"
    answer = browser.submit(place, place, having="part" if page == "settings" else "")
    assert answer.status_code == 422
    assert 'aria-invalid="true"' not in answer.text
    assert ("Choosy rejects the credentials: user: unknown name." in answer.text) == (
        page == "settings"
    )
    assert ("host: not with ***. Choose another." in answer.text) == (page == "credentials")


def test_the_harness_refuses_a_field_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="no field 'nothing' in the config"):
        Harness(Choosy, {"folder": "config nothing"}).check()
    with pytest.raises(ConfigurationError) as caught:
        Harness(Choosy, {"folder": "config host"}).check()
    assert caught.value.field == "host"
