"""The tutorial of the first account, step by step.

The test runs its commands in a shell, makes its clicks in a browser, and checks its pictures.
"""

from __future__ import annotations

import re
import runpy
from contextlib import ExitStack
from pathlib import Path

from support.documents import BLOCK, SECONDS, STAYS, environment, run, running
from support.waiting import until

FOLDER = Path(__file__).parents[2] / "docs" / "tutorial"
TUTORIAL = FOLDER / "first-account.md"
PICTURES = runpy.run_path(str(FOLDER / "pictures.py"))
TOKEN = "polling tokens create --admin\n"


def test_every_step_of_the_tutorial_works_in_a_browser(browser, tmp_path) -> None:
    folder, env, text = (
        tmp_path / "tutorial",
        environment(tmp_path / "home"),
        TUTORIAL.read_text("utf-8"),
    )
    folder.mkdir()
    shot: list[str] = []
    with ExitStack() as stack:
        page = browser.new_page(reduced_motion="reduce")
        page.set_default_timeout(SECONDS * 1000)
        url, printed = "", ""
        for _, block in BLOCK.findall(text):
            if block.startswith(STAYS):
                log = stack.enter_context(running(block, folder, env))
                until(
                    lambda log=log: "All services are running" in log.read_text(),
                    "polling up reports that all services are running",
                    SECONDS,
                )
                url = PICTURES["ADDRESS"].search(log.read_text())[1]
            elif block == TOKEN:
                clicked = PICTURES["walk"](page, url, run(block, folder, env).strip(), shot.append)
            else:
                printed = run(block, folder, env)
        page.close()
    assert "Hello" in printed or "1-" in printed
    assert re.findall(r"\*\*(.+?)\*\*", text) == clicked
    assert re.findall(r"\((\w+)\.png\)", text) == shot


def test_the_script_fills_in_the_values_that_the_tutorial_shows() -> None:
    rows = re.findall(r"^\| ([\w ()]+) \| `(\w+)` \|", TUTORIAL.read_text("utf-8"), re.MULTILINE)
    assert dict(rows) == PICTURES["FORM"]


def test_the_pictures_of_the_tutorial_exist_and_are_small() -> None:
    for name in re.findall(r"\((\w+\.png)\)", TUTORIAL.read_text("utf-8")):
        picture = (FOLDER / name).read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) <= PICTURES["LARGEST"]
