"""Connections through SOCKS5 and HTTP proxies, for control, data and SSH."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import certificates
import pytest
from integration_polling_ftp import Config, Credentials, Ftp
from integration_polling_ftp.errors import Dropped
from integration_polling_ftp.proxies import HTTP, SOCKS5, Proxy, connect
from pydantic import ValidationError
from real_servers import Security, serve
from ssh_server import serve_ssh
from test_control import speaking

from core import ConfigurationError, CredentialsInvalid, Destination, IntegrationError
from core.egress import Egress, EgressRefused
from core.testing import Harness

KINDS = [SOCKS5, HTTP]
LOGIN = ("someone", "päss")


@dataclass
class Relay:
    """A running proxy.

    Attributes:
      reached: The host and port of each connection, as the client named them.
      login: The user name and the password that it requires.
      refuses: Returns the code with which it refuses a port; 0 to permit it.
    """

    kind: str
    login: tuple[str, str] | None = None
    refuses: Callable[[int], int] = lambda port: 0
    reached: list[tuple[str, int]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        user = f"{self.login[0]}@" if self.login else ""
        return f"{self.kind}://{user}127.0.0.1:{self.port}"

    def serve(self, client: socket.socket) -> None:
        with client, suppress(OSError, ValueError):
            file = client.makefile("rb", buffering=0)
            read = _reader(file)
            asked = self._socks(client, read) if self.kind == SOCKS5 else self._http(client, read)
            if asked is None:
                return
            self.reached.append(asked)
            code = self.refuses(asked[1])
            if code:
                client.sendall(self._refusal(code))
                return
            # Every name leads to this machine.
            with socket.create_connection(("127.0.0.1", asked[1]), 5) as server:
                first = b""
                if self.kind == HTTP:
                    # Some servers greet before the proxy replies.
                    server.settimeout(0.05)
                    with suppress(TimeoutError):
                        first = server.recv(1_000)
                    server.settimeout(None)
                client.sendall(self._granted() + first)
                _relay(client, server)

    def _granted(self) -> bytes:
        name = b"a.name"
        if self.kind == SOCKS5:
            return bytes([5, 0, 0, 3, len(name)]) + name + bytes(2)
        return b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n"

    def _refusal(self, code: int) -> bytes:
        if self.kind == SOCKS5:
            return bytes([5, code, 0, 1]) + bytes(6)
        return f"HTTP/1.1 {code} No\r\n\r\n".encode()

    def _socks(self, client: socket.socket, read: Callable[[int], bytes]) -> tuple[str, int] | None:
        methods = read(read(2)[1])
        if self.login is None:
            client.sendall(b"\5\0")
        elif 2 not in methods:
            client.sendall(b"\5\xff")
            return None
        else:
            client.sendall(b"\5\2")
            _, size = read(2)
            found = (read(size).decode(), read(read(1)[0]).decode())
            client.sendall(bytes([1, found != self.login]))
            if found != self.login:
                return None
        kind = read(4)[3]
        if kind == 3:
            host = read(read(1)[0]).decode()
        else:
            family = socket.AF_INET if kind == 1 else socket.AF_INET6
            host = socket.inet_ntop(family, read(4 if kind == 1 else 16))
        return host, int.from_bytes(read(2), "big")

    def _http(self, client: socket.socket, read: Callable[[int], bytes]) -> tuple[str, int] | None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += read(1)
        first, *fields = head.decode().splitlines()
        host, _, port = first.split()[1].rpartition(":")
        if self.login is not None:
            login = base64.b64encode(":".join(self.login).encode()).decode()
            if f"Proxy-Authorization: Basic {login}" not in fields:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                return None
        return host.strip("[]"), int(port)


def _reader(file: Any) -> Callable[[int], bytes]:
    def read(size: int) -> bytes:
        data = b""
        while len(data) < size:
            if not (block := file.read(size - len(data))):
                raise ConnectionError
            data += block
        return data

    return read


def _relay(one: socket.socket, other: socket.socket) -> None:
    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=pump, args=(other, one), daemon=True)
    back.start()
    pump(one, other)
    back.join(10)


@contextmanager
def relay(kind: str, **options: Any) -> Iterator[Relay]:
    """Run a proxy."""
    running = Relay(kind, **options)
    with speaking(running.serve) as port:
        running.port = port
        yield running


@pytest.mark.parametrize("kind", KINDS)
def test_all_connections_of_ftp_go_through_the_proxy(kind: str, ftp_server: Any) -> None:
    """The proxy looks up the name, which does not exist here."""
    for number in range(3):
        ftp_server.write(f"file {number}", b"x" * number)
    with relay(kind, login=LOGIN) as proxy:
        config = ftp_server.config | {"host": "files.invalid", "proxy": proxy.url}
        credentials = ftp_server.credentials | {"proxy_password": LOGIN[1]}
        harness = Harness(Ftp, config, credentials)
        result = harness.sync()
        assert result.state == "succeeded", result.error
        assert len(harness.content) == 3
        harness.close()
    assert {host for host, _ in proxy.reached} == {"files.invalid"}
    ports = [port for _, port in proxy.reached]
    assert ports[0] == ftp_server.port
    assert len(set(ports)) > 1  # data connections


@pytest.mark.parametrize("kind", KINDS)
def test_ftps_and_sftp_go_through_the_proxy(kind: str, tmp_path: Path) -> None:
    authority = certificates.authority()
    security = Security(authority, certificates.server(authority))
    with relay(kind) as proxy, serve("vsftpd", tls=security) as server:
        (server.home / "file").write_bytes(b"content")
        harness = Harness(Ftp, server.config | {"proxy": proxy.url}, server.credentials)
        assert harness.sync().state == "succeeded"
        assert harness.content["/file"].content == b"content"
        assert len(proxy.reached) > 2
        harness.close()
    (tmp_path / "file").write_bytes(b"content")
    with relay(kind) as proxy, serve_ssh(tmp_path) as ssh:
        config = ssh.config | {"proxy": proxy.url, "root": "/"}
        harness = Harness(Ftp, config, ssh.credentials)
        assert harness.sync().state == "succeeded"
        assert harness.content["/file"].content == b"content"
        assert set(proxy.reached) == {("127.0.0.1", ssh.port)}
        harness.close()


def through(proxy: Relay, port: int, password: str = "", host: str = "127.0.0.1") -> bytes:
    with connect(host, port, 5, Proxy.of(proxy.url, password)) as connection:
        return connection.recv(100)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "bücher.example"])
def test_the_proxy_gets_the_host_and_the_greeting_arrives(kind: str, host: str) -> None:
    with relay(kind) as proxy, speaking(lambda server: server.sendall(b"220 hello")) as port:
        assert through(proxy, port, host=host) == b"220 hello"
        assert proxy.reached == [(host.encode("idna").decode(), port)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_login_to_the_proxy_is_named(kind: str) -> None:
    with relay(kind, login=LOGIN) as proxy, pytest.raises(CredentialsInvalid, match="proxy"):
        through(proxy, 1, "wrong")
    proxy.login = None
    with relay(kind, login=LOGIN) as other:
        proxy.port = other.port
        with pytest.raises(CredentialsInvalid, match="proxy"):
            through(proxy, 1)
    assert not proxy.reached


@pytest.mark.parametrize(
    ("kind", "code", "error"),
    [
        (SOCKS5, 2, ConfigurationError),
        (SOCKS5, 5, Dropped),
        (SOCKS5, 99, Dropped),
        (HTTP, 403, ConfigurationError),
        (HTTP, 502, Dropped),
    ],
)
def test_a_refusal_of_the_proxy_is_named(
    kind: str, code: int, error: type[IntegrationError]
) -> None:
    with relay(kind, refuses=lambda port: code) as proxy, pytest.raises(error, match="the proxy"):
        through(proxy, 4321)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "answer", [b"", b"220 hello\r\n" * 4, b"\0" * 40, b"HTTP/1.1 200 OK\r\n" + b"x" * 20_000]
)
def test_an_answer_of_another_program_is_refused(kind: str, answer: bytes) -> None:
    def talk(server: socket.socket) -> None:
        server.sendall(answer)
        server.shutdown(socket.SHUT_WR)

    with (
        speaking(talk) as port,
        pytest.raises((Dropped, ConfigurationError)),
    ):
        connect("127.0.0.1", 1, 2, Proxy(kind, "127.0.0.1", port))


def test_the_guard_on_private_addresses_judges_the_proxy() -> None:
    egress = Egress()
    try:
        with relay(SOCKS5) as proxy:
            with egress.for_account(public_only=True), pytest.raises(EgressRefused):
                through(proxy, 1, host="files.example.org")
            assert not proxy.reached
    finally:
        egress.close()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("socks5://a:secret@b:1", "must not contain a password"),
        ("socks4://b:1", "must begin with socks5://"),
        ("https://b:1", "must begin with socks5://"),
        ("socks5://b", "must be socks5://host:port"),
        ("b:1080", "must be socks5://host:port"),
        ("http://b:1/path", "must be socks5://host:port"),
        ("http://b:99999", "range"),
    ],
)
def test_another_form_of_a_proxy_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem) as refused:
        Config(host="h", proxy=text)
    assert "secret" not in str(refused.value.errors(include_input=False))


def test_the_proxy_is_a_destination_and_its_password_a_credential() -> None:
    assert any(isinstance(each, Destination) for each in Config.model_fields["proxy"].metadata)
    assert "hidden" not in repr(Credentials(proxy_password="hidden"))  # type: ignore[arg-type]
