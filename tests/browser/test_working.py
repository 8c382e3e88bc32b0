"""Work in the dashboard: connecting, watching, pausing, retrying, searching."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import expect
from support.browsing import SECONDS, Window

PARKED = """
SELECT count(*) FROM sync_task WHERE state = 'parked' AND retried_as IS NULL
    AND user_integration_id = %s
"""
SEEN = """
() => {
  window.__mine = true;
  window.__seen = new Set();
  const look = () => {
    const found = [...document.querySelectorAll("dt")]
      .find((one) => one.textContent === "Tasks done");
    if (found) window.__seen.add(found.nextElementSibling.textContent.trim());
  };
  look();
  new MutationObserver(look).observe(
    document.querySelector("[data-live]"), { childList: true, subtree: true, characterData: true });
}
"""


def state(window: Window, name: str) -> None:
    """Wait until the live part of the page shows this state."""
    expect(window.page.locator("h1 .state, dl.facts .state, .state").first).to_have_text(
        name, timeout=SECONDS * 2000
    )


def test_an_account_is_connected_with_its_form_and_its_run_watched(house, window) -> None:
    page = window.page
    page.get_by_role("link", name="Integrations").click()
    page.get_by_role("link", name="Connect Hello World").click()
    for field, value in {
        "config.pages": "6",
        "config.items": "4",
        "config.delay_ms": "300",
    }.items():
        page.locator(f"[name='{field}']").fill(value)
    page.locator("[name='config.fanout_depth']").fill("1")
    page.locator("[name=name]").fill("My greetings")
    window.press("Check and connect")
    window.sees("Page 3")
    page.get_by_role("button", name=re.compile("^Connect to ")).click()
    window.sees("Account connected.")
    window.sees(window.heading(re.compile("My greetings")))
    window.press("Sync now")
    page.locator("table a[href^='/runs/']").first.click()
    page.wait_for_url("**/runs/*")
    page.evaluate(SEEN)
    state(window, "succeeded")
    assert page.evaluate("window.__mine") is True, "the page was reloaded"
    assert len(page.evaluate("[...window.__seen]")) > 2, "the page showed no progress"
    window.sees(page.locator("dl.figures", has_text="Saved"))
    window.is_quiet()


def test_an_error_in_a_form_is_shown_beside_its_field(window) -> None:
    window.go("/integrations/hello-world/connect")
    page = window.page
    page.locator("[name='config.fail_rate']").fill("not JSON")
    window.press("Check and connect")
    window.sees(page.get_by_role("alert"))
    wrong = page.locator("[name='config.fail_rate']")
    assert wrong.get_attribute("aria-invalid") == "true"
    expect(wrong).to_be_focused()
    assert wrong.input_value() == "not JSON"
    described = wrong.get_attribute("aria-describedby") or ""
    assert any(page.locator(f"#{one}.problem").count() for one in described.split())


def test_an_account_is_paused_and_resumed_with_its_buttons(house, window, token) -> None:
    account = house.connect(token)
    window.go(f"/accounts/{account}")
    window.press("Pause")
    window.sees("Account paused. Tasks that are already running will finish.")
    state(window, "paused")
    window.press("Resume")
    state(window, "active")
    assert (
        house.deployment.value("SELECT sync_status FROM user_integration WHERE id = %s", account)
        == "active"
    )
    window.is_quiet()


def change(house, token: str, account: str, **config: Any) -> None:
    """Change the config of an account."""
    with house.api(token) as client:
        answer = client.patch(f"/v1/user-integrations/{account}", json={"config": config})
        assert answer.status_code == 200, answer.text


def test_one_parked_task_and_then_many_are_retried(house, window, token) -> None:
    account = house.connect(token, pages=4, items=1, fail_rate={"permanent": 1.0})
    house.synced(token, account)
    window.go(f"/parked?account={account}")
    window.sees("permanent on purpose")
    # The reason why the tasks failed is gone.
    change(house, token, account, name="hello", pages=4, items=1)
    page = window.page
    page.locator("tbody a[href^='/tasks/']").first.click()
    window.press("Retry")
    window.sees("Task retried.")
    house.fleet.until(lambda: house.deployment.value(PARKED, account) == 3, "one is tried again")
    window.go(f"/parked?account={account}")
    page.get_by_label("Select all on this page").check()
    assert page.locator("tbody input[type=checkbox]:checked").count() == 3
    window.press("Retry selected")
    window.sees("3 tasks retried.")
    window.sees("No parked tasks match.")
    kept = "SELECT count(*) FROM user_integration_content WHERE user_integration_id = %s"
    house.fleet.until(
        lambda: house.deployment.value(kept, account) == 4, "all content is kept", SECONDS
    )
    window.is_quiet()


def test_one_parked_task_and_then_all_are_discarded_after_a_question(house, window, token) -> None:
    account = house.connect(token, pages=3, items=1, fail_rate={"permanent": 1.0})
    house.synced(token, account)
    window.go(f"/parked?account={account}")
    page = window.page
    assert not page.get_by_role("button", name="Discard selected").is_visible()
    page.locator("tbody input[type=checkbox]").first.check()
    page.get_by_text("Discard selected …").first.click()
    page.wait_for_timeout(1500)  # two looks of the live part: what was opened and ticked stays
    assert page.locator("tbody input[type=checkbox]:checked").count() == 1
    page.locator("button", has_text="Discard selected").click()
    window.sees("1 task discarded.")
    page.get_by_text(re.compile("^Retry or discard all 2 ")).click()
    page.locator("button", has_text="Discard all").click()
    window.sees("2 tasks discarded.")
    assert house.deployment.value(PARKED, account) == 0
    window.is_quiet()


def test_content_is_found_with_a_search_and_opened(house, window, token) -> None:
    account = house.connect(token, pages=2, items=3, seed=4711)
    house.synced(token, account)
    page = window.page

    def found() -> bool:
        window.go("/content")
        page.get_by_label("Search", exact=True).fill('"Hello 2-1"')
        page.keyboard.press("Enter")
        page.wait_for_url("**q=*")
        return page.locator("tbody tr").count() > 0

    house.fleet.until(found, "the search finds the content")
    assert page.locator("tbody tr").count() == 1
    page.locator("tbody a[href^='/content/']").first.click()
    window.sees(window.heading("2-1"))
    window.sees("Hello 2-1 of 4711!")
    with page.expect_download() as download:
        page.get_by_role("link", name=re.compile("Download")).click()
    assert download.value.path().read_text().startswith("Hello 2-1 of 4711!")
    window.is_quiet()


def test_ctrl_k_leads_to_the_search_and_times_are_local(house, open_window, token) -> None:
    house.connect(token, name="timed")
    window = open_window(token, timezone_id="Asia/Tokyo", locale="en-GB")
    page = window.page
    page.get_by_role("link", name="timed").click()
    page.locator("#about").wait_for()
    page.wait_for_load_state()  # including its scripts
    page.keyboard.press("ControlOrMeta+K")
    page.wait_for_url("**/content")
    page.wait_for_load_state()
    page.get_by_label("Account (name or ID)").focus()
    page.keyboard.press("ControlOrMeta+K")
    expect(page.get_by_label("Search", exact=True)).to_be_focused()
    house.synced(token, house.connect(token, name="timed again", pages=1))
    window.go("/runs")
    page.locator("tbody time").first.hover()
    both = re.compile(r"^[^\n]*(JST|GMT\+9)\n[^\n]* UTC$")
    expect(page.locator("tbody time").first).to_have_attribute("title", both)
    window.is_quiet()
    window.go("/no-such-page", 404)  # the browser reports this status
    page.get_by_role("link", name="Accounts").click()
    window.sees(window.heading("Accounts"))


def focused(window: Window) -> dict:
    """Return the element with the focus, and how the focus is shown."""
    return dict(
        window.page.evaluate("""() => {
              const one = document.activeElement;
              const style = getComputedStyle(one), box = one.getBoundingClientRect();
              return {
                name: (one.textContent || one.value || "").trim(),
                field: one.name ?? "",
                tag: one.tagName,
                outline: style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth),
                seen: box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0,
              };
            }""")
    )


def tab_to(window: Window, name: str) -> None:
    """Press Tab until an element has the focus, and assert that each one shows its focus."""
    passed = []
    window.page.wait_for_load_state()  # including its style sheet
    for _ in range(80):
        window.page.keyboard.press("Tab")
        now = focused(window)
        if now["tag"] == "BODY":
            continue
        assert now["outline"] >= 2, f"the focus is not shown on {now}"
        assert now["seen"], f"the focused element is out of sight: {now}"
        if name in (now["field"], now["name"]):
            return
        passed.append(now["name"] or now["field"])
    raise AssertionError(f"no Tab leads to {name}; it passes {passed}")


def test_the_dashboard_can_be_used_with_the_keyboard_only(house, open_window, token) -> None:
    window = open_window()
    window.go("/sign-in")
    keyboard = window.page.keyboard
    expect(window.page.get_by_label("Token")).to_be_focused()
    keyboard.type(token)
    keyboard.press("Enter")
    window.sees(window.heading("Accounts"))
    keyboard.press("Tab")
    assert focused(window)["name"] == "Skip to content"
    tab_to(window, "Integrations")
    keyboard.press("Enter")
    window.sees(window.heading("Integrations"))
    tab_to(window, "Connect Hello World")
    keyboard.press("Enter")
    window.sees(window.heading("Connect Hello World"))
    tab_to(window, "config.name")
    keyboard.press("ControlOrMeta+A")
    keyboard.type("keyboard")
    keyboard.press("Enter")
    window.sees(window.heading("Confirm the connection"))
    tab_to(window, window.page.get_by_role("button", name="Connect to").inner_text())
    keyboard.press("Enter")
    window.sees(window.heading(re.compile("keyboard")))
    for button, becomes in (("Pause", "paused"), ("Resume", "active")):
        tab_to(window, button)
        keyboard.press("Enter")
        state(window, becomes)
    tab_to(window, "Content")
    keyboard.press("Enter")
    window.sees(window.heading("Content"))
    tab_to(window, "Sign out")
    keyboard.press("Enter")
    window.sees(window.page.get_by_label("Token"))
    window.is_quiet()
