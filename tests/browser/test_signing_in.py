"""Signing in and out, as a person does it."""

from __future__ import annotations

from playwright.sync_api import expect
from support.browsing import SECONDS


def test_a_wrong_token_is_refused_and_the_right_one_signs_in(house, open_window, token) -> None:
    window = open_window()
    window.go("/accounts")
    assert "/sign-in?next=" in window.page.url
    window.page.get_by_label("Token").fill("polling_no_such_token")
    window.press("Sign in")
    window.sees("This token is unknown, expired or revoked.")
    assert [text for text in window.wrong if "401" not in text] == []
    window.wrong.clear()
    window.page.get_by_label("Token").fill(token)
    window.press("Sign in")
    window.sees(window.heading("Accounts"))
    assert window.page.url == f"{house.url}/accounts"
    (cookie,) = window.page.context.cookies()
    assert (cookie["name"], token in cookie["value"]) == ("polling_session", False)
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    assert window.page.evaluate("document.cookie") == ""
    window.is_quiet()


def test_no_page_is_shown_after_signing_out(window) -> None:
    window.press("Sign out")
    window.sees(window.page.get_by_label("Token"))
    assert window.page.context.cookies() == []
    window.go("/accounts")
    assert "/sign-in" in window.page.url
    window.page.go_back()  # the browser may have cached this page
    assert window.page.get_by_role("heading", name="Accounts").count() == 0
    window.is_quiet()


def test_a_user_reaches_no_page_of_operators(house, window, token) -> None:
    assert window.page.get_by_role("link", name="Overview").count() == 0
    window.go("/")
    assert window.page.url == f"{house.url}/accounts"
    other = house.connect(house.token("somebody else"), "theirs")
    window.go("/accounts")
    assert window.page.get_by_text("theirs").count() == 0
    window.go(f"/accounts/{other}", 404)


def test_a_revoked_token_ends_the_session_of_an_open_page(house, window, user) -> None:
    """The stream checks the token every 15 s. Then the page reloads itself, and needs a token."""
    with window.page.expect_response(
        lambda answer: "event-stream" in answer.headers.get("content-type", "")
    ):
        window.go("/accounts")
    revoke(house, user)
    expect(window.page.get_by_label("Token")).to_be_visible(timeout=SECONDS * 2000)
    window.go("/accounts")
    assert "/sign-in" in window.page.url


def test_a_restored_page_is_not_shown_after_its_token_is_revoked(house, window, user) -> None:
    window.go("/runs")
    window.page.evaluate("dispatchEvent(new Event('pagehide'))")
    revoke(house, user)
    window.page.evaluate("dispatchEvent(new Event('pageshow'))")
    window.sees(window.page.get_by_label("Token"))


def revoke(house, user: str) -> None:
    house.deployment.rows(
        "UPDATE api_token SET revoked_at = now() WHERE user_id = %s RETURNING 1", user
    )
