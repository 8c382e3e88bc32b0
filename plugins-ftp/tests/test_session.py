"""The connection: dropped, truncated and resumed."""

from __future__ import annotations

import ftplib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from integration_polling_ftp import Config, Credentials, Ftp
from integration_polling_ftp.download import fetch
from integration_polling_ftp.errors import translated
from integration_polling_ftp.listing import Entry
from integration_polling_ftp.session import Session

from core import PermanentError, TransientError, Unavailable
from core.testing import Harness


@pytest.fixture
def session(ftp_server: Any) -> Iterator[Session]:
    session = Session(Config(**ftp_server.config), Credentials(**ftp_server.credentials))
    yield session
    session.close()


def read(session: Session, path: str, offset: int = 0) -> bytes:
    blocks: list[bytes] = []
    session.retrieve(path, blocks.append, offset)
    return b"".join(blocks)


def test_a_connection_dropped_while_idle_is_opened_again(ftp_server: Any, session: Session) -> None:
    ftp_server.write("file", b"bytes")
    for operation in (
        lambda: list(session.entries("/")),
        lambda: session.stat("/file"),
        lambda: read(session, "/file"),
    ):
        assert operation()
        ftp_server.drop_connections()
        assert operation()


def test_a_connection_dropped_within_a_transfer_is_transient(
    ftp_server: Any, session: Session
) -> None:
    ftp_server.write("file", bytes(20_000_000))
    with pytest.raises(TransientError):
        session.retrieve("/file", lambda block: ftp_server.drop_connections())
    assert session.stat("/file").size == 20_000_000


def test_a_consumer_that_fails_leaves_a_session_that_works(
    ftp_server: Any, session: Session
) -> None:
    ftp_server.write("file", bytes(20_000_000))
    with pytest.raises(ZeroDivisionError):
        session.retrieve("/file", lambda block: 1 / 0)
    assert session.stat("/file").size == 20_000_000


def test_a_probe_logs_in_and_does_not_list(ftp_server: Any) -> None:
    ftp = Ftp(Config(**ftp_server.config), Credentials(**ftp_server.credentials))
    for _ in range(2):
        ftp.probe()
    ftp.close()
    sent = [line.split()[0] for line in ftp_server.commands]
    assert [command for command in sent if command not in ("FEAT", "OPTS")] == [
        "USER",
        "PASS",
        "NOOP",
        "NOOP",
    ]


@pytest.mark.parametrize("host", ["refuses", "hangs", "421", "hangs up"])
def test_a_host_that_does_not_answer_is_unavailable(host: str) -> None:
    """The engine then holds back the tasks of this account."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ftp = Ftp(
            Config(host="127.0.0.1", port=server.getsockname()[1], timeout_seconds=0.3),
            Credentials(),
        )
        if host == "refuses":
            server.close()
        elif host != "hangs":
            threading.Thread(target=greet, args=(server, host), daemon=True).start()
        for call in (ftp.probe, ftp.check):
            with pytest.raises(Unavailable) as caught:
                call()
            assert caught.value.limit is None


def greet(server: socket.socket, host: str) -> None:
    for _ in range(2):
        with server.accept()[0] as connection:
            if host == "421":
                connection.sendall(b"421 Service not available.\r\n")


def test_the_total_line_of_a_listing_is_skipped(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["total 4", "", "-rw-r--r-- 1 u g 1 Jan  1  2020 file", "nonsense"]
    monkeypatch.setattr(Session, "_lines", lambda self, command: iter(lines))
    monkeypatch.setattr(Session, "enter", lambda self, path: None)
    assert list(session.entries("/")) == [Entry("file", "file", 1, "20200101"), None]


def test_a_server_with_mlst_and_without_mlsd_is_listed_with_list(
    ftp_server: Any, session: Session
) -> None:
    ftp_server.write("file", b"1")
    session.enter("/")
    ftp_server.handler.proto_cmds.pop("MLSD", None)
    assert [entry and entry.name for entry in session.entries("/")] == ["file"]
    assert ftp_server.sent("LIST")


def test_a_listing_that_failed_with_226_is_an_error(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is vsftpd, and it cannot read the directory."""
    reply = ftplib.FTP.voidresp

    def voidresp(self: ftplib.FTP) -> str:
        text = reply(self)
        return (
            "226 Transfer done (but failed to open directory)." if text.startswith("226") else text
        )

    monkeypatch.setattr(ftplib.FTP, "voidresp", voidresp)
    with pytest.raises(PermanentError, match="failed to open"):
        list(session.entries("/"))


def test_errors_do_not_repeat_the_secret() -> None:
    with pytest.raises(PermanentError) as caught, translated("swordfish"):
        raise ftplib.error_perm("500 PASS swordfish not understood")
    assert "swordfish" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_retrieve_reads_from_an_offset(ftp_server: Any, session: Session) -> None:
    ftp_server.write("file", b"0123456789")
    assert read(session, "/file", 4) == b"456789"


def cut(monkeypatch: pytest.MonkeyPatch, after: int) -> list[int]:
    """Truncate the first transfer without an error, and return the list of requested offsets."""
    offsets: list[int] = []
    whole = Session.retrieve

    def retrieve(self: Session, path: str, write: Any, offset: int = 0) -> None:
        offsets.append(offset)
        blocks: list[bytes] = []
        whole(self, path, blocks.append, offset)
        data = b"".join(blocks)
        write(data[:after] if len(offsets) == 1 else data)

    monkeypatch.setattr(Session, "retrieve", retrieve)
    return offsets


def test_a_truncated_transfer_is_detected_and_resumed(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(300_000)
    ftp_server.write("file", content)
    offsets = cut(monkeypatch, 100_000)
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    result = harness.sync()
    assert [str(error) for error in result.failures] == ["received 100000 bytes instead of 300000"]
    assert offsets == [0, 100_000]
    assert harness.content["/file"].content == content


def test_a_file_that_changed_between_attempts_is_not_resumed(
    ftp_server: Any, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ftp_server.write("file", b"a" * 1000)
    offsets = cut(monkeypatch, 400)
    context = Harness(Ftp, ftp_server.config, ftp_server.credentials).context("download")
    with pytest.raises(TransientError):
        fetch(session, context, "/file", "1000:")
    path.write_bytes(b"b" * 1000)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    assert fetch(session, context, "/file", "1000:").size == 1000
    assert offsets == [0, 0]


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    ftp_server: Any, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ftp_server.write("file", b"a" * 1000)
    whole = Session.retrieve

    def retrieve(self: Session, name: str, write: Any, offset: int = 0) -> None:
        whole(self, name, write, offset)
        os.utime(path, (1_600_000_000, 1_600_000_000))

    monkeypatch.setattr(Session, "retrieve", retrieve)
    context = Harness(Ftp, ftp_server.config, ftp_server.credentials).context("download")
    with pytest.raises(TransientError, match="changed"):
        fetch(session, context, "/file", "1000:")


def test_a_file_that_vanished_since_it_was_listed_is_marked_deleted(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ftp_server.write("file", b"1")
    ftp_server.write("other", b"1")
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    harness.sync()
    path.write_bytes(b"22")
    stat = Session.stat

    def vanish(self: Session, name: str) -> Any:
        path.unlink(missing_ok=True)
        return stat(self, name)

    monkeypatch.setattr(Session, "stat", vanish)
    result = harness.sync()
    assert (result.state, result.outputs_deleted) == ("succeeded", 1)
    assert set(harness.content) == {"/other"}


def test_a_file_that_may_not_be_read_is_parked(ftp_server: Any) -> None:
    ftp_server.write("locked/file")
    ftp_server.handler.authorizer.override_perm(
        ftp_server.credentials["username"], str(ftp_server.home / "locked"), perm="el"
    )
    ftp_server.write("open/file")
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    result = harness.sync()
    assert [parked.task.payload["path"] for parked in result.parked] == ["/locked/file"]
    assert "/open/file" in harness.content
