"""An integration may complete an account's config in `check()`; the engine stores the result."""

from __future__ import annotations

from typing import Annotated

import pytest
from pydantic import BaseModel, SecretStr

from core import (
    AccountIdentity,
    BaseIntegration,
    Concurrency,
    Context,
    Destination,
    Limit,
    Manifest,
    TaskResult,
)
from core.service.accounts import actions as account_actions

ACCOUNTS = "/v1/user-integrations"


class Place(BaseModel):
    protocol: Annotated[str, Destination()] = "auto"
    connections: int = 1


class Key(BaseModel):
    password: SecretStr = SecretStr("some-password")


class Finding(BaseIntegration[Place, Key]):
    """An integration that finds its protocol."""

    manifest = Manifest("finding", "Finding", limits=[Concurrency("c", 1)])
    speaks = "strong"

    @classmethod
    def limits(cls, config: Place) -> list[Limit]:
        return [Concurrency("c", 7 if config.protocol == "strong" else config.connections)]

    def check(self) -> AccountIdentity:
        if self.config.protocol == "auto":
            self.config = self.config.model_copy(update={"protocol": self.speaks})
        return AccountIdentity("me", "me")

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult()


@pytest.fixture
def integrations():
    return (Finding,)


@pytest.fixture
def account(api):
    new = {"integration_domain": "finding", "config": {}, "credentials": {}}
    answer = api.user("u").post(ACCOUNTS, json=new)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


STORED = "SELECT config->>'protocol', limits->0->>'tasks' FROM user_integration"


def test_a_new_account_has_the_completed_config_and_its_limits(account, desk) -> None:
    assert desk.rows(STORED) == [("strong", "7")]


def test_a_changed_config_is_completed_too(account, desk, api, monkeypatch) -> None:
    monkeypatch.setattr(Finding, "speaks", "other")
    changed = {"protocol": "auto", "connections": 2}
    refused = api.user("u").patch(f"{ACCOUNTS}/{account}", json={"config": changed})
    assert refused.status_code == 422  # the protocol is a destination
    assert desk.rows(STORED) == [("strong", "7")]
    account_actions.configure(api.backend, account, config=changed)
    assert desk.rows(STORED) == [("other", "2")]
    again = {"config": changed, "credentials": {"password": "another"}}
    monkeypatch.setattr(Finding, "speaks", "strong")
    assert api.user("u").patch(f"{ACCOUNTS}/{account}", json=again).status_code == 200
    assert desk.rows(STORED) == [("strong", "7")]


def test_a_check_alone_stores_no_config(account, desk, api, monkeypatch) -> None:
    desk.conn.execute("""UPDATE user_integration SET config = '{"protocol": "auto"}'""")
    account_actions.check_account(api.backend, account)
    assert desk.rows("SELECT config->>'protocol' FROM user_integration") == [("auto",)]
