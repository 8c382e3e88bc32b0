"""The control connection of FTP (RFC 959): commands, replies and passive data connections.

Every read is bounded, because a server may be broken or hostile. The only commands that it can send
are those in `COMMANDS`. They only read.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from integration_polling_ftp.errors import Dropped, OtherProtocol, Truncated, network_errors
from integration_polling_ftp.proxies import Proxy, connect
from integration_polling_ftp.tls import Tls, look

COMMANDS = frozenset(
    [
        "AUTH",
        "PBSZ",
        "PROT",
        "USER",
        "PASS",
        "FEAT",
        "OPTS",
        "NOOP",
        "CWD",
        "TYPE",
        "PWD",
        "ACCT",
        "PRET",
        "PASV",
        "EPSV",
        "REST",
        "RETR",
        "MLSD",
        "MLST",
        "LIST",
        "NLST",
        "SIZE",
        "MDTM",
        "HASH",
        "XSHA256",
        "XSHA512",
        "XSHA1",
        "XSHA",
        "XMD5",
        "MD5",
        "XCRC",
    ]
)
"""The commands that the plugin can send. They only read."""

BLOCK = 256 * 1024
"""The size of the buffer for data, in bytes."""

MAX_REPLY_LINE_BYTES = 16 * 1024
MAX_REPLY_BYTES = 64 * 1024
"""The maximum size of a line of a reply, and of a complete reply or greeting."""

MAX_PRELIMINARY = 8
"""The number of preliminary replies (1xx) to one command."""

KEEPALIVE_SECONDS = 60
"""An idle connection is kept alive at this interval: firewalls forget those without traffic."""

REPLY_TIMEOUTS = 4
"""A reply that is not complete after this many times the timeout counts as lost."""

_PASV = re.compile(r"\d{1,3}(?:, ?\d{1,3}){3}, ?(?P<high>\d{1,3}), ?(?P<low>\d{1,3})", re.ASCII)
_EPSV = re.compile(r"\(([!-~])[12]?\1[0-9A-Fa-f.:]*\1(?P<port>\d{1,5})\1\)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply: its code, and its complete text, code included, decoded as latin-1."""

    code: str
    text: str

    @property
    def is_error(self) -> bool:
        """True if the code is 4xx or 5xx."""
        return self.code[:1] in ("4", "5")


class Control:
    """An open control connection.

    Attributes:
      is_ipv6: True if the server was reached over IPv6, or may have been by a proxy.
      is_telnet: True if the server reads commands by the rules of Telnet (RFC 854), which repeat
        the byte 255. ProFTPD does; most servers do not. Default: False.
      takes_newlines: True if the server takes NUL for a LF in a name, as vsftpd does. Other servers
        have no form for such a name. Default: False.

    Args:
      host: The host name or address.
      port: The TCP port.
      timeout: Seconds without any byte until a connection counts as lost.
      proxy: The proxy for all connections. Default: none.

    Raises:
      Dropped: The server cannot be reached.
    """

    def __init__(self, host: str, port: int, timeout: float, proxy: Proxy | None = None) -> None:
        self.timeout = timeout
        self._host = host
        self._proxy = proxy
        self._socket = connect(host, port, timeout, proxy)
        with network_errors():
            keep_alive(self._socket)
        self._tls: Tls | None = None
        self._tls_session: ssl.SSLSession | None = None
        self._peer = self._socket.getpeername()
        self._rest = b""
        self.is_telnet = False
        self.takes_newlines = False
        self.is_ipv6 = self._socket.family == socket.AF_INET6 or proxy is not None

    def close(self) -> None:
        """Close the connection, without a farewell that could block."""
        with suppress(OSError):
            self._socket.close()

    def secure(self, tls: Tls) -> None:
        """Encrypt the control connection, and each later data connection.

        Raises:
          Untrusted: The certificate is not trusted.
          ConfigurationError: Client and server have no version or method in common.
          Dropped: The connection is lost, or bytes came before the handshake, which an attacker
            could have written.
        """
        if self._rest:
            raise Dropped("the server sent unencrypted bytes after its reply to AUTH")
        self._socket = tls.wrap(self._socket, None)
        self._tls = tls

    def look(self) -> str:
        """Return the fingerprint of the server's certificate, and close the connection."""
        return look(self._socket)

    def send(self, *commands: str) -> None:
        """Send commands in one packet, without waiting for a reply.

        Args:
          commands: Command lines, decoded as latin-1.

        Raises:
          ValueError: A command is not in `COMMANDS`, or contains a line break.
          Dropped: The connection is lost.
        """
        unsafe = "\r\0" if self.takes_newlines else "\r\n\0"
        for command in commands:
            if command.partition(" ")[0] not in COMMANDS or any(c in command for c in unsafe):
                raise ValueError(f"refusing to send {command.partition(' ')[0]!r}")
        lines = [command.replace("\n", "\0") for command in commands]
        wire = "".join(f"{line}\r\n" for line in lines).encode("latin-1")
        with network_errors():
            try:
                self._socket.sendall(wire.replace(b"\xff", b"\xff\xff") if self.is_telnet else wire)
            except OSError:
                # A server may refuse the client after the handshake of TLS 1.3. Its alert waits
                # here, and raises an error that says why.
                if self._tls is not None:
                    self._socket.recv(1)
                raise

    def reply(self, deadline: float = 0.0) -> Reply:
        """Return the next reply, which may have several lines (RFC 959, section 4.2).

        Args:
          deadline: The time until which it must be complete, by the monotonic clock. Default: in
            `REPLY_TIMEOUTS` times the timeout.

        Raises:
          Dropped: The connection is lost, or the reply is too long, too slow or not a reply.
        """
        deadline = deadline or time.monotonic() + self.timeout * REPLY_TIMEOUTS
        first = self._line(deadline)
        code, lines, size = first[:3], [first], len(first)
        if not (code.isdecimal() and len(code) == 3):
            raise OtherProtocol(
                f"the server does not speak FTP: {first[:80]!r}",
                field="protocol" if first.startswith("SSH-") else "port",
            )
        while first[3:4] == "-" and not (len(lines) > 1 and _ends(lines[-1], code)):
            lines.append(self._line(deadline))
            size += len(lines[-1])
            if size > MAX_REPLY_BYTES:
                raise Dropped(f"a reply of the server has over {MAX_REPLY_BYTES:,} bytes")
        return Reply(code, "\n".join(lines))

    def final(self, reply: Reply, deadline: float = 0.0) -> Reply:
        """Return the first reply from this one on that is not preliminary (1xx).

        Args:
          reply: The first reply.
          deadline: The time until which the last one must be complete, as in `reply`.

        Raises:
          Dropped: As in `reply`; or there are more than `MAX_PRELIMINARY` preliminary replies.
        """
        for _ in range(MAX_PRELIMINARY):
            if not reply.code.startswith("1"):
                return reply
            reply = self.reply(deadline)
        raise Dropped("the server sends preliminary replies only")

    def _line(self, deadline: float) -> str:
        while b"\n" not in self._rest:
            if len(self._rest) > MAX_REPLY_LINE_BYTES:
                raise Dropped(f"a line of a reply has over {MAX_REPLY_LINE_BYTES:,} bytes")
            if time.monotonic() > deadline:
                raise Dropped("the server did not complete a reply in time")
            with network_errors():
                block = self._socket.recv(8192)
            if not block:
                raise Dropped("the server closed the connection")
            self._rest += block
        line, _, self._rest = self._rest.partition(b"\n")
        if len(line) > MAX_REPLY_LINE_BYTES:
            raise Dropped(f"a line of a reply has over {MAX_REPLY_LINE_BYTES:,} bytes")
        return line.removesuffix(b"\r").decode("latin-1")

    def connect(self, reply: Reply) -> Data | None:
        """Open the data connection that a reply to PASV or EPSV offers.

        The address in the reply is ignored: the connection goes to the host of the control
        connection, through the same proxy. So a server cannot point the plugin at another host, and
        NAT does no harm.

        Returns:
          The data connection; None if the reply offers none.

        Raises:
          Dropped: The port does not answer.
        """
        port = passive_port(reply)
        if port is None:
            return None
        if self._proxy is not None:
            connection = connect(self._host, port, self.timeout, self._proxy)
            return Data(connection, self._tls, self._session())
        connection = socket.socket(self._socket.family, socket.SOCK_STREAM)
        try:
            with network_errors():
                connection.settimeout(self.timeout)
                connection.connect((self._peer[0], port, *self._peer[2:]))
        except BaseException:
            connection.close()
            raise
        return Data(connection, self._tls, self._session())

    def _session(self) -> ssl.SSLSession | None:
        """Return the TLS session to resume. TLS 1.3 gives it some time after the handshake.

        It is read once: Python copies it each time, which takes a tenth of a small file's time.
        """
        if self._tls_session is None and isinstance(self._socket, ssl.SSLSocket):
            self._tls_session = self._socket.session
        return self._tls_session


class Data:
    """An open data connection, read in blocks of at most 256 KiB.

    Args:
      connection: The connected socket.
      tls: Encrypts the connection. None: it is not encrypted.
      session: The TLS session of the control connection.

    Attributes:
      is_closed: True if the server has said that the transfer ends here: an encrypted connection
        that just breaks off may be cut by anyone. Always True without TLS.
    """

    def __init__(
        self, connection: socket.socket, tls: Tls | None, session: ssl.SSLSession | None
    ) -> None:
        self._socket = connection
        self._tls = tls
        self._tls_session = session
        self.is_closed = True

    def secure(self) -> None:
        """Begin to encrypt, after the server's preliminary reply (RFC 4217, section 9).

        Raises:
          Untrusted: The certificate is not trusted.
          Dropped: The connection is lost, or the server refuses the handshake.
        """
        if self._tls is not None:
            self._socket = self._tls.wrap(self._socket, self._tls_session)

    def close(self) -> None:
        """Close the connection."""
        with suppress(OSError):
            self._socket.close()

    def blocks(self, buffer: bytearray) -> Iterator[memoryview]:
        """Yield the bytes of the transfer as views of `buffer`, valid until the next one.

        Raises:
          Dropped: The connection is lost, or silent for longer than the timeout.
        """
        view = memoryview(buffer)
        while True:
            try:
                with network_errors():
                    size = self._socket.recv_into(buffer)
            except Truncated:
                self.is_closed = False
                return
            if not size:
                self._farewell()
                return
            yield view[:size]

    def _farewell(self) -> None:
        """Answer the server's close of TLS: some servers wait for that before they reply."""
        if isinstance(self._socket, ssl.SSLSocket):
            with suppress(OSError):
                self._socket.unwrap().close()


def keep_alive(connection: socket.socket) -> None:
    """Keep an idle connection alive at intervals of `KEEPALIVE_SECONDS`."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL"):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), KEEPALIVE_SECONDS)


def passive_port(reply: Reply) -> int | None:
    """Return the port in a reply to PASV (227) or EPSV (229, RFC 2428); None if there is none."""
    if reply.code == "227" and (match := _PASV.search(reply.text)):
        port = int(match["high"]) * 256 + int(match["low"])
    elif reply.code == "229" and (match := _EPSV.search(reply.text)):
        port = int(match["port"])
    else:
        return None
    return port if 0 < port < 65536 else None


def _ends(line: str, code: str) -> bool:
    return line[:3] == code and line[3:4] != "-"
