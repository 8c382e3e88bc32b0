"""The connections of the server: their deadlines, their number, and who gives way.

uvicorn has a timeout for idle connections between two requests only. It waits without a limit for
the first request, for the rest of a header or a body, and for a client that does not read.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
"""Seconds in which a client must send the complete header of a request, from its first byte.

For the first request of a connection, they count from the connection.
"""

BODY_SECONDS = 30.0
"""Seconds in which a client must send the complete body of a request."""

KEEP_ALIVE_SECONDS = 60
"""Seconds that a connection may stay idle between two requests."""

STALLED_SECONDS = 30.0
"""Seconds in which a client must read a part of a response."""

LINGERING_SECONDS = 2.0
"""Seconds in which a client may send the rest of a body that is not needed any more."""

MIN_DEADLINE_SHARE = 0.8
"""The smallest share of its seconds that a deadline may have."""

MAX_HEADER_BYTES = 32 * 1024
"""The maximum size of a request's header."""

FREE_CHUNKS = 100
"""The number of chunks that a body may have, of any size (RFC 9112, section 7.1)."""

MIN_CHUNK_BYTES = 128
"""The average size of further chunks. A tiny chunk costs as much time as a large one."""

REPORT_SECONDS = 60.0
"""The minimum pause between two log lines about refused connections, in seconds."""

log = logging.getLogger(__name__)


class Connections:
    """The open connections of one server.

    A connection without a complete request is worth the least. If there are too many connections,
    the one that has waited longest for its request is closed. The new one is refused only if none
    can give way. So a client that sends its request is served, however many stay silent.

    Args:
      most: The maximum number of connections.
      per_address: The maximum number of connections from one address.
      unlimited: A function that returns True for the addresses of proxies, which connect for
        many clients. For them, `core.web.gate` counts the requests of each client.
    """

    def __init__(self, most: int, per_address: int, unlimited: Callable[[str], bool]) -> None:
        self.most = most
        self.per_address = per_address
        self.unlimited = unlimited
        self.closed_early = 0
        self.refused = 0
        self._open: dict[BoundedProtocol, str] = {}
        self._by_address: dict[str, dict[BoundedProtocol, None]] = {}
        self._waiting: dict[BoundedProtocol, None] = {}  # the longest wait first
        self._reported_at = -REPORT_SECONDS

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: BoundedProtocol, address: str) -> bool:
        """Add a new connection. Return False if it must be refused."""
        key = network_of(address)
        peers = self._by_address.get(key, {})
        full = len(peers) >= self.per_address and not self.unlimited(address)
        if (full and not self._close_one(one for one in peers if one in self._waiting)) or (
            len(self._open) >= self.most and not self._close_one(iter(self._waiting))
        ):
            self.refused += 1
            self._report()
            return False
        self._open[connection] = key
        self._by_address.setdefault(key, {})[connection] = None
        return True

    def waits(self, connection: BoundedProtocol) -> None:
        """Record that a connection waits for a complete request."""
        if connection in self._open:
            self._waiting.setdefault(connection)

    def works(self, connection: BoundedProtocol) -> None:
        """Record that a connection has a complete request."""
        self._waiting.pop(connection, None)

    def remove(self, connection: BoundedProtocol) -> None:
        """Remove a connection."""
        self._waiting.pop(connection, None)
        key = self._open.pop(connection, None)
        if key is not None:
            peers = self._by_address[key]
            del peers[connection]
            if not peers:
                del self._by_address[key]

    def _close_one(self, waiting: Iterator[BoundedProtocol]) -> bool:
        """Close the first of these connections. Return False if there is none."""
        oldest = next(waiting, None)
        if oldest is None:
            return False
        self.closed_early += 1
        self._report()
        self.remove(oldest)
        oldest.transport.abort()
        return True

    def _report(self) -> None:
        if time.monotonic() - self._reported_at >= REPORT_SECONDS:
            self._reported_at = time.monotonic()
            log.warning(
                "too many connections: %d are open, %d were refused, and %d without a complete"
                " request were closed early",
                len(self._open),
                self.refused,
                self.closed_early,
            )


@lru_cache(maxsize=10_000)
def network_of(address: str) -> str:
    """Return the key by which clients are counted: an IPv4 address, or the /64 of an IPv6 address.

    A host usually has all addresses of a /64.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)


class _Parser(h11.Connection):
    """A parser that gives up a body of many tiny chunks: one megabyte of them takes a minute.

    Args:
      give_up: Closes the connection.
    """

    def __init__(self, max_header_bytes: int, give_up: Callable[[], None]) -> None:
        super().__init__(h11.SERVER, max_header_bytes)
        self._give_up = give_up
        self._chunks = self._bytes = 0

    def next_event(self) -> Any:
        """Return the next event, as h11 does.

        Raises:
          RemoteProtocolError: The client does not speak HTTP, or gives two lengths of a body. A
            proxy and this server could read different requests from it (RFC 9112, section 6.1).
        """
        event = super().next_event()
        if type(event) is h11.Request:
            self._chunks = self._bytes = 0
            names = {name for name, _ in event.headers}
            if {b"content-length", b"transfer-encoding"} <= names:
                raise h11.RemoteProtocolError("a body has two lengths")
        elif type(event) is h11.Data:
            self._chunks += event.chunk_start
            self._bytes += len(event.data)
            if self._chunks > FREE_CHUNKS + self._bytes // MIN_CHUNK_BYTES:
                self._give_up()
                return h11.NEED_DATA
        return event


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol, with deadlines for each phase of a connection."""

    def __init__(self, registry: Connections, **more: Any) -> None:
        super().__init__(**more)
        most = self.config.h11_max_incomplete_event_size or MAX_HEADER_BYTES
        self.conn = _Parser(most, lambda: self.transport.abort())  # noqa: PLW0108  set later
        self._registry = registry
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._phase = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit the connection, or close it."""
        super().connection_made(transport)
        if self._registry.admit(self, self.client[0] if self.client else ""):
            self._follow()
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Process data, and set the next deadline."""
        super().data_received(data)
        self._follow()
        if self._phase == "waiting" and self._deadline is None:
            # It is a part of the next header: uvicorn's timer for idle connections has ended.
            self._set_deadline(HEADER_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request, or close the connection if a response has begun."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._follow()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, even if the client does not read the end of its response."""
        super().timeout_keep_alive_handler()
        self._follow()

    def pause_writing(self) -> None:
        """Set a deadline for a client that does not read."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Remove this deadline: the client has read."""
        super().resume_writing()
        self._unset_stalled()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._registry.remove(self)
        self._unset_deadline()
        self._unset_stalled()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def _follow(self) -> None:
        phase = self._current_phase()
        if phase == self._phase:
            return
        first, self._phase = not self._phase, phase
        self._unset_deadline()
        if phase in ("waiting", "receiving"):
            self._registry.waits(self)
        else:
            self._registry.works(self)
        match phase:
            case "waiting" if first:
                self._set_deadline(HEADER_SECONDS)
            case "receiving":
                # The gate answers with status 408 first.
                self._set_deadline((BODY_SECONDS + LINGERING_SECONDS) / MIN_DEADLINE_SHARE)
            case "lingering":
                self._set_deadline(LINGERING_SECONDS)
            case "closing":
                self._set_deadline(STALLED_SECONDS)

    def _current_phase(self) -> str:
        if self.transport.is_closing():
            return "closing"
        answering = self.cycle is not None and not self.cycle.response_complete
        if self.conn.their_state is h11.SEND_BODY:
            return "receiving" if answering else "lingering"
        return "answering" if answering else "waiting"

    def _set_deadline(self, seconds: float) -> None:
        # Connections that came together do not end together, so that they cause no burst of work.
        seconds *= random.uniform(MIN_DEADLINE_SHARE, 1.0)
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _unset_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _unset_stalled(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
