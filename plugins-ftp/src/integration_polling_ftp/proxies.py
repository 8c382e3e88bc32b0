"""TCP connections, through a proxy if the account has one.

The proxies are SOCKS5 (RFC 1928, RFC 1929) and HTTP CONNECT (RFC 9110, section 9.3.6). The proxy
looks up the server's name. The engine's guard on addresses sees the connection to the proxy: an
account that may reach public addresses only cannot use a proxy of the internal network.
"""

from __future__ import annotations

import base64
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from core import ConfigurationError, CredentialsInvalid
from integration_polling_ftp.errors import Dropped, UnknownHost, network_errors

SOCKS5, HTTP = "socks5", "http"

MAX_HEAD_BYTES = 16 * 1024
"""The maximum size of a reply to CONNECT."""

MAX_FIELD_BYTES = 255
"""The maximum size of a user name, a password and a host name in SOCKS5."""

_NO_LOGIN, _PASSWORD, _NO_METHOD = 0, 2, 0xFF
_CONNECT, _IPV4, _NAME, _IPV6 = 1, 1, 3, 4
_REFUSED_BY_RULES = 2
_REFUSALS = {
    1: "general failure",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "timeout",
}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy.

    Attributes:
      kind: `socks5` or `http`.
      host: The host name or address.
      port: The TCP port.
      username: The user name; empty if the proxy asks for none.
      password: The password.
    """

    kind: str
    host: str
    port: int
    username: str = ""
    password: str = ""

    @classmethod
    def of(cls, text: str, password: str = "") -> Proxy | None:
        """Read `socks5://user@host:port` or `http://user@host:port`; None for an empty text.

        Raises:
          ValueError: The text is something else.
        """
        if not text:
            return None
        parts = urlsplit(text)
        if parts.password is not None:
            raise ValueError("must not contain a password: it belongs to the credentials")
        host, port, rest = parts.hostname, parts.port, parts.path.strip("/")
        if not host or not port or rest or parts.query or parts.fragment:
            raise ValueError("must be socks5://host:port or http://host:port")
        if parts.scheme not in (SOCKS5, HTTP):
            raise ValueError(f"must begin with socks5:// or http://, not {parts.scheme}://")
        return cls(parts.scheme, host, port, unquote(parts.username or ""), password)

    def reach(self, connection: socket.socket, host: str, port: int) -> None:
        """Ask the proxy, over a new connection to it, for a connection to a server.

        Raises:
          CredentialsInvalid: The proxy rejects the login.
          ConfigurationError: The proxy does not permit this host or port, or speaks something else.
          Dropped: The proxy cannot reach the server.
        """
        if self.kind == SOCKS5:
            self._socks5(connection, host, port)
        else:
            self._http(connection, host, port)

    def _socks5(self, connection: socket.socket, host: str, port: int) -> None:
        methods = bytes([_NO_LOGIN, _PASSWORD] if self.username else [_NO_LOGIN])
        _send(connection, bytes([5, len(methods)]) + methods)
        version, method = _exactly(connection, 2)
        if version != 5:
            raise ConfigurationError("the proxy does not speak SOCKS5", field="proxy")
        if method == _NO_METHOD:
            raise CredentialsInvalid("the proxy requires a login that the account does not have")
        if method == _PASSWORD and self.username:
            _send(connection, b"\1" + _field(self.username) + _field(self.password))
            if _exactly(connection, 2)[1]:
                raise CredentialsInvalid("the proxy rejects the login", field="proxy_password")
        elif method != _NO_LOGIN:
            raise ConfigurationError("the proxy requires an unknown kind of login", field="proxy")
        _send(connection, bytes([5, _CONNECT, 0]) + _address(host) + port.to_bytes(2, "big"))
        _, code, _, kind = _exactly(connection, 4)
        if code:
            raise _refusal(code, port)
        sizes = {_IPV4: 4, _IPV6: 16}
        _exactly(connection, (sizes[kind] if kind in sizes else _exactly(connection, 1)[0]) + 2)

    def _http(self, connection: socket.socket, host: str, port: int) -> None:
        name = f"[{host}]" if ":" in host else _ascii(host)
        lines = [f"CONNECT {name}:{port} HTTP/1.1", f"Host: {name}:{port}"]
        if self.username:
            login = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
            lines.append(f"Proxy-Authorization: Basic {login}")
        _send(connection, "".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        # The server's greeting may follow in the same packet: nothing behind the head is read.
        head = bytearray()
        while not head.endswith(b"\r\n\r\n"):
            if len(head) >= MAX_HEAD_BYTES:
                raise Dropped("the proxy's reply is too long")
            head += _exactly(connection, 1)
            if len(head) == 5 and head != b"HTTP/":
                raise ConfigurationError("the proxy does not speak HTTP", field="proxy")
        status = head.partition(b"\r\n")[0].decode("latin-1")
        code = status.partition(" ")[2][:3]
        if code == "407":
            raise CredentialsInvalid(
                "the proxy rejects the login, or requires one",
                field="proxy_password" if self.username else "",
            )
        if code in ("400", "403", "405", "501"):
            raise ConfigurationError(
                f"the proxy does not permit port {port}: {status[:80]}", field="proxy"
            )
        if not code.startswith("2"):
            raise Dropped(f"the proxy cannot reach the server: {status[:80]}")


def connect(host: str, port: int, timeout: float, proxy: Proxy | None) -> socket.socket:
    """Open a TCP connection.

    Args:
      host: The server's host name or address.
      port: Its TCP port.
      timeout: The timeout of the connection, in seconds.
      proxy: The proxy to use. None: connect directly.

    Raises:
      UnknownHost: The name has no address.
      Dropped: The server cannot be reached.
      CredentialsInvalid, ConfigurationError: As in `Proxy.reach`.
    """
    address = (host, port) if proxy is None else (proxy.host, proxy.port)
    try:
        connection = _connected(address, timeout)
    except Dropped as error:
        if proxy is not None and error.field:
            error.field = "proxy"
        raise
    with network_errors():
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if proxy is not None:
                proxy.reach(connection, host, port)
        except BaseException:
            connection.close()
            raise
    return connection


def _connected(address: tuple[str, int], timeout: float) -> socket.socket:
    try:
        with network_errors():
            return socket.create_connection(address, timeout)
    except UnknownHost as error:
        error.args = (f"unknown host {address[0]}: {error}",)
        raise


def _send(connection: socket.socket, request: bytes) -> None:
    """Send a request to the proxy. Nothing is sent here after the server is reached."""
    connection.sendall(request)


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        block = connection.recv(size - len(found))
        if not block:
            raise Dropped("the proxy closed the connection")
        found += block
    return found


def _ascii(host: str) -> str:
    """Return a host name in the form of DNS.

    Raises:
      ConfigurationError: DNS has no form for the name.
    """
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        raise ConfigurationError(f"invalid host name {host}", field="host") from None


def _field(text: str) -> bytes:
    data = text.encode()
    if len(data) > MAX_FIELD_BYTES:
        raise ConfigurationError(
            f"the proxy's login has over {MAX_FIELD_BYTES} bytes", field="proxy"
        )
    return bytes([len(data)]) + data


def _address(host: str) -> bytes:
    """Return a host as SOCKS5 has it (RFC 1928, section 5)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return bytes([_NAME]) + _field(_ascii(host))
    return bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed


def _refusal(code: int, port: int) -> Dropped | ConfigurationError:
    if code == _REFUSED_BY_RULES:
        return ConfigurationError(
            f"the proxy does not permit connections to port {port}", field="proxy"
        )
    return Dropped(f"the proxy cannot reach the server: {_REFUSALS.get(code, f'code {code}')}")
