"""The rules of connections: their deadlines, and which one gives way. Nothing here is timed."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest

from core.web import connections
from core.web import server as web_server
from core.web.connections import BoundedProtocol, Connections, network_of


class Transport:
    aborted = False

    def abort(self) -> None:
        self.aborted = True


class Connection:
    """The part of a protocol that `Connections` uses."""

    def __init__(self) -> None:
        self.transport = Transport()


def connect(among: Connections, address: str = "198.51.100.1") -> Any:
    one = Connection()
    if not among.admit(one, address):  # type: ignore[arg-type]
        one.transport.abort()
    among.waits(one)  # type: ignore[arg-type]
    return one


def proxies(address: str) -> bool:
    return address == "127.0.0.1"


def test_the_connection_that_waits_longest_gives_way() -> None:
    among = Connections(3, 100, proxies)
    first, second, third = (connect(among) for _ in range(3))
    among.works(first)
    fourth = connect(among)
    assert [one.transport.aborted for one in (first, second, third, fourth)] == [
        False, True, False, False,
    ]  # fmt: skip
    among.waits(first)  # its response is complete, so it waits for less time than the third
    connect(among)
    assert third.transport.aborted
    assert not first.transport.aborted
    assert len(among) == 3


def test_a_connection_with_a_request_never_gives_way() -> None:
    among = Connections(2, 100, proxies)
    busy = [connect(among), connect(among)]
    for one in busy:
        among.works(one)
    assert connect(among).transport.aborted
    assert not any(one.transport.aborted for one in busy)
    assert among.refused == 1


def test_an_address_only_takes_room_from_itself() -> None:
    among = Connections(100, 2, proxies)
    other = connect(among, "203.0.113.1")
    mine = [connect(among), connect(among), connect(among)]
    assert [one.transport.aborted for one in mine] == [True, False, False]
    assert not other.transport.aborted
    through_a_proxy = [connect(among, "127.0.0.1") for _ in range(10)]
    assert not any(one.transport.aborted for one in through_a_proxy)


def test_a_host_with_many_ipv6_addresses_counts_as_one() -> None:
    assert network_of("2a00:1:2:3::1") == network_of("2a00:1:2:3:ffff::9")
    assert network_of("2a00:1:2:3::1") != network_of("2a00:1:2:4::1")
    assert network_of("::ffff:198.51.100.1") == network_of("198.51.100.1")


def test_nothing_is_left_of_a_connection_that_has_ended() -> None:
    among, chance = Connections(50, 20, proxies), random.Random(1)
    alive: list[Any] = []
    for _ in range(3_000):
        alive = [one for one in alive if not one.transport.aborted]
        match chance.randrange(4):
            case 0 if alive:
                among.remove(alive.pop(chance.randrange(len(alive))))
            case 1 if alive:
                among.works(chance.choice(alive))
            case 2 if alive:
                among.waits(chance.choice(alive))
            case _:
                alive.append(connect(among, f"198.51.100.{chance.randrange(9)}"))
        alive = [one for one in alive if not one.transport.aborted]
        assert len(among) == len(alive) <= 50
    for one in alive:
        among.remove(one)
    assert (among._open, among._by_address, among._waiting) == ({}, {}, {})


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_responses_do_not_wait_for_acknowledgements(host: str) -> None:
    """Without TCP_NODELAY, each response on a kept-alive connection takes 40 ms more."""

    async def option_of_an_accepted_connection() -> int:
        accepted = asyncio.get_running_loop().create_future()

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                accepted.set_result(transport)

        listener = web_server._listen(host, 0, proxies)
        serving = await asyncio.get_running_loop().create_server(Protocol, sock=listener)
        async with serving:
            with socket.create_connection(listener.getsockname()[:2]):
                transport = await asyncio.wait_for(accepted, 20)
                connection = transport.get_extra_info("socket")
                option = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            transport.abort()
        return int(option)

    assert asyncio.run(option_of_an_accepted_connection())


def test_an_address_that_opens_too_many_connections_is_dropped(monkeypatch) -> None:
    monkeypatch.setattr(web_server, "CONNECTIONS_PER_SECOND", 0.1)
    monkeypatch.setattr(web_server, "CONNECTION_BURST_SECONDS", 100.0)
    with closing(web_server._listen("127.0.0.1", 0, proxies)) as listener, ExitStack() as stack:
        listener.setblocking(False)
        clients = [
            stack.enter_context(socket.create_connection(listener.getsockname(), 20, (address, 0)))
            for address in ["127.0.0.66"] * 30 + ["127.0.0.67"] + ["127.0.0.1"] * 20
        ]
        accepted: list[str] = []
        with suppress(BlockingIOError):
            while True:
                connection, place = listener.accept()
                stack.enter_context(connection)
                accepted.append(place[0])
        assert clients[29].recv(1) == b""
    assert accepted == ["127.0.0.66"] * 11 + ["127.0.0.67"] + ["127.0.0.1"] * 20


def test_silent_connections_of_a_proxy_are_dropped_and_requests_are_not(monkeypatch) -> None:
    """A program on the machine of a proxy has the proxy's address."""
    monkeypatch.setattr(web_server, "SILENT_CONNECTIONS_PER_SECOND", 0.1)
    monkeypatch.setattr(web_server, "CONNECTION_BURST_SECONDS", 100.0)
    with closing(web_server._listen("127.0.0.1", 0, proxies)) as listener, ExitStack() as stack:
        listener.setblocking(False)
        clients = []
        for number in range(40):
            one = stack.enter_context(socket.create_connection(listener.getsockname(), 20))
            if number % 2:
                one.sendall(b"GET / HTTP/1.1\r\n")
            clients.append(one)
        accepted = []
        with suppress(BlockingIOError):
            while True:
                connection, place = listener.accept()
                stack.enter_context(connection)
                accepted.append(place)
        places = [one.getsockname() for one in clients]
        assert [place for place in places[1::2] if place not in accepted] == []
        assert [place for place in places[::2] if place in accepted] == places[:22:2]
        assert clients[-2].recv(1) == b""


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="only Linux tells the state")
@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_clients_that_have_left_cost_nothing(sent) -> None:
    """A program that connects and leaves in a loop delayed everybody by seconds.

    It needed no token, and a proxy's address has no rate.
    """
    with closing(web_server._listen("127.0.0.1", 0, proxies)) as listener, ExitStack() as stack:
        listener.setblocking(False)
        for lingering in [0, 0, 1] * 10:
            with socket.create_connection(listener.getsockname(), 20) as one:
                one.sendall(sent)
                reset = struct.pack("ii", lingering, 0)  # with 1, the client resets the connection
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        honest = stack.enter_context(socket.create_connection(listener.getsockname(), 20))
        accepted = []
        with suppress(BlockingIOError):
            while True:
                connection, place = listener.accept()
                stack.enter_context(connection)
                accepted.append(place)
        assert accepted == [honest.getsockname()]


# Deadlines, with a clock of the test
# ------------------------------------------------------------------------------------------------


class Wire(asyncio.Transport):
    """A transport that records what the server does with the connection."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = self.closing = False
        self.sent = b""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("198.51.100.1", 1) if name in ("peername", "sockname") else default

    def write(self, data: Any) -> None:
        self.sent += data

    def abort(self) -> None:
        self.aborted = self.closing = True

    def close(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Clock(asyncio.SelectorEventLoop):
    """A loop whose timers the test fires."""

    seconds = 0.0

    def time(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
        self.call_soon(self.stop)
        self.run_forever()


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer once the body is complete."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.request":
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def clock():
    loop = Clock()
    asyncio.set_event_loop(loop)
    yield loop
    loop.close()
    asyncio.set_event_loop(None)


@pytest.fixture
def server(clock):
    """Return a connected protocol and its wire."""
    from uvicorn import Config
    from uvicorn.server import ServerState

    config = Config(echo, timeout_keep_alive=connections.KEEP_ALIVE_SECONDS, log_config=None)
    protocol = BoundedProtocol(
        Connections(10, 10, proxies),
        config=config,
        server_state=ServerState(),
        app_state={},
        _loop=clock,
    )
    wire = Wire()
    protocol.connection_made(wire)
    yield protocol, wire
    protocol.connection_lost(ConnectionResetError())
    while asyncio.all_tasks(clock):
        clock.advance(0)


GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"


def test_a_header_has_a_deadline_that_no_byte_extends(clock, server) -> None:
    protocol, wire = server
    for byte in b"GET / HT":
        protocol.data_received(bytes([byte]))
        clock.advance(connections.HEADER_SECONDS / 8)
    clock.advance(0.1)
    assert wire.aborted


def test_a_second_header_has_a_deadline_too(clock, server) -> None:
    protocol, wire = server
    protocol.data_received(GET)
    clock.advance(0)
    clock.advance(0)
    assert wire.sent.startswith(b"HTTP/1.1 200")
    clock.advance(connections.KEEP_ALIVE_SECONDS - 1)
    assert not wire.closing
    protocol.data_received(b"GET")
    clock.advance(connections.HEADER_SECONDS + 0.1)
    assert wire.aborted


def test_an_idle_connection_ends(clock, server) -> None:
    protocol, wire = server
    protocol.data_received(GET)
    clock.advance(0)
    clock.advance(0)
    clock.advance(connections.KEEP_ALIVE_SECONDS + 0.1)
    assert wire.closing
    clock.advance(connections.STALLED_SECONDS + 0.1)
    assert wire.aborted  # even if the client does not read the end


def test_a_body_has_a_deadline_that_no_byte_extends(clock, server) -> None:
    protocol, wire = server
    protocol.data_received(POST)
    protocol.data_received(b"ab")
    clock.advance(connections.BODY_SECONDS)
    assert not wire.aborted  # the gate answers first
    protocol.data_received(b"c")
    clock.advance(15)
    assert wire.aborted


CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
TINY = b"1\r\nx\r\n"


def test_a_body_of_tiny_chunks_is_given_up(clock, server) -> None:
    """Each chunk costs the server some 20 microseconds, and the attacker six bytes."""
    protocol, wire = server
    protocol.data_received(CHUNKED)
    protocol.data_received(TINY * connections.FREE_CHUNKS)
    assert not wire.aborted
    protocol.data_received(TINY * 10)
    assert wire.aborted


@pytest.mark.parametrize("chunk", [TINY * 90, b"80\r\n" + b"x" * 128 + b"\r\n"])
def test_chunks_of_an_honest_client_are_read(clock, server, chunk) -> None:
    protocol, wire = server
    for _ in range(2 if chunk.startswith(TINY) else 1):  # each request counts for itself
        protocol.data_received(CHUNKED + chunk * (1 if chunk.startswith(TINY) else 4_000))
        protocol.data_received(b"0\r\n\r\n")
        clock.advance(0)
        clock.advance(0)
    assert not wire.aborted
    assert wire.sent.startswith(b"HTTP/1.1 200")


def test_a_request_in_progress_has_no_deadline(clock, server) -> None:
    protocol, wire = server
    protocol.data_received(POST + b"abcd")
    clock.advance(0)
    clock.advance(connections.KEEP_ALIVE_SECONDS - 1)
    assert not wire.closing


def test_a_client_that_reads_again_is_not_cut_off(clock, server) -> None:
    protocol, wire = server
    protocol.data_received(GET[:-2])
    protocol.pause_writing()
    clock.advance(1)
    protocol.resume_writing()
    protocol.data_received(b"\r\n")
    clock.advance(0)
    clock.advance(connections.STALLED_SECONDS + 1)
    assert not wire.aborted
    protocol.pause_writing()
    clock.advance(connections.STALLED_SECONDS + 1)
    assert wire.aborted
