"""The connection: dropped, truncated and resumed."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from integration_polling_ftp import Config, Credentials, Ftp
from integration_polling_ftp.control import Control, Reply
from integration_polling_ftp.download import fetch_large
from integration_polling_ftp.errors import Dropped
from integration_polling_ftp.listing import Entry
from integration_polling_ftp.reading import Look
from integration_polling_ftp.session import Session
from integration_polling_ftp.walking import LARGE_BYTES
from pydantic import SecretStr

from core import ConfigurationError, CredentialsInvalid, PermanentError, TransientError, Unavailable
from core.testing import Harness


@pytest.fixture
def session(ftp_server: Any) -> Iterator[Session]:
    session = Session(Config(**ftp_server.config), Credentials(**ftp_server.credentials))
    yield session
    session.close()


def read(session: Session, path: str, offset: int = 0) -> bytes:
    blocks: list[bytes] = []
    session.retrieve(path, lambda block: blocks.append(bytes(block)), offset)
    return b"".join(blocks)


@pytest.mark.parametrize(
    ("reply", "root"),
    [
        ('257 "/in/a ""b""" is the current directory', '/in/a "b"'),
        ('257 "PUB.USER" is the working directory', "/"),
        ("502 PWD not implemented", "/"),
    ],
)
def test_the_default_root_is_the_directory_after_the_login(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch, reply: str, root: str
) -> None:
    monkeypatch.setattr(ftp_server.handler, "ftp_PWD", lambda self, line: self.respond(reply))
    for path in ("other", 'in/a "b"/file'):
        ftp_server.write(path)
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    for _ in range(2):
        assert harness.sync().state == "succeeded"
    assert harness.check().id.endswith(f":{ftp_server.port}{root}")
    everything = {"/other", "/in", '/in/a "b"', '/in/a "b"/file'}
    assert harness.content.keys() == {
        path for path in everything if path.startswith(root.rstrip("/") + "/")
    }


def test_a_server_that_requires_an_account_gets_it(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = ftp_server.handler
    login = handler.ftp_PASS

    def acct(self: Any, line: str) -> None:
        login(self, self.password) if line == "billing" else self.respond("530 No " + line)

    def password(self: Any, line: str) -> None:
        self.password = line
        self.respond("332 Need account for login.")

    monkeypatch.setattr(handler, "ftp_PASS", password)
    monkeypatch.setattr(handler, "ftp_ACCT", acct, raising=False)
    commands = handler.proto_cmds
    monkeypatch.setitem(commands, "ACCT", commands["PASS"])
    ftp_server.write("file")
    credentials = {**ftp_server.credentials, "account": "billing"}
    assert Harness(Ftp, ftp_server.config, credentials).sync().state == "succeeded"
    with pytest.raises(ConfigurationError):
        Harness(Ftp, ftp_server.config, ftp_server.credentials).check()
    with pytest.raises(CredentialsInvalid) as caught:
        Harness(Ftp, ftp_server.config, {**credentials, "account": "secret-one"}).check()
    assert "secret-one" not in str(caught.value)


@pytest.mark.parametrize(
    ("features", "encoding", "asked"),
    [(True, "utf-8", True), (False, "utf-8", True), (True, "cp1252", False)],
)
def test_names_in_utf_8_are_requested_also_without_feat(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch, features: bool, encoding: str, asked: bool,
) -> None:  # fmt: skip
    if not features:
        monkeypatch.delitem(ftp_server.handler.proto_cmds, "FEAT")
    with Harness(Ftp, {**ftp_server.config, "encoding": encoding}, ftp_server.credentials) as one:
        one.check()
    assert ("OPTS UTF8 ON" in ftp_server.commands) is asked


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


def test_a_session_that_the_server_forgot_does_not_stop_the_account(
    ftp_server: Any, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = "530 Please login."
    monkeypatch.setattr(ftp_server.handler, "ftp_PASV", lambda self, line: self.respond(reply))
    with pytest.raises(Dropped):
        list(session.entries("/"))


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
            if host == "refuses" and call == ftp.check:
                continue  # the port may be wrong
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
    lines = [b"total 4", b"", b"-rw-r--r-- 1 u g 1 Jan  1  2020 file", b"nonsense"]
    session.ping()
    session._client.opened().features -= {"MLST"}
    monkeypatch.setattr(Session, "_lines", lambda self, command: iter(lines))
    assert list(session.entries("/")) == [Entry("file", "file", 1, "20200101"), "nonsense"]


def test_a_server_with_mlst_and_without_mlsd_is_listed_with_list(
    ftp_server: Any, session: Session
) -> None:
    ftp_server.write("file", b"1")
    session.enter("/")
    ftp_server.handler.proto_cmds.pop("MLSD", None)
    assert [entry.name for entry in session.entries("/") if isinstance(entry, Entry)] == ["file"]
    assert ftp_server.sent("LIST")


def test_a_listing_that_failed_with_226_is_an_error(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is vsftpd, and it cannot read the directory."""
    reply = Control.reply

    def failing(self: Control, deadline: float = 0.0) -> Reply:
        text = reply(self, deadline)
        return (
            Reply("226", "226 Transfer done (but failed to open directory).")
            if (text.code == "226")
            else text
        )

    monkeypatch.setattr(Control, "reply", failing)
    with pytest.raises(PermanentError, match="failed to open"):
        list(session.entries("/"))


def test_errors_do_not_repeat_the_secret(ftp_server: Any) -> None:
    """The server repeats the command, as some do."""
    credentials = Credentials(username="someone", password=SecretStr("swordfish"))
    reply = Control.reply
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Control,
            "reply",
            lambda self: (
                Reply("530", "530 PASS swordfish is wrong")
                if (answer := reply(self)).code == "530"
                else answer
            ),
        )
        with pytest.raises(CredentialsInvalid) as caught:
            Session(Config(**ftp_server.config), credentials).ping()
    assert "swordfish" not in str(caught.value)


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
        whole(self, path, lambda block: blocks.append(bytes(block)), offset)
        data = b"".join(blocks)
        write(data[:after] if len(offsets) == 1 else data)

    monkeypatch.setattr(Session, "retrieve", retrieve)
    return offsets


def test_a_truncated_transfer_is_detected_and_resumed(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(LARGE_BYTES)
    ftp_server.write("file", content)
    offsets = cut(monkeypatch, 100_000)
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    result = harness.sync()
    assert [str(error) for error in result.failures] == [
        f"/file: received 100000 bytes instead of {LARGE_BYTES}"
    ]
    assert offsets == [0, 100_000]
    assert harness.content["/file"].content == content


def test_a_file_that_changed_between_attempts_is_not_resumed(
    ftp_server: Any, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ftp_server.write("file", b"a" * 1000)
    offsets = cut(monkeypatch, 400)
    context = Harness(Ftp, ftp_server.config, ftp_server.credentials).context("download")
    look = Look(context.now, 0, {}, frozenset())
    with pytest.raises(TransientError):
        fetch_large(session, context, "/file", "/", "1000:20260101", look)
    path.write_bytes(b"b" * 1000)
    output = fetch_large(session, context, "/file", "/", "1000:20260102", look)
    assert output.metadata == {"size": 1000, "time_source": "MDTM"}
    assert offsets == [0, 0, 0]


def rewriting(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Call `change` after each transfer of a file."""
    many, one = Session.retrieve_many, Session.retrieve

    def retrieve_many(self: Session, jobs: Any) -> Any:
        for outcome in many(self, jobs):
            change()
            yield outcome

    def retrieve(self: Session, path: str, write: Any, offset: int = 0) -> None:
        one(self, path, write, offset)
        change()

    monkeypatch.setattr(Session, "retrieve_many", retrieve_many)
    monkeypatch.setattr(Session, "retrieve", retrieve)


@pytest.mark.parametrize("size", [1000, LARGE_BYTES])
def test_a_file_that_is_rewritten_while_it_is_read_is_not_kept(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = ftp_server.write("file", b"a" * size)
    with monkeypatch.context() as patch:
        rewriting(patch, lambda: os.utime(path, (1_600_000_000, 1_600_000_000)))
        harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
        first = harness.sync()
    if size == 1000:
        assert (dict(first.skipped_items), set(harness.content)) == (
            {"changed during the download": 1},
            set(),
        )
    assert harness.sync().state == "succeeded"
    assert set(harness.content) == {"/file"}


@pytest.mark.parametrize("size", [1000, LARGE_BYTES])
def test_a_file_that_grows_keeps_a_prefix_and_only_its_tail_is_fetched_next(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = ftp_server.write("log", b"a" * size)

    def grow() -> None:
        with path.open("ab") as file:
            file.write(b"more")

    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    with monkeypatch.context() as patch:
        rewriting(patch, grow)
        for step in range(3):
            assert harness.sync().state == "succeeded"
            assert harness.content["/log"].content == b"a" * size + b"more" * step
            assert harness.content["/log"].metadata == {"size": size + 4 * step, "growing": True}
    assert len(ftp_server.sent("REST")) == 2
    harness.sync()
    assert harness.content["/log"].content == path.read_bytes()
    assert "growing" not in harness.content["/log"].metadata
    assert harness.sync().outputs_saved == 0


def test_a_prefix_whose_end_has_changed_is_fetched_again(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ftp_server.write("log", b"a" * 1000)
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    with monkeypatch.context() as patch:
        rewriting(patch, lambda: path.write_bytes(b"b" * 1100))
        harness.sync()
    harness.sync()
    assert harness.content["/log"].content == b"b" * 1100


@pytest.mark.parametrize("size", [10, LARGE_BYTES])
def test_a_file_that_is_removed_while_it_is_read_is_kept(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A mailbox may delete a file that was read."""
    path = ftp_server.write("order", bytes(size))
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials, deletions="keep")
    rewriting(monkeypatch, lambda: path.unlink(missing_ok=True))
    assert harness.sync().state == "succeeded"
    assert harness.sync().state == "succeeded"
    assert harness.content["/order"].size == size
    assert harness.gone == {"/order"}


def test_a_file_that_vanished_since_it_was_listed_is_marked_deleted(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ftp_server.write("file", b"1")
    ftp_server.write("other", b"1")
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    harness.sync()
    path.write_bytes(b"22")
    many = Session.retrieve_many

    def vanish(self: Session, jobs: Any) -> Any:
        path.unlink(missing_ok=True)
        return many(self, jobs)

    monkeypatch.setattr(Session, "retrieve_many", vanish)
    result = harness.sync()
    assert (result.state, result.outputs_deleted) == ("succeeded", 1)
    assert set(harness.content) == {"/other"}


def test_a_file_that_may_not_be_read_is_skipped_and_tried_at_growing_intervals(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ftp_server.write("locked/file")
    user = ftp_server.credentials["username"]
    locked = str(ftp_server.home / "locked")
    ftp_server.handler.authorizer.override_perm(user, locked, perm="el")
    ftp_server.write("open/file")
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    now = time.time()
    tries = []
    for minutes in (0, 1, 16, 20, 47, 60):
        monkeypatch.setattr(time, "time", lambda minutes=minutes: now + minutes * 60)
        ftp_server.commands.clear()
        result = harness.sync()
        assert (result.state, sum(result.skipped_items.values())) == ("succeeded", 1)
        tries.append(len([line for line in ftp_server.sent("RETR") if "locked" in line]))
    assert tries == [1, 0, 1, 0, 1, 0]
    assert "/open/file" in harness.content
    ftp_server.handler.authorizer.override_perm(user, locked, perm="elr")
    ftp_server.write("locked/file", b"a new version")
    assert harness.sync().skipped_items.total() == 0
    assert harness.content["/locked/file"].content == b"a new version"
    assert harness.state == {}


def test_a_server_with_nlst_only_is_copied(nlst_server: Any) -> None:
    nlst_server.write("a file", b"1")
    nlst_server.write("d/e/deep", b"22")
    (nlst_server.home / "empty").mkdir()
    harness = Harness(Ftp, nlst_server.config, nlst_server.credentials)
    result = harness.sync()
    assert (result.state, dict(result.skipped_items)) == ("succeeded", {})
    assert {key: item.content for key, item in harness.content.items() if item.content} == {
        "/a file": b"1",
        "/d/e/deep": b"22",
    }
    assert harness.content["/empty"].kind == "directory"
    assert harness.sync().outputs_saved == 0


@pytest.mark.parametrize("size", [1000, LARGE_BYTES])
def test_a_file_is_complete_without_the_reply_after_its_last_byte(
    ftp_server: Any, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Some servers close the connection, or report an error, after the last byte."""
    content = os.urandom(size)
    ftp_server.write("file", content)
    respond = ftp_server.handler.respond

    def silent(self: Any, reply: str, *args: Any, **options: Any) -> None:
        if reply.startswith("226") and ftp_server.commands[-1].startswith("RETR"):
            self.close()
        else:
            respond(self, reply, *args, **options)

    monkeypatch.setattr(ftp_server.handler, "respond", silent)
    harness = Harness(Ftp, ftp_server.config, ftp_server.credentials)
    result = harness.sync()
    assert (result.state, result.failures) == ("succeeded", [])
    assert harness.content["/file"].content == content
    assert len(ftp_server.sent("RETR")) == 1
