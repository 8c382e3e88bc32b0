"""Every page in both themes, on a desktop and on a phone.

Hostile texts fill every name, error and mail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from support.browsing import DESK, PHONE, House, Window
from support.hostile_texts import LISTS, MAILS, TEXTS, Filled, fill, fill_mails

from core.scopes import ALL

WIDEST = ("one long word", "many marks", "double quote", "out of the table", "long and hostile")
"""Names of the texts that are most likely to break the layout of a page."""


@dataclass
class Lived:
    """The ids of rows in a house that has been in use."""

    account: str
    run: str
    task: int
    content: int
    torn: list[Filled]

    @property
    def pages(self) -> list[str]:
        """Return each kind of page at least once."""
        torn = [
            page
            for one in self.torn
            for page in [
                f"/accounts/{one.account}",
                f"/accounts/{one.account}/timeline",
                f"/tasks/{one.task}",
                f"/content/{one.html}",
            ]
        ]
        return [
            *LISTS, "/access", "/accounts?status=error",
            "/parked?domain=hello-world", "/content?q=hello",
            f"/accounts/{self.account}", f"/accounts/{self.account}/timeline",
            f"/accounts/{self.account}/settings",
            f"/accounts/{self.torn[0].account}/credentials", f"/runs/{self.run}",
            f"/tasks/{self.task}", f"/content/{self.content}",
            "/integrations/hello-world/connect", "/integrations/ftp/connect",
            "/integrations/gmail/connect", "/integrations/slack/connect",
            *torn, self.torn[0].pages[1], f"/deletions/{self.torn[0].deletion}",
        ]  # fmt: skip


@pytest.fixture(scope="module")
def lived(house: House) -> Lived:
    token = house.token("ada")
    account = house.connect(
        token, "A name that says what it is", pages=4, items=3, fail_rate={"permanent": 0.4}, seed=3
    )
    run = house.synced(token, account)
    with house.deployment.connection() as conn:
        torn = [
            fill(conn, name, text, domain="hello-world") for name, text in TEXTS if name in WIDEST
        ]
    ((task,),) = house.deployment.rows(
        "SELECT id FROM sync_task WHERE run_id = %s AND state = 'parked' LIMIT 1", run
    )
    kept = "SELECT id FROM user_integration_content WHERE user_integration_id = %s LIMIT 1"
    return Lived(account, run, task, house.deployment.value(kept, account), torn)


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        pytest.param(DESK, "light", id="desk, light"),
        pytest.param(PHONE, "dark", id="phone, dark"),
        pytest.param(DESK, "dark", id="desk, dark", marks=pytest.mark.long),
        pytest.param(PHONE, "light", id="phone, light", marks=pytest.mark.long),
    ],
)
def test_no_page_logs_an_error_or_is_wider_than_its_window(
    house, lived, open_window, scheme, size
) -> None:
    window = open_window(house.token(scopes=ALL), size=size, color_scheme=scheme)
    wide = {}
    for page in lived.pages:
        window.go(page)
        if (pixels := window.overflow()) > 0:
            wide[page] = pixels
        assert window.page.locator("h1").count() == 1, page
        assert unlabelled(window) == [], page
        window.is_quiet()
    assert not wide
    window.go("/no-such-page", 404)
    window.sees(window.heading("Not found"))
    assert window.overflow() <= 0


def unlabelled(window: Window) -> list[str]:
    """Return the fields and links without an accessible name."""
    return list(
        window.page.evaluate(
            """() => {
              const fields = document.querySelectorAll(
                "input:not([type=hidden]), select, textarea, button:not([hidden]), a");
              const isNamed = (one) =>
                one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim();
              return [...fields].filter((one) => !isNamed(one))
                .map((one) => one.outerHTML.slice(0, 200));
            }"""
        )
    )


@pytest.fixture(scope="module")
def hostile(house: House) -> list[Filled]:
    """Fill all places with all texts."""
    with house.deployment.connection() as conn:
        return [fill(conn, name, text, domain="hello-world") for name, text in TEXTS]


@pytest.fixture
def watched(house: House, open_window: Callable[..., Window]) -> Iterator[Window]:
    """Open an operator's window in which no hostile text may run, load or redirect."""
    window = open_window(house.token(scopes=ALL))
    yield window
    assert not window.page.context.cookies("http://tracker.invalid")
    window.is_quiet()


def visit(window: Window, path: str, status: int = 200) -> None:
    """Open a page, and assert that it is the requested one and that no text acted."""
    window.go(path, status)
    assert window.page.url == window.house.url + path
    assert len(window.page.context.pages) == 1
    window.is_quiet()


@pytest.mark.parametrize("part", [0, pytest.param(1, marks=pytest.mark.long)])
def test_no_text_from_outside_acts_on_a_page(hostile, watched, part) -> None:
    """Each text is tested on some kinds of pages, and the next text on the next kinds.

    Other tests cover all texts on all pages over HTTP.
    """
    for number, filled in enumerate(hostile):
        account = f"/accounts/{filled.account}"
        pages = [
            *filled.pages,
            account,
            *(f"{account}/{page}" for page in ("timeline", "settings", "credentials")),
        ]
        if number % 2 == part:
            for step in range(2):
                visit(watched, pages[(number // 2 + step * 5) % len(pages)])


def test_no_text_from_outside_acts_on_a_list(hostile, watched) -> None:
    for page in [
        *LISTS,
        "/parked?domain=hello-world",
        "/content?deleted=also",
        "/runs?state=running",
    ]:
        visit(watched, page)


@pytest.mark.parametrize("part", [0, pytest.param(1, marks=pytest.mark.long)])
def test_foreign_html_does_nothing_in_its_frame_or_in_a_window(hostile, watched, part) -> None:
    with watched.house.deployment.connection() as conn:
        mails = fill_mails(
            conn, hostile[0].account, [(f"{part} {name}", mail) for name, mail in MAILS]
        )
    ids = [*(one.html for one in hostile if one.text and "<" in one.text), *mails.values()]
    for id in ids[part::2]:
        visit(watched, f"/content/{id}")
        for frame in watched.page.frames[1:]:
            assert frame.url == f"{watched.house.url}/content/{id}/preview"
        if watched.page.frames[1:]:
            visit(watched, f"/content/{id}/preview")
