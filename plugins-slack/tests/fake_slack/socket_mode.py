"""The fake's Socket Mode: connections over real WebSockets, and the envelopes on them.

Source: https://docs.slack.dev/apis/events-api/using-socket-mode
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

if TYPE_CHECKING:
    from fake_slack.server import Fake

APP_TOKEN = "xapp-1-A1-1111-fake"
WAIT_SECONDS = 20.0


@dataclass
class SocketMode:
    """The connections of the app.

    Attributes:
      fake: The fake, which gets the method `apps.connections.open`.
      url: The address of the server.
      greets: False for connections without a greeting.
      refuses: The HTTP status with which the next connections are refused; 0 for none.
      location: The address of a redirect.
      tickets: The number of addresses that were given.
      acknowledged: The ids of the answered envelopes, in order.
      open: The open connections, oldest first.
    """

    fake: Fake
    url: str = ""
    greets: bool = True
    refuses: int = 0
    location: str = ""
    tickets: int = 0
    acknowledged: list[str] = field(default_factory=list)
    open: list[ServerConnection] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._numbers = itertools.count(1)

    def ticket(self) -> dict[str, Any]:
        """Answer a call of `apps.connections.open`."""
        self.tickets += 1
        return {"url": f"{self.url}/link/?ticket={self.tickets}&app_id=A1"}

    def request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse or redirect a connection, if the test says so."""
        if not self.refuses or request.path == "/redirected":
            return None
        response = connection.respond(self.refuses, "")
        if self.location:
            response.headers["Location"] = self.location
        return response

    def handle(self, connection: ServerConnection) -> None:
        """Greet a client, and record its answers."""
        with self._changed:
            self.open.append(connection)
            self._changed.notify_all()
        hello = {"type": "hello", "connection_info": {"app_id": "A1"}, "num_connections": 1}
        try:
            if self.greets:
                connection.send(json.dumps(hello))
            for message in connection:
                with self._changed:
                    self.acknowledged.append(json.loads(message)["envelope_id"])
                    self._changed.notify_all()
        except ConnectionClosed:
            pass
        finally:
            with self._changed:
                self.open.remove(connection)
                self._changed.notify_all()

    def send(self, payload: Any, kind: str = "events_api", **fields: Any) -> str:
        """Send an envelope over the newest connection, and return its id."""
        id = f"envelope-{next(self._numbers)}"
        envelope = {
            "envelope_id": id, "type": kind, "payload": payload, "accepts_response_payload": False,
            "retry_attempt": 0, "retry_reason": "", **fields,
        }  # fmt: skip
        self.raw(json.dumps(envelope))
        return id

    def raw(self, frame: str | bytes, number: int = -1) -> None:
        """Send a frame over one of the connections."""
        with suppress(ConnectionClosed):
            self.open[number].send(frame)

    def disconnect(self, reason: str, number: int = -1) -> None:
        """Say that a connection is about to end."""
        self.raw(json.dumps({"type": "disconnect", "reason": reason, "debug_info": {}}), number)

    def until(
        self,
        connections: int | None = None,
        acknowledged: str = "",
        seconds: float = WAIT_SECONDS,
    ) -> None:
        """Wait for a number of open connections, or for the answer to an envelope."""
        with self._changed:
            there = self._changed.wait_for(
                lambda: (
                    (connections is None or len(self.open) == connections)
                    and (not acknowledged or acknowledged in self.acknowledged)
                ),
                seconds,
            )
        assert there, f"{len(self.open)} connections; answered: {self.acknowledged}"


@contextmanager
def serving(fake: Fake) -> Iterator[SocketMode]:
    """Run the server of Socket Mode during a block."""
    made = SocketMode(fake)
    with serve(made.handle, "127.0.0.1", 0, process_request=made.request) as server:
        made.url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        thread = threading.Thread(target=server.serve_forever, name="fake-socket-mode")
        thread.start()
        fake.socket_mode = made
        try:
            yield made
        finally:
            fake.socket_mode = None
            for one in list(made.open):
                one.close()
            server.shutdown()
            thread.join()
