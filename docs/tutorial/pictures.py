"""Take the pictures of the tutorial `first-account.md` with Chromium: `nox -s pictures`.

The module follows the tutorial's steps in the browser. A test follows the same steps.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

HERE = Path(__file__).parent
POLLING = [sys.executable, "-c", "from core.cli import main; main()"]
ADDRESS = re.compile(r"The dashboard is at (http://[\d.:]+\d)")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60.0
WIDTH, HEIGHT = 1200, 750
LARGEST = 150_000
"""The maximum size of a picture in bytes."""

FORM = {
    "Greeting name": "Ada",
    "Pages": "12",
    "Items": "6",
    "Delay (ms)": "250",
    "Nested levels": "1",
}
"""The form's values: some 500 small tasks, slow enough to watch."""

Shoot = Callable[[str], None]


def walk(page: Page, url: str, token: str, shoot: Shoot) -> list[str]:
    """Follow the tutorial's steps in the browser.

    Args:
      page: The page of the browser.
      url: The address of the dashboard.
      token: An operator's token.
      shoot: Called with the name of each picture when the page shows it.

    Returns:
      The names of the clicked elements.
    """
    clicked: list[str] = []

    def click(role: str, name: str, within: str = "body") -> None:
        page.locator(within).get_by_role(role, name=name, exact=True).first.click()
        clicked.append(name)

    page.goto(url)
    page.get_by_label("Token").fill(token)
    click("button", "Sign in")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    click("link", "Integrations")
    page.get_by_role("link", name="Connect Hello World").click()
    clicked.append("Connect")
    for label, value in FORM.items():
        page.get_by_label(label, exact=True).first.fill(value)
    shoot("connect")
    click("button", "Check and connect")
    page.get_by_role("button", name=re.compile("^Connect to ")).click()
    clicked.append("Connect to …")
    click("button", "Sync now")
    page.locator("main table a[href^='/runs/']").first.click()
    expect(page.locator(".figure", has_text="Done").locator("dd")).to_have_text(
        re.compile(r"^[1-9]\d\d")
    )
    shoot("run")
    expect(page.locator(".state").first).to_have_text("succeeded", timeout=SECONDS * 2_000)
    click("link", "Content")
    _search(page, '"Hello 7-3-2"')
    clicked.append("Apply")
    page.locator("main tbody a[href^='/content/']").first.click()
    expect(page.get_by_text("Hello 7-3-2 of 0!").first).to_be_visible()
    click("link", "Overview")
    expect(page.locator(".chart").first).to_be_visible()
    shoot("overview")
    return clicked


def _search(page: Page, words: str) -> None:
    """Repeat the search until it finds an item, because indexing lags behind saving."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        page.get_by_label("Search", exact=True).fill(words)
        page.get_by_role("button", name="Apply", exact=True).click()
        page.wait_for_url("**q=*")
        if page.locator("main tbody tr").count():
            return
        time.sleep(0.5)
    raise TimeoutError(f"{words} was not found")


@contextmanager
def up(home: Path) -> Iterator[tuple[str, str]]:
    """Run `polling up` without accounts; yield its address and an operator's token."""
    env = os.environ | {"POLLING_HOME": str(home), "POLLING_LOG_LEVEL": "WARNING"}
    log = home / "up.log"
    with log.open("w") as output:
        started = subprocess.Popen(
            [*POLLING, "up"], cwd=home, env=env, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + SECONDS
        while not (found := ADDRESS.search(log.read_text())):
            if started.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text())
            time.sleep(0.1)
        command = [*POLLING, "tokens", "create", "--admin"]
        made = subprocess.run(
            command, cwd=home, env=env, capture_output=True, text=True, check=True
        )
        yield found[1], made.stdout.strip()
    finally:
        started.terminate()
        started.wait(SECONDS)


def take(browser: Browser, url: str, token: str, into: Path) -> None:
    """Follow the steps, and save the pictures to the folder `into`."""
    page = browser.new_page(
        viewport={"width": WIDTH, "height": HEIGHT},
        color_scheme="light",
        reduced_motion="reduce",
        device_scale_factor=1,
    )
    page.set_default_timeout(SECONDS * 1_000)

    def shoot(name: str) -> None:
        page.evaluate("document.activeElement?.blur(), scrollTo(0, 0)")
        picture = page.screenshot(path=into / f"{name}.png")
        if len(picture) > LARGEST:
            raise RuntimeError(f"{name}.png has {len(picture):,} bytes")
        print(f"{name}.png: {len(picture):,} bytes")  # noqa: T201

    walk(page, url, token, shoot)


def main() -> None:
    """Take all pictures."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    root = ["--no-sandbox"] if os.getuid() == 0 else []
    with (
        tempfile.TemporaryDirectory(prefix="polling-", dir="/tmp") as home,
        up(Path(home)) as (url, token),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=found, args=["--disable-gpu", "--disable-quic", *root]
        )
        take(browser, url, token, Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
        browser.close()


if __name__ == "__main__":
    main()
