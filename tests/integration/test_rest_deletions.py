"""Held deletions over the API, and the choice to keep items that disappear."""

from __future__ import annotations

from typing import Any

import pytest
from support.rest import SECRET

from core import Listing, TaskOutput

PLACE = "/v1/held-deletions"
MANY = [f"{number:02}" for number in range(40)]


@pytest.fixture
def held(desk):
    """Return `held(user)`, which makes an account with 30 held deletions; it returns both ids."""

    def make(user: str) -> tuple[str, int]:
        account = desk.account(user, user_id=user)
        desk.keep(account, *(TaskOutput(id, id, name=f"item {id}") for id in MANY))
        desk.finish(desk.root(account), seen=MANY[:10], listed=[Listing()])
        statement = "SELECT id FROM held_deletion WHERE user_integration_id = %s"
        return str(account), desk.value(statement, account)

    return make


def test_held_deletions_are_listed_with_their_items(api, held) -> None:
    (account, deletion), (_, other), user = held("u"), held("v"), api.user("u")
    (row,) = user.get(PLACE).json()["items"]
    assert (row["id"], row["user_integration_id"], row["state"]) == (deletion, account, "held")
    assert (row["vanished"], row["total"], row["parent"]) == (30, 40, None)
    assert (row["source"], row["parent_name"]) == ("listing", None)
    assert user.get(f"{PLACE}/{deletion}").json() == row
    assert len(api.admin.get(PLACE).json()["items"]) == 2
    of_other = {"user_id": "v"}
    assert [row["id"] for row in api.admin.get(PLACE, params=of_other).json()["items"]] == [other]
    assert user.get(PLACE, params=of_other).status_code == 403
    assert user.get(PLACE, params={"state": "refused"}).json()["items"] == []
    found: list[Any] = []
    after = None
    while True:
        params = {"limit": 20, **({"after": after} if after else {})}
        page = user.get(f"{PLACE}/{deletion}/items", params=params).json()
        found += page["items"]
        if (after := page["cursor"]) is None:
            break
    assert [item["external_id"] for item in found] == MANY[10:]
    assert found[0]["name"] == "item 10"


def test_another_user_can_neither_see_nor_decide(api, held, desk) -> None:
    (_, deletion), stranger = held("u"), api.user("v")
    for method, path in (
        ("GET", ""),
        ("GET", "/items"),
        ("POST", "/accept"),
        ("POST", "/refuse"),
    ):
        answer = stranger.request(method, f"{PLACE}/{deletion}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "deletion-not-found")
    assert desk.value("SELECT state FROM held_deletion") == "held"


def test_a_user_accepts_and_the_run_confirms(api, held, desk) -> None:
    (account, deletion), user = held("u"), api.user("u")
    accepted = user.post(f"{PLACE}/{deletion}/accept").json()
    assert accepted["state"] == "accepted"
    run = user.get(f"/v1/runs/{accepted['run_id']}").json()
    assert (run["state"], run["trigger"], run["complete"]) == ("running", "manual", True)
    assert user.post(f"{PLACE}/{deletion}/accept").json()["run_id"] is None
    (root,) = desk.claim()
    desk.finish(root, seen=MANY[:10], listed=[Listing()])
    assert desk.alive() == {*MANY[:10]}
    assert user.get(f"{PLACE}/{deletion}").status_code == 404
    totals = user.get(f"/v1/user-integrations/{account}", params={"totals": True}).json()["totals"]
    assert (totals["deleted"], totals["held"]) == (30, [])


def test_a_user_refuses_a_deletion_and_the_items_stay(api, held, desk) -> None:
    (account, deletion), user = held("u"), api.user("u")
    assert user.post(f"{PLACE}/{deletion}/refuse").json()["state"] == "refused"
    desk.finish(desk.root(account), seen=MANY[:10], listed=[Listing()])
    assert desk.alive() == {*MANY}
    totals = user.get(f"/v1/user-integrations/{account}", params={"totals": True}).json()["totals"]
    assert [(row["id"], row["state"]) for row in totals["held"]] == [(deletion, "refused")]


def test_an_account_keeps_what_disappears(api, desk) -> None:
    user = api.user("u")
    account = desk.account("a", user_id="u")
    place = f"/v1/user-integrations/{account}"
    assert user.get(place).json()["deletions"] == "mark"
    assert user.patch(place, json={"deletions": "keep"}).json()["deletions"] == "keep"
    assert user.patch(place, json={"name": "other"}).json()["deletions"] == "keep"
    assert user.patch(place, json={"deletions": "lose"}).status_code == 422
    desk.keep(account, TaskOutput("a"), TaskOutput("b"))
    desk.finish(desk.root(account), seen=["b"], listed=[Listing()])

    def found(**params: Any) -> dict[str, bool]:
        items = user.get("/v1/user-integration-content", params=params).json()["items"]
        return {item["external_id"]: item["gone_at_source"] is not None for item in items}

    assert found() == {"a": True, "b": False}
    assert (found(gone=True), found(gone=False)) == ({"a": True}, {"b": False})
    totals = user.get(place, params={"totals": True}).json()["totals"]
    assert (totals["items"], totals["deleted"], totals["gone_at_source"]) == (2, 0, 1)


def test_a_new_account_takes_the_choice(api) -> None:
    body = {
        "integration_domain": "locked",
        "config": {"name": "me"},
        "credentials": {"password": SECRET},
        "deletions": "keep",
    }
    user = api.user("u")
    made = user.post("/v1/user-integrations", json=body)
    assert (made.status_code, made.json()["deletions"]) == (201, "keep")
