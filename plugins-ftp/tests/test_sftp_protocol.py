"""The packets of SFTP: what the plugin can send, and servers that break the protocol."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from integration_polling_ftp import Config, Credentials, Ftp, sftp_protocol
from integration_polling_ftp import sftp as sessions
from integration_polling_ftp.connection import Stat
from integration_polling_ftp.errors import Dropped, Missing
from integration_polling_ftp.sftp import SftpSession
from integration_polling_ftp.sftp_protocol import (
    MAX_PACKET_BYTES,
    MAX_READ_BYTES,
    READ_BYTES,
    Extension,
    Reply,
    Request,
)
from integration_polling_ftp.walking import LARGE_BYTES
from ssh_server import PASSWORD, serve_ssh

from core import TransientError
from core.testing import Harness

WRITES = (
    "write", "setstat", "fsetstat", "lsetstat", "remove", "mkdir", "rmdir", "rename",
    "posix_rename", "symlink", "link", "lock", "unlock", "fsync",
)  # fmt: skip
"""The operations of asyncssh's server that change something."""


def number(value: int, length: int = 4) -> bytes:
    return value.to_bytes(length, "big")


def string(data: bytes) -> bytes:
    return number(len(data)) + data


def packet(kind: int, body: bytes) -> bytes:
    return string(bytes([kind]) + body)


DIRECTORY = number(4) + number(0o040755)
"""Attributes: a directory."""

FILE = number(1 | 4 | 8) + number(5, 8) + number(0o100644) + number(0) + number(1_600_000_000)
"""Attributes: a file with 5 bytes."""


def names(*entries: bytes) -> bytes:
    listed = b"".join(string(entry) + string(b"") + FILE for entry in entries)
    return number(len(entries)) + listed


class Hostile:
    """A server that answers one kind of request in its own way, and others properly."""

    def __init__(self, kind: Request, *replies: bytes) -> None:
        self.kind = kind
        self.replies = list(replies)
        self.asked: list[int] = []

    def __call__(self, kind: int, number_: bytes, body: bytes) -> bytes:
        self.asked.append(kind)
        if kind == self.kind:
            reply = self.replies[0] if len(self.replies) == 1 else self.replies.pop(0)
            return reply.replace(b"NUMBER..", number_)
        proper = {
            Request.INIT: packet(Reply.VERSION, number(3)),
            Request.REALPATH: packet(Reply.NAME, number_ + names(b"/")),
            Request.STAT: packet(Reply.ATTRS, number_ + DIRECTORY),
            Request.FSTAT: packet(Reply.ATTRS, number_ + FILE),
            Request.OPEN: packet(Reply.HANDLE, number_ + string(b"handle")),
            Request.OPENDIR: packet(Reply.HANDLE, number_ + string(b"handle")),
            Request.READDIR: packet(Reply.STATUS, number_ + number(1)),
            Request.READ: packet(Reply.STATUS, number_ + number(1)),
            Request.CLOSE: packet(Reply.STATUS, number_ + number(0)),
        }
        return proper[Request(kind)]


def answered(kind: int, body: bytes) -> bytes:
    """Return a packet with the id of the request in it."""
    return string(bytes([kind]) + b"NUMBER.." + body).replace(
        number(9 + len(body)), number(5 + len(body)), 1
    )


@contextmanager
def hostile(tmp_path: Path, kind: Request, *replies: bytes) -> Iterator[SftpSession]:
    with serve_ssh(tmp_path, answer=Hostile(kind, *replies)) as server:
        session = SftpSession(Config(**server.config), Credentials(**server.credentials))
        yield session
        session.close()


def read(session: SftpSession) -> None:
    session.retrieve("/file", lambda block: None)


# What can be sent


def test_the_plugin_can_send_only_requests_that_read() -> None:
    assert {one.name: one.value for one in Request} == {
        "INIT": 1, "OPEN": 3, "CLOSE": 4, "READ": 5, "FSTAT": 8, "OPENDIR": 11, "READDIR": 12,
        "REALPATH": 16, "STAT": 17, "EXTENDED": 200,
    }  # fmt: skip
    assert [one.value for one in Extension] == [b"limits@openssh.com", b"check-file-name"]
    assert number(1) == sftp_protocol.FOR_READING
    tree = ast.parse(Path(sftp_protocol.__file__).read_text())
    functions = {one.name: one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)}
    writes = [
        one for one in ast.walk(tree) if isinstance(one, ast.Attribute) and one.attr == "write"
    ]
    assert len(writes) == 1
    additions = [one for one in ast.walk(tree) if isinstance(one, ast.AugAssign)
        and isinstance(one.target, ast.Attribute) and one.target.attr == "_outgoing"]  # fmt: skip
    assert len(additions) == 1
    extended = [
        one for one in ast.walk(tree) if isinstance(one, ast.Attribute) and one.attr == "EXTENDED"
    ]
    assert len(extended) == 2  # the request and its reply, in _ask_extension
    for name, [place] in (("flush", writes), ("_send", additions)):
        function = functions[name]
        assert function.lineno < place.lineno <= (function.end_lineno or 0)


def test_the_server_receives_no_request_that_writes(tmp_path: Path) -> None:
    received: list[Any] = []

    class Recording(asyncssh.SFTPServer):
        def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
            received.append(("open", pflags))
            return super().open(path, pflags, attrs)

    for name in WRITES:
        assert hasattr(asyncssh.SFTPServer, name)
        setattr(Recording, name, lambda *args, name=name: received.append(name))
    for path, size in (("small", 5), ("sub/spooled", 600_000), ("large", LARGE_BYTES + 1)):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(bytes(size))
    (tmp_path / "link").symlink_to("small")
    with serve_ssh(tmp_path, sftp=Recording) as server:
        harness = Harness(Ftp, server.config, server.credentials)
        for _ in range(2):
            assert harness.sync().state == "succeeded"
    assert {item.name for item in harness.content.values()} == {
        "small", "sub", "spooled", "large", "link",
    }  # fmt: skip
    assert set(received) == {("open", asyncssh.FXF_READ)}


# Servers that send less, or more


@pytest.mark.parametrize("most", [1_000, READ_BYTES - 1, READ_BYTES, MAX_READ_BYTES])
def test_a_server_may_send_less_than_requested(tmp_path: Path, most: int) -> None:
    opened: list[Any] = []

    class Short(asyncssh.SFTPServer):
        def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
            opened.append(super().open(path, pflags, attrs))
            return opened[-1]

        def read(self, file_obj: Any, offset: int, size: int) -> bytes:
            file_obj.seek(offset)
            return bytes(file_obj.read(min(size, most)))

    wanted = {size: os.urandom(size) for size in (0, 1, 999, 1_000, 32_768, 65_536, 200_001)}
    for size, content in wanted.items():
        (tmp_path / str(size)).write_bytes(content)
    with serve_ssh(tmp_path, sftp=Short) as server:
        session = SftpSession(Config(**server.config), Credentials(**server.credentials))
        found = {size: bytearray() for size in wanted}
        jobs = [(f"/{size}", found[size].extend) for size in wanted]
        assert dict(session.retrieve_many(jobs)) == {path: None for path, _ in jobs}
        assert {size: bytes(content) for size, content in found.items()} == wanted
        session.close()
    for file in opened:
        file.close()  # the server leaves those open whose close it has not read


@pytest.mark.parametrize(
    ("allowed", "requested"),
    [
        (None, READ_BYTES),  # the server has no limits
        (0, READ_BYTES),  # it does not know its limit
        (1_000, READ_BYTES),  # it sends less than requested
        (100_000, 100_000),
        (4 * 1024**2, MAX_READ_BYTES),
    ],
)
def test_a_read_is_as_large_as_the_limit_of_the_server(
    tmp_path: Path, allowed: int | None, requested: int
) -> None:
    extension = b"" if allowed is None else string(Extension.LIMITS.value) + string(b"1")
    limits = number(2**20, 8) + number(allowed or 0, 8) + number(0, 8) * 2
    asked: list[int] = []
    answer = Hostile(Request.INIT, packet(Reply.VERSION, number(3) + extension))

    def server(kind: int, number_: bytes, body: bytes) -> bytes:
        if kind == Request.EXTENDED:
            assert body == string(Extension.LIMITS.value)
            return packet(Reply.EXTENDED, number_ + limits)
        if kind == Request.READ:
            asked.append(int.from_bytes(body[-4:], "big"))
        return answer(kind, number_, body)

    with serve_ssh(tmp_path, answer=server) as running:
        session = SftpSession(Config(**running.config), Credentials(**running.credentials))
        read(session)
        session.close()
    assert asked == [requested]


def test_a_server_that_refuses_to_name_its_limits_is_read(tmp_path: Path) -> None:
    extension = string(Extension.LIMITS.value) + string(b"1")
    refusal = answered(Reply.STATUS, number(8) + string(b"no") + string(b""))
    answer = Hostile(Request.EXTENDED, refusal)

    def server(kind: int, number_: bytes, body: bytes) -> bytes:
        if kind == Request.INIT:
            return packet(Reply.VERSION, number(3) + extension)
        return answer(kind, number_, body)

    with serve_ssh(tmp_path, answer=server) as running:
        session = SftpSession(Config(**running.config), Credentials(**running.credentials))
        read(session)
        session.close()
    assert Request.EXTENDED in answer.asked


@pytest.mark.parametrize("size", [None, 0, 3])
def test_the_size_of_an_open_file_is_a_hint(tmp_path: Path, size: int | None) -> None:
    class Wrong(asyncssh.SFTPServer):
        def fstat(self, file_obj: Any) -> asyncssh.SFTPAttrs:
            return asyncssh.SFTPAttrs(size=size)

    content = os.urandom(5 * READ_BYTES)
    (tmp_path / "file").write_bytes(content)
    with serve_ssh(tmp_path, sftp=Wrong) as server:
        session = SftpSession(Config(**server.config), Credentials(**server.credentials))
        found = bytearray()
        session.retrieve("/file", found.extend)
        assert found == content
        session.close()


@pytest.mark.parametrize(
    "reply",
    [
        number(2**28) + bytes(100),
        number(MAX_PACKET_BYTES + 1) + bytes(100),
        number(0) * 2,
        packet(99, b""),
        packet(Reply.NAME, number(77) + names(b"a")),  # nobody asked
        answered(Reply.NAME, number(2**32 - 1) + string(b"a")),
        answered(Reply.NAME, number(1) + string(b"a")),
        answered(Reply.NAME, number(1) + number(2**31) + b"a"),
        answered(Reply.NAME, number(1) + string(b"a") * 2 + number(0x80000000) + number(2**32 - 1)),
        answered(Reply.DATA, string(b"a")),
        answered(Reply.VERSION, number(3)),
    ],
    ids=range(11),
)
def test_a_listing_that_breaks_the_protocol_fails(tmp_path: Path, reply: bytes) -> None:
    with (
        hostile(tmp_path, Request.READDIR, reply) as session,
        pytest.raises(Dropped, match="SFTP packet"),
    ):
        list(session.entries("/"))


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        (Request.READ, answered(Reply.DATA, string(bytes(READ_BYTES + 1)))),
        (Request.READ, answered(Reply.NAME, names(b"a"))),
        (Request.OPEN, answered(Reply.HANDLE, string(bytes(257)))),
        (Request.FSTAT, answered(Reply.ATTRS, number(1))),
        (Request.INIT, packet(Reply.VERSION, number(2))),
        (Request.INIT, packet(Reply.STATUS, number(0) + number(4))),
        (Request.REALPATH, answered(Reply.NAME, names())),
    ],
    ids=range(7),
)
def test_a_transfer_that_breaks_the_protocol_fails(
    tmp_path: Path, kind: Request, reply: bytes
) -> None:
    with hostile(tmp_path, kind, reply) as session, pytest.raises(Dropped):
        read(session)


def test_a_size_and_a_time_that_nothing_can_hold_are_hints(tmp_path: Path) -> None:
    facts = number(1 | 4 | 8) + number(2**64 - 1, 8) + number(0o100644) + number(0)
    reply = answered(Reply.ATTRS, facts + number(2**32 - 1))
    with hostile(tmp_path, Request.STAT, reply) as session:
        assert session.stat("/file") == Stat(None, "21060207062815")


def test_a_listing_without_an_end_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_LISTING_BYTES", 100_000)
    for reply in (names(), names(b""), names(b"name" * 50)):
        with (
            hostile(tmp_path, Request.READDIR, answered(Reply.NAME, reply)) as session,
            pytest.raises(TransientError, match="listing"),
        ):
            list(session.entries("/"))


def test_names_that_lead_elsewhere_are_skipped(tmp_path: Path) -> None:
    listed = (b"", b".", b"..", b"../up", b"a/b", b"/etc/passwd", b"nul\0", b"ok\n\\")
    answer = Hostile(
        Request.READDIR,
        *[answered(Reply.NAME, names(*listed)), answered(Reply.STATUS, number(1))] * 2,
    )
    with serve_ssh(tmp_path, answer=answer) as server:
        harness = Harness(Ftp, server.config, server.credentials)
        result = harness.sync()
    assert dict(result.skipped_items) == {"unsafe name": 5, "fewer bytes than listed": 1}
    assert Request.OPEN in answer.asked


def test_messages_of_a_server_are_short_and_without_the_password(tmp_path: Path) -> None:
    said = f"{PASSWORD} is wrong\udcff".encode("utf-8", "surrogateescape") + b"x" * 100_000
    reply = answered(Reply.STATUS, number(2) + string(said))
    with hostile(tmp_path, Request.OPEN, reply) as session, pytest.raises(Missing) as caught:
        read(session)
    assert PASSWORD not in str(caught.value)
    assert "*** is wrong" in str(caught.value)
    assert len(str(caught.value)) < 400
