"""Outgoing connections of plugins: accounts made with a user's token reach public addresses only.

Plugins open their own sockets, so the check is below them: Python calls its audit hooks with every
address that a socket is about to connect or send to
(https://docs.python.org/3/library/audit_events.html). By then a name is resolved, so a name that
resolves to another address a moment later (DNS rebinding) gains nothing. An exception of the hook
keeps the socket from connecting.

What a connection may reach depends on the context (`contextvars`) in which it is opened:

    Egress.for_account(public_only=True)    public addresses only
    Egress.for_account(public_only=False)   any address
    any_host()                              any address: a connection of the engine or the operator
    none of these                           any address, until the process first works for an
                                            account that is limited to public addresses; from then
                                            on, public addresses only

A new thread begins without a context, so a private address is refused to every thread that a plugin
starts, to thread pools that exist before the task, and to the executors of an event loop. Nobody
has to know who started a thread, or for which account it works. Where a thread works for a task, it
may carry the task's context, and reaches what the task reaches: asyncio does so for its tasks,
`to_thread` and `run_coroutine_threadsafe`; others call
`pool.submit(contextvars.copy_context().run, function)`. A child that the process forks is checked
like the thread that forked it.

Not checked: sockets that a C library opens by itself, and other programs that a plugin starts.
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

_NAT64 = ipaddress.ip_network("64:ff9b::/96")

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All addresses that were ever assigned (https://www.iana.org/assignments/ipv6-address-space).
Python also calls much of the rest global: the old site-local addresses, IPv4 in the forms
`::127.0.0.1` and `::ffff:0:127.0.0.1`, and the NAT64 prefix for use inside a network.
"""

_public_only: ContextVar[bool | None] = ContextVar("public_only", default=None)
"""Whether this context reaches public addresses only; None if nobody has said."""


class EgressRefused(ConfigurationError):
    """A plugin may not connect to a loopback, private or link-local address.

    The message does not name the address: it may belong to a name that resolves in this network
    only.
    """


class Egress:
    """Judge the outgoing connections of one process.

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
          public_only: Limit the account to public addresses. False does not lift a limit around
            this block.
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

    def close(self) -> None:
        """Let code without a context reach any address again: this process serves no account any
        more.
        """
        self._enforcing = False

    def _enforce(self) -> None:
        """Begin with the first account that is limited: a hook cannot be removed, and costs a call
        at every audited event.
        """
        if self._enforcing:
            return
        with self._lock:
            if not self._hooked:
                sys.addaudithook(self._audit)
                self._hooked = True
            self._enforcing = True

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CONNECTING:
            return
        public_only = _public_only.get()
        if public_only or (public_only is None and self._enforcing):
            _require_public(*arguments[:2], known=public_only is not None)


@contextmanager
def any_host() -> Iterator[None]:
    """Open connections of the engine itself, or of the operator's own code."""
    token = _public_only.set(False)
    try:
        yield
    finally:
        _public_only.reset(token)


def _require_public(connection: socket.socket, address: Any = None, *, known: bool) -> None:
    if address is None:
        return  # sent over a connection that was checked when it was made
    inet = connection.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple)
    if not inet or not is_public(str(address[0])):
        connection.close()  # callers expect OSError only: their cleanup might not run
        raise EgressRefused(
            "its host is not on the public internet, and accounts made with a user's token may not"
            " go there"
            if known
            else "a thread without the context of its task may not connect to a host that is not on"
            " the public internet: its plugin starts it with contextvars.copy_context().run"
        )


def is_public(host: str) -> bool:
    """Whether this is the address of a public host.

    A name is not: it could resolve to another address when it is used.
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
    """The IPv4 address that an IPv6 one stands for, if it does."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address.teredo is not None:
        return address.teredo[1]
    return None
