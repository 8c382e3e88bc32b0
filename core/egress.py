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

import ipaddress
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from core.errors import ConfigurationError

_CONNECTING = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})

_RESOLVING = frozenset({"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"})

_NAT64 = ipaddress.ip_network("64:ff9b::/96")

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All IPv6 unicast addresses assigned so far.

See https://www.iana.org/assignments/ipv6-address-space. Python also calls other addresses global:
the old site-local addresses, IPv4 in the forms `::127.0.0.1` and `::ffff:0:127.0.0.1`, and the
NAT64 prefix for local use.
"""

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
            return
        public_only = _public_only.get()
        if public_only or (public_only is None and self._enforcing):
            _require_public(*arguments[:2], known=public_only is not None)


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
        raise EgressRefused(
            "the host is not on the public internet; accounts made with a user's token may connect"
            " only to public hosts"
            if known
            else "a thread without its task's context may connect only to hosts on the public"
            " internet; the plugin must start it with contextvars.copy_context().run"
        )


def is_public(host: str) -> bool:
    """Return true if this is the address of a public host.

    A name is not accepted: it could resolve to another address when it is used.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = _embedded(address)
        if inner is None and address not in _GLOBAL_UNICAST:
            return False
        address = inner or address
    return address.is_global and not address.is_multicast


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address embedded in an IPv6 address, if there is one."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return None
