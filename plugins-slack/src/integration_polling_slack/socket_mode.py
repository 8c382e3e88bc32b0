"""Socket Mode: the events of an internal app over a connection that the listener opens.

Slack closes each connection after some hours and says so before. The listener then opens the next
one first, so that no event is missed in between.

Sources: https://docs.slack.dev/apis/events-api/using-socket-mode and
https://docs.slack.dev/reference/methods/apps.connections.open
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from core import Hints, RateLimited, TransientError
from integration_polling_slack import api, events
from integration_polling_slack.account import SlackSettings

CHECK_SECONDS = 0.5
"""Seconds between two looks at `stopping`, with one connection."""

SHARED_SECONDS = 0.05
"""The same for each of several connections."""

HELLO_SECONDS = 15.0
"""The time in which Slack greets a new connection."""

OVERLAP_SECONDS = 30.0
"""The time for which the listener reads a connection that Slack is about to close."""

OPEN_SECONDS, PING_SECONDS, CLOSE_SECONDS = 10.0, 20.0, 1.0
"""The times for the handshake, between two pings and for their answers, and for the end.

Slack does not close a connection after its end, so waiting longer is useless.
"""

MAX_WAIT_SECONDS = 300.0
"""The longest wait that a refusal of Slack may cause here. The engine pauses besides."""

MAX_FRAME_BYTES = 4 * 1024 * 1024

MAX_REMEMBERED = 1_000
"""The number of stored events to remember. Slack sends an event again without its answer."""

# The library logs frames and addresses, which contain the ticket.
_SILENT = logging.Logger("websockets", logging.CRITICAL + 1)  # noqa: LOG001


def receive(settings: SlackSettings, hints: Hints, stopping: threading.Event) -> None:
    """Receive events until `stopping` is set.

    Args:
      settings: The operator's settings, with the app-level token.
      hints: The engine's side.
      stopping: Set when the listener must end.

    Raises:
      IntegrationError: Slack refuses the token or the connection.
      ConnectionError: The connection was lost.
    """
    receiver = _Receiver(settings, hints, stopping)
    try:
        receiver.run()
    finally:
        receiver.close()


class Unanswered(ConnectionError):
    """Slack has opened a connection, and does not greet."""


class _Connection:
    """One open connection.

    Attributes:
      socket: The library's connection.
      ends_at: The monotonic time at which the listener closes it; None while Slack keeps it.
    """

    def __init__(self, address: str) -> None:
        self.ends_at: float | None = None
        self._stack = ExitStack()
        self.socket: ClientConnection = self._stack.enter_context(_connected(address))

    def close(self) -> None:
        """Close it."""
        self._stack.close()

    @property
    def is_over(self) -> bool:
        """True if the time of a replaced connection has passed."""
        return self.ends_at is not None and time.monotonic() >= self.ends_at


class _Receiver:
    """The connections of a listener: one, and two while Slack replaces it."""

    def __init__(self, settings: SlackSettings, hints: Hints, stopping: threading.Event) -> None:
        self._settings = settings
        self._hints = hints
        self._stopping = stopping
        self._connections = list[_Connection]()
        self._stored = OrderedDict[str, None]()

    def close(self) -> None:
        """Close all connections."""
        for one in self._connections:
            one.close()

    def run(self) -> None:
        """Receive events until the listener must end."""
        self._open()
        while not self._stopping.is_set():
            for one in list(self._connections):
                self._read(one)

    def _open(self) -> None:
        """Open a connection, and report it after Slack's greeting."""
        made, until = _Connection(self._address()), time.monotonic() + HELLO_SECONDS
        self._connections.append(made)
        while not self._stopping.is_set():
            message = self._message(made, CHECK_SECONDS)
            match message.get("type"):
                case "hello":
                    self._hints.connected()
                    return
                case "disconnect":
                    raise Unanswered("Slack ends the new connection without a greeting")
            self._handle(made, message)
            if time.monotonic() >= until:
                raise Unanswered("Slack does not greet the new connection")

    def _address(self) -> str:
        """Return the address of a new connection.

        Raises:
          IntegrationError: Slack refuses it.
        """
        try:
            answer = api.call(self._settings, self._settings.app_token, "apps.connections.open")
        except RateLimited as error:
            self._stopping.wait(min(error.retry_after or 0.0, MAX_WAIT_SECONDS))
            raise
        url = answer.data.get("url")
        if not isinstance(url, str) or not is_slacks(self._settings, url):
            raise TransientError("apps.connections.open: the address is not one of Slack")
        return url

    def _read(self, one: _Connection) -> None:
        """Read at most one message of a connection. A replaced one may end."""
        pause = CHECK_SECONDS if len(self._connections) == 1 else SHARED_SECONDS
        try:
            message = self._message(one, pause)
        except ConnectionError:
            if one.ends_at is None:
                raise
            self._end(one)
            return
        self._handle(one, message)
        if one.is_over:
            self._end(one)

    def _end(self, one: _Connection) -> None:
        self._connections.remove(one)
        one.close()

    def _message(self, one: _Connection, seconds: float) -> Mapping[str, Any]:
        """Return the next message; empty if none arrives, and for anything but an object.

        Raises:
          ConnectionError: The connection has ended.
        """
        try:
            message = json.loads(one.socket.recv(timeout=seconds))
        except TimeoutError:
            return {}
        except ConnectionClosed as error:
            frame = error.rcvd or error.sent
            code = f"code {frame.code}" if frame is not None else "without a code"
            raise ConnectionError(f"the connection to Slack has ended ({code})") from None
        except (ValueError, RecursionError):
            return {}
        return message if isinstance(message, dict) else {}

    def _handle(self, one: _Connection, message: Mapping[str, Any]) -> None:
        if message.get("type") == "disconnect":
            self._replace(one, message.get("reason"))
            return
        envelope, payload = message.get("envelope_id"), message.get("payload")
        if not isinstance(envelope, str):
            return
        if message.get("type") == "events_api" and isinstance(payload, dict):
            self._store(payload)
        # Other envelopes are for parts of the app that this program does not have.
        self._acknowledge(one, envelope)

    def _store(self, payload: Mapping[str, Any]) -> None:
        """Store the hints of an event, unless it was stored before."""
        id = events.event_id(payload)
        if id in self._stored:
            return
        for hint in events.hints(payload):
            self._hints.add(hint.account, hint.part)
        if id:
            self._stored[id] = None
            while len(self._stored) > MAX_REMEMBERED:
                self._stored.popitem(last=False)

    def _acknowledge(self, one: _Connection, envelope: str) -> None:
        try:
            one.socket.send(json.dumps({"envelope_id": envelope}))
        except ConnectionClosed:
            if one.ends_at is None:
                raise ConnectionError("the connection ended before an answer") from None

    def _replace(self, one: _Connection, reason: object) -> None:
        """Open the next connection before Slack closes this one.

        Raises:
          ConnectionError: Socket Mode is not enabled any more.
        """
        if reason == "link_disabled":
            raise ConnectionError("Socket Mode is disabled in the settings of the Slack app")
        if one.ends_at is None:
            one.ends_at = time.monotonic() + OVERLAP_SECONDS
            self._open()


class _Client(ClientConnection):
    """The library's connection, without redirects: they may lead to any host."""

    def handshake(self, *args: Any, **kwargs: Any) -> None:
        """Fail with the status of a refusal or redirect."""
        try:
            super().handshake(*args, **kwargs)
        except InvalidStatus as error:
            status = error.response.status_code
            raise ConnectionError(f"Slack refused the connection: HTTP {status}") from None


def _connected(address: str) -> ClientConnection:
    """Open a connection. The errors do not repeat the address, which contains the ticket.

    Raises:
      ConnectionError: It cannot be opened.
    """
    try:
        return connect(
            address, open_timeout=OPEN_SECONDS, ping_interval=PING_SECONDS,
            ping_timeout=PING_SECONDS, close_timeout=CLOSE_SECONDS, max_size=MAX_FRAME_BYTES,
            logger=_SILENT, create_connection=_Client,
        )  # fmt: skip
    except ConnectionError:
        raise
    except (OSError, WebSocketException) as error:
        raise ConnectionError(f"no connection to Slack ({type(error).__name__})") from None


def is_slacks(settings: SlackSettings, url: str) -> bool:
    """Return True if a connection to this address is one to Slack, and encrypted.

    The host of `SLACK_API_URL` is one of Slack too, with its own kind of encryption.
    """
    try:
        parts, api_url = urlsplit(url), urlsplit(settings.api_url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if host == api_url.hostname and api_url.scheme == "http":
        return parts.scheme in ("ws", "wss")
    known = host == api_url.hostname or host.endswith((".slack.com", ".slack-gov.com"))
    return parts.scheme == "wss" and known
