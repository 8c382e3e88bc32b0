"""Changes that sizes and times do not show, renamed files, and directories that lead back."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from integration_polling_ftp import Ftp
from pyftpdlib.filesystems import AbstractedFS
from ssh_server import serve_ssh

from core.testing import Harness

SECOND = 1_795_000_000 // 60 * 60 + 2
"""The second of the first version: the second one of a minute, in November 2026."""

HOUR = 3600
UNSETTLED = {"settle_seconds": 0}


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def kept(harness: Harness) -> dict[str, Any]:
    return {path: item.content for path, item in harness.content.items() if item.kind == "file"}


# Changes in the same second or minute


@pytest.mark.parametrize("zone", [-12, 0, 5.5, 14])
def test_a_change_in_the_same_second_is_found(ftp_server: Any, zone: float) -> None:
    """Only a server with MLSD shows seconds in listings. The engine's clock is in another zone."""
    harness = Harness(Ftp, {**ftp_server.config, **UNSETTLED}, ftp_server.credentials)
    ftp_server.write("file", b"aaaa", at=SECOND)
    ftp_server.write("old", b"old", at=SECOND - 100_000_000)
    harness.now = moment(SECOND + 0.5 + zone * HOUR)
    harness.sync()
    ftp_server.write("file", b"bbbb", at=SECOND)
    ftp_server.commands.clear()
    harness.now = moment(SECOND + 910.5 + zone * HOUR)
    harness.sync()
    assert kept(harness) == {"/file": b"bbbb", "/old": b"old"}
    assert ftp_server.sent("RETR") == ["RETR /file"]
    ftp_server.commands.clear()
    harness.now = moment(SECOND + 1820.5 + zone * HOUR)
    assert harness.sync().outputs_saved == 0
    assert not ftp_server.sent("RETR")


def test_a_racy_file_over_sftp_is_fetched_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with serve_ssh(tmp_path) as server:
        harness = Harness(Ftp, {**server.config, **UNSETTLED}, server.credentials)
        for content in (b"aaaa", b"bbbb"):
            path.write_bytes(content)
            os.utime(path, (SECOND, SECOND))
            harness.now = moment(SECOND + 0.5)
            harness.sync()
            assert kept(harness) == {"/file": content}


def test_a_change_in_the_same_minute_is_found_by_the_exact_time(list_server: Any) -> None:
    harness = Harness(Ftp, {**list_server.config, **UNSETTLED}, list_server.credentials)
    for name in ("same", "file"):
        list_server.write(name, b"aaaa", at=SECOND)
    harness.now = moment(SECOND + 20)
    harness.sync()
    list_server.write("file", b"bbbb", at=SECOND + 30)
    list_server.commands.clear()
    harness.now = moment(SECOND + 200)
    harness.sync()
    assert kept(harness) == {"/same": b"aaaa", "/file": b"bbbb"}
    assert list_server.sent("RETR") == ["RETR /file"]


def test_after_two_looks_a_second_is_not_racy(facts_server: Any) -> None:
    harness = Harness(Ftp, facts_server.config, facts_server.credentials)
    facts_server.write("file", b"aaaa", at=SECOND)
    harness.now = moment(SECOND + 0.5)
    harness.sync()
    assert harness.sync().outputs_saved == 0
    assert facts_server.sent("RETR") == ["RETR /file"]


# Time zones


def shows_another_zone(server: Any, patch: pytest.MonkeyPatch, seconds: list[int]) -> None:
    """Let LIST show local times. MDTM stays in UTC."""

    class Zoned(AbstractedFS):  # type: ignore[misc]
        offset = 0

        def format_list(self, *args: Any, **options: Any) -> Iterator[bytes]:
            self.offset = seconds[0]
            try:
                yield from super().format_list(*args, **options)
            finally:
                self.offset = 0

        def lstat(self, path: str) -> Any:
            found = super().lstat(path)
            fields = {name: getattr(found, name) for name in dir(found) if name[:3] == "st_"}
            return SimpleNamespace(**{**fields, "st_mtime": found.st_mtime + self.offset})

    patch.setattr(server.handler, "abstracted_fs", Zoned)


def test_a_server_an_hour_off_gives_the_right_times(
    list_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that shows all times an hour later when the summer begins makes nothing new."""
    seconds = [HOUR]
    shows_another_zone(list_server, monkeypatch, seconds)
    wanted = {f"/{number}": list_server.write(str(number)).stat().st_mtime for number in range(20)}
    wanted["/large"] = list_server.write("large", bytes(5_000_000)).stat().st_mtime
    harness = Harness(Ftp, list_server.config, list_server.credentials)
    first = harness.sync()
    assert (first.state, first.skipped_items.total()) == ("succeeded", 0), first.failures

    def times() -> dict[str, float]:
        return {path: item.timestamp.timestamp() for path, item in harness.content.items()
            if item.timestamp}  # fmt: skip

    assert times() == wanted
    for offset in (HOUR, 2 * HOUR, -5 * HOUR, -5 * HOUR):
        list_server.commands.clear()
        seconds[0] = offset
        harness.sync()
        assert not list_server.sent("RETR")
    assert not list_server.sent("MDTM"), "the new times are remembered"
    assert times() == wanted


def test_a_file_that_changes_an_hour_later_is_fetched(
    list_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shows_another_zone(list_server, monkeypatch, [HOUR])
    at = list_server.write("file", b"aaaa").stat().st_mtime
    harness = Harness(Ftp, list_server.config, list_server.credentials)
    harness.sync()
    list_server.write("file", b"bbbb", at=at + HOUR)
    harness.sync()
    assert kept(harness) == {"/file": b"bbbb"}


# Renamed files


def test_a_renamed_file_is_not_fetched_again(facts_server: Any) -> None:
    large = os.urandom(2_000_000)
    facts_server.write("stays")
    facts_server.write("a", large)
    facts_server.write("sub/a", b"small")
    facts_server.write("sub/stays")
    harness = Harness(Ftp, facts_server.config, facts_server.credentials)
    harness.sync()
    (facts_server.home / "a").rename(facts_server.home / "b")
    (facts_server.home / "sub/a").rename(facts_server.home / "sub/b")
    (facts_server.home / "linked").hardlink_to(facts_server.home / "b")
    facts_server.commands.clear()
    harness.sync()
    assert not facts_server.sent("RETR")
    assert kept(harness) == {
        "/stays": b"content", "/b": large, "/linked": large, "/sub/b": b"small",
        "/sub/stays": b"content",
    }  # fmt: skip
    assert harness.content["/b"].timestamp is not None
    assert harness.sync().outputs_saved == 0


def test_many_renamed_files_need_little_memory(
    facts_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("integration_polling_ftp.walking.MAX_HELD_BYTES", 5_000)
    wanted = {}
    for number in range(20):
        content = os.urandom(1_000)
        facts_server.write(f"in-{number}", content)
        wanted[f"/done-{number}"] = content
    facts_server.write("stays")
    harness = Harness(Ftp, facts_server.config, facts_server.credentials)
    harness.sync()
    for number in range(20):
        (facts_server.home / f"in-{number}").rename(facts_server.home / f"done-{number}")
    facts_server.commands.clear()
    harness.sync()
    assert not facts_server.sent("RETR")
    assert kept(harness) == {**wanted, "/stays": b"content"}


def test_an_id_that_changes_with_the_connection_proves_nothing(
    facts_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may number its files from 0 in each session (RFC 3659, section 7.5.2)."""

    class Counted(AbstractedFS):  # type: ignore[misc]
        def format_mlsx(self, *args: Any, **options: Any) -> Iterator[bytes]:
            numbers = count()
            for line in super().format_mlsx(*args, **options):
                head, _, rest = line.partition(b"unique=")
                yield head + b"unique=%d;" % next(numbers) + rest.partition(b";")[2]

    monkeypatch.setattr(facts_server.handler, "abstracted_fs", Counted)
    for name in ("b", "c", "d"):
        facts_server.write(name, name.encode(), at=SECOND)
    harness = Harness(Ftp, facts_server.config, facts_server.credentials)
    harness.sync()
    facts_server.write("a", b"a", at=SECOND)
    (facts_server.home / "b").unlink()
    harness.sync()
    assert kept(harness) == {"/a": b"a", "/c": b"c", "/d": b"d"}


def test_a_file_that_only_looks_like_a_kept_one_is_fetched(facts_server: Any) -> None:
    facts_server.write("stays")
    facts_server.write("a", b"aaaa", at=SECOND)
    harness = Harness(Ftp, facts_server.config, facts_server.credentials)
    harness.sync()
    facts_server.write("b", b"bbbb", at=SECOND)
    harness.sync()
    assert kept(harness) == {"/stays": b"content", "/a": b"aaaa", "/b": b"bbbb"}


# Directories that lead back


class Blind(AbstractedFS):  # type: ignore[misc]
    """Shows links as what they lead to, and gives no ids, as FileZilla Server and IIS do."""

    lstat = AbstractedFS.stat

    def format_mlsx(
        self, basedir: str, listing: Any, perms: str, facts: Any, ignore_err: bool = True
    ) -> Any:
        given = [fact for fact in facts if fact != "unique"]
        return super().format_mlsx(basedir, listing, perms, given, ignore_err)


def test_a_directory_that_leads_back_is_not_entered(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ftp_server.handler, "abstracted_fs", Blind)
    for path in ("file", "sub/inside", "sub/deep/er/last"):
        ftp_server.write(path)
    (ftp_server.home / "sub/loop").symlink_to(ftp_server.home)
    (ftp_server.home / "sub/deep/er/up").symlink_to(ftp_server.home / "sub")
    (ftp_server.home / "sub/here").symlink_to(".")
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    result = harness.sync()
    assert set(harness.content) == {
        "/file", "/sub", "/sub/inside", "/sub/deep", "/sub/deep/er", "/sub/deep/er/last"
    }  # fmt: skip
    assert dict(result.skipped_items) == {"link to a directory above it": 3}
    assert harness.sync().outputs_saved == 0


def test_a_directory_that_becomes_a_loop_leaves_the_copy(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ftp_server.handler, "abstracted_fs", Blind)
    ftp_server.write("sub/file")
    ftp_server.write("sub/loop/other")
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    harness.sync()
    (ftp_server.home / "sub/loop/other").unlink()
    (ftp_server.home / "sub/loop").rmdir()
    (ftp_server.home / "sub/loop").symlink_to(".")
    harness.sync()
    assert set(harness.content) == {"/sub", "/sub/file"}


def test_directories_that_look_like_the_ones_above_them_are_kept(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have the same names, sizes and times, and they end."""
    monkeypatch.setattr(ftp_server.handler, "abstracted_fs", Blind)
    ftp_server.write("a/a/a/last", b"1", at=SECOND)
    ftp_server.write("b/b/b/b/b", b"1", at=SECOND)
    for path in ("c", "c/c", "c/c/c"):
        ftp_server.write(f"{path}/same", b"1", at=SECOND)
    for folder, _, _ in os.walk(ftp_server.home, topdown=False):
        os.utime(folder, (SECOND, SECOND))
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    harness.sync()
    assert set(kept(harness)) == {
        "/a/a/a/last", "/b/b/b/b/b", "/c/same", "/c/c/same", "/c/c/c/same"
    }  # fmt: skip


def test_a_link_to_a_folder_above_over_sftp_is_not_entered(tmp_path: Path) -> None:
    """A server on Windows shows a junction as a directory."""
    import asyncssh

    class Junctions(asyncssh.SFTPServer):
        async def scandir(self, path: bytes) -> Any:
            async for name in super().scandir(path):
                place = Path(os.fsdecode(self.map_path(path))) / os.fsdecode(name.filename)
                name.attrs = asyncssh.SFTPAttrs.from_local(place.stat())
                yield name

    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/file").write_bytes(b"1")
    (tmp_path / "sub/up").symlink_to("..")
    old = time.time() - 1_000_000
    os.utime(tmp_path / "sub/file", (old, old))
    with serve_ssh(tmp_path, sftp=Junctions) as server:
        harness = Harness(Ftp, server.config, server.credentials)
        result = harness.sync()
    assert set(harness.content) == {"/sub", "/sub/file"}
    assert dict(result.skipped_items) == {"link to a directory above it": 1}
