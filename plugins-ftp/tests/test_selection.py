"""The selection of files and directories."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from integration_polling_ftp import Config, Ftp
from integration_polling_ftp.selection import Pattern
from pydantic import ValidationError
from ssh_server import serve_ssh

from core.testing import Harness

TREE = (
    "a.csv", "b.txt", ".hidden.csv", "tmp/a.csv", "reports/a.pdf", "reports/2026/a.csv",
    "reports/2026/q1/b.pdf", "reports/tmp", "other/deep/down/c.csv", ".config/a.csv",
    "odd [x]*/a.csv",
)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        ({}, TREE),
        ({"include": ["*.csv"]}, [path for path in TREE if path.endswith(".csv")]),
        ({"include": ["/*.csv"]}, ["a.csv", ".hidden.csv"]),
        ({"include": ["reports/**/*.pdf"]}, ["reports/a.pdf", "reports/2026/q1/b.pdf"]),
        ({"include": ["reports/2026"]}, ["reports/2026/a.csv", "reports/2026/q1/b.pdf"]),
        ({"include": ["reports/*"], "exclude": ["2026"]}, ["reports/a.pdf", "reports/tmp"]),
        ({"include": ["**/deep/**"]}, ["other/deep/down/c.csv"]),
        ({"include": ["none"]}, []),
        ({"exclude": ["tmp/"]}, [path for path in TREE if not path.startswith("tmp/")]),
        ({"exclude": ["tmp"]}, [path for path in TREE if "tmp" not in path]),
        ({"exclude": ["*.csv", "*.pdf"]}, ["b.txt", "reports/tmp"]),
        ({"include": ["odd [[]x[]][*]/"]}, ["odd [x]*/a.csv"]),
        ({"hidden": False}, [path for path in TREE if not path.startswith(".")]),
        ({"max_depth": 0}, ["a.csv", "b.txt", ".hidden.csv"]),
        ({"max_depth": 2}, [path for path in TREE if path.count("/") <= 2]),
    ],
)
def test_a_selection_by_path_keeps_and_lists_only_what_it_selects(
    ftp_server: Any, config: dict[str, Any], kept: list[str]
) -> None:
    for path in TREE:
        ftp_server.write(path, path.encode())
    harness = Harness(Ftp, {**ftp_server.config, **config}, ftp_server.credentials)
    for _ in range(2):
        result = harness.sync()
        assert result.state == "succeeded", result.failures
    files = {path for path, item in harness.content.items() if item.kind == "file"}
    assert files == {f"/{path}" for path in kept}
    listed = sum(result.skipped_items.values()) + result.outputs_unchanged
    assert listed == sum(
        len(list(os.scandir(ftp_server.home / path.lstrip("/"))))
        for path in ("/", *(path for path, item in harness.content.items() if item.kind != "file"))
    )


@pytest.mark.parametrize(
    ("include", "entered"),
    [
        ("/*.csv", set()),
        ("reports/*.pdf", {"/reports"}),
        ("reports/**/*.pdf", {"/reports", "/reports/2026", "/reports/2026/q1"}),
        ("*/deep/*/c.csv", {"/other", "/other/deep", "/other/deep/down"}),
    ],
)
def test_only_directories_that_may_contain_a_match_are_listed(
    ftp_server: Any, include: str, entered: set[str]
) -> None:
    for path in TREE:
        ftp_server.write(path)
    config = {**ftp_server.config, "include": [include], "hidden": False}
    harness = Harness(Ftp, config, ftp_server.credentials)
    harness.sync()
    directories = {path for path, item in harness.content.items() if item.kind == "directory"}
    if include.startswith("*"):
        entered = entered | {"/tmp", "/reports", "/odd [x]*"}
    assert directories == entered


def test_a_directory_that_is_left_out_is_not_listed(tmp_path: Path) -> None:
    for path in ("in/a", "out/a/b"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "out").chmod(0)
    with serve_ssh(tmp_path) as server:
        harness = Harness(Ftp, {**server.config, "exclude": ["out"]}, server.credentials)
        assert dict(harness.sync().skipped_items) == {"left out by include or exclude": 1}
        assert harness.content.keys() == {"/in", "/in/a"}


def test_sizes_and_times_select_files(ftp_server: Any) -> None:
    for size, day in ((5, 1), (50, 10), (500, 20)):
        path = ftp_server.write(f"{size}", bytes(size))
        os.utime(path, (1_700_000_000, 1_700_000_000 + day * 86_400))
    for config, kept in (
        ({"min_bytes": 50}, {"/50", "/500"}),
        ({"max_bytes": 50}, {"/5", "/50"}),
        ({"min_bytes": 6, "max_bytes": 499}, {"/50"}),
        ({"modified_after": "2023-11-24"}, {"/50", "/500"}),  # the 10th day is the 24th
        ({"modified_after": "2023-11-25"}, {"/500"}),
    ):
        harness = Harness(Ftp, {**ftp_server.config, **config}, ftp_server.credentials)
        assert harness.sync().skipped_items.total() == 3 - len(kept)
        assert harness.content.keys() == kept


def test_links_are_left_out_by_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "link").symlink_to("file")
    with serve_ssh(tmp_path) as server:
        harness = Harness(Ftp, {**server.config, "follow_links": False}, server.credentials)
        assert dict(harness.sync().skipped_items) == {"left out by follow_links": 1}
        assert harness.content.keys() == {"/file"}


def test_what_is_no_longer_selected_is_marked_deleted(ftp_server: Any) -> None:
    for path in ("in/a", "in/b", "out/a", "out/sub/b"):
        ftp_server.write(path)
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    harness.sync()
    before = dict(harness.content)
    less = Harness(Ftp, {**ftp_server.config, "exclude": ["out"]}, ftp_server.credentials)
    less.plant(*before.values())
    less.sync()
    assert less.content.keys() == {"/in", "/in/a", "/in/b"}
    more = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    more.plant(*less.content.values())
    more.sync()
    assert more.content.keys() == before.keys()


@pytest.mark.parametrize(
    "config",
    [
        {"include": ["/"]}, {"include": ["../x"]}, {"exclude": ["a\nb"]},
        {"include": ["x" * 1_001]},
        {"include": ["x"] * 101}, {"min_bytes": 2, "max_bytes": 1}, {"min_bytes": -1},
        {"max_depth": -1}, {"max_depth": 65}, {"modified_after": "yesterday"},
    ],
)  # fmt: skip
def test_an_invalid_selection_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Config(host="h", **config)


NAMES = st.sampled_from(["a", "b", "ab", "a.b"])
GLOBS = st.lists(st.sampled_from(["a", "b", "*", "a*", "?", "**", "[ab]"]), min_size=1, max_size=4)


def reference(glob: str, path: str) -> bool:
    """Return whether a glob matches a path or a directory above it, with one expression."""
    if "/" not in glob.strip("/") and not glob.startswith("/"):
        glob = f"**/{glob}"
    glob = re.sub(r"\*\*(?:/\*\*)+", "**", glob)
    text = "/".join(
        {"**": "(?:.*)", "*": "[^/]*", "a*": "a[^/]*", "?": "[^/]"}.get(part, part)
        for part in glob.strip("/").split("/")
    )
    text = text.replace("(?:.*)/", "(?:.+/)?").replace("/(?:.*)", "(?:/.*)?")
    return re.fullmatch(f"(?:{text})(?:/.*)?", path) is not None


@given(GLOBS, st.lists(NAMES, min_size=1, max_size=5), st.booleans())
@example(["a", "**", "**"], ["a"], False)
def test_globs_match_as_one_expression_does(
    parts: list[str], path: list[str], anchored: bool
) -> None:
    glob = ("/" if anchored else "") + "/".join(parts)
    assert Pattern(glob).matches(path, is_directory=False) == reference(glob, "/".join(path))


@given(GLOBS, st.lists(NAMES, min_size=2, max_size=5))
def test_no_directory_that_contains_a_match_is_left_out(parts: list[str], path: list[str]) -> None:
    pattern = Pattern("/".join(parts))
    if pattern.matches(path, is_directory=False):
        for depth in range(1, len(path)):
            above = path[:depth]
            assert pattern.may_match_below(above) or pattern.matches(above, is_directory=True)


def test_a_glob_with_many_stars_takes_no_time() -> None:
    name = "a" * 255
    pattern = Pattern("/".join(["**"] * 50) + "/" + "a*" * 300 + "b")
    assert not pattern.matches([name] * 64, is_directory=False)
