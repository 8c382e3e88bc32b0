"""Syncs from a real server: files kept, downloaded again, and marked deleted."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from integration_polling_ftp import Ftp
from integration_polling_ftp.listing import Entry
from integration_polling_ftp.session import Session

from core import ConfigurationError, CredentialsInvalid, PermanentError
from core.testing import Harness


def connect(server: Any, **config: Any) -> Harness:
    return Harness(Ftp, {**server.config, **config}, server.credentials)


def files(harness: Harness) -> dict[str, bytes | None]:
    return {key: item.content for key, item in harness.content.items() if item.kind == "file"}


def synced(server: Any, **config: Any) -> Harness:
    harness = connect(server, **config)
    result = harness.sync()
    assert result.state == "succeeded", [result.error, *result.parked]
    return harness


def test_files_and_directories_are_kept_with_their_bytes(ftp_server: Any) -> None:
    ftp_server.write("a.txt", b"alpha")
    ftp_server.write("deep/er/b.txt", b"beta")
    harness = synced(ftp_server)
    assert files(harness) == {"/a.txt": b"alpha", "/deep/er/b.txt": b"beta"}
    item = harness.content["/deep/er/b.txt"]
    assert (item.parent, item.name) == ("/deep/er", "b.txt")
    source = "MLSD" if "MLSD" in ftp_server.handler.proto_cmds else "MDTM"
    assert item.metadata == {"size": 4, "time_source": source}
    assert item.timestamp is not None
    assert item.timestamp.timestamp() == (ftp_server.home / "deep/er/b.txt").stat().st_mtime
    assert harness.content["/deep/er"].kind == "directory"


def test_names_keep_their_bytes(ftp_server: Any) -> None:
    names = [
        "ä ö.txt",
        "日本.txt",
        " leading",
        "100%.txt",
        "%41.txt",
        "-la",
        "a;b=c d",
        "x -> y",
        "[glob]*?",
    ]
    for name in names:
        ftp_server.write(name, name.encode())
    raw = os.fsencode(ftp_server.home) + b"/caf\xe9.txt"
    Path(os.fsdecode(raw)).write_bytes(b"latin-1")
    kept = files(synced(ftp_server))
    assert kept.pop("/caf%E9.txt") == b"latin-1"
    assert kept.pop("/%2541.txt") == b"%41.txt"
    assert kept == {f"/{name}": name.encode() for name in names if name != "%41.txt"}


def test_an_empty_and_a_large_file_are_kept(ftp_server: Any) -> None:
    large = os.urandom(5_000_000)
    ftp_server.write("empty", b"")
    ftp_server.write("large", large)
    assert files(synced(ftp_server)) == {"/empty": b"", "/large": large}


def test_only_new_and_changed_files_are_downloaded(ftp_server: Any) -> None:
    ftp_server.write("same", b"same")
    ftp_server.write("grows", b"1")
    ftp_server.write("rewritten", b"aaaa")
    harness = synced(ftp_server)
    ftp_server.write("grows", b"12")
    path = ftp_server.write("rewritten", b"bbbb")
    os.utime(path, (1_600_000_000, 1_600_000_000))
    ftp_server.write("new", b"new")
    ftp_server.commands.clear()
    result = harness.sync()
    assert sorted(ftp_server.sent("RETR")) == ["RETR /grows", "RETR /new", "RETR /rewritten"]
    assert result.outputs_saved == 3
    assert files(harness) == {
        "/same": b"same",
        "/grows": b"12",
        "/rewritten": b"bbbb",
        "/new": b"new",
    }


def test_a_deleted_file_and_a_deleted_directory_are_marked_deleted(ftp_server: Any) -> None:
    for name in ("a", "b", "c", "dir/x", "dir/sub/y"):
        ftp_server.write(name)
    harness = synced(ftp_server)
    (ftp_server.home / "a").unlink()
    for path in ("dir/sub/y", "dir/x"):
        (ftp_server.home / path).unlink()
    (ftp_server.home / "dir/sub").rmdir()
    (ftp_server.home / "dir").rmdir()
    harness.sync()
    assert set(harness.content) == {"/b", "/c"}


def test_a_file_can_replace_a_directory(ftp_server: Any) -> None:
    ftp_server.write("place/inside")
    ftp_server.write("other")
    harness = synced(ftp_server)
    (ftp_server.home / "place/inside").unlink()
    (ftp_server.home / "place").rmdir()
    ftp_server.write("place", b"a file now")
    harness.sync()
    assert files(harness) == {"/place": b"a file now", "/other": b"content"}


def test_the_root_can_be_a_subdirectory(ftp_server: Any) -> None:
    ftp_server.write("in/100%41/x", b"x")
    ftp_server.write("out", b"y")
    assert files(synced(ftp_server, root="/in/100%41/")) == {"/in/100%2541/x": b"x"}


def test_a_cycle_of_links_is_not_followed(ftp_server: Any) -> None:
    ftp_server.write("sub/file", b"1")
    (ftp_server.home / "sub/loop").symlink_to(ftp_server.home)
    assert files(synced(ftp_server)) == {"/sub/file": b"1"}


def test_a_link_to_a_file_is_a_file(ftp_server: Any) -> None:
    ftp_server.write("file", b"1")
    (ftp_server.home / "link").symlink_to("file")
    (ftp_server.home / "broken").symlink_to("nowhere")
    assert files(synced(ftp_server)) == {"/file": b"1", "/link": b"1"}


def test_a_vanished_root_deletes_nothing(ftp_server: Any) -> None:
    ftp_server.write("root/file")
    harness = synced(ftp_server, root="/root")
    (ftp_server.home / "root").rename(ftp_server.home / "elsewhere")
    result = harness.sync()
    assert result.state == "partial"
    assert isinstance(result.parked[0].error, PermanentError)
    assert files(harness) == {"/root/file": b"content"}


def test_a_listing_that_cannot_be_read_deletes_nothing(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        ftp_server.write(name)
    harness = synced(ftp_server)
    (ftp_server.home / "a").unlink()
    entries = Session.entries

    def with_nonsense(self: Session, path: str) -> Any:
        return [*entries(self, path), "nonsense"]

    with monkeypatch.context() as patch:
        patch.setattr(Session, "entries", with_nonsense)
        assert harness.sync().outputs_deleted == 0
    assert harness.sync().outputs_deleted == 1


@pytest.mark.parametrize(
    "name", ["", "..", ".", "../up", "/etc/passwd", "a\rQUIT", "a\nQUIT", "a\0b"]
)
def test_unsafe_names_are_skipped(
    ftp_server: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ftp_server.write("good")
    entries = Session.entries

    def with_unsafe(self: Session, path: str) -> Any:
        return [Entry(name, "directory"), Entry(name, "file", 1, "2026"), *entries(self, path)]

    monkeypatch.setattr(Session, "entries", with_unsafe)
    assert set(synced(ftp_server).content) == {"/good"}


def test_directories_below_the_depth_limit_are_skipped(ftp_server: Any) -> None:
    ftp_server.write("d/" * 70 + "file")
    ftp_server.write("d/" * 60 + "file")
    assert set(files(synced(ftp_server))) == {"/" + "d/" * 60 + "file"}


def test_recently_changed_files_are_skipped_with_quiet_seconds(ftp_server: Any) -> None:
    ftp_server.write("fresh", at=time.time())
    os.utime(ftp_server.write("old"), (1_600_000_000, 1_600_000_000))
    assert set(files(synced(ftp_server, quiet_seconds=3600))) == {"/old"}


def test_a_wrong_password_and_a_wrong_root_are_reported(ftp_server: Any) -> None:
    with pytest.raises(CredentialsInvalid, match="530"):
        Harness(Ftp, ftp_server.config, {**ftp_server.credentials, "password": "wrong"}).check()
    with pytest.raises(ConfigurationError, match="no directory /nowhere") as caught:
        connect(ftp_server, root="/nowhere").check()
    assert caught.value.field == "root"


def test_the_identity_contains_user_server_and_root(ftp_server: Any) -> None:
    ftp_server.write("in/file")
    assert connect(ftp_server, root="/in").check().id == f"someone@127.0.0.1:{ftp_server.port}/in"


def test_a_refused_connection_is_a_transient_error(ftp_server: Any) -> None:
    result = Harness(Ftp, {**ftp_server.config, "port": 1}, ftp_server.credentials).sync()
    assert (result.state, len(result.failures), result.parked) == ("partial", 3, [])
    assert len(result.deferred) == 1
