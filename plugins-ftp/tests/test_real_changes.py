"""Changes, renames, special files and time zones on vsftpd, ProFTPD, pure-ftpd and OpenSSH."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import real_servers
from integration_polling_ftp import Ftp, login
from integration_polling_ftp.control import Reply
from integration_polling_ftp.session import Session
from integration_polling_ftp.walking import Walk
from real_servers import RealServer, serve

from core.testing import Harness

SERVERS = (
    *("vsftpd", "proftpd", "openssh"),
    *(pytest.param(name, marks=pytest.mark.long) for name in ("pure-ftpd", "proftpd-sftp")),
)
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


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_server_an_hour_off_hides_no_change(server: RealServer, hours: int) -> None:
    """The second of the server's clock is the same as here, so a later change may have it too."""
    now = int(time.time())
    write(server, "old", b"old", PAST)
    harness = connect(server, settle_seconds=0)
    harness.now = datetime.fromtimestamp(now + 0.5, UTC)
    for content in (b"aaaa", b"bbbb"):
        write(server, "file", content, now + hours * 3600)
        assert harness.sync().state == "succeeded"
        assert kept(harness, server) == {"/file": content, "/old": b"old"}
    [item] = [each for each in harness.content.values() if each.name == "file"]
    assert item.timestamp == datetime.fromtimestamp(now + hours * 3600, UTC)
    harness.now = datetime.fromtimestamp(now + 300, UTC)
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


def between_the_looks(patch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Call a function once, before the second look at files."""
    changes = [change]
    original = Walk.settle

    def settle(self: Walk, *args: Any) -> None:
        while changes:
            changes.pop()()
        original(self, *args)

    patch.setattr(Walk, "settle", settle)


@pytest.mark.parametrize("growing", [False, True])
def test_a_file_that_grows_is_complete_when_it_rests(
    server: RealServer, monkeypatch: pytest.MonkeyPatch, growing: bool
) -> None:
    def grow() -> None:
        with (server.home / "log").open("ab") as file:
            file.write(b" and the rest")

    write(server, "log", b"the first part", time.time())
    write(server, "rests", b"1", time.time())
    between_the_looks(monkeypatch, grow)
    harness = connect(server, growing=growing)
    first = harness.sync()
    assert first.state == "succeeded", first.failures
    whole = b"the first part and the rest"
    if growing:
        assert whole.startswith(kept(harness, server)["/log"])
    else:
        assert dict(first.skipped_items) == {"still changing": 1}
        assert kept(harness, server) == {"/rests": b"1"}
    assert harness.sync().skipped_items.total() == 0
    assert kept(harness, server) == {"/log": whole, "/rests": b"1"}


def test_markers_and_suffixes_decide(server: RealServer) -> None:
    for name in ("a.csv", "a.csv.done", "b.csv", "c.csv.part"):
        write(server, name, name.encode(), PAST)
    harness = connect(server, ready_marker="*.done")
    result = harness.sync()
    assert (result.state, result.skipped_items["without ready_marker"]) == ("succeeded", 1)
    assert set(kept(harness, server)) == {"/a.csv", "/a.csv.done"}
    write(server, "b.csv.done", b"", PAST)
    (server.home / "c.csv.part").rename(server.home / "c.csv")
    harness.sync()
    assert set(kept(harness, server)) == {"/a.csv", "/a.csv.done", "/b.csv", "/b.csv.done"}


def test_a_loop_without_ids_is_not_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `-b`, pure-ftpd's LIST shows links as the directories that they lead to."""
    start, features = real_servers.STARTS["pure-ftpd"], login._features

    def hiding(*args: Any) -> Any:
        command, credentials = start(*args)
        return [*command, "-b"], credentials

    def without_facts(reply: Reply) -> dict[str, str]:
        return {name: each for name, each in features(reply).items() if name != "MLST"}

    monkeypatch.setitem(real_servers.STARTS, "pure-ftpd", hiding)
    monkeypatch.setattr(login, "_features", without_facts)
    with serve("pure-ftpd") as server:
        write(server, "file", b"1", PAST)
        write(server, "sub/inside", b"2", PAST)
        write(server, "sub/deep/er/last", b"3", PAST)
        (server.home / "sub/loop").symlink_to("..")
        (server.home / "sub/deep/er/up").symlink_to("../..")
        (server.home / "sub/here").symlink_to(".")
        for folder, _, _ in os.walk(server.home, topdown=False):
            os.utime(folder, (PAST, PAST))
        harness = connect(server)
        result = harness.sync()
        assert result.state == "succeeded", result.failures
        assert set(kept(harness, server)) == {"/file", "/sub/inside", "/sub/deep/er/last"}
        assert dict(result.skipped_items) == {"link to a directory above it": 3}
        assert harness.sync().outputs_saved == 0
