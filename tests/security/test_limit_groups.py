"""A user whose account counts, and blocks, for the accounts of others stops them.

The group of an account decides which others share its limits, and a rate limit that its provider
reports stops them all. Credentials that a user gives may name any group: an access token of
Mallory's own client, beside the refresh token of the operator's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr
from support.cloud import PRODUCT, Provider, cloud_of, confirm, consent, query

from core import AccountIdentity, BaseIntegration, Context, Manifest, Rate, TaskResult
from core.db.pool import Conn
from core.limits.keys import limit_key

QUOTA = Rate("quota", 100, 60, by="group")
SHARED = "1234567"
"""The group of the operator's client. Its name is in the address of each consent screen."""

ACCOUNTS = "/v1/user-integrations"


class Config(BaseModel):
    mailbox: str = "me"


class Keys(BaseModel):
    client: SecretStr = SecretStr("")


class Mail(BaseIntegration[Config, Keys]):
    """An integration that believes what the credentials say about their client."""

    manifest = Manifest("mail", "Mail", limits=[QUOTA])

    def check(self) -> AccountIdentity:
        mailbox = self.config.mailbox
        return AccountIdentity(
            mailbox, mailbox, group=self.credentials.client.get_secret_value() or None
        )

    def start(self, ctx: Context) -> TaskResult:
        return TaskResult()


@pytest.fixture
def integrations(provider: Provider) -> Sequence[Any]:
    class Cloud(cloud_of(provider)):  # type: ignore[misc]
        def check(self) -> AccountIdentity:
            return replace(super().check(), group=SHARED)

        @classmethod
        def credentials_from_oauth(cls, token: Mapping[str, Any]) -> Mapping[str, Any]:
            return {name: token[name] for name in ("access_token", "refresh_token")}

    return (Mail, Cloud)


def keys(conn: Conn, domain: str = "mail") -> dict[str, str]:
    """Return the key that counts the quota, for each user's account."""
    rows = conn.execute(
        "SELECT user_id, id::text, limit_group FROM user_integration WHERE integration_domain = %s",
        (domain,),
    )
    return {
        user: limit_key(QUOTA, domain=domain, account_id=id, group=group)
        for user, id, group in rows
    }


def body(user: str | None = None, client: str = SHARED, **config: str) -> dict[str, Any]:
    named = {"user_id": user} if user else {}
    return {
        "integration_domain": "mail", "config": config, "credentials": {"client": client}, **named
    }  # fmt: skip


@pytest.fixture
def shared(api, conn) -> str:
    """Return the key of accounts that the operator has connected, for two users."""
    for user in ("ann", "bob"):
        assert api.admin.post(ACCOUNTS, json=body(user)).status_code == 201
    found = keys(conn)
    assert found["ann"] == found["bob"]
    return found["ann"]


def test_a_user_does_not_enter_the_group_of_others(api, conn, shared) -> None:
    mallory = api.user("mallory")
    account = mallory.post(ACCOUNTS, json=body()).json()["id"]
    assert keys(conn)["mallory"] != shared
    for change in (
        {"credentials": {"client": SHARED}},
        {"config": {"mailbox": "me"}, "credentials": {"client": SHARED}},
    ):
        assert mallory.patch(f"{ACCOUNTS}/{account}", json=change).status_code == 200
        assert keys(conn)["mallory"] != shared
    assert mallory.post(ACCOUNTS, json=body()).status_code == 200  # the account again
    assert keys(conn)["mallory"] != shared


@pytest.mark.parametrize("client", [SHARED, ""], ids=["the same group", "no group"])
@pytest.mark.parametrize("with_config", [False, True])
def test_a_user_does_not_stay_in_a_group_with_other_credentials(
    api, conn, shared, client, with_config
) -> None:
    """Mallory's own tokens replace those that prove the group."""
    api.admin.post(ACCOUNTS, json=body("mallory"))
    assert keys(conn)["mallory"] == shared
    mallory = api.user("mallory")
    (account,) = (row["id"] for row in mallory.get(ACCOUNTS).json()["items"])
    change = {"credentials": {"client": client}}
    change |= {"config": {"mailbox": "me"}} if with_config else {}
    assert mallory.patch(f"{ACCOUNTS}/{account}", json=change).status_code == 200
    assert keys(conn)["mallory"] != shared


def test_accounts_of_one_user_share_the_limits_of_their_group(api, conn) -> None:
    ann = api.user("ann")
    found = []
    for mailbox, client in (("a", "own"), ("b", "own"), ("c", "other")):
        assert ann.post(ACCOUNTS, json=body(client=client, mailbox=mailbox)).status_code == 201
        (group,) = conn.execute(
            "SELECT limit_group FROM user_integration WHERE identity = %s", (mailbox,)
        ).fetchone()
        found.append(group)
    assert found[0] == found[1] != found[2]


def test_no_group_has_the_name_of_another_user_s(api, conn, shared) -> None:
    """The name of a user and of a group cannot be mistaken for those of others."""
    api.user("ann").post(ACCOUNTS, json=body(client="x", mailbox="ann's"))
    (of_ann,) = conn.execute(
        "SELECT limit_group FROM user_integration WHERE identity = 'ann''s'"
    ).fetchone()
    for user, client in (('ann", "x', ""), ("ann", of_ann), ("mallory", of_ann)):
        answer = api.user(user).post(ACCOUNTS, json=body(client=client, mailbox=user + client[:9]))
        assert answer.status_code == 201, answer.text
    groups = conn.execute("SELECT limit_group FROM user_integration WHERE limit_group IS NOT NULL")
    assert [group for (group,) in groups].count(of_ann) == 1


@pytest.mark.parametrize("redirect", [False, True])
def test_a_sign_in_at_the_provider_proves_the_group(
    product, provider, browser, conn, redirect
) -> None:
    for user in ("ann", "bob"):
        provider.person, client = f"{user}@cloud", product.user(user)
        if redirect:
            back = consent(client, browser, redirect_to=PRODUCT)
            code = query(browser.get(back).headers["location"])["connect_code"]
            answer = client.post("/v1/oauth/redeem", json={"connect_code": code})
            assert answer.status_code == 201
        else:
            assert confirm(browser, consent(client, browser)).status_code == 200
    found = keys(conn, "cloud")
    assert found["ann"] == found["bob"] == f"group/cloud/{SHARED}/quota"
