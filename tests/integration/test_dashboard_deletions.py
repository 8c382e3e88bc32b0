"""The pages of held deletions, and the choice to keep items that disappear."""

from __future__ import annotations

import re

import pytest

from core import Listing, TaskOutput
from core.service.content.deletions import place_name

XSS = "<script>alert(1)</script>"
MANY = [f"{number:02}" for number in range(80)]


@pytest.fixture
def held(desk):
    """Return `held(user)`, which makes an account with 70 held deletions; it returns both ids."""

    def make(user: str) -> tuple[str, int]:
        account = desk.account(user, user_id=user)
        items = (TaskOutput(id, id, name=f"{id} {XSS}", parent=XSS) for id in MANY)
        desk.keep(account, *items)
        desk.finish(desk.root(account), seen=MANY[:10], listed=[Listing(XSS)])
        statement = "SELECT id FROM held_deletion WHERE user_integration_id = %s"
        return str(account), desk.value(statement, account)

    return make


def press(browser, path: str) -> str:
    answer = browser.post(path)
    assert answer.status_code == 303, answer.text
    page = browser.get(answer.headers["location"]).text
    found = re.search(r'<p class="flash" role="status">(.*?)</p>', page, re.DOTALL)
    return found[1] if found else ""


def test_a_person_sees_what_would_be_deleted(dashboard, held) -> None:
    (account, deletion), (_, other) = held("ann"), held("bob")
    browser = dashboard.sign_in("ann")
    page = browser.get("/deletions").text
    assert f'href="/deletions/{deletion}"' in page
    assert f'href="/deletions/{other}"' not in page
    assert XSS not in page
    assert f'href="/deletions/{deletion}"' in browser.get(f"/accounts/{account}").text
    first = browser.get(f"/deletions/{deletion}").text
    assert XSS not in first
    assert "70 of 80 items disappeared" in " ".join(first.split())
    following = re.search(r'href="(/deletions/[^"]*after=[^"]+)"', first)
    assert following is not None
    second = browser.get(following[1]).text
    shown = re.findall(r">\s*(\d\d) &lt;script", first) + re.findall(
        r">\s*(\d\d) &lt;script", second
    )
    assert shown == MANY[10:]
    operator = dashboard.sign_in()
    assert f'href="/deletions/{other}"' in operator.get("/deletions").text
    assert 'href="/deletions?state=held"' in operator.get("/").text


def test_a_person_sees_where_items_are_missing(dashboard, desk) -> None:
    account, browser = desk.account("ann", user_id="ann"), dashboard.sign_in("ann")
    inside = [TaskOutput(f"C1/{id}", parent="C1") for id in MANY]
    desk.keep(account, TaskOutput("C1", name="#general"), TaskOutput("other"), *inside)
    desk.finish(desk.root(account), seen=["C1", "other"], listed=[Listing("C1")])
    named = desk.value("SELECT id FROM held_deletion")
    page = " ".join(browser.get(f"/deletions/{named}").text.split())
    assert "<h1>Deletion of 80 items" in page
    assert 'In #general <span class="small">C1</span>' in page
    assert "80 of 80 items" in browser.get("/deletions").text
    assert "Delete these 80 items" in page
    assert "Keep these 80 items" in page
    desk.conn.execute("UPDATE held_deletion SET source = 'gone', parent = NULL, vanished = 1")
    assert "One by one, by the source" in browser.get("/deletions").text
    page = " ".join(browser.get(f"/deletions/{named}").text.split())
    assert "It deletes this item, unless it is back at the source." in page


@pytest.mark.parametrize(
    ("parent", "name", "shown"),
    [
        ("/in/a", "a", "/in/a"),
        ("/in/a", "b", "b"),
        ("C1", "#general", "#general"),
        ("C1", None, "C1"),
        ("", " ", "(no name)"),
    ],
)
def test_a_folder_is_named_by_its_path_only(parent: str, name: str | None, shown: str) -> None:
    assert place_name({"parent": parent, "parent_name": name}) == shown


def test_another_user_neither_sees_nor_decides(dashboard, held, desk) -> None:
    (_, deletion), browser = held("ann"), dashboard.sign_in("bob")
    assert browser.get(f"/deletions/{deletion}").status_code == 404
    for action in ("accept", "refuse"):
        assert browser.post(f"/deletions/{deletion}/{action}").status_code == 404
    assert dashboard.sign_in("ann").send(f"/deletions/{deletion}/accept").status_code == 403
    assert desk.value("SELECT state FROM held_deletion") == "held"


def test_a_person_refuses_and_accepts(dashboard, held, desk) -> None:
    (_, deletion), browser = held("ann"), dashboard.sign_in("ann")
    assert "The engine keeps the items." in press(browser, f"/deletions/{deletion}/refuse")
    assert desk.value("SELECT state FROM held_deletion") == "refused"
    assert "refused" in browser.get("/deletions").text
    assert "A run has started" in press(browser, f"/deletions/{deletion}/accept")
    (root,) = desk.claim()
    desk.finish(root, seen=MANY[:10], listed=[Listing(XSS)])
    assert desk.alive() == {*MANY[:10]}
    assert browser.get(f"/deletions/{deletion}").status_code == 404
    assert "No held deletions." in browser.get("/deletions").text


def test_an_account_keeps_what_disappears(dashboard, desk) -> None:
    account, browser = desk.account("a", user_id="ann", domain="locked"), dashboard.sign_in("ann")
    place = f"/accounts/{account}/settings"
    page = browser.get(place).text
    assert re.search(r'<option value="mark" selected>', page)
    fields = {"name": "a", "interval": "15", "deletions": "keep"}
    assert browser.post(place, fields).status_code == 303
    assert desk.value("SELECT deletions FROM user_integration") == "keep"
    assert re.search(r'<option value="keep" selected>', browser.get(place).text)
    assert browser.post(place, fields | {"deletions": "lose"}).status_code == 422
    assert browser.post(place, {"name": "a", "interval": "15"}).status_code == 303
    assert desk.value("SELECT deletions FROM user_integration") == "keep"
    desk.conn.execute("UPDATE user_integration SET integration_domain = 'shop'")
    desk.keep(account, TaskOutput("here", "text"), TaskOutput("away", "text"))
    desk.finish(desk.root(account), seen=["here"], listed=[Listing()])
    account_page = browser.get(f"/accounts/{account}").text
    assert "Items that disappear at the source</dt><dd>kept" in account_page
    listed = browser.get("/content", gone="only").text
    assert "gone at the source" in listed
    assert (">away<" in listed, ">here<" in listed) == (True, False)
    item = desk.value("SELECT id FROM user_integration_content WHERE external_id = 'away'")
    assert "Gone at the source" in browser.get(f"/content/{item}").text
