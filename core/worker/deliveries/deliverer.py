"""One dispatch of a subscription: deliver batch after batch, until nothing is left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from core.accounts.vault import Vault
from core.backoff import growing_pause
from core.db.pool import DATABASE_UNAVAILABLE, Conn, Database
from core.errors import VaultError
from core.ledger import subscriptions
from core.ledger.subscriptions import Cursor, Subscription, Waiting
from core.states import SubscriptionKind
from core.worker.deliveries import batches
from core.worker.deliveries.channels import DeliveryFailed, LeaseLost, Message
from core.worker.deliveries.sender import Sender

TURN_SECONDS = 10.0
"""Seconds after which a subscription with more work gives its thread to another one."""

PAUSE_SECONDS = (5.0, 900.0)
"""The bounds of the pause after a failed attempt."""

MESSAGE_PAUSE_SECONDS = (5.0, 3_000.0)
"""The bounds of the pauses of one message. They end before the longest time of a deadline."""

log = logging.getLogger(__name__)


class Deliverer:
    """Delivers what subscriptions have waiting.

    Args:
      database: The connections to PostgreSQL.
      vault: Opens the sealed fields.
      sender: Sends messages.
      stopping: Returns True when the process stops, so that no further attempt begins.
    """

    def __init__(
        self, database: Database, vault: Vault, sender: Sender, stopping: Callable[[], bool]
    ) -> None:
        self._database = database
        self._vault = vault
        self._sender = sender
        self._stopping = stopping

    def deliver(self, id: UUID, token: int) -> None:
        """Deliver what a subscription has, for at most `TURN_SECONDS` and one attempt.

        Without the database, the lease expires, and the leader dispatches the subscription again.
        """
        until = time.monotonic() + TURN_SECONDS
        try:
            while (next_token := self._attempt(id, token)) is not None:
                token = next_token
                if self._stopping() or time.monotonic() > until:
                    with self._database.connection() as conn:
                        subscriptions.end(conn, id, token)
                    return
        except LeaseLost:
            log.warning("the lease of subscription %s expired; another process delivers", id)
        except DATABASE_UNAVAILABLE as error:
            log.warning("subscription %s is delivered later, database unavailable: %s", id, error)

    def _attempt(self, id: UUID, token: int) -> int | None:
        """Make one attempt.

        Returns:
          The token of the lease if the subscription may have more. Otherwise None: the lease has
          been returned, or was lost.
        """
        leased_at = time.monotonic()
        with self._database.connection() as conn:
            subscription = subscriptions.start(conn, id, token)
            if subscription is None:
                return None
            work = _next(conn, subscription)
            if work.message is None:
                if work.cursor is not None:
                    subscriptions.move_cursor(
                        conn, subscription, work.cursor, announce=work.announce
                    )
                if work.cursor is None or not work.cursor.more:
                    subscriptions.end(conn, id, subscription.token)
                    return None
                return subscription.token
        try:
            self._send(subscription, work.message, leased_at)
        except DeliveryFailed as error:
            self._failed(subscription, error, work.waiting)
            return None
        with self._database.connection() as conn:
            subscriptions.succeed(conn, subscription, cursor=work.cursor, message=work.waiting)
        return subscription.token

    def _send(self, subscription: Subscription, message: Message, leased_at: float) -> None:
        try:
            target = self._vault.open_json(subscription.sealed)
        except VaultError:
            raise DeliveryFailed("no key of this process opens its secret") from None
        self._sender.send(
            subscription.channel,
            target,
            message,
            public_only=subscription.user_id is not None,
            leased_at=leased_at,
        )

    def _failed(
        self, subscription: Subscription, error: DeliveryFailed, waiting: Waiting | None
    ) -> None:
        log.warning("the receiver of subscription %s failed: %s", subscription.id, error)
        attempts = 0 if waiting is None else waiting.attempts
        with self._database.connection() as conn:
            subscriptions.fail(
                conn,
                subscription,
                str(error),
                pause=growing_pause(*PAUSE_SECONDS, subscription.failures, jitter=0.2),
                is_gone=error.is_gone,
                message=waiting,
                message_pause=growing_pause(*MESSAGE_PAUSE_SECONDS, attempts, jitter=0.2),
            )


@dataclass(frozen=True, slots=True)
class _Work:
    """The next work of a subscription.

    Attributes:
      message: The message to send; None if there is none.
      cursor: The place of the subscription after it; None if the place stays.
      announce: The type of a message to store with the cursor; None if there is none.
      waiting: The row of the message in the ledger; None if it has none.
    """

    message: Message | None = None
    cursor: Cursor | None = None
    announce: str | None = None
    waiting: Waiting | None = None


def _next(conn: Conn, subscription: Subscription) -> _Work:
    waiting = subscriptions.next_message(conn, subscription)
    if waiting is not None:
        id = f"msg_{waiting.message_id.hex}"
        message = Message(id, waiting.type, waiting.created_at, waiting.data)
        return _Work(message, waiting=waiting)
    if subscription.kind != SubscriptionKind.CONTENT:
        return _Work()
    batch = batches.read(conn, subscription)
    return _Work(batch.message, batch.cursor, batch.announce)
