"""The rehearsal before an account is stored, on real servers."""

from __future__ import annotations

import time
from typing import Any

import pytest
from integration_polling_ftp import Ftp
from integration_polling_ftp.rehearsing import MAX_LINES
from pyftpdlib.filesystems import AbstractedFS
from real_servers import serve
from ssh_server import serve_ssh

from core import PermanentError, Rehearsal
from core.testing import Harness


def rehearse(server: Any, **config: Any) -> Rehearsal:
    return Harness(Ftp, {**server.config, **config}, server.credentials).rehearse()


def facts(rehearsal: Rehearsal) -> dict[str, dict[str, str | int]]:
    return {section.title: dict(section.facts) for section in rehearsal.sections}


def tree(rehearsal: Rehearsal) -> list[tuple[int, str]]:
    return [(line.level, line.name) for line in rehearsal.sections[-1].sample]


def test_the_server_and_the_tree_are_described(ftp_server: Any) -> None:
    for path in ("b.csv", "a.txt", "sub/deep/c.csv", "sub/d.csv"):
        ftp_server.write(path, path.encode())
    has_facts = "MLSD" in ftp_server.handler.proto_cmds
    found = rehearse(ftp_server, include=["*.csv"])
    said = facts(found)
    assert said["Server"]["Protocol"] == "FTP"
    assert "pyftpdlib" in str(said["Server"]["Software"])
    assert "MDTM" in str(said["Server"]["Features"])
    assert said["Server"]["Form of listings"] == ("MLSD" if has_facts else "LIST (unix)")
    assert said["Server"]["Times in listings"] == f"to the {'second' if has_facts else 'minute'}"
    assert said["Server"]["Connections"] == "at least 4 at a time"
    assert said["Listing"] == {
        "Directory": "/", "Entries": "3", "Left out": 1, "Unreadable lines": 0
    }  # fmt: skip
    assert said["Trial"] == {"File": "/b.csv", "Bytes": 5, "Listed": 5}
    assert tree(found) == [(0, "sub/"), (1, "deep/"), (2, "c.csv"), (1, "d.csv"), (0, "b.csv")]
    assert found.warnings == [
        "The connection is not encrypted. Anyone on the way can read the password."
    ]
    assert len(ftp_server.sent("RETR")) == 1
    assert len(ftp_server.sent("USER")) <= 5


@pytest.mark.parametrize("name", ["vsftpd", "proftpd", "pure-ftpd"])
def test_the_true_limit_of_connections_is_found(name: str) -> None:
    with serve(name, 2) as server:
        (server.home / "file").write_bytes(b"1")
        found = rehearse(server)
        assert str(facts(found)["Server"]["Connections"]).startswith("2 at a time: ")
        [warning] = [each for each in found.warnings if "max_connections" in each]
        assert warning.startswith("The server allows 2 connections at a time.")


@pytest.mark.parametrize("name", ["openssh", "proftpd-sftp"])
def test_sftp_servers_are_described(name: str) -> None:
    with serve(name) as server:
        (server.home / "file").write_bytes(b"12345")
        found = rehearse(server)
        said = facts(found)
        assert said["Server"]["Protocol"] == "SFTP"
        assert str(said["Server"]["Software"]).startswith("SSH-2.0-")
        assert said["Trial"] == {"File": f"{server.prefix}/file", "Bytes": 5, "Listed": 5}
        assert (tree(found), found.warnings) == ([(0, "file")], [])


def test_a_clock_that_is_ahead_is_named(ftp_server: Any) -> None:
    ftp_server.write("file", at=time.time() + 3600)
    [warning] = [each for each in rehearse(ftp_server).warnings if "clock" in each]
    assert warning.startswith("The newest file is +1:00 h ahead of this computer's clock.")


def test_local_times_in_listings_are_named(
    list_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Local(AbstractedFS):  # type: ignore[misc]
        def format_list(self, *args: Any, **options: Any) -> Any:
            for line in super().format_list(*args, **options):
                yield line.replace(b" 10:00 ", b" 15:30 ")

    monkeypatch.setattr(list_server.handler, "abstracted_fs", Local)
    list_server.write("file", at=time.time() // 86400 * 86400 - 10 * 86400 + 10 * 3600)
    said = facts(rehearse(list_server))["Server"]["Times in listings"]
    assert said == "to the minute, +5:30 h from UTC; MDTM gives exact times"


def test_an_empty_selection_is_a_warning(ftp_server: Any) -> None:
    ftp_server.write("file")
    found = rehearse(ftp_server, include=["/*.csv"])
    assert "The directory is empty, or the selection leaves out all of it." in found.warnings
    assert "Trial" not in facts(found)


def test_a_file_that_is_refused_is_a_warning(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Any, file: str) -> None:
        self.respond("550 Permission denied.")

    monkeypatch.setattr(ftp_server.handler, "ftp_RETR", refused)
    ftp_server.write("file")
    found = rehearse(ftp_server)
    assert "The server does not send the file /file: 550 Permission denied." in found.warnings


def test_a_large_tree_is_described_by_its_beginning(ftp_server: Any) -> None:
    for directory in range(20):
        for number in range(20):
            ftp_server.write(f"{directory:02}/{number:02}", b"")
    ftp_server.commands.clear()
    found = rehearse(ftp_server)
    assert len(tree(found)) <= MAX_LINES
    assert found.sections[-1].omitted > 0
    listings = [line for line in ftp_server.commands if line[:4] in ("MLSD", "LIST")]
    assert len(listings) <= 14


def test_a_directory_that_cannot_be_listed_fails(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Any, path: str) -> None:
        self.respond("550 Permission denied.")

    for command in ("ftp_LIST", "ftp_MLSD"):
        monkeypatch.setattr(ftp_server.handler, command, refused)
    with pytest.raises(PermanentError):
        rehearse(ftp_server)


def test_huge_directories_are_not_read_completely(tmp_path: Any) -> None:
    for number in range(6_000):
        (tmp_path / f"{number}").touch()
    with serve_ssh(tmp_path) as server:
        found = rehearse(server)
    assert facts(found)["Listing"]["Entries"] == "5,000 (the first ones)"
