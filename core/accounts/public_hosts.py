"""Keep plugins from loopback and private networks in accounts that a user's token created.

Plugins open their own sockets, so the check sits below them: Python tells its audit hooks of every
address that a socket is about to connect or send to
(https://docs.python.org/3/library/audit_events.html). By then a name is resolved, so that a name
which points elsewhere a moment later (DNS rebinding) gains nothing. What the hook raises keeps the
socket from connecting.

It holds for Python's own sockets in the guarded thread and in every `threading.Thread` started from
there. It does not hold for sockets that a C library opens by itself, for threads that were there
before, nor in processes that a plugin starts.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from core.errors import ConfigurationError

_CONNECTING = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})

_NAT64 = ipaddress.ip_network("64:ff9b::/96")

_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All global IPv6 addresses that were assigned so far.

https://www.iana.org/assignments/ipv6-address-space. Python calls much of the rest global, too: the
old site-local addresses, IPv4 in the forms `::127.0.0.1` and `::ffff:0:127.0.0.1`, and the NAT64
prefix for use inside a network.
"""


class PrivateHost(ConfigurationError):
    """The account tried to connect to a loopback, private or link-local address."""

    def __init__(self) -> None:
        # The address is not named: it may be that of a name which only resolves inside this
        # network.
        super().__init__(
            "its host is not on the public internet, and accounts made with a user's token may not"
            " go there"
        )


class _Guarded(threading.local):
    on = False


_guarded = _Guarded()
_children: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_installing = threading.Lock()
_installed = False


@contextmanager
def public_hosts_only(wanted: bool = True) -> Iterator[None]:
    """Refuse this thread, and threads it starts, every connection to an address that is not public.

    Parameters:
      wanted: False changes nothing, so that callers need no condition.
    """
    if not wanted:
        yield
        return
    _install()
    before, _guarded.on = _guarded.on, True
    try:
        yield
    finally:
        _guarded.on = before


@contextmanager
def any_host() -> Iterator[None]:
    """The engine's own connections in the midst of a plugin's work."""
    before, _guarded.on = _guarded.on, False
    try:
        yield
    finally:
        _guarded.on = before


def _install() -> None:
    """Install the audit hook on first use.

    Python cannot remove a hook, and every audited event pays for it.
    """
    global _installed
    with _installing:
        if not _installed:
            sys.addaudithook(_audit)
            _watch_starts()
            _installed = True


def _watch_starts() -> None:
    """Before Python 3.12 no event tells of a thread that begins, so its method is wrapped."""
    start = threading.Thread.start

    def start_guarded(thread: threading.Thread) -> None:
        if _is_guarded():
            _children.add(thread)
        start(thread)

    threading.Thread.start = start_guarded  # type: ignore[method-assign, assignment]


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _CONNECTING and _is_guarded():
        _require_public(*arguments[:2])


def _is_guarded() -> bool:
    return _guarded.on or threading.current_thread() in _children


def _require_public(connection: socket.socket, address: Any = None) -> None:
    if address is None:
        return  # sent over a connection that was checked when it was made
    inet = connection.family in (socket.AF_INET, socket.AF_INET6) and isinstance(address, tuple)
    if not inet or not is_public(str(address[0])):
        connection.close()  # those who call it expect no other error than OSError to get past them
        raise PrivateHost


def is_public(host: str) -> bool:
    """Whether this is the address of a public host.

    A name is not: what it resolves to could change before it is used.
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
