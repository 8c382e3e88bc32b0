"""A page shows links and buttons that its reader may use, and no others."""

from __future__ import annotations

import re
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from core import Listing, TaskOutput
from core.scopes import SCOPES_OF_ROLES, Role, Scope

LINK = re.compile(r'<a [^>]*?href="(/[^"]*)"')
BUTTON = re.compile(r'(?:form)?action="(/[^"]*)"')
ROW = re.compile(r"(?<=/)(?:\d+|[0-9a-f]{8}-[0-9a-f-]{27})(?=[/?]|$)")
ENDS = {"/sign-out", "/sign-out-everywhere"}
"""Buttons that end the session."""

OPERATING = ("Sync now", "Cancel run", "Retry", "Discard", "Delete these", "Keep these")


@pytest.fixture
def busy(desk, shop):
    """Make accounts of `ann` with an open run, parked tasks, content and held deletions."""
    account, items = desk.account("ann", user_id="ann"), [f"{n:02}" for n in range(24)]
    desk.keep(account, *(TaskOutput(id, id, name=id) for id in items))
    desk.finish(desk.root(account), seen=items[:2], listed=[Listing()])
    desk.finish(desk.root(account), tasks=[shop.step.task(number=n) for n in range(3)])
    desk.rows(
        """
        UPDATE sync_task SET state = 'parked', finished_at = now(), reason = 'gave up'
        WHERE id = (SELECT max(id) FROM sync_task WHERE state = 'ready') RETURNING 1
        """
    )
    desk.account("other", user_id="ann", domain="locked")


def walked(browser):
    """Open every page that links lead to; return the pages by path, and the buttons' paths."""
    waiting, pages, buttons = ["/", "/access"], {}, {}
    while waiting:
        path = waiting.pop()
        at = urlsplit(path).path
        if at in pages:
            continue
        answer = browser.get(path.replace("&amp;", "&"))
        while answer.status_code == 303:
            answer = browser.get(answer.headers["location"])
        assert answer.status_code == 200, (path, answer.status_code)
        pages[at] = answer.text
        waiting += LINK.findall(answer.text)
        methods = re.findall(r'<form [^>]*method="post"[^>]*>|<button [^>]*>', answer.text)
        buttons |= dict.fromkeys(at for tag in methods for at in BUTTON.findall(tag))
    return pages, buttons.keys() - ENDS


GIVEN = [(scope,) for scope in Scope] + [SCOPES_OF_ROLES[role] for role in Role]


@pytest.mark.parametrize("user", ["ann", None])
@pytest.mark.parametrize("scopes", GIVEN, ids=" ".join)
def test_links_and_buttons_are_those_of_the_scopes(dashboard, busy, scopes, user) -> None:
    browser = dashboard.sign_in(user, scopes=scopes)
    pages, buttons = walked(browser)
    csrf = {"csrf": browser.csrf}
    for path in buttons:
        # A row that does not exist, so that nothing changes.
        missing = ROW.sub(lambda id: str(uuid4() if "-" in id[0] else 10**12), path)
        answer = browser.send(missing.replace("&amp;", "&"), csrf)
        assert "lacks a scope" not in answer.text, (path, answer.status_code)
    everything = "".join(pages.values())
    shown = {label for label in OPERATING if f">{label}" in re.sub(r">\s+", ">", everything)}
    assert shown == (set(OPERATING) if Scope.FLEET_OPERATE in scopes else set())


def test_a_page_without_buttons_names_the_scope_that_has_them(dashboard, busy) -> None:
    pages, _ = walked(dashboard.sign_in("ann", scopes=[Scope.CONTENT_READ]))
    named = {ROW.sub("0", at) for at, page in pages.items() if "fleet:operate" in page}
    assert named == {"/parked", "/deletions/0", "/tasks/0"}
