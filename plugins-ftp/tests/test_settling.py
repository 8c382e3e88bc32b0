"""The second look at files before their download."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from integration_polling_ftp import Ftp
from integration_polling_ftp.walking import LARGE_BYTES
from ssh_server import serve_ssh

from core.testing import Harness

SETTLE = {"settle_seconds": 10}


def server_class(between: Callable[[], None]) -> type[asyncssh.SFTPServer]:
    """Return a server that calls a function once, after its first listing."""
    calls = [between]

    class Changing(asyncssh.SFTPServer):
        async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
            async for name in super().scandir(path):
                yield name
            if calls:
                calls.pop()()

    return Changing


def kept(harness: Harness) -> dict[str, Any]:
    return {path: item.content for path, item in harness.content.items() if item.kind == "file"}


def test_files_that_do_not_change_are_kept_by_the_same_run(ftp_server: Any) -> None:
    wanted = {f"/sub/{number}": os.urandom(number * 100) for number in range(30)}
    wanted["/sub/large"] = bytes(LARGE_BYTES)
    for path, content in wanted.items():
        ftp_server.write(path[1:], content, at=time.time())
    harness = Harness(Ftp, {**ftp_server.config, **SETTLE}, ftp_server.credentials)
    began = harness.clock
    result = harness.sync()
    assert (result.state, dict(result.skipped_items)) == ("succeeded", {})
    assert kept(harness) == wanted
    assert harness.clock - began >= 10
    [settle] = [task for task in harness.tasks if task.type == "settle"]
    assert settle.delay == 10
    assert harness.sync().outputs_saved == 0
    assert sum(task.type == "settle" for task in harness.tasks) == 1


def test_a_file_that_changes_between_the_looks_is_left_to_the_next_run(tmp_path: Path) -> None:
    now = int(time.time())
    for name in ("same", "grows", "touched", "goes", "turns", "small/same"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"before")
        os.utime(tmp_path / name, (now, now))
    (tmp_path / "link").symlink_to("grows")

    grown = b"before and after"

    def change() -> None:
        with (tmp_path / "grows").open("ab") as file:
            file.write(b" and after")
        os.utime(tmp_path / "touched", (now + 1, now + 1))
        (tmp_path / "goes").unlink()
        (tmp_path / "turns").unlink()
        (tmp_path / "turns").mkdir()

    with serve_ssh(tmp_path, sftp=server_class(change)) as server:
        harness = Harness(Ftp, {**server.config, **SETTLE}, server.credentials)
        first = harness.sync()
        assert first.state == "succeeded", first.failures
        assert dict(first.skipped_items) == {"still changing": 3, "gone before it was fetched": 1}
        # The plugin looks at the target of the link after the listing, when it has changed already.
        assert kept(harness) == {"/same": b"before", "/small/same": b"before", "/link": grown}
        second = harness.sync()
        assert second.skipped_items.total() == 0
    assert kept(harness) == {
        "/same": b"before", "/small/same": b"before", "/grows": grown, "/link": grown,
        "/touched": b"before",
    }  # fmt: skip


def test_a_file_that_rests_since_the_last_run_is_fetched_without_a_pause(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    with serve_ssh(tmp_path, sftp=server_class(lambda: bool(path.write_bytes(b"22")))) as server:
        harness = Harness(Ftp, {**server.config, **SETTLE}, server.credentials)
        assert dict(harness.sync().skipped_items) == {"still changing": 1}
        settled = sum(task.type == "settle" for task in harness.tasks)
        assert harness.sync().skipped_items.total() == 0
        assert sum(task.type == "settle" for task in harness.tasks) == settled == 1
        assert not harness.state, "it is forgotten"
    assert kept(harness) == {"/file": b"22"}


def test_a_file_that_grows_all_the_time_is_kept_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one ")

    class Growing(asyncssh.SFTPServer):
        def grow(self) -> None:
            with path.open("ab") as file:
                file.write(b"more ")

        async def scandir(self, name: bytes) -> AsyncIterator[asyncssh.SFTPName]:
            async for entry in super().scandir(name):
                yield entry
            self.grow()

        def open(self, *args: Any) -> Any:
            self.grow()
            return super().open(*args)

    with serve_ssh(tmp_path, sftp=Growing) as server:
        config = {**server.config, **SETTLE}
        harness = Harness(Ftp, config, server.credentials)
        assert dict(harness.sync().skipped_items) == {"still changing": 1}
        assert not kept(harness)
        harness = Harness(Ftp, {**config, "growing": True}, server.credentials)
        for _ in range(3):
            assert harness.sync().skipped_items.total() == 0
            content = kept(harness)["/log"]
            assert path.read_bytes().startswith(content)
            assert len(content) > 4


def test_files_that_rest_for_a_day_do_not_wait(ftp_server: Any) -> None:
    ftp_server.write("file")
    harness = Harness(Ftp, {**ftp_server.config, **SETTLE}, ftp_server.credentials)
    harness.sync()
    assert kept(harness) == {"/file": b"content"}
    assert not [task for task in harness.tasks if task.type == "settle"]


def test_a_change_of_a_kept_file_waits_too(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"1")
    with serve_ssh(tmp_path) as server:
        harness = Harness(Ftp, {**server.config, **SETTLE}, server.credentials)
        harness.sync()
    path.write_bytes(b"22")
    with serve_ssh(tmp_path, sftp=server_class(lambda: bool(path.write_bytes(b"333")))) as server:
        again = Harness(Ftp, {**server.config, **SETTLE}, server.credentials)
        again.plant(*harness.content.values())
        assert dict(again.sync().skipped_items) == {"still changing": 1}
        assert kept(again) == {"/file": b"1"}
        again.sync()
        assert kept(again) == {"/file": b"333"}


@pytest.mark.parametrize("entries", [0, 100_000])
def test_in_a_large_directory_only_the_files_that_wait_are_asked_for(
    ftp_server: Any, entries: int
) -> None:
    """A listing of a hundred thousand entries costs more than the facts of two files."""
    for name in ("a", "b"):
        ftp_server.write(name, name.encode())
    harness = Harness(Ftp, {**ftp_server.config, **SETTLE}, ftp_server.credentials)
    harness.sync()
    fingerprints = [harness.content[f"/{name}"].fingerprint for name in ("a", "b")]
    versions = [each.partition("=")[0].partition("#")[0] for each in fingerprints if each]
    ftp_server.write("b", b"changed")
    ftp_server.commands.clear()
    ftp = harness._worker.open()
    result = ftp.settle(
        harness.context("settle"),
        [("a", versions[0], False), ("b", versions[1], False)], "/", entries,
    )  # fmt: skip
    assert dict(result.skipped) == {"still changing": 1}
    listings = len([line for line in ftp_server.commands if line[:4] in ("MLSD", "LIST")])
    assert listings == (2 if entries == 0 else 0)
    ftp.close()
