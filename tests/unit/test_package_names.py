"""No text sends a person to a package of a public index that anyone may own."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from core.error_catalog import CATALOG

ROOT = Path(__file__).parents[2]
PIP = re.compile(
    r"""(?:pip3?|uv|pipx|poetry).{0,12} (?:install|add)[^|;.]{0,40}['"` ]integration-polling"""
)


def test_no_text_of_this_repository_installs_a_package_by_name_from_an_index() -> None:
    """The engine and its plugins are not published: another author could take the names."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    texts = {
        name: " ".join((ROOT / name).read_text("utf-8").split()).replace("\" '", "'")
        for name in listed
        if Path(name).suffix in {".md", ".py", ".html", ".toml", ".yaml", ".yml", ".txt"}
        and (ROOT / name).is_file()
        and name != "tests/unit/test_package_names.py"
    }
    assert len(texts) > 300
    found = {name: PIP.findall(text) for name, text in texts.items() if PIP.search(text)}
    assert found == {}


def test_the_page_about_plugins_that_errors_name_exists() -> None:
    step = CATALOG["integration-not-found"].steps.on("cli")
    assert "docs/how-to/install-plugins.md" in step
    assert (ROOT / "docs/how-to/install-plugins.md").exists()
