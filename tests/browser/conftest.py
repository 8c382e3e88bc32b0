"""A browser, and an installation to look at, for each module: Playwright keeps an event loop in the
thread of the tests, which those that come after must not find there.
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
    """What the tests of a module share; each of them is somebody else."""
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
            "it serves",
            60,
        )
        fleet.ready(60)
        yield House(deployment, fleet, found[1])
    finally:
        fleet.end()
        print(fleet.says()[-SHOWN:])
        deployment.queues.close()


@pytest.fixture
def open_window(browser: Browser, house: House) -> Iterator[Callable[..., Window]]:
    """`open_window(token, …)`: a window in which the token's owner is signed in; options of
    Playwright's contexts.
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
    """Somebody new."""
    return f"user-{next(_numbers)}"


@pytest.fixture
def token(house: House, user: str) -> str:
    """The user's."""
    return house.token(user)


@pytest.fixture
def window(open_window: Callable[..., Window], token: str) -> Window:
    """The user's window."""
    return open_window(token)
