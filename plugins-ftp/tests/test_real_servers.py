"""vsftpd, ProFTPD and pure-ftpd: odd trees arrive complete, and limits are respected."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import real_servers
from integration_polling_ftp import Config, Credentials, Ftp
from integration_polling_ftp import names as stored
from integration_polling_ftp.session import CUT, Session
from real_servers import RealServer, serve
from support.waiting import until

from core import RateLimited
from core.testing import Harness

SERVERS = ("vsftpd", "proftpd", "pure-ftpd")

ODD = [
    b"plain.txt", b" leading", b"trailing ", b"two  blanks", b"'quotes\"", b"caf\xe9", b"\xff\xfe",
    "日本語.txt".encode(), "ä ö.txt".encode(), b".hidden", b"..two dots", b"-la", b"100%41",
    b"a;b=c", b"x -> y", b"[glob]*?", b"back\\slash", b"~tilde", b"#hash", b"n" * 200, b"tab\there",
    b"1", b"drwxr-xr-x 1 u g 1 Jan 1 2020 x", b"type=dir;size=1; x", b"total 5", b"226 fail",
]  # fmt: skip

PURE_FTPD_HIDES = (b"tab\there", b"back\\slash")
"""pure-ftpd lists no names with control characters, and sends no file with a backslash."""


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[RealServer]:
    with serve(request.param) as server:
        yield server


def text(path: bytes) -> str:
    """Return a path as it is stored."""
    return stored.to_text(path.decode("latin-1"))


def write(server: RealServer, name: bytes, content: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(server.home) + b"/" + name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def kept(harness: Harness) -> dict[str, bytes | None]:
    return {key: item.content for key, item in harness.content.items() if item.kind == "file"}


def test_an_odd_tree_arrives_complete_and_is_fetched_once(server: RealServer) -> None:
    wanted = {}
    for directory in (b"", b"sub dir/", b".hidden dir/", b"caf\xe9 dir/deep/" + b"d/" * 20):
        for number, name in enumerate(ODD):
            if server.name == "pure-ftpd" and name in PURE_FTPD_HIDES:
                continue
            content = directory + name + os.urandom(number)
            write(server, directory + name, content)
            wanted["/" + text(directory + name)] = content
    write(server, b"large", bytes(5_000_000))
    wanted["/large"] = bytes(5_000_000)
    (server.home / "empty dir").mkdir()
    harness = Harness(Ftp, server.config, server.credentials)
    first = harness.sync()
    assert (first.state, dict(first.skipped_items)) == ("succeeded", {}), first.failures
    found = kept(harness)
    assert found.keys() - wanted.keys() == set()
    assert wanted.keys() - found.keys() == set()
    assert found == wanted
    assert harness.content["/empty dir"].kind == "directory"
    again = harness.sync()
    assert (again.outputs_saved, again.outputs_deleted, again.skipped_items.total()) == (0, 0, 0)


def test_a_name_with_a_line_break_is_kept_or_counted(server: RealServer) -> None:
    """Only vsftpd has a form for such names. ProFTPD shows two lines, and pure-ftpd nothing."""
    ghost = b"x\n-rw-r--r--    1 0        0               5 Jan 01  2020 ghost"
    for name in (b"two\nlines", b"\nfirst", b"last\n", ghost, b"in\nside/file", b"plain"):
        write(server, name, name)
    harness = Harness(Ftp, server.config, server.credentials)
    result = harness.sync()
    assert result.state == "succeeded", result.failures
    found = kept(harness)
    skipped = dict(result.skipped_items)
    if server.name == "vsftpd":
        names = ("/two%0Alines", "/%0Afirst", "/last%0A", f"/{text(ghost)}", "/in%0Aside/file")
        assert set(found) == {*names, "/plain"}
        assert found["/two%0Alines"] == b"two\nlines"
        assert not skipped
    else:
        assert set(found) == {"/plain"}
        assert bool(skipped.get("unreadable line in a listing")) == (server.name == "proftpd")
    assert harness.sync().outputs_saved == 0


def test_a_listing_that_the_server_cuts_is_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    """pure-ftpd lists 10,000 entries of a directory by default, and says so behind them."""
    start = real_servers.STARTS["pure-ftpd"]

    def few(*args: Any) -> tuple[list[str], dict[str, str]]:
        command, credentials = start(*args)
        command[command.index("-L") + 1] = "10:5"
        return command, credentials

    monkeypatch.setitem(real_servers.STARTS, "pure-ftpd", few)
    with serve("pure-ftpd") as server:
        for number in range(8):
            write(server, b"d/%d" % number, b"x")
        harness = Harness(Ftp, server.config, server.credentials)
        assert (harness.sync().outputs_saved, len(kept(harness))) == (9, 8)
        for number in range(8, 30):
            write(server, b"d/%d" % number, b"x")
        result = harness.sync()
        assert result.outputs_deleted == 0, "what the server does not list is not gone"
        assert dict(result.skipped_items) == {CUT: 1}


def test_links_are_followed_and_loops_end(server: RealServer) -> None:
    write(server, b"file", b"the content of the file")
    write(server, b"sub/inside", b"inside")
    (server.home / "short").symlink_to("file")
    (server.home / ("link to a file with a long name" * 3)).symlink_to("file")
    (server.home / "broken").symlink_to("nowhere")
    (server.home / "sub/loop").symlink_to("..")
    (server.home / "sub/here").symlink_to(".")
    harness = Harness(Ftp, server.config, server.credentials)
    first = harness.sync()
    assert (first.state, first.tasks_parked) == ("succeeded", 0), first.failures
    found = kept(harness)
    assert found["/file"] == found["/short"] == b"the content of the file"
    assert found["/" + "link to a file with a long name" * 3] == b"the content of the file"
    assert found["/sub/inside"] == b"inside"
    assert sum(1 for path in found if path.count("/") > 4) == 0, sorted(found)
    assert first.skipped_items.total() >= 2
    assert harness.sync().outputs_saved == 0


def test_a_directory_and_a_file_that_may_not_be_read_are_skipped(server: RealServer) -> None:
    if os.geteuid() == 0 and server.name == "proftpd":
        pytest.skip("this server runs as root, which may read everything")
    write(server, b"open/file", b"1")
    write(server, b"locked/file", b"1")
    write(server, b"secret", b"1")
    (server.home / "locked").chmod(0o000)
    (server.home / "secret").chmod(0o000)
    harness = Harness(Ftp, server.config, server.credentials)
    for _ in range(2):
        result = harness.sync()
        assert (result.state, result.skipped_items.total()) == ("succeeded", 2), result.failures
    assert set(kept(harness)) == {"/open/file"}


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("name", SERVERS)
def test_a_session_that_is_refused_is_a_limit(name: str, limit: int) -> None:
    with serve(name, limit) as server:
        sessions = [
            Session(Config(**server.config), Credentials(**server.credentials))
            for _ in range(limit + 1)
        ]
        for session in sessions[:limit]:
            until(partial(_answers, session), "the session of the check has ended")
        with pytest.raises(RateLimited) as caught:
            sessions[limit].ping()
        assert caught.value.limit == "connections"
        for session in sessions:
            session.close()


def _answers(session: Session) -> bool:
    try:
        session.ping()
    except RateLimited:
        return False
    return True
