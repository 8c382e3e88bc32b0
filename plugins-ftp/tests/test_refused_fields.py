"""Mistakes that only the network can show: the check names the wrong field."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from integration_polling_ftp import Ftp
from real_servers import serve
from ssh_server import serve_ssh
from test_proxies import LOGIN, relay

from core import ConfigurationError, CredentialsInvalid, Unavailable
from core.testing import Harness

NOWHERE = "no.such.host.invalid"


@pytest.fixture
def closed() -> int:
    """A port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def refused(config: dict[str, Any], credentials: dict[str, str] | None = None) -> tuple[str, str]:
    """Check an account that is refused. Return the field and the reason."""
    with pytest.raises((ConfigurationError, CredentialsInvalid)) as caught:
        Harness(Ftp, {"timeout_seconds": 5, **config}, credentials or {}).check()
    return caught.value.field, str(caught.value)


@pytest.mark.parametrize("protocol", ["ftp", "ftps", "ftps-implicit", "sftp", "auto"])
def test_an_unknown_host_name_is_an_error_of_the_host(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage of the name service is not one."""
    config = {"host": NOWHERE, "protocol": protocol}

    def fail(*_: object, **__: object) -> Any:
        raise socket.gaierror(code, "the reason")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    code = socket.EAI_NONAME
    field, reason = refused(config)
    assert (field, NOWHERE in reason) == ("host", True)
    code = socket.EAI_AGAIN
    with pytest.raises(Unavailable):
        Harness(Ftp, config).check()


@pytest.mark.parametrize("protocol", ["ftp", "ftps", "ftps-implicit", "sftp", "auto"])
def test_a_closed_port_is_an_error_of_the_port(protocol: str, closed: int) -> None:
    field, reason = refused({"host": "127.0.0.1", "port": closed, "protocol": protocol})
    assert (field, "refused" in reason.lower()) == ("port", True)


@pytest.mark.parametrize("protocol", ["ftp", "sftp"])
@pytest.mark.parametrize("field", ["proxy", "jump_host"])
def test_a_machine_on_the_way_has_a_field_of_its_own(
    field: str, protocol: str, closed: int
) -> None:
    if field == "jump_host" and protocol == "ftp":
        pytest.skip("a jump host is for SFTP")
    start = "socks5://" if field == "proxy" else "someone@"
    for place in (f"127.0.0.1:{closed}", f"{NOWHERE}:1080"):
        config = {"host": "files.example.org", "protocol": protocol, field: start + place}
        assert refused(config)[0] == field


@pytest.mark.parametrize("protocol", ["ftp", "ftps", "ftps-implicit"])
def test_the_port_of_an_ssh_server_needs_another_protocol(protocol: str, tmp_path: Path) -> None:
    with serve_ssh(tmp_path) as server:
        config = {"host": "127.0.0.1", "port": server.port, "protocol": protocol}
        assert refused(config)[0] == "protocol"


@pytest.mark.parametrize("kind", ["socks5", "http"])
def test_a_proxy_that_refuses_names_its_fields(kind: str, facts_server: Any) -> None:
    config = {"host": "127.0.0.1", "port": facts_server.port}
    with relay(kind, login=LOGIN) as proxy:
        login = config | {"proxy": proxy.url}
        assert refused(login, {"proxy_password": "wrong"})[0] == "proxy_password"
    with relay(kind, refuses=lambda port: 2 if kind == "socks5" else 403) as proxy:
        assert refused(config | {"proxy": proxy.url})[0] == "proxy"
    place = f"{kind}://127.0.0.1:{facts_server.port}"
    assert refused(config | {"proxy": place})[0] == "proxy"


def test_authorities_that_cannot_be_read_are_named() -> None:
    config = {"host": "127.0.0.1", "protocol": "ftps", "tls_ca": "nonsense"}
    assert refused(config)[0] == "tls_ca"


@pytest.mark.parametrize("name", ["vsftpd", "proftpd", "pure-ftpd", "openssh", "proftpd-sftp"])
def test_a_root_that_does_not_exist_is_an_error_of_the_root(name: str) -> None:
    with serve(name) as server:
        config = {**server.config, "root": f"{server.prefix}/nowhere"}
        field, reason = refused(config, server.credentials)
        assert (field, "/nowhere" in reason) == ("root", True)


def test_an_outage_names_no_field(facts_server: Any, closed: int) -> None:
    """The same failures of a run are outages, because the config has worked before."""
    harness = Harness(Ftp, {**facts_server.config, "port": closed}, facts_server.credentials)
    result = harness.sync()
    assert (result.state, len(result.deferred), result.parked) == ("partial", 1, [])
