"""Changes, renames, special files and time zones on vsftpd, ProFTPD, pure-ftpd and OpenSSH."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import real_servers
from integration_polling_ftp import Ftp
from integration_polling_ftp.session import Session
from real_servers import RealServer, serve

from core.testing import Harness

SERVERS = ("vsftpd", "proftpd", "pure-ftpd", "openssh", "proftpd-sftp")
PAST = 1_700_000_000 // 60 * 60 + 2
"""The second of a file, the second one of a minute."""


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    with serve(request.param) as server:
        yield server


def write(server: RealServer, name: str, content: bytes, at: float) -> None:
    path = server.home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (at, at))


def kept(harness: Harness, server: RealServer) -> dict[str, Any]:
    return {path.removeprefix(server.prefix): item.content
        for path, item in harness.content.items() if item.kind == "file"}  # fmt: skip


def connect(server: RealServer, **config: Any) -> Harness:
    return Harness(Ftp, {**server.config, **config}, server.credentials)


def test_a_change_in_the_same_second_is_found(server: RealServer) -> None:
    at = int(time.time()) // 60 * 60 - 3602
    write(server, "old", b"old", PAST)
    harness = connect(server, settle_seconds=0)
    for content in (b"aaaa", b"bbbb"):
        write(server, "file", content, at)
        harness.now = datetime.fromtimestamp(at + 0.5, UTC)
        assert harness.sync().state == "succeeded"
        assert kept(harness, server) == {"/file": content, "/old": b"old"}
    harness.now = datetime.fromtimestamp(at + 300, UTC)
    harness.sync()
    assert harness.sync().outputs_saved == 0


def test_a_change_after_two_looks_is_found(server: RealServer) -> None:
    write(server, "file", b"aaaa", time.time())
    harness = connect(server)
    assert harness.sync().state == "succeeded"
    write(server, "file", b"bbbb", time.time() + 1)
    harness.sync()
    assert kept(harness, server) == {"/file": b"bbbb"}
    harness.sync()
    assert harness.sync().outputs_saved == 0


def test_times_are_exact_and_have_a_source(server: RealServer) -> None:
    write(server, "file", b"1", PAST)
    harness = connect(server)
    harness.sync()
    [item] = [each for each in harness.content.values() if each.kind == "file"]
    assert item.timestamp == datetime.fromtimestamp(PAST, UTC)
    sources = {"vsftpd": "MDTM", "openssh": "SFTP", "proftpd-sftp": "SFTP"}
    assert item.metadata == {"size": 1, "time_source": sources.get(server.name, "MLSD")}


def test_a_renamed_file_keeps_its_bytes(
    server: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ProFTPD and pure-ftpd identify files. The others give no ids."""
    for number in range(5):
        write(server, f"d/{number}", b"%d" % number * 100, PAST + number)
    harness = connect(server)
    harness.sync()
    (server.home / "d/0").rename(server.home / "d/moved")
    fetched = []
    original = Session.retrieve_many

    def spied(self: Session, jobs: Any) -> Any:
        for path, error in original(self, jobs):
            fetched.append(path)
            yield path, error

    monkeypatch.setattr(Session, "retrieve_many", spied)
    assert harness.sync().state == "succeeded"
    wanted = {f"/d/{number}": b"%d" % number * 100 for number in range(1, 5)}
    assert kept(harness, server) == {**wanted, "/d/moved": b"0" * 100}
    assert fetched == (["/d/moved"] if server.name == "vsftpd" else [])


def test_pipes_and_sockets_are_skipped_by_their_type(server: RealServer) -> None:
    write(server, "file", b"1", PAST)
    os.mkfifo(server.home / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(server.home / "socket"))
        harness = connect(server, timeout_seconds=3)
        result = harness.sync()
    assert result.state == "succeeded", result.failures
    assert kept(harness, server) == {"/file": b"1"}


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns"])
def test_a_server_in_another_zone_gives_the_right_times(
    zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ProFTPD can list local times. MDTM stays in UTC."""
    monkeypatch.setenv("TZ", zone)
    start = real_servers.STARTS["proftpd"]

    def local(*args: Any) -> Any:
        command, credentials = start(*args)
        with (args[0] / "proftpd.conf").open("a") as config:
            config.write("TimesGMT off\n<Limit MLSD MLST>\nDenyAll\n</Limit>\nFactsAdvertise off\n")
        return command, credentials

    monkeypatch.setitem(real_servers.STARTS, "proftpd", local)
    now = int(time.time())
    times = {"summer": PAST - 86400 * 150, "winter": PAST, "recent": now - 86400 * 30, "new": now}
    with serve("proftpd") as server:
        for name, at in times.items():
            write(server, name, name.encode(), at)
        write(server, "large", bytes(5_000_000), now - 86400 * 30)
        harness = connect(server)
        result = harness.sync()
        assert (result.state, result.skipped_items.total()) == ("succeeded", 0), result.failures
        assert {
            item.name: item.timestamp and item.timestamp.timestamp()
            for item in harness.content.values()
            if item.name != "large"
        } == times
        harness.sync()
        assert harness.sync().outputs_saved == 0
