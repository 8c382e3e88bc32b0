"""The complete flow of an account, as a person would experience it.

The account is added over the API and polled by the cron. Its content is read over the API and in
the dashboard.
"""

from __future__ import annotations

import httpx2
import pytest
from support.browsing import Window
from support.waiting import until

MINUTE = 75.0
"""The seconds after which the next full minute has surely passed; the cron counts in minutes."""


@pytest.mark.timeout(300)
def test_an_added_account_is_polled_by_the_cron_and_its_content_shown(
    house, open_window, token
) -> None:
    config = {"name": "greetings", "pages": 3, "items": 4, "seed": 8}
    with house.api(token) as client:
        body = {"integration_domain": "hello-world", "config": config, "name": "My greetings"}
        account = client.post("/v1/user-integrations", json=body).json()
        assert account["sync_status"] == "active"
        assert client.get("/v1/user-integration-content").json()["items"] == []
        window = open_window(token)
        window.go(f"/accounts/{account['id']}")
        window.sees("No runs yet.")

        # No test requests this run: the real `periodiq core.actors` makes it, at its shortest
        # interval.
        house.fleet.scheduler(POLLING_CRON_SCHEDULE="* * * * *")
        window.sees(window.page.locator("main table .state", has_text="succeeded"), MINUTE)
        (run,) = client.get(f"/v1/user-integrations/{account['id']}/runs").json()["items"]
        assert (run["state"], run["trigger"], run["outputs_saved"]) == ("succeeded", "schedule", 12)

        kept = all_of(client, f"/v1/user-integration-content?user_integration_id={account['id']}")
        assert len(kept) == 12
        (one,) = [item for item in kept if item["external_id"] == "2-3"]
        assert client.get(f"/v1/user-integration-content/{one['id']}/raw").text.startswith(
            "Hello 2-3 of 8!"
        )
        assert {
            change["content"]["external_id"]
            for change in client.get("/v1/changes").json()["changes"]
        } == {item["external_id"] for item in kept}
    in_the_dashboard(window, account["id"], one["id"])
    in_the_overview(open_window(house.token()))


def all_of(client: httpx2.Client, path: str) -> list[dict]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])


def in_the_dashboard(window: Window, account: str, item: int) -> None:
    """Assert that the owner finds the content, also by its words, and can open it."""
    page = window.page
    page.get_by_role("link", name="Items").click()
    page.wait_for_url(f"**/content?account={account}")
    assert page.locator("tbody tr").count() == 12
    window.go(f"/content/{item}")
    window.sees("Hello 2-3 of 8!")

    def found() -> bool:
        window.go("/content?q=%222-3%22")
        return page.locator("tbody tr").count() > 0

    until(found, "the search finds the content", 60)
    assert page.locator(f"tbody a[href='/content/{item}']").count() == 1
    window.is_quiet()


def in_the_overview(window: Window) -> None:
    """Assert that an operator sees a healthy fleet, its results, and an empty queue."""
    window.go("/")
    page = window.page

    def figure(name: str) -> str:
        return (
            page.locator(".figure", has=page.get_by_text(name, exact=True))
            .locator("dd")
            .inner_text()
        )

    assert figure("Active accounts") == "1"
    assert (figure("Overdue accounts"), figure("Parked tasks"), figure("Open runs")) == (
        "0",
        "0",
        "0",
    )
    assert (figure("Ready tasks"), figure("Queued tasks")) == ("0", "0")
    window.sees(page.locator(".checks li.ok", has_text="scheduler"))
    window.sees(page.locator(".checks li.ok", has_text="workers"))
    window.sees(page.locator(".chart", has_text="Finished tasks").get_by_text("last hour: 4;"))
    window.sees(
        page.locator(".chart", has_text="Items saved or deleted").get_by_text("last hour: 12;")
    )
    window.is_quiet()
