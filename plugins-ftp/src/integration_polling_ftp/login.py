"""The login to an FTP server: greeting, encryption, credentials and features."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field

from core import ConfigurationError, IntegrationError
from integration_polling_ftp.account import Config, Credentials, proxy_of, secret
from integration_polling_ftp.control import Control, Reply
from integration_polling_ftp.errors import NOT_IMPLEMENTED, Untrusted, meaning, without_secrets
from integration_polling_ftp.replies import readable
from integration_polling_ftp.server_hashes import Method, methods
from integration_polling_ftp.tls import Tls

IN_SEQUENCE = ("vsftpd", "proftpd", "pure-ftpd")
"""The names in the greetings of servers that read a command after the transfer before it has ended.

Others drop a transfer that has not begun when they read the next `PASV`, such as pyftpdlib.
"""


@dataclass(slots=True)
class Server:
    """A server after the login.

    Attributes:
      control: The control connection.
      preferred: The request for a data connection to try first: `PASV` or `EPSV`.
      passive: The request that the server knows.
      pipelines: True if it reads commands in sequence; see `IN_SEQUENCE`.
      greeting: The first line that it sent.
      features: The features that it announces.
      announces: True if it wants `PRET` before each transfer.
      round_trip: The time from a command to its reply, in seconds.
      hashes: The ways to ask it for the hash of a file, the preferred one first.
      hash_option: The algorithm that is selected for `HASH`.
    """

    control: Control
    preferred: str
    passive: str
    pipelines: bool
    greeting: str = ""
    features: frozenset[str] = frozenset()
    announces: bool = False
    round_trip: float = 0.0
    hashes: list[Method] = field(default_factory=list)
    hash_option: str = ""

    def ask(self, command: str) -> Reply:
        """Send a command, and return its reply, which may be an error."""
        self.control.send(command)
        return self.control.reply()


class Login:
    """The login of one account."""

    def __init__(self, config: Config, credentials: Credentials) -> None:
        self._config = config
        self._username = credentials.username
        self._password = credentials.password.get_secret_value()
        self._account = secret(credentials.account)
        self._proxy = proxy_of(config, credentials)
        self._tls = Tls(config, credentials) if config.protocol != "ftp" else None

    def open(self) -> Server:
        """Connect, and log in.

        Raises:
          Dropped: The server does not answer.
          CredentialsInvalid: It rejects the login.
          RateLimited: It has too many connections.
          Untrusted: Its certificate is not trusted; the message has its fingerprint.
          ConfigurationError: It does not support TLS, or requires it.
        """
        control = self._connect()
        try:
            server = self._greet(control)
            self._authenticate(control)
            if self._tls:
                self._protect(server)
            asked = time.monotonic()
            announced = _features(server.ask("FEAT"))
            server.features, server.hashes = frozenset(announced), methods(announced)
            server.round_trip = time.monotonic() - asked
            # pure-ftpd has PRET and does not need it.
            server.announces = "PRET" in server.features and not server.pipelines
            self._prefer(server)
        except BaseException:
            control.close()
            raise
        return server

    def meaning(self, reply: Reply, command: str = "") -> IntegrationError:
        """Return the exception for an error reply, whose text does not repeat the password."""
        error = meaning(reply.text, command)
        known = (self._password, self._account)
        secrets = (*known, *map(_wire, known))
        error.args = tuple(without_secrets(str(each), *secrets) for each in error.args)
        return error

    def _connect(self) -> Control:
        config = self._config
        return Control(config.host, config.effective_port, config.timeout_seconds, self._proxy)

    def _greet(self, control: Control) -> Server:
        """Read the greeting, and encrypt the connection before any secret is sent.

        Raises:
          Untrusted: The certificate is not trusted; the message has its fingerprint.
          ConfigurationError: The server does not support TLS.
        """
        implicit = self._config.protocol == "ftps-implicit"
        try:
            if self._tls and implicit:
                control.secure(self._tls)
            greeting = control.final(control.reply())
            self._require(greeting)
            if self._tls and not implicit:
                self._upgrade(control, self._tls)
        except Untrusted as error:
            if not self._config.tls_fingerprint and (found := self._look()):
                error.args = (f"{error}. Its SHA-256: {found}",)
            raise
        return self._know(control, readable(greeting.text).splitlines()[0][4:])

    def _know(self, control: Control, greeting: str) -> Server:
        banner = greeting.lower()
        control.is_telnet = "proftpd" in banner
        control.takes_newlines = "vsftpd" in banner
        # A firewall cannot read an encrypted PASV. EPSV also works over IPv6 (RFC 2428).
        passive = "EPSV" if control.is_ipv6 or self._tls else "PASV"
        return Server(
            control, passive, passive, any(name in banner for name in IN_SEQUENCE), greeting
        )

    def _upgrade(self, control: Control, tls: Tls) -> None:
        control.send("AUTH TLS")
        reply = control.reply()
        if reply.code.startswith("4"):
            raise self.meaning(reply, "AUTH")
        if not reply.code.startswith("2"):
            raise ConfigurationError(
                f"the server does not support FTPS: {readable(reply.text)}", field="protocol"
            )
        control.secure(tls)

    def _protect(self, server: Server) -> None:
        """Encrypt data connections (RFC 4217, section 9).

        Raises:
          ConfigurationError: The server refuses. Files would travel unencrypted.
        """
        server.ask("PBSZ 0")
        reply = server.ask("PROT P")
        implicit = self._config.protocol == "ftps-implicit"
        if reply.is_error and not (implicit and reply.code in NOT_IMPLEMENTED):
            raise ConfigurationError(
                f"the server does not encrypt data connections: {readable(reply.text)}",
                field="protocol",
            )

    def _look(self) -> str:
        """Return the fingerprint of the server's certificate; empty if it shows none now."""
        with suppress(IntegrationError):
            control = self._connect()
            try:
                if self._config.protocol == "ftps":
                    control.final(control.reply())
                    control.send("AUTH TLS")
                    control.reply()
                return control.look()
            finally:
                control.close()
        return ""

    def _authenticate(self, control: Control) -> None:
        control.send(f"USER {_wire(self._username)}")
        reply = control.reply()
        if reply.code == "331":
            control.send(f"PASS {_wire(self._password)}")
            reply = control.reply()
        if reply.code == "332" and self._account:
            control.send(f"ACCT {_wire(self._account)}")
            reply = control.reply()
        self._require(reply)

    def _require(self, reply: Reply) -> None:
        if not reply.code.startswith("2"):
            raise self.meaning(reply)

    def _prefer(self, server: Server) -> None:
        """Request names in UTF-8 (RFC 2640) and the `unique` fact. The server may refuse.

        Some servers have UTF-8 and no `FEAT`. Names in another charset are left as they are.
        """
        if self._config.encoding == "utf-8" and "UTF8" in (server.features or {"UTF8"}):
            server.ask("OPTS UTF8 ON")
        if "MLST" in server.features:
            server.ask("OPTS MLST type;size;modify;unique;")


def _features(reply: Reply) -> dict[str, str]:
    """Return the features that the server announces in reply to `FEAT` (RFC 2389).

    Each has its parameters by the first word.
    """
    lines = reply.text.split("\n")[1:-1] if reply.code == "211" else []
    parts = [line.strip().partition(" ") for line in lines if line.strip()]
    return {name.upper(): parameters for name, _, parameters in parts}


def _wire(text: str) -> str:
    return text.encode().decode("latin-1")
