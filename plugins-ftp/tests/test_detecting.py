"""The protocol `auto`: the encrypted protocol that a server speaks is found without a login."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import certificates
import pytest
from integration_polling_ftp import Config, Credentials, Ftp, detecting
from integration_polling_ftp.detecting import with_protocol
from integration_polling_ftp.errors import Dropped, UnknownHost
from real_servers import Security, serve
from ssh_server import serve_ssh
from test_control import speaking

from core import ConfigurationError, RateLimited
from core.testing import Harness

AUTHORITY = certificates.authority()
CERTIFICATE = certificates.server(AUTHORITY)


def found(port: int, **config: Any) -> Config:
    return with_protocol(
        Config(host="127.0.0.1", protocol="auto", port=port, **config), Credentials()
    )


@pytest.mark.parametrize("name", ["vsftpd", "proftpd", "pure-ftpd"])
def test_ftps_is_found_and_the_config_gets_it(name: str) -> None:
    with serve(name, tls=Security(AUTHORITY, CERTIFICATE)) as server:
        config = server.config | {"protocol": "auto"}
        harness = Harness(Ftp, config, server.credentials)
        assert found(server.port).protocol == "ftps"
        instance = Ftp(Config(**config), Credentials(**server.credentials))
        instance.check()
        assert instance.config == Config(**server.config)
        instance.close()
        (server.home / "file").write_bytes(b"content")
        assert harness.sync().state == "succeeded"
        harness.close()


@pytest.mark.parametrize("name", ["vsftpd", "proftpd"])
def test_implicit_ftps_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detecting, "GREETING_SECONDS", 0.5)
    with serve(name, tls=Security(AUTHORITY, CERTIFICATE, implicit=True)) as server:
        assert found(server.port).protocol == "ftps-implicit"
        monkeypatch.setitem(detecting.PORTS, "ftps-implicit", server.port)
        assert found(server.port).protocol == "ftps-implicit"


def test_sftp_is_found(tmp_path: Path) -> None:
    with serve_ssh(tmp_path) as server:
        assert found(server.port).protocol == "sftp"
        config = server.config | {"protocol": "auto", "root": "/"}
        assert Harness(Ftp, config, server.credentials).check().id.endswith(f":{server.port}/")


def test_a_server_without_encryption_is_refused_before_the_login(facts_server: Any) -> None:
    config = facts_server.config | {"protocol": "auto"}
    with pytest.raises(ConfigurationError, match="set protocol=ftp"):
        Harness(Ftp, config, facts_server.credentials).check()
    assert not [line for line in facts_server.commands if line.startswith(("USER", "PASS"))]


def scripted(*replies: bytes) -> Callable[[socket.socket], None]:
    """Return a server that greets, and answers each command with the next reply."""

    def talk(connection: socket.socket) -> None:
        for number, reply in enumerate(replies):
            if number:
                connection.recv(1_000)
            connection.sendall(reply)

    return talk


@pytest.mark.parametrize(
    ("replies", "error"),
    [
        ([b"220 hello\r\n", b"421 busy\r\n"], Dropped),
        ([b"220 hello\r\n", b"450 later\r\n"], Exception),
        ([b"421 too many connections\r\n"], RateLimited),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], Dropped),
    ],
)
def test_an_answer_that_does_not_decide_chooses_nothing(
    replies: list[bytes], error: type[Exception]
) -> None:
    with speaking(scripted(*replies)) as port, pytest.raises(error) as raised:
        found(port)
    assert not isinstance(raised.value, ConfigurationError)


def test_a_server_that_stops_to_encrypt_later_never_gets_the_password(
    facts_server: Any,
) -> None:
    """The engine stores the protocol that was found, so nothing is chosen again."""
    stored = Config(**facts_server.config | {"protocol": "ftps"})
    with pytest.raises(ConfigurationError, match="does not support FTPS"):
        Ftp(stored, Credentials(**facts_server.credentials)).check()
    assert not [line for line in facts_server.commands if line.startswith(("USER", "PASS"))]


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Ports at which nothing listens."""
    found: dict[str, int] = {}
    for name in ("sftp", "ftps-implicit", "ftps"):
        with socket.create_server(("127.0.0.1", 0)) as server:
            found[name] = server.getsockname()[1]
        monkeypatch.setitem(detecting.PORTS, name, found[name])
    return found


def anywhere(**config: Any) -> str:
    config = {"host": "127.0.0.1", "protocol": "auto"} | config
    return with_protocol(Config(**config), Credentials()).protocol


def test_without_a_port_the_usual_ones_are_tried(
    ports: dict[str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(Dropped, match=f"port {ports['sftp']}.*port {ports['ftps']}"):
        anywhere()
    with serve("vsftpd", tls=Security(AUTHORITY, CERTIFICATE)) as server:
        monkeypatch.setitem(detecting.PORTS, "ftps", server.port)
        assert anywhere() == "ftps"
        with serve_ssh(tmp_path) as ssh:
            monkeypatch.setitem(detecting.PORTS, "sftp", ssh.port)
            assert anywhere() == "sftp"
            assert anywhere(tls_ca=AUTHORITY.certificate) == "ftps"
        with pytest.raises(Dropped):
            anywhere(host_key=ssh.fingerprint)


def test_an_unknown_host_is_named_and_a_jump_host_means_sftp(ports: dict[str, int]) -> None:
    with pytest.raises(UnknownHost):
        anywhere(host="name.invalid")
    assert anywhere(jump_host="a@b") == "sftp"


def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detecting, "GREETING_SECONDS", 0.2)
    monkeypatch.setattr(detecting, "CONNECT_SECONDS", 0.2)
    began = time.monotonic()
    with speaking(lambda connection: None) as port, pytest.raises(Dropped, match="neither"):
        found(port)
    assert time.monotonic() - began < 30


def test_an_address_with_a_scheme_decides() -> None:
    assert Config(host="sftp://h", protocol="auto").protocol == "sftp"
    assert Config(host="h", protocol="auto").protocol == "auto"
