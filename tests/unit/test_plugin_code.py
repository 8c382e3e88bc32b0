"""A change of a plugin's code is noticed while the processes run with the old code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest
from support.waiting import until

from core.cli import plugin_code

NAME = "a_plugin_that_changes"


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a package with two modules into the import path, and return its folder."""
    folder = tmp_path / NAME
    (folder / "parts").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('it must not be imported')\n")
    (folder / "parts" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def touch(path: Path) -> None:
    """Change a file, as an editor does that keeps its size."""
    before = path.stat()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a module": lambda folder: touch(folder / "parts" / "__init__.py"),
    "a new module": lambda folder: (folder / "more.py").write_text(""),
    "a deleted module": lambda folder: (folder / "parts" / "__init__.py").unlink(),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_of_the_code_is_found_without_an_import(plugin: Path, change: str) -> None:
    before = plugin_code.versions([f"{NAME}.parts"])
    assert plugin_code.changed(before, plugin_code.versions([f"{NAME}.parts"])) == []
    CHANGES[change](plugin)
    assert plugin_code.changed(before, plugin_code.versions([f"{NAME}.parts"])) == [NAME]
    assert NAME not in sys.modules


def test_an_installed_plugin_is_watched() -> None:
    assert plugin_code.versions([])["integration_polling_hello_world"]


def test_files_that_are_no_code_and_missing_modules_are_left_out(plugin: Path) -> None:
    before = plugin_code.versions([NAME, "no_module_has_this_name"])
    (plugin / "notes.txt").write_text("x")
    assert (
        plugin_code.changed(before, plugin_code.versions([NAME, "no_module_has_this_name"])) == []
    )
    assert before["no_module_has_this_name"] == frozenset()


def test_a_plugin_is_reported_once(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_code, "INTERVAL_SECONDS", 0.01)
    reported, ended, looks = [], Event(), []
    counted = plugin_code.versions

    def look(modules):
        looks.append(1)
        return counted(modules)

    monkeypatch.setattr(plugin_code, "versions", look)
    watcher = Thread(target=plugin_code.watch, args=([NAME], reported.append, ended))
    watcher.start()
    try:
        until(lambda: looks, "the first look")
        for _ in range(2):
            touch(plugin / "__init__.py")
            seen = len(looks)
            until(lambda seen=seen: len(looks) > seen + 1, "two more looks")
        assert reported == [NAME]
    finally:
        ended.set()
        watcher.join()
