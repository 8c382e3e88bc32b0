"""Users of a real Chromium: Debian's, or another one in the path."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import httpx2
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Locator,
    Page,
    Playwright,
    Request,
    Route,
    expect,
)

from core.service import tokens
from support.deployment import Deployment
from support.fleet import Fleet

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MISSING = (
    "Chromium was not found: install it (Debian: apt-get install chromium fonts-dejavu-core), or"
    " put one in the path"
)

SECONDS = 30.0
"""The timeout until an element shows: long enough for a busy machine."""

PHONE, DESK = (390, 844), (1280, 900)

HOOK = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.__violations.push(`${event.violatedDirective} ${event.blockedURI}`);
});
"""


def executable() -> str | None:
    """Return the path of Chromium, or None if it is not installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


def launch(playwright: Playwright, *flags: str) -> Browser:
    """Start a headless Chromium, with further flags."""
    root = ("--no-sandbox",) if os.getuid() == 0 else ()
    return playwright.chromium.launch(executable_path=executable(), args=[*FLAGS, *flags, *root])


@dataclass
class House:
    """A running installation: `polling serve`, workers, and a scheduler that tests do not use."""

    deployment: Deployment
    fleet: Fleet
    url: str

    def token(self, user: str | None = None, **more: Any) -> str:
        """Create a token for a user, or without a name for an operator, with these options."""
        with self.deployment.connection() as conn:
            return tokens.create(conn, user_id=user, **more).secret

    @contextmanager
    def api(self, token: str) -> Iterator[httpx2.Client]:
        headers = {"Authorization": f"Bearer {token}"}
        with httpx2.Client(
            base_url=self.url, headers=headers, trust_env=False, verify=False, timeout=60
        ) as client:
            yield client

    def connect(self, token: str, name: str = "hello", **config: Any) -> str:
        """Connect a Hello World account for the token's owner, without a run; return its id."""
        body = {
            "integration_domain": "hello-world",
            "config": {"name": name, **config},
            "name": name,
        }
        with self.api(token) as client:
            answer = client.post("/v1/user-integrations", json=body)
            assert answer.status_code == 201, answer.text
            return str(answer.json()["id"])

    def sync(self, token: str, account: str) -> str:
        """Request a run, and return its id."""
        with self.api(token) as client:
            return str(client.post(f"/v1/user-integrations/{account}/sync").json()["run_id"])

    def synced(self, token: str, account: str) -> str:
        """Request a run, wait until it ends, and return its id."""
        run = self.sync(token, account)
        ended = "SELECT state FROM sync_run WHERE id = %s AND state <> 'running'"
        self.fleet.until(lambda: self.deployment.rows(ended, run), "the run has ended", SECONDS * 2)
        return run


@dataclass
class Window:
    """The browser window of one person, in a context of its own.

    Attributes:
      wrong: Errors and warnings of the browser, and dialogs of scripts that must not run.
      outside: Requests to other hosts. The window blocks them.
      sites: The hosts that the window may open.
    """

    house: House
    page: Page
    wrong: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    sites: tuple[str, ...] = ()

    @classmethod
    def open(
        cls, browser: Browser, house: House, *, sites: tuple[str, ...] = (), **options: Any
    ) -> Self:
        """Open a window without a signed-in user, which may also open these other sites."""
        width, height = options.pop("size", DESK)
        context = browser.new_context(
            base_url=house.url,
            viewport={"width": width, "height": height},
            reduced_motion="reduce",
            **options,
        )
        context.set_default_timeout(SECONDS * 1000)
        window = cls(house, context.new_page(), sites=(house.url, *sites))
        context.add_init_script(HOOK)
        known = "|".join(map(re.escape, window.sites))
        context.route(re.compile(f"^(?!({known})/)"), window._block)
        context.on("request", window._requested)
        context.on("console", window._console)
        context.on("weberror", lambda error: window.wrong.append(f"error: {error.error}"))
        context.on("dialog", window._dialog)
        return window

    def _block(self, route: Route) -> None:
        route.abort()

    def _requested(self, request: Request) -> None:
        known = tuple(f"{site}/" for site in self.sites)
        if not request.url.startswith((*known, "data:", "about:")):
            self.outside.append(request.url)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"{message.type}: {message.text} ({message.location.get('url')})")

    def _dialog(self, dialog: Dialog) -> None:
        self.wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def go(self, path: str, status: int = 200) -> None:
        """Open a page of the dashboard."""
        answer = self.page.goto(path)
        assert answer is not None
        assert answer.status == status, f"{path}: {answer.status}"

    def sign_in(self, token: str) -> None:
        """Sign in through the form."""
        self.go("/sign-in")
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(lambda url: "/sign-in" not in url)

    def press(self, name: str) -> None:
        """Press a button at its current place, because live parts of the page move it."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def sees(self, what: Locator | str, seconds: float = SECONDS) -> None:
        """Wait until a text or an element is visible."""
        found = self.page.get_by_text(what).first if isinstance(what, str) else what
        expect(found).to_be_visible(timeout=seconds * 1000)

    def heading(self, name: str | re.Pattern[str]) -> Locator:
        """Return a heading of the page."""
        return self.page.get_by_role("heading", name=name)

    def violations(self) -> list[str]:
        """Return the violations of the page's Content-Security-Policy."""
        return list(self.page.evaluate("window.__violations ?? []"))

    def is_quiet(self) -> None:
        """Assert that the browser reported nothing, and made no request to another host."""
        assert not (found := self.violations()), found
        assert not self.wrong, self.wrong
        assert not self.outside, self.outside

    def overflow(self) -> int:
        """Return the number of pixels by which the page is wider than its window."""
        return int(
            self.page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
        )
