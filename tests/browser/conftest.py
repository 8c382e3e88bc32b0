"""Fixtures of a browser and an installation, one of each per module.

Playwright keeps an event loop in the thread of the tests. Later tests must not find it there.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright
from support.browsing import MISSING, House, Window, executable, launch
from support.deployment import make_deployment
from support.fleet import Fleet
from support.processes import SHOWN
from support.servers import Servers
from support.waiting import until

SERVE = [sys.executable, "-c", "from core.cli import main; main()", "serve", "--port", "0"]

_numbers = count(1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if executable() is None:
        if os.environ.get("CI"):
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def house(server_pair: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Start the installation that the tests of a module share; each test is another user."""
    home = tmp_path_factory.mktemp("house")
    servers = server_pair.start()
    deployment = make_deployment(
        servers.postgres.url, servers.valkey.url, home, f"house-{next(_numbers)}"
    )
    fleet = Fleet(deployment, home)
    fleet.workers(processes=1)
    fleet.start(SERVE)
    try:
        found = until(
            lambda: re.search(r"The dashboard is at (http://[\d.:]+\d)", fleet.says()),
            "the dashboard starts",
            60,
        )
        fleet.ready(60)
        yield House(deployment, fleet, found[1])
    finally:
        fleet.end()
        print(fleet.says()[-SHOWN:])
        deployment.close()


@pytest.fixture
def open_window(browser: Browser, house: House) -> Iterator[Callable[..., Window]]:
    """Return `open_window(token, …)`, which opens a window with the token's owner signed in.

    Further options are those of Playwright's contexts.
    """
    opened: list[Window] = []

    def open_(token: str | None = None, **options: Any) -> Window:
        opened.append(Window.open(browser, house, **options))
        if token is not None:
            opened[-1].sign_in(token)
        return opened[-1]

    yield open_
    for window in opened:
        window.page.context.close()


@pytest.fixture
def user() -> str:
    """Return the id of a new user."""
    return f"user-{next(_numbers)}"


@pytest.fixture
def token(house: House, user: str) -> str:
    """Return a token of the user."""
    return house.token(user)


@pytest.fixture
def window(open_window: Callable[..., Window], token: str) -> Window:
    """Open a window with the user signed in."""
    return open_window(token)
