"""A receiver of webhooks: a real HTTP server with a state, an oracle, and various manners."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

Key = tuple[str, str]
"""An account and the id of an item at its source."""

TABLE = """
SELECT user_integration_id::text, external_id, changed_xid, content_text, deleted_at IS NOT NULL
FROM user_integration_content
"""


@dataclass
class Receiver:
    """The requests of a receiver, in their order, and the state that they make.

    Attributes:
      manner: Answers a request whose body was read. Default: `accept`.
      items: The latest state of each item: (number, text, is deleted).
      backwards: Items that arrived in an older state after a newer one.
      messages: The id, the type and the data of each message that was accepted.
      ids: The ids of all requests, in their order.
      secret: The secret that checks signatures; None checks none.
    """

    manner: Callable[[Handler], bool] = lambda handler: accept(handler)
    items: dict[Key, tuple[int, str | None, bool]] = field(default_factory=dict)
    backwards: list[Key] = field(default_factory=list)
    messages: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    secret: str | None = None
    url: str = ""
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    def receive(self, id: str, body: bytes, headers: dict[str, str]) -> None:
        """Store a message, also if the receiver then answers that it failed."""
        if self.secret is not None:
            Webhook(self.secret).verify(body, headers)
        message = json.loads(body)
        with self.lock:
            self.messages.append((id, message["type"], message["data"]))
            if message["type"] == "restart":
                self.items.clear()
            for event in message["data"].get("events", ()):
                self._apply(event)

    def _apply(self, event: dict[str, Any]) -> None:
        account, number = event["user_integration_id"], event["number"]
        if event["change"] == "erased":
            self.items = {key: item for key, item in self.items.items() if key[0] != account}
            return
        content = event["content"]
        key = (account, content["external_id"])
        if key in self.items and self.items[key][0] > number:
            self.backwards.append(key)
        self.items[key] = (number, content["text"], event["change"] == "deleted")

    def types(self) -> list[str]:
        return [type for _, type, _ in self.messages]

    def events(self) -> list[dict[str, Any]]:
        return [event for _, _, data in self.messages for event in data.get("events", ())]

    def has(self, rows: list[tuple[Any, ...]]) -> bool:
        """Return True if the state is exactly that of these rows of `TABLE`."""
        with self.lock:
            return self.items == {(account, id): tuple(rest) for account, id, *rest in rows}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    receiver: Receiver
    protocol_version = "HTTP/1.1"
    body: bytes

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.body = self.rfile.read(length)
        if len(self.body) < length:
            return  # the sender has given up
        with self.receiver.lock:
            self.receiver.ids.append(self.headers["webhook-id"])
        self.close_connection = True
        try:
            self.receiver.manner(self)
        except OSError:
            pass  # the sender has left
        except Exception as error:  # noqa: BLE001  shown by the test
            self.receiver.wrong.append(repr(error))
            self.answer(400)

    def store(self) -> None:
        self.receiver.receive(self.headers["webhook-id"], self.body, dict(self.headers.items()))

    def answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


def accept(handler: Handler) -> bool:
    handler.store()
    handler.answer(204)
    return True


def fail(handler: Handler) -> bool:
    handler.answer(500)
    return False


def lie(handler: Handler) -> bool:
    """Store the message, and say that this failed."""
    handler.store()
    handler.answer(503)
    return False


def hang(handler: Handler) -> bool:
    """Answer nothing until the test ends."""
    handler.receiver.closing.wait()
    return False


def drip(handler: Handler) -> bool:
    """Send the head of an answer byte by byte, without an end."""
    for byte in b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 10_000:
        if handler.receiver.closing.wait(0.05):
            break
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
    return False


def flood(handler: Handler) -> bool:
    """Accept the message, with an answer that has no end."""
    handler.store()
    handler.send_response(200)
    handler.end_headers()
    until = time.monotonic() + 30
    while not handler.receiver.closing.is_set() and time.monotonic() < until:
        handler.wfile.write(b"x" * 65_536)
    return True


def reset(handler: Handler) -> bool:
    """Store the message, and close the connection."""
    handler.store()
    return False


def redirect(to: str) -> Callable[[Handler], bool]:
    def answer(handler: Handler) -> bool:
        handler.answer(307, Location=to)
        return False

    return answer


def gone(handler: Handler) -> bool:
    handler.answer(410)
    return False


@contextmanager
def receiving(**options: Any) -> Iterator[Receiver]:
    """Serve a receiver on a free port of the loopback."""
    receiver = Receiver(**options)
    handler = type("Handler", (Handler,), {"receiver": receiver})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_port}/hooks"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
