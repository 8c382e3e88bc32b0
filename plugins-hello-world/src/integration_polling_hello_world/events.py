"""Events of the made-up service: lines of a TCP server, and signed requests to the webhook."""

from __future__ import annotations

import hashlib
import hmac
import json
import select
import socket
import threading

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from core import Hint, Hints, WebhookRequest, WebhookResponse

SIGNATURE = "x-hello-signature"
"""The header with the signature of a request."""

CHECK_SECONDS = 0.2
"""Seconds between two looks at `stopping`."""


class HelloSettings(BaseSettings):
    """The operator's settings."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore")

    hello_world_events: str = Field(
        "", description="The address of a server that sends events, such as 127.0.0.1:9000"
    )
    hello_world_webhook_secret: SecretStr = Field(
        SecretStr(""), description="The secret with which requests to the webhook are signed"
    )
    hello_world_test_bench: bool = Field(
        False,
        description="Accounts may hold threads for more than 30 s, return items above 1 MiB,"
        " have more than 10,000 pages of 1,000 items, and end worker processes",
    )


def receive(address: str, hints: Hints, stopping: threading.Event) -> None:
    """Read lines from a server until `stopping` is set: the name of an account, and maybe a page.

    Raises:
      ConnectionError: The server has closed the connection.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        hints.connected()
        received = b""
        while not stopping.is_set():
            if not select.select([connection], [], [], CHECK_SECONDS)[0]:
                continue
            if not (data := connection.recv(4096)):
                raise ConnectionError("the server of the events closed the connection")
            *lines, received = (received + data).split(b"\n")
            for line in lines:
                name, _, page = line.decode().partition(" ")
                hints.add(name, page or None)


def answer(request: WebhookRequest, settings: HelloSettings) -> WebhookResponse:
    """Answer a request with the body `{"name": "hello", "page": "1"}`, if its signature is valid.

    The service checks the address first, with a `challenge` that the answer repeats.
    """
    secret = settings.hello_world_webhook_secret.get_secret_value().encode()
    expected = hmac.new(secret, request.body, hashlib.sha256).hexdigest()
    given = request.headers.get(SIGNATURE, "")
    # Compares bytes, because a header may have other characters than ASCII.
    if not secret or not hmac.compare_digest(expected.encode(), given.encode()):
        return WebhookResponse(status=401, body="wrong signature")
    event = json.loads(request.body)
    if "challenge" in event:
        return WebhookResponse(body=str(event["challenge"]))
    return WebhookResponse([Hint(event["name"], event.get("page"))])
