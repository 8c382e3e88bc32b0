"""A stranger finds the broken accounts among 200, and repairs them, without the documentation."""

from __future__ import annotations

import re
from collections.abc import Callable
from uuid import UUID

import pytest
from playwright.sync_api import expect
from support.browsing import DESK, PHONE, House, Window

from core.scopes import ALL

ACCOUNTS, BROKEN = 200, 18
STOP = """
UPDATE user_integration SET sync_status = 'error', status_reason = 'credentials',
    status_detail = 'the provider answered 401 during its outage', stopped_at = now()
WHERE id = ANY (%s)
"""
IN_ERROR = "SELECT count(*) FROM user_integration WHERE sync_status = 'error'"


@pytest.fixture(scope="module")
def accounts(house: House) -> list[UUID]:
    """Connect all accounts, and return their ids."""
    ids = []
    with house.api(house.token(scopes=ALL)) as client:
        for number in range(ACCOUNTS):
            name = f"account {number:03}"
            answer = client.post(
                "/v1/user-integrations",
                json={
                    "integration_domain": "hello-world",
                    "user_id": f"person {number % 20}",
                    "name": name,
                    "config": {"name": name, "pages": 1, "items": 1},
                },
            )
            assert answer.status_code == 201, answer.text
            ids.append(UUID(answer.json()["id"]))
    return ids


@pytest.mark.parametrize(
    ("scheme", "size"),
    [("light", DESK), ("dark", DESK), ("light", PHONE)],
    ids=["light", "dark", "phone"],
)
def test_broken_accounts_are_found_and_repaired(
    house: House,
    accounts: list[UUID],
    open_window: Callable[..., Window],
    scheme: str,
    size: tuple[int, int],
) -> None:
    with house.deployment.connection() as conn:
        conn.execute(STOP, (accounts[:: ACCOUNTS // BROKEN][:BROKEN],))
    window = open_window(house.token(scopes=ALL), size=size, color_scheme=scheme)
    page = window.page
    window.go("/")
    page.get_by_role("link", name="Accounts in error").click()
    expect(page.locator("tbody tr")).to_have_count(BROKEN)
    window.sees("the provider answered 401")
    assert window.overflow() <= 0
    page.get_by_label("Select all on this page").check()
    window.press("Resume selected")
    window.sees(f"{BROKEN} accounts resumed.")
    window.sees("No accounts match.")
    assert house.deployment.value(IN_ERROR) == 0
    page.get_by_role("link", name="Overview").click()
    figure = page.locator(".figure", has_text="Accounts in error")
    expect(figure).to_have_class(re.compile("good"))
    window.is_quiet()
