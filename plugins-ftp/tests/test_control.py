"""The control connection: the commands that it can send, and servers that are broken or hostile."""

from __future__ import annotations

import ast
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import integration_polling_ftp
import pytest
from integration_polling_ftp import Config, Credentials
from integration_polling_ftp import control as module
from integration_polling_ftp.control import COMMANDS, Control, Reply, passive_port
from integration_polling_ftp.errors import Dropped
from integration_polling_ftp.session import Session

from core import PermanentError, TransientError
from core.egress import Egress, EgressRefused

SOURCES = sorted(Path(integration_polling_ftp.__file__).parent.glob("*.py"))

READING = {
    "AUTH", "PBSZ", "PROT", "USER", "PASS", "FEAT", "OPTS", "NOOP", "CWD", "PWD", "TYPE", "PASV",
    "ACCT", "PRET", "EPSV", "REST", "RETR", "MLSD", "MLST", "LIST", "NLST", "SIZE", "MDTM", "HASH",
    "XSHA256", "XSHA512", "XSHA1", "XSHA", "XMD5", "MD5", "XCRC",
}  # fmt: skip

WRITING = {
    "ALLO", "APPE", "DELE", "MFCT", "MFF", "MFMT", "MKD", "RMD", "RMDA", "RNFR", "RNTO", "SITE",
    "STOR", "STOU", "XMKD", "XRMD", "ABOR", "SMNT",
}  # fmt: skip


def test_the_plugin_can_send_these_commands_and_none_that_changes_the_server() -> None:
    assert COMMANDS == READING
    assert not COMMANDS & WRITING


def test_no_source_of_the_plugin_names_a_command_that_changes_the_server() -> None:
    """Nothing else than `Control.send` writes to a server, so the list above is complete.

    `proxies` writes to a proxy, before it has reached the server.
    """
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        words = {
            word
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            for word in re.findall(r"\b[A-Z]{3,4}\b", node.value)
        }
        assert not words & WRITING, path.name
        senders = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr in ("sendall", "sendto", "makefile")
        ]
        assert len(senders) == (path.name in ("control.py", "proxies.py")), path.name
        assert "import ftplib" not in path.read_text(), path.name


@pytest.mark.parametrize(
    "command", ["DELE x", "STOR x", "SITE CHMOD 0 x", "dele x", "CWD a\r\nDELE b"]
)
def test_a_command_that_is_not_listed_is_never_sent(command: str) -> None:
    with speaking(lambda connection: connection.sendall(b"220 hello\r\n")) as port:
        control = Control("127.0.0.1", port, 1)
        with pytest.raises(ValueError, match="refusing to send"):
            control.send(command)
        control.close()


@contextmanager
def speaking(talk: Callable[[socket.socket], object]) -> Iterator[int]:
    """Run a server that talks to each connection in its own way."""

    def accept() -> None:
        while True:
            try:
                connection = server.accept()[0]
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                talk(connection)
                while connection.recv(1000):
                    pass
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]


def endless(text: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        while True:
            connection.sendall(text)

    return talk


def dripping(connection: socket.socket) -> None:
    connection.sendall(b"220-")
    while True:
        connection.sendall(b"x")
        time.sleep(0.02)


@pytest.mark.parametrize(
    "talk",
    [
        endless(b"x" * 1000),
        endless(b"220-hello\r\n"),
        endless(b"120 wait\r\n"),
        dripping,
        lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"),
        lambda connection: connection.sendall(b"\0\xff\r\n"),
        lambda connection: connection.close(),
    ],
    ids=["a line", "a reply", "greetings", "slow bytes", "another protocol", "binary", "nothing"],
)
def test_a_greeting_is_bounded(talk: Callable[[socket.socket], object]) -> None:
    with speaking(talk) as port:
        session = Session(Config(host="127.0.0.1", port=port, timeout_seconds=0.2), Credentials())
        began = time.monotonic()
        with pytest.raises((Dropped, PermanentError)):
            session.ping()
        assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("reply", "port"),
    [
        ("227 Entering Passive Mode (10,0,0,1,4,1).", 1025),
        ("227 =127,0,0,1,0,21", 21),
        ("227 Entering Passive Mode (192, 168, 1, 2, 10, 20)", 2580),
        ("227 Entering Passive Mode (1,2,3,4,0,0)", None),
        ("227 Entering Passive Mode (1,2,3,4,999,1)", None),
        ("227 no numbers", None),
        ("229 Entering Extended Passive Mode (|||6446|)", 6446),
        ("229 Entering Extended Passive Mode (!!!6446!)", 6446),
        ("229 Entering Extended Passive Mode (|1|132.235.1.2|6275|)", 6275),
        ("229 Entering Extended Passive Mode (|2|1080::8:800:200C:417A|5282|)", 5282),
        ("229 Entering Extended Passive Mode (|||99999|)", None),
        ("200 (1,2,3,4,4,1)", None),
    ],
)
def test_the_port_of_a_passive_reply(reply: str, port: int | None) -> None:
    assert passive_port(Reply(reply[:3], reply)) == port


def test_a_passive_reply_that_names_another_host_is_answered_at_the_server() -> None:
    """A server cannot use the plugin to reach a host that only the plugin can reach."""
    with socket.create_server(("127.0.0.1", 0)) as data:
        port = data.getsockname()[1]
        with speaking(lambda connection: connection.sendall(b"220 hello\r\n")) as control_port:
            control = Control("127.0.0.1", control_port, 1)
            reply = f"227 Entering Passive Mode (10,9,8,7,{port // 256},{port % 256})"
            connection = control.connect(Reply("227", reply))
            accepted, address = data.accept()
            accepted.close()
            assert address[0] == "127.0.0.1"
            assert connection is not None
            connection.close()
            control.close()


def test_an_account_for_public_hosts_opens_no_private_data_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    egress = Egress()
    with socket.create_server(("127.0.0.1", 0)) as data, egress.for_account(public_only=True):
        port = data.getsockname()[1]
        control = Control.__new__(Control)
        control.timeout, control._socket, control._peer = 1, data, data.getsockname()
        control._proxy = None
        with pytest.raises(EgressRefused):
            control.connect(Reply("229", f"229 ok (|||{port}|)"))
    egress.close()


def scripted(listing: Callable[[socket.socket], object]) -> Callable[[socket.socket], None]:
    """Return a server that accepts any login, and sends a listing in its own way."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"220 hello\r\n")
        data: socket.socket | None = None
        for line in connection.makefile("rb"):
            command = line.split()[0].upper()
            if command == b"PASV":
                if data is not None:
                    data.close()
                data = socket.create_server(("127.0.0.1", 0))
                port = data.getsockname()[1]
                connection.sendall(f"227 ok (127,0,0,1,{port // 256},{port % 256})\r\n".encode())
            elif command in (b"LIST", b"RETR") and data is not None:
                connection.sendall(b"150 here\r\n")
                with data, data.accept()[0] as transfer, suppress(OSError):
                    listing(transfer)
                connection.sendall(b"226 done\r\n")
            elif command == b"FEAT":
                connection.sendall(b"500 no\r\n")
            else:
                connection.sendall({b"USER": b"331 ok\r\n"}.get(command, b"230 ok\r\n"))

    return talk


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        (endless(b"x" * 100_000), "a line of the listing"),
        (endless(b"-rw-r--r-- 1 u g 1 Jan 1 2020 x\r\n" * 1000), "the listing has over"),
        (lambda transfer: None, ""),
    ],
    ids=["one line", "many lines", "nothing"],
)
def test_a_listing_is_bounded(
    listing: Callable[[socket.socket], object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("integration_polling_ftp.session.MAX_LISTING_BYTES", 10_000_000)
    with speaking(scripted(listing)) as port:
        session = Session(Config(host="127.0.0.1", port=port, timeout_seconds=2), Credentials())
        if not message:
            assert list(session.entries("/")) == []
        else:
            with pytest.raises(TransientError, match=message):
                for _ in session.entries("/"):
                    pass
        session.close()


def test_a_data_connection_that_stalls_is_lost() -> None:
    with speaking(scripted(lambda transfer: time.sleep(3))) as port:
        session = Session(Config(host="127.0.0.1", port=port, timeout_seconds=0.3), Credentials())
        with pytest.raises(Dropped, match="did not respond"):
            session.retrieve("/file", lambda block: None)
        session.close()


def test_blocks_have_up_to_256_kib() -> None:
    assert module.BLOCK == 256 * 1024


def test_a_listing_that_ends_within_a_line_is_read_again() -> None:
    """A cut connection looks like the end. Some servers omit the last line end, each time."""
    line = b"-rw-r--r-- 1 u g 5 Jan 1 2020 "
    cut = iter([b"one\r\n%stw" % line, b"one\r\n%stwo\r\n" % line])
    always = iter([b"one\r\n%stwo" % line] * 2)
    for listings, names in ((cut, None), (always, ["one", "two"])):
        with speaking(
            scripted(lambda data, each=listings: data.sendall(line + next(each)))
        ) as port:  # type: ignore[misc]
            session = Session(Config(host="127.0.0.1", port=port, timeout_seconds=2), Credentials())
            if names is None:
                with pytest.raises(Dropped, match="ended within a line"):
                    list(session.entries("/"))
            else:
                found = [each.name for each in session.entries("/") if not isinstance(each, str)]
                assert found == names
            session.close()
