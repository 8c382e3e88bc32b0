"""The login to an SSH server, through a jump host if the account has one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncssh

from core import ConfigurationError, CredentialsInvalid, PermanentError, RateLimited
from integration_polling_ftp.account import ANONYMOUS_PASSWORD, Config, Credentials, Jump, secret
from integration_polling_ftp.control import keep_alive
from integration_polling_ftp.errors import (
    CONNECTIONS,
    Dropped,
    Missing,
    Unsupported,
    Untrusted,
    network_errors,
)
from integration_polling_ftp.host_keys import HostKeys

LEGACY: dict[str, str] = {
    "kex_algs": "+diffie-hellman-group14-sha1,diffie-hellman-group-exchange-sha1,"
    "diffie-hellman-group1-sha1",
    "encryption_algs": "+aes256-cbc,aes192-cbc,aes128-cbc,3des-cbc",
    "mac_algs": "+hmac-sha1,hmac-md5",
    "server_host_key_algs": "+ssh-rsa",
    "signature_algs": "+ssh-rsa",
}
"""Algorithms of old servers, used only with `legacy_algorithms`."""

NOTHING_LOCAL: dict[str, Any] = {
    "config": None,
    "agent_path": None,
    "gss_host": None,
    "x509_trusted_certs": None,
    "client_host_keysign": False,
}
"""The account's own keys decide, and not the files and agents of the engine's user."""


class _Client(asyncssh.SSHClient):
    """Checks the host key, and answers questions of `keyboard-interactive` with the password."""

    def __init__(self, keys: HostKeys, password: str) -> None:
        self._keys = keys
        self._password = password
        self._tried = False
        self.shown = ""

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        self.shown = key.get_fingerprint()
        return self.shown in self._keys.fingerprints

    def kbdint_auth_requested(self) -> str | None:
        """Try once: asyncssh asks again after a refusal."""
        tried, self._tried = self._tried, True
        return "" if self._password and not tried else None

    def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Any
    ) -> list[str] | None:
        if len(prompts) > 1 or any(echo for _, echo in prompts):
            return None  # the server asks for more than the password
        return [self._password for _ in prompts]


class Login:
    """The data for logins to an account's server.

    Args:
      config: The account's config.
      credentials: The account's credentials.
    """

    def __init__(self, config: Config, credentials: Credentials) -> None:
        self._config = config
        self._credentials = credentials
        given = credentials.password.get_secret_value()
        self._password = "" if given == ANONYMOUS_PASSWORD else given
        self._jump = Jump.of(config.jump_host, credentials.username) if config.jump_host else None

    def connect(self) -> socket.socket:
        """Open the TCP connection, in the caller's context: the engine judges its address.

        Raises:
          Dropped: The server cannot be reached.
        """
        config = self._config
        first = (self._jump.host, self._jump.port) if self._jump else None
        address = first or (config.host, config.effective_port)
        with network_errors():
            connection = socket.create_connection(address, config.timeout_seconds)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            keep_alive(connection)
            connection.setblocking(False)
        return connection

    async def open(
        self, connection: socket.socket, opened: list[asyncssh.SSHClientConnection]
    ) -> asyncssh.SSHClientConnection:
        """Log in over a TCP connection.

        Args:
          connection: The TCP connection.
          opened: Receives each SSH connection, the jump host's first.

        Raises:
          Untrusted: The host key is unknown, or another one; the message has the fingerprints.
          CredentialsInvalid: The server rejects the login, or the key cannot be read.
          ConfigurationError: Client and server have no algorithm in common.
          Dropped: The connection is lost.
        """
        config = self._config
        if self._jump is not None:
            jump, password = self._jump, secret(self._credentials.jump_password)
            opened.append(
                await self._open(
                    "jump_host_key", config.jump_host_key, jump.host, jump.port, jump.username,
                    password or self._password, sock=connection,
                )
            )  # fmt: skip
        way: dict[str, Any] = {"tunnel": opened[0]} if opened else {"sock": connection}
        opened.append(
            await self._open(
                "host_key", config.host_key, config.host, config.effective_port,
                self._credentials.username, self._password, **way,
            )
        )  # fmt: skip
        return opened[-1]

    async def _open(
        self, setting: str, trusted: str, host: str, port: int, username: str, password: str,
        **way: Any,
    ) -> asyncssh.SSHClientConnection:  # fmt: skip
        keys = HostKeys(trusted)
        clients: list[_Client] = []

        def client() -> _Client:
            clients.append(_Client(keys, password))
            return clients[-1]

        try:
            return await asyncssh.connect(
                host, port, client_factory=client, known_hosts=keys.known_hosts,
                username=username, password=password or None, client_keys=self._keys(),
                login_timeout=self._config.timeout_seconds * 2,
                keepalive_interval=self._config.timeout_seconds, keepalive_count_max=1,
                **(LEGACY if self._config.legacy_algorithms else {}), **NOTHING_LOCAL, **way,
            )  # fmt: skip
        except asyncssh.HostKeyNotVerifiable as error:
            shown = clients[-1].shown if clients else ""
            raise Untrusted(_distrust(setting, shown, keys.pinned(host, port), error)) from None

    def _keys(self) -> Any:
        """Return the account's key with its certificate; None if it has none."""
        private = secret(self._credentials.private_key)
        if not private:
            return None
        try:
            key = asyncssh.import_private_key(private, secret(self._credentials.passphrase) or None)
            text = self._credentials.certificate
            return [(key, asyncssh.import_certificate(text))] if text else [key]
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise CredentialsInvalid(f"cannot read the private key: {error}") from None


def _distrust(setting: str, shown: str, pinned: list[str], error: Exception) -> str:
    if not shown:
        return f"the server's host key is not trusted: {error}"
    if not pinned:
        return (
            f"the server's host key is unknown. Its fingerprint is {shown}. Compare it with the"
            f" server's, then set {setting} to it"
        )
    return (
        "the server has another host key than the pinned one. Pinned:"
        f" {', '.join(pinned)}; the server's: {shown}"
    )


Translate = Callable[[str], Exception]

_ERRORS: tuple[tuple[type[Exception], Translate], ...] = (
    (asyncssh.SFTPNoSuchFile, lambda text: Missing(f"no such file or directory: {text}")),
    (asyncssh.SFTPNoSuchPath, lambda text: Missing(f"no such file or directory: {text}")),
    (asyncssh.SFTPPermissionDenied, lambda text: Missing(f"permission denied: {text}")),
    (asyncssh.SFTPOpUnsupported, Unsupported),
    (asyncssh.SFTPConnectionLost, lambda text: Dropped(f"the connection is lost: {text}")),
    (asyncssh.SFTPNoConnection, lambda text: Dropped(f"the connection is lost: {text}")),
    (asyncssh.SFTPBadMessage, lambda text: Dropped(f"invalid message: {text}")),
    (asyncssh.SFTPError, PermanentError),
    (asyncssh.PermissionDenied, lambda text: CredentialsInvalid(f"login rejected: {text}")),
    (asyncssh.KeyExchangeFailed, lambda text: ConfigurationError(f"no common algorithm: {text}")),
    (asyncssh.ChannelOpenError, lambda text: Dropped(f"the server opens no channel: {text}")),
)
"""The engine's exceptions for those of asyncssh, the first that fits."""


@contextmanager
def ssh_errors() -> Iterator[None]:
    """Translate exceptions of asyncssh and of the network."""
    try:
        with network_errors():
            yield
    except asyncssh.Error as error:
        for kind, translate in _ERRORS:
            if isinstance(error, kind):
                raise translate(error.reason or str(error)) from None
        if isinstance(error, asyncssh.DisconnectError):
            if error.code == asyncssh.DISC_TOO_MANY_CONNECTIONS:
                raise RateLimited(error.reason, limit=CONNECTIONS) from None
            if "too many authentication failures" in error.reason.lower():
                raise CredentialsInvalid(f"login rejected: {error.reason}") from None
        raise Dropped(f"the connection is lost: {error}") from None
    except EOFError:
        raise Dropped("the server closed the connection") from None
