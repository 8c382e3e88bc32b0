"""Send a message within a deadline, by the egress rules of the subscription's owner."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any

import httpx2

from core.db.clocks import DELIVERY_LEASE_SECONDS
from core.egress import Egress, EgressRefused, any_host
from core.http_session import silence
from core.states import SubscriptionChannel
from core.worker.deliveries.channels import Channel, DeliveryFailed, LeaseLost, Message
from core.worker.deliveries.webhook import WebhookChannel

DEADLINE_SECONDS = 10.0
"""Seconds for one attempt: resolving, connecting, sending, and the head of the answer."""

LATE_SECONDS = 2.0
"""Seconds after the deadline at which a thread no longer waits for the loop."""

MAX_LEASED_SECONDS = DELIVERY_LEASE_SECONDS * 0.75
"""Seconds after the beginning of a lease until which this process may send."""

CHANNELS: Mapping[SubscriptionChannel, Channel] = {SubscriptionChannel.WEBHOOK: WebhookChannel()}
"""The channels, by the channel of a subscription."""


class Sender:
    """Sends messages in an event loop of its own, which ends each of them at its deadline.

    A receiver that answers byte by byte occupies a connection no longer than one that is silent.

    Args:
      egress: The check of outgoing connections.
      deadline: Seconds for one attempt. Default: 10.
    """

    def __init__(self, egress: Egress, deadline: float = DEADLINE_SECONDS) -> None:
        silence()
        self._egress = egress
        self._deadline = deadline
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="deliveries", daemon=True)

    def send(
        self,
        channel: SubscriptionChannel,
        target: Mapping[str, Any],
        message: Message,
        *,
        public_only: bool,
        leased_at: float,
    ) -> None:
        """Send a message, and wait until the receiver has accepted it.

        Args:
          channel: The channel of the subscription.
          target: Its sealed fields.
          message: The message.
          public_only: True for a subscription of a user, which reaches public addresses only.
          leased_at: The monotonic time at or before the beginning of the lease.

        Raises:
          DeliveryFailed: The receiver did not accept it in time.
          LeaseLost: The lease may be over. The message was not sent completely.
        """

        def check() -> None:
            if time.monotonic() - leased_at > MAX_LEASED_SECONDS:
                raise LeaseLost

        # Tasks and callbacks of the loop carry the context of this thread.
        with self._rules(public_only=public_only):
            sent = asyncio.run_coroutine_threadsafe(
                self._bounded(CHANNELS[channel], target, message, check), self._running()
            )
        _result(sent, self._deadline + LATE_SECONDS)

    def close(self) -> None:
        """Stop the loop, when nothing is sent any more."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(LATE_SECONDS)

    def _rules(self, *, public_only: bool) -> AbstractContextManager[None]:
        return self._egress.for_account(public_only=True) if public_only else any_host()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread.start()
            return self._loop

    def _run(self) -> None:
        assert self._loop is not None
        self._loop.run_forever()
        self._loop.close()

    async def _bounded(
        self,
        channel: Channel,
        target: Mapping[str, Any],
        message: Message,
        check: Callable[[], None],
    ) -> None:
        async with asyncio.timeout(self._deadline):
            await channel.send(target, message, check)


def _result(sent: Future[None], seconds: float) -> None:
    """Wait for a message, and word its failure without parts of its address."""
    try:
        sent.result(seconds)
    except (DeliveryFailed, LeaseLost):
        raise
    except Exception as error:  # noqa: BLE001  a receiver may cause any error
        sent.cancel()
        causes = list(_causes(error))
        if any(isinstance(cause, LeaseLost) for cause in causes):
            raise LeaseLost from None
        raise DeliveryFailed(_explained(causes)) from None


def _explained(causes: list[BaseException]) -> str:
    if any(isinstance(cause, EgressRefused) for cause in causes):
        return "its address cannot be reached, or is not on the public internet"
    if isinstance(causes[0], TimeoutError):
        return "it did not answer in time"
    if isinstance(causes[0], httpx2.ConnectError):
        return "it could not be reached"
    return f"the request failed ({type(causes[0]).__name__})"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, those of its group, and those that caused it."""
    yield error
    inner: list[BaseException] = list(getattr(error, "exceptions", ()))
    for cause in (*inner, error.__cause__, error.__context__):
        if cause is not None:
            yield from _causes(cause)
