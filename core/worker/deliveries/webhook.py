"""Signed requests to a URL, as Standard Webhooks describes them.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx2
from pydantic_core import to_json
from standardwebhooks import Webhook

from core.egress import is_limited
from core.http_session import trust
from core.worker.deliveries.channels import Check, DeliveryFailed, Message

PIECE_BYTES = 64 * 1024
"""The bytes of a body between two checks of the lease."""


class WebhookChannel:
    """Requests with a signature."""

    async def send(self, target: Mapping[str, Any], message: Message, check: Check) -> None:
        """Sign a message, and send it to its URL.

        Raises:
          DeliveryFailed: The receiver did not answer 2xx.
        """
        body = body_of(message)
        await post(target["url"], body, check, signed(target["secret"], message.id, body))


def body_of(message: Message) -> bytes:
    """Return the body of a request."""
    return to_json({"type": message.type, "timestamp": message.at, "data": message.data})


def signed(secret: str, id: str, body: bytes) -> dict[str, str]:
    """Return the headers that sign a body now."""
    now = datetime.now(UTC)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(id, now, body.decode()),
    }


async def post(url: str, body: bytes, check: Check, headers: Mapping[str, str]) -> None:
    """Send a JSON body to a URL. Redirects are not followed, and the answer's body is not read.

    A context that is limited to public addresses uses no proxy of the environment: the proxy would
    connect in its place.

    Raises:
      DeliveryFailed: The status is not 2xx, or there is no answer.
    """
    async with httpx2.AsyncClient(
        verify=trust(), timeout=None, follow_redirects=False, trust_env=not is_limited()
    ) as client:
        # With the length, a body that ends early is an error for the receiver.
        own = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        own |= {"User-Agent": "integration-polling", "Accept-Encoding": "identity"}
        request = client.build_request(
            "POST", url, content=_pieces(body, check), headers={**own, **headers}
        )
        response = await client.send(request, stream=True)
        await response.aclose()
    if not response.is_success:
        raise DeliveryFailed(_explained(response.status_code), is_gone=response.status_code == 410)


async def _pieces(body: bytes, check: Check) -> AsyncIterator[bytes]:
    """Yield a body in pieces, after a check of the lease for each.

    A process that was stopped for longer than its lease sends no older state after a newer one.
    """
    for start in range(0, len(body), PIECE_BYTES):
        check()
        yield body[start : start + PIECE_BYTES]


def _explained(status: int) -> str:
    if 300 <= status < 400:
        return f"it answered with a redirect (HTTP {status}), which is not followed"
    return f"it answered HTTP {status}"
