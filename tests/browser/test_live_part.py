"""A page holds still while a person works in it: no click is lost, and no selection or focus.

The tests send updates through the page's own stream of events, at the moments that matter.
"""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect
from support.browsing import Window

CLICKS = 200

STREAM = """
window.EventSource = class extends EventSource {
  constructor(address) { super(address); window.__stream = this; }
};
"""
# An update of the page as it was first, with another number; it may have a row before the others.
PUSH = """
([number, hasRow]) => {
  const part = document.querySelector("[data-live]");
  window.__first ??= part.cloneNode(true);
  const next = window.__first.cloneNode(true);
  next.querySelector("h1").dataset.number = number;
  next.querySelector("#config > summary").append(` ${number}`);
  if (hasRow) {
    const row = next.querySelector("section[aria-labelledby=runs] tbody tr");
    const added = row.cloneNode(true);
    added.id = `new-${number}`;
    added.querySelectorAll("a").forEach((link) => link.setAttribute("href", `/new-${number}`));
    row.before(added);
  }
  window.__stream.dispatchEvent(new MessageEvent("live", { data: next.innerHTML }));
}
"""
SHOWN = "() => document.querySelector('[data-live] h1').dataset.number ?? ''"


@pytest.fixture
def account(house, token) -> str:
    account = house.connect(token, pages=2, items=1)
    house.synced(token, account)
    return account


def opened(window: Window, account: str) -> Any:
    """Open the page of an account, whose stream only the test uses."""
    window.page.add_init_script(STREAM)
    window.go(f"/accounts/{account}")
    window.page.wait_for_function("() => window.__stream?.readyState === 1")
    window.page.evaluate("window.__stream.close()")
    return window.page


@pytest.fixture
def page(window: Window, account: str) -> Any:
    return opened(window, account)


def push(page: Any, number: int, *, row: bool = False) -> None:
    """Send an update to the page."""
    page.evaluate(PUSH, [number, row])


def shown(page: Any, number: int) -> None:
    """Wait until the page shows an update."""
    page.wait_for_function(f"() => ({SHOWN})() === '{number}'")


def middle(page: Any, selector: str) -> tuple[float, float]:
    box = page.locator(selector).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_no_click_is_lost_while_the_page_updates(window: Window, page: Any) -> None:
    """Each update arrives while the button of the mouse is down."""
    details, lost = page.locator("#config"), []
    details.scroll_into_view_if_needed()
    for number in range(1, CLICKS + 1):
        page.mouse.move(*middle(page, "#config > summary"))
        page.mouse.down()
        push(page, number)
        page.mouse.up()
        if (details.get_attribute("open") is not None) != bool(number % 2):
            lost.append(number)
    assert not lost, f"{len(lost)} of {CLICKS} clicks have no effect"
    shown(page, CLICKS)
    window.is_quiet()


def test_nothing_moves_under_a_pointer_that_is_down(window: Window, page: Any) -> None:
    page.locator("#config").scroll_into_view_if_needed()
    place = middle(page, "#config > summary")
    page.mouse.move(*place)
    page.mouse.down()
    push(page, 1, row=True)
    assert middle(page, "#config > summary") == place
    page.mouse.up()
    expect(page.locator("#config")).to_have_attribute("open", "")
    shown(page, 1)
    expect(page.locator("#new-1")).to_be_attached()
    window.is_quiet()


def test_an_update_keeps_what_is_open_and_the_focus(window: Window, page: Any) -> None:
    page.locator("#config > summary").click()
    link = page.locator("section[aria-labelledby=runs] tbody a").first
    href = link.get_attribute("href")
    link.focus()
    page.evaluate("window.__row = document.activeElement.closest('tr')")
    push(page, 1, row=True)
    shown(page, 1)
    expect(page.locator("#config")).to_have_attribute("open", "")
    assert page.evaluate("document.activeElement.getAttribute('href')") == href
    assert page.evaluate("window.__row.isConnected"), "the row was replaced"
    window.is_quiet()


def test_an_update_waits_while_text_is_selected(window: Window, page: Any) -> None:
    box = page.locator("h1").bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    selected = page.evaluate("getSelection().toString()")
    assert selected
    push(page, 1)
    page.wait_for_timeout(300)  # longer than the end of a click
    assert page.evaluate("getSelection().toString()") == selected
    assert page.evaluate(SHOWN) == ""
    expect(page.locator("[data-live]")).to_have_attribute("data-waiting", "")
    page.mouse.click(box["x"] + 2, 5)
    shown(page, 1)
    assert page.locator("[data-live]").get_attribute("data-waiting") is None
    window.is_quiet()


def test_an_update_keeps_the_position_of_a_table(open_window, token, account) -> None:
    window = open_window(token, size=(390, 844))
    page = opened(window, account)
    table = page.locator("section[aria-labelledby=runs] .scroll")
    table.evaluate("(one) => (one.scrollLeft = 200)")
    push(page, 1)
    shown(page, 1)
    assert table.evaluate("(one) => one.scrollLeft") == 200
    window.is_quiet()
