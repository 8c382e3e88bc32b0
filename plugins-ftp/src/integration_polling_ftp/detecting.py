"""The protocol that a server speaks, found without a login."""

from __future__ import annotations

from core import ConfigurationError
from integration_polling_ftp.account import PORTS, Config, Credentials, proxy_of
from integration_polling_ftp.control import Control
from integration_polling_ftp.errors import (
    Dropped,
    OtherProtocol,
    Silent,
    UnknownHost,
    meaning,
    network_errors,
)
from integration_polling_ftp.proxies import Proxy, connect
from integration_polling_ftp.tls import look

CONNECT_SECONDS = 4.0
GREETING_SECONDS = 8.0
"""The time to wait for a connection, and for a greeting. A check has 30 seconds for everything."""


def with_protocol(config: Config, credentials: Credentials) -> Config:
    """Return a config with a protocol in place of `auto`: the first one that the server speaks.

    SFTP is tried first, then implicit FTPS, then FTPS. FTP without encryption is never chosen, so
    that nobody can bring an account to send its password in clear text.

    Raises:
      ConfigurationError: The server offers FTP without encryption only.
      Dropped: No server answers, or it speaks another protocol.
    """
    if config.protocol != "auto":
        return config
    if config.jump_host:
        return config.model_copy(update={"protocol": "sftp"})
    proxy = proxy_of(config, credentials)
    failures: dict[int, Dropped] = {}
    ports = [config.port] if config.port else _ports(config)
    for port in ports:
        try:
            protocol = _spoken(config, port, proxy)
        except UnknownHost:
            raise
        except Dropped as error:
            failures[port] = error
        else:
            return config.model_copy(update={"protocol": protocol})
    reasons = "; ".join(f"port {port}: {error}" for port, error in failures.items())
    nothing = Dropped(f"no SFTP or FTPS server found ({reasons})")
    fields = {error.field for error in failures.values()}
    nothing.field = fields.pop() if len(fields) == 1 else ""
    raise nothing


def _ports(config: Config) -> list[int]:
    """Return the ports to try. A trusted key or certificate says which protocol is meant."""
    if config.host_key:
        return [PORTS["sftp"]]
    encrypted = [PORTS["ftps-implicit"], PORTS["ftps"]]
    return encrypted if config.tls_fingerprint or config.tls_ca else [PORTS["sftp"], *encrypted]


def _spoken(config: Config, port: int, proxy: Proxy | None) -> str:
    """Return the protocol of a port.

    Raises:
      ConfigurationError: It is FTP without encryption.
      Dropped: It is another one, or nothing answers.
    """
    if port == PORTS["ftps-implicit"] and _speaks_tls(config, port, proxy):
        return "ftps-implicit"
    greeting = _greeting(config, port, proxy)
    if greeting == b"SSH-":
        return "sftp"
    if greeting[:3].isdigit():
        _require_tls(config, port, proxy)
        return "ftps"
    if not greeting and port != PORTS["ftps-implicit"] and _speaks_tls(config, port, proxy):
        return "ftps-implicit"
    raise OtherProtocol("the server speaks neither FTP nor SFTP", field="port")


def _greeting(config: Config, port: int, proxy: Proxy | None) -> bytes:
    """Return the first four bytes that a server sends; nothing if it waits for the client."""
    with connect(config.host, port, CONNECT_SECONDS, proxy) as connection:
        connection.settimeout(GREETING_SECONDS)
        found = b""
        while len(found) < 4:
            try:
                with network_errors():
                    block = connection.recv(4 - len(found))
            except Silent:
                return b""
            if not block:
                raise Dropped("the server closed the connection")
            found += block
        return found


def _speaks_tls(config: Config, port: int, proxy: Proxy | None) -> bool:
    """Return True if a server shows a certificate. Trust is decided later."""
    connection = connect(config.host, port, CONNECT_SECONDS, proxy)
    connection.settimeout(CONNECT_SECONDS)
    return bool(look(connection))


def _require_tls(config: Config, port: int, proxy: Proxy | None) -> None:
    """Check that an FTP server accepts `AUTH TLS`.

    Raises:
      ConfigurationError: The server refuses it.
      Dropped: The server gives no answer that decides.
    """
    control = Control(config.host, port, GREETING_SECONDS, proxy)
    try:
        greeting = control.final(control.reply())
        if greeting.is_error:
            raise meaning(greeting.text)
        control.send("AUTH TLS")
        reply = control.reply()
    finally:
        control.close()
    if reply.code.startswith("5"):
        raise ConfigurationError(
            "the server offers FTP without encryption only. Everyone on the way could read the"
            " password. If you accept that, set protocol=ftp",
            field="protocol",
        )
    if not reply.code.startswith("2"):
        raise meaning(reply.text)
