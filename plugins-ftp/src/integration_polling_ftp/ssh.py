"""The login to an SSH server, through a jump host if the account has one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import asyncssh

from core import ConfigurationError, CredentialsInvalid, IntegrationError, RateLimited
from integration_polling_ftp.account import (
    ANONYMOUS_PASSWORD,
    Config,
    Credentials,
    Jump,
    proxy_of,
    secret,
)
from integration_polling_ftp.control import keep_alive
from integration_polling_ftp.errors import CONNECTIONS, Dropped, Untrusted, network_errors
from integration_polling_ftp.host_keys import FAMILIES, HostKeys
from integration_polling_ftp.proxies import connect
from integration_polling_ftp.ssh_keys import import_key

CIPHERS = (
    "aes256-gcm@openssh.com",
    "aes128-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes192-ctr",
    "aes128-ctr",
)
"""The ciphers of asyncssh, the fastest first: most processors have instructions for AES."""

LEGACY_CIPHERS = ("aes256-cbc", "aes192-cbc", "aes128-cbc", "3des-cbc")
LEGACY: dict[str, str] = {
    "kex_algs": "+diffie-hellman-group14-sha1,diffie-hellman-group-exchange-sha1,"
    "diffie-hellman-group1-sha1",
    "mac_algs": "+hmac-sha1,hmac-md5",
    "signature_algs": "+ssh-rsa",
}
"""Algorithms of old servers, used only with `legacy_algorithms`."""

ONLY_THE_ACCOUNT: dict[str, Any] = {
    "config": None,
    "agent_path": None,
    "gss_host": None,
    "x509_trusted_certs": None,
    "client_host_keysign": False,
    "compression_algs": ["none"],
    "utf8_decode_errors": "replace",
}
"""The account's own keys decide, and not the files and agents of the engine's user.

Nothing is compressed: a small packet could expand to any size.
"""


class _Client(asyncssh.SSHClient):
    """Checks the host key, and answers questions of `keyboard-interactive` with the password."""

    def __init__(self, keys: HostKeys, password: str) -> None:
        self.keys = keys
        self._password = password
        self._tried = False
        self.shown: asyncssh.SSHKey | None = None
        self.lost: Exception | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        self.shown = key
        return key.get_fingerprint() in self.keys.fingerprints

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
    """Logs in to an account's server.

    Args:
      config: The account's config.
      credentials: The account's credentials.
    """

    def __init__(self, config: Config, credentials: Credentials) -> None:
        self._config = config
        self._credentials = credentials
        password = credentials.password.get_secret_value()
        self._password = "" if password == ANONYMOUS_PASSWORD else password
        self._jump = Jump.of(config.jump_host, credentials.username) if config.jump_host else None
        self._client: _Client | None = None

    @property
    def lost(self) -> Exception | None:
        """The server's reason for the end of the connection, if it has ended."""
        return self._client.lost if self._client else None

    async def open(self, opened: list[asyncssh.SSHClientConnection]) -> None:
        """Log in.

        Args:
          opened: Receives each connection, the jump host's first.

        Raises:
          Untrusted: The host key is unknown or another one; the message has the fingerprints.
          CredentialsInvalid: The server rejects the login, or the key cannot be read.
          ConfigurationError: Client and server have no algorithm in common.
          Dropped: The server cannot be reached, or the connection is lost.
        """
        config, username = self._config, self._credentials.username
        _ = self._key  # without a valid key, no connection is opened
        if (jump := self._jump) is not None:
            password = secret(self._credentials.jump_password) or self._password
            trusted = ("jump_host_key", config.jump_host_key)
            opened.append(
                await self._trusting(
                    trusted, jump.host, jump.port, None, username=jump.username, password=password
                )
            )
        tunnel = opened[0] if opened else None
        opened.append(
            await self._trusting(
                ("host_key", config.host_key), config.host, config.effective_port, tunnel,
                username=username, password=self._password,
            )
        )  # fmt: skip

    async def _trusting(
        self, trusted: tuple[str, str], host: str, port: int,
        tunnel: asyncssh.SSHClientConnection | None, **login: str,
    ) -> asyncssh.SSHClientConnection:  # fmt: skip
        """Log in if the host key is trusted.

        A server has keys of several kinds, and shows one of the kind that the client prefers. A
        fingerprint does not say its kind, so each kind is tried. The same shows the changed key of
        a server that has no key of the pinned kind.
        """
        setting, text = trusted
        keys = HostKeys(text, setting)
        shown: list[asyncssh.SSHKey] = []
        failure: Exception | None = None
        are_of_one_kind = keys.are_of_one_kind(host, port)
        for family in ("", *FAMILIES):
            if family and shown and not keys.fingerprints:
                break
            if any(key.get_algorithm().startswith(family) for key in shown if family):
                continue
            client = self._client = _Client(keys, login["password"])
            try:
                return await self._connect(client, family, host, port, tunnel, **login)
            except asyncssh.HostKeyNotVerifiable as error:
                if client.shown is None:
                    raise Untrusted(
                        f"the server's host key is not trusted: {error}", field=setting
                    ) from None
                shown.append(client.shown)
            except (asyncssh.Error, ConnectionError) as error:
                if client.shown is not None or not (family or are_of_one_kind):
                    raise
                failure = error  # the server has no key of this kind
        if failure is not None and not shown:
            raise failure
        reason = _distrust(setting, shown[0].get_fingerprint(), keys.pinned(host, port))
        raise Untrusted(reason, field=setting)

    async def _connect(
        self, client: _Client, family: str, host: str, port: int,
        tunnel: asyncssh.SSHClientConnection | None, *, username: str, password: str,
    ) -> asyncssh.SSHClientConnection:  # fmt: skip
        way: dict[str, Any] = {"tunnel": tunnel} if tunnel else {"sock": self._socket(host, port)}
        legacy = self._config.legacy_algorithms
        timeout = self._config.timeout_seconds
        try:
            return await asyncssh.connect(
                host, port, client_factory=lambda: client,
                known_hosts=client.keys.known_hosts,
                server_host_key_algs=client.keys.algorithms(host, port, family, legacy=legacy),
                encryption_algs=[*CIPHERS, *(LEGACY_CIPHERS if legacy else ())],
                username=username, password=password or None, client_keys=self._key,
                login_timeout=timeout, keepalive_interval=timeout, keepalive_count_max=1,
                **(LEGACY if legacy else {}), **ONLY_THE_ACCOUNT, **way,
            )  # fmt: skip
        except BaseException:
            if "sock" in way:
                way["sock"].close()
            raise

    def _socket(self, host: str, port: int) -> socket.socket:
        """Open a TCP connection, in the task's context: the engine judges its address."""
        proxy = proxy_of(self._config, self._credentials)
        try:
            connection = connect(host, port, self._config.timeout_seconds, proxy)
        except Dropped as error:
            if self._jump is not None and error.field in ("host", "port"):
                error.field = "jump_host"
            raise
        with network_errors():
            keep_alive(connection)
            connection.setblocking(False)
        return connection

    @cached_property
    def _key(self) -> Any:
        """The account's key with its certificate; None if it has none."""
        private = secret(self._credentials.private_key)
        if not private:
            return None
        passphrase = secret(self._credentials.passphrase)
        return import_key(private, passphrase, self._credentials.certificate)


def _distrust(setting: str, shown: str, pinned: list[str]) -> str:
    if not pinned:
        return (
            f"the server's host key is unknown. Its fingerprint is {shown}. Compare it with the"
            f" server's, then set {setting} to it"
        )
    return (
        f"the server has another host key than the pinned one in {setting}. Pinned:"
        f" {', '.join(pinned)}; the server's: {shown}"
    )


Translate = Callable[[str], IntegrationError]

_ERRORS: tuple[tuple[type[Exception], Translate], ...] = (
    (asyncssh.PermissionDenied, lambda text: CredentialsInvalid(f"login rejected: {text}")),
    (
        asyncssh.KeyExchangeFailed,
        lambda text: ConfigurationError(f"no common algorithm: {text}", field="legacy_algorithms"),
    ),
    (asyncssh.ChannelOpenError, lambda text: Dropped(f"the server opens no channel: {text}")),
)
"""The engine's exceptions for those of asyncssh, the first that fits."""

MAX_REASON_CHARS = 300
"""The length to which a server's reason is cut."""


@contextmanager
def ssh_errors() -> Iterator[None]:
    """Translate exceptions of asyncssh and of the network."""
    try:
        with network_errors():
            yield
    except asyncssh.Error as error:
        raise _meaning(error, (error.reason or str(error))[:MAX_REASON_CHARS]) from None


def _meaning(error: asyncssh.Error, reason: str) -> IntegrationError:
    for kind, translate in _ERRORS:
        if isinstance(error, kind):
            return translate(reason)
    if error.code == asyncssh.DISC_TOO_MANY_CONNECTIONS:
        return RateLimited(reason, limit=CONNECTIONS)
    if "too many authentication failures" in reason.lower():
        return CredentialsInvalid(f"login rejected: {reason}")
    return Dropped(f"the connection is lost: {reason}")
