"""Restrict outgoing connections of plugins.

Accounts made with a user's token may connect only to public addresses.

Plugins open their own sockets, so the check uses an audit hook. Python calls audit hooks with every
address to which a socket is about to connect or send
(https://docs.python.org/3/library/audit_events.html). The name is resolved by then, so DNS
rebinding cannot bypass the check. An exception in the hook prevents the connection.

The addresses that a connection may reach depend on the context (`contextvars`) that opens it:

* `Egress.for_account(public_only=True)`: public addresses only.
* `Egress.for_account(public_only=False)`: any address.
* `any_host()`: any address, for connections of the engine or the operator.
* `Egress.offline()`: no address at all, and no name is resolved.
* No context: any address, until the process first works for an account that is limited to public
  addresses. After that, public addresses only.

A new thread has no context. Private addresses are therefore refused to threads that a plugin
starts, to older thread pools, and to the executors of an event loop. The check does not need to
know who started a thread, or for which account it works. A thread that works for a task can carry
the task's context, and then has its rights. `asyncio` copies the context for its tasks, and for
`to_thread` and `run_coroutine_threadsafe`. Other code calls
`pool.submit(contextvars.copy_context().run, function)`. A forked child is checked like the thread
that forked it.

The hook does not check sockets that a C library opens, or other programs that a plugin starts.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

from core.errors import ConfigurationError
from core.public_addresses import is_public

_CONNECTING = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_RESOLVING = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})

_BYTES_RECEIVED = slice(128, 136)
"""The field `tcpi_bytes_received` of Linux's `struct tcp_info`."""

_public_only: ContextVar[bool | None] = ContextVar("public_only", default=None)
"""True if this context may reach only public addresses; None in a thread without a context."""


_offline: ContextVar[bool] = ContextVar("offline", default=False)
"""True if this context may connect to nothing."""


class EgressRefused(ConfigurationError):
    """A plugin tried to connect to a loopback, private or link-local address.

    The message does not contain the address, because it may reveal a name of the internal network.
    """


class Egress:
    """The check of a process's outgoing connections.

    Args:
      allow_private_hosts: Let every account reach any address (`POLLING_ALLOW_PRIVATE_HOSTS`).
        Default: False.
    """

    def __init__(self, *, allow_private_hosts: bool = False) -> None:
        self._allow_private_hosts = allow_private_hosts
        self._lock = threading.Lock()
        self._hooked = False
        self._enforcing = False

    @contextmanager
    def for_account(self, *, public_only: bool) -> Iterator[None]:
        """Run plugin code for one account.

        Args:
          public_only: Limit the account to public addresses. False does not lift the limit of an
            outer block.
        """
        if public_only and not self._allow_private_hosts:
            self._enforce()
            limited = True
        else:
            limited = _public_only.get() is True
        token = _public_only.set(limited)
        try:
            yield
        finally:
            _public_only.reset(token)

    @contextmanager
    def offline(self) -> Iterator[None]:
        """Run plugin code that may neither connect nor resolve names."""
        self._install()
        token = _offline.set(True)
        try:
            yield
        finally:
            _offline.reset(token)

    def close(self) -> None:
        """Let code without a context reach any address again, when no account is served."""
        self._enforcing = False

    def _enforce(self) -> None:
        """Install the hook when the first limited account needs it.

        A hook cannot be removed, and costs a call at every audited event.
        """
        self._install()
        self._enforcing = True

    def _install(self) -> None:
        with self._lock:
            if not self._hooked:
                sys.addaudithook(self._audit)
                self._hooked = True

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CONNECTING and event not in _RESOLVING:
            return
        if _offline.get():
            raise EgressRefused("a reread may not use the network")
        if event in _RESOLVING:
            if (log := _log.get()) is not None:
                log.resolved = True
            return
        public_only = _public_only.get()
        if public_only or (public_only is None and self._enforcing):
            _require_public(*arguments[:2], known=public_only is not None)
        if event == "socket.connect" and (log := _log.get()) is not None:
            log.add(arguments[0])


class ConnectionLog:
    """The connections that a block of code opens within a limited account.

    Attributes:
      resolved: True if a name was looked up.
      refused: True if a connection to an address that is not public was refused.
    """

    def __init__(self) -> None:
        self.resolved = False
        self.refused = False
        self._answered = False
        self._opened: list[tuple[int, int]] = []

    def add(self, connection: socket.socket) -> None:
        """Record a connection by its descriptor, which a TLS connection takes over."""
        with suppress(OSError):
            descriptor = connection.fileno()
            self._opened.append((descriptor, os.fstat(descriptor).st_ino))

    def answered(self) -> bool:
        """Return true if one of the connections has received something."""
        self._answered = self._answered or any(map(_has_received, self._open()))
        return self._answered

    def pending(self) -> bool:
        """Return true if a connection waits for its server, or a name is looked up."""
        return any(True for _ in self._open()) or self.unresolved()

    def unresolved(self) -> bool:
        """Return true if a name was looked up, and nothing has connected to its address."""
        return self.resolved and not self._opened

    def cut(self) -> None:
        """Close all connections for both sides, so that nothing waits for them any more."""
        for connection in self._open():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _open(self) -> Iterator[socket.socket]:
        """Yield the connections that are still open, each as a duplicate."""
        for descriptor, inode in tuple(self._opened):
            try:
                duplicate = os.dup(descriptor)
            except OSError:
                continue
            if os.fstat(duplicate).st_ino != inode:
                os.close(duplicate)  # the descriptor belongs to another file now
                continue
            with socket.socket(fileno=duplicate) as connection:
                yield connection


def _has_received(connection: socket.socket) -> bool:
    with suppress(OSError):
        connection.getpeername()
        if not hasattr(socket, "TCP_INFO") or connection.type != socket.SOCK_STREAM:
            return True
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED.stop)
        received = int.from_bytes(info[_BYTES_RECEIVED], sys.byteorder)
        return received > 0 or len(info) < _BYTES_RECEIVED.stop
    return False


_log: ContextVar[ConnectionLog | None] = ContextVar("connection_log", default=None)


@contextmanager
def logged_connections() -> Iterator[ConnectionLog]:
    """Log the connections of this block, and of the threads that carry its context."""
    log = ConnectionLog()
    token = _log.set(log)
    try:
        yield log
    finally:
        _log.reset(token)


def is_limited() -> bool:
    """Return true if this context may reach only public addresses."""
    return _public_only.get() is True


@contextmanager
def any_host() -> Iterator[None]:
    """Allow any address in this block, for connections of the engine or of the operator's code."""
    token = _public_only.set(False)
    try:
        yield
    finally:
        _public_only.reset(token)


def _require_public(connection: socket.socket, address: Any = None, *, known: bool) -> None:
    if address is None:
        return  # an existing connection was checked when it was opened
    inet = connection.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple)
    if not inet or not is_public(str(address[0])):
        connection.close()  # callers handle only OSError; their cleanup might not run
        if (log := _log.get()) is not None:
            log.refused = True
        raise EgressRefused(
            "the host cannot be reached, or is not on the public internet; accounts made with a"
            " user's token may connect only to public hosts"
            if known
            else "a thread without its task's context may connect only to hosts on the public"
            " internet; the plugin must start it with contextvars.copy_context().run"
        )
