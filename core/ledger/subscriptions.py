"""The dispatch of subscriptions, and their places in the change feed.

The leader leases a subscription to one dispatch at a time, and sends the message of that dispatch
to the queue of deliveries. The message names the subscription and the token of the lease. Each
statement of the delivery compares the token, so a message that is late, lost or delivered twice has
no effect. The cursor moves in the database, after the receiver has accepted a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row

from core.content.feed import FEED_SOURCE, NEWEST_CHANGE, Position
from core.db.clocks import DAY, DELIVERY_LEASE_SECONDS, lasts, passed
from core.db.pool import Conn
from core.ledger.monotonic import Before
from core.ledger.processes import IS_LIVE_WORKER
from core.states import DeliveryState, SubscriptionChannel, SubscriptionKind, SubscriptionState

TEST = "test"
RESTART = "restart"
REWOUND = "rewound"
"""Types of messages to the receiver of one subscription. A test is tried once."""

GIVE_UP_SECONDS = DAY
"""The age in seconds at which a message that fails is kept as failed."""

PAUSE_SECONDS = 3 * DAY
"""Seconds after which a subscription to content that fails is paused."""

PASSED = -1
"""The value of `cursor_began` after the first reading."""

MAX_DUE = 1_000
"""The number of subscriptions that one statement of the leader leases at most."""

_CONTENT = f"s.kind = '{SubscriptionKind.CONTENT}'"
_LEASE = f"clock_timestamp() + interval '{DELIVERY_LEASE_SECONDS} s'"
_RANDOM = "('x' || substr(md5(gen_random_uuid()::text), 1, 15))::bit(60)::bigint"
_IS_FREE = f"""s.state <> '{SubscriptionState.PAUSED}'
    AND (s.lease_until IS NULL OR {passed("subscription.lease_until", "s.lease_until")})"""

# The number of a transaction is meaningless in another cluster, and after a restore to an earlier
# time. A restore of a dump stays in its cluster, and begins a new epoch of the ledger.
SOURCE_OF_CURSORS = f"""
SELECT feed.source || '.' || e.epoch AS source FROM ({FEED_SOURCE}) feed, engine_state e
"""

# The messages of content subscriptions keep their order. Each of the others has its own pauses.
NEXT_MESSAGE_OF_S = f"""
SELECT d.id FROM delivery d
WHERE d.subscription_id = s.id AND d.state = '{DeliveryState.WAITING}'
  AND ({_CONTENT} OR {passed("delivery.due_at", "d.due_at")})
ORDER BY d.id LIMIT 1
"""

# A content subscription is due if the feed may have changes after its cursor, also those of other
# users. It is due, too, if its receiver may have missed the deletion of an item that was removed.
# `subscription_due` and `delivery_of_subscription` serve it. Without a subscription, it reads
# neither the feed nor the cluster. It leases none that another leader has just leased.
LEASE_DUE = f"""
WITH fleet AS MATERIALIZED (
    SELECT count(*) * %(threads)s AS threads FROM process
    WHERE %(queue)s = ANY(queues) AND NOT draining AND {IS_LIVE_WORKER}
), feed AS MATERIALIZED (
    SELECT f.source || '.' || e.epoch AS source, greatest(({NEWEST_CHANGE}),
        CASE WHEN e.removed_source = f.source THEN e.removed_xid END) AS newest
    FROM ({FEED_SOURCE}) f, engine_state e
), due AS (
    SELECT s.id, s.user_id, s.due_at,
        row_number() OVER (PARTITION BY s.user_id ORDER BY s.due_at, s.id) AS place
    FROM subscription s
    WHERE {_IS_FREE} AND {passed("subscription.due_at", "s.due_at")}
      AND (({NEXT_MESSAGE_OF_S}) IS NOT NULL
        OR {_CONTENT} AND (s.has_more
            OR s.cursor_source IS DISTINCT FROM (SELECT source FROM feed)
            OR s.cursor_xid < (SELECT newest FROM feed)))
), leased AS (
    SELECT s.user_id, count(*) AS number FROM subscription s
    WHERE {lasts("subscription.lease_until", "s.lease_until")} GROUP BY s.user_id
)
UPDATE subscription s SET lease_until = {_LEASE}, lease_token = {_RANDOM}
WHERE s.id = ANY (ARRAY(
    SELECT due.id FROM due LEFT JOIN leased ON leased.user_id IS NOT DISTINCT FROM due.user_id
    WHERE due.place + coalesce(leased.number, 0) <= (SELECT greatest(threads / 4, 1) FROM fleet)
    ORDER BY due.due_at, due.id
    LIMIT least(
        greatest((SELECT threads FROM fleet) - (SELECT coalesce(sum(number), 0) FROM leased), 0),
        {MAX_DUE})))
  AND {_IS_FREE}
RETURNING s.id, s.lease_token
"""
# The table has few rows with a lease.
LEASED = f"""
SELECT s.id, s.lease_token FROM subscription s
WHERE {lasts("subscription.lease_until", "s.lease_until")}
"""
# The primary key serves the statements of a delivery.
_HOLDS = "s.id = %(id)s AND s.lease_token = %(token)s"
# Each attempt has a token of its own, so that a message that arrives twice starts one only.
START_DELIVERY = f"""
UPDATE subscription s SET lease_until = {_LEASE}, lease_token = {_RANDOM}
WHERE {_HOLDS} AND s.state <> '{SubscriptionState.PAUSED}'
  AND {lasts("subscription.lease_until", "s.lease_until")}
RETURNING s.id, s.lease_token AS token, s.kind, s.channel, s.user_id,
    s.user_integration_id AS account, s.integration_domain AS domain, s.only_kind, s.sealed,
    s.cursor_source, s.cursor_xid, s.cursor_kind, s.cursor_id, s.cursor_began, s.failures
"""
# The subscription goes behind others of its user that wait.
END_DELIVERY = f"""
UPDATE subscription s SET lease_token = NULL, lease_until = NULL, due_at = clock_timestamp()
WHERE {_HOLDS}
"""
MOVE_CURSOR = f"""
UPDATE subscription s SET cursor_source = %(source)s, cursor_xid = %(xid)s,
    cursor_kind = %(kind)s, cursor_id = %(entry)s, cursor_began = %(began)s, has_more = %(more)s
WHERE {_HOLDS}
"""
_FAILING = f"'{SubscriptionState.FAILING}'"
DELIVERED = f"""
UPDATE subscription s SET failures = 0, failing_since = NULL, delivered_at = clock_timestamp(),
    reason = CASE s.state WHEN {_FAILING} THEN NULL ELSE s.reason END,
    state_since = CASE s.state WHEN {_FAILING} THEN clock_timestamp() ELSE s.state_since END,
    state = CASE s.state WHEN {_FAILING} THEN '{SubscriptionState.ACTIVE}' ELSE s.state END
WHERE {_HOLDS}
"""
# A person may have paused the subscription in the meantime: its state and reason stay.
NOT_DELIVERED = f"""
UPDATE subscription s SET failures = s.failures + 1, lease_token = NULL, lease_until = NULL,
    due_at = clock_timestamp() + %(pause)s * interval '1 second',
    failing_since = coalesce(s.failing_since, clock_timestamp()),
    state_since = CASE WHEN s.state IN ('{SubscriptionState.PAUSED}', %(state)s)
        THEN s.state_since ELSE clock_timestamp() END,
    reason = CASE s.state WHEN '{SubscriptionState.PAUSED}' THEN s.reason ELSE %(reason)s END,
    state = CASE s.state WHEN '{SubscriptionState.PAUSED}' THEN s.state ELSE %(state)s END
WHERE {_HOLDS}
"""
NEXT_MESSAGE = f"""
SELECT d.id, d.message_id, d.type, d.data, d.created_at, d.attempts FROM subscription s
JOIN delivery d ON d.id = ({NEXT_MESSAGE_OF_S}) WHERE {_HOLDS}
"""
# The token of the lease makes sure that a delivery whose lease was lost changes nothing.
_OF_HOLDER = f"d.id = %(message)s AND EXISTS (SELECT FROM subscription s WHERE {_HOLDS})"
DELETE_DELIVERED = f"DELETE FROM delivery d WHERE {_OF_HOLDER}"
RETRY_MESSAGE = f"""
UPDATE delivery d SET attempts = d.attempts + 1, error = %(reason)s,
    due_at = clock_timestamp() + %(pause)s * interval '1 second',
    state = CASE d.type WHEN '{TEST}' THEN '{DeliveryState.FAILED}' ELSE d.state END,
    failed_at = CASE d.type WHEN '{TEST}' THEN clock_timestamp() END
WHERE {_OF_HOLDER}
"""
ADD_MESSAGE = f"""
INSERT INTO delivery (subscription_id, type, data)
SELECT s.id, %(type)s, '{{}}' FROM subscription s WHERE {_HOLDS}
"""

# Messages that announce a new beginning are tried until the subscription is paused: its content
# waits for them. `delivery_age` serves it.
GIVE_UP_MESSAGES = f"""
UPDATE delivery d SET state = '{DeliveryState.FAILED}', failed_at = clock_timestamp()
FROM subscription s
WHERE s.id = d.subscription_id AND s.kind = '{SubscriptionKind.OPERATIONS}'
  AND s.state <> '{SubscriptionState.PAUSED}' AND d.attempts > 0
  AND d.state = '{DeliveryState.WAITING}' AND d.created_at < %s
"""
PAUSE_FAILING = f"""
UPDATE subscription s SET state = '{SubscriptionState.PAUSED}', state_since = clock_timestamp(),
    reason = 'paused after days of failures: ' || s.reason
WHERE s.kind = '{SubscriptionKind.CONTENT}' AND s.state = '{SubscriptionState.FAILING}'
  AND s.failing_since < %s
"""
# `delivery_failed` serves it.
PRUNE_FAILED = f"""
DELETE FROM delivery WHERE id = ANY (ARRAY(
    SELECT id FROM delivery WHERE state = '{DeliveryState.FAILED}' AND failed_at < %s
    ORDER BY failed_at LIMIT 1000))
"""


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription that this process delivers to, with its place in the feed."""

    id: UUID
    token: int
    kind: SubscriptionKind
    channel: SubscriptionChannel
    user_id: str | None
    account: UUID | None
    domain: str | None
    only_kind: str | None
    sealed: str
    cursor_source: str | None
    cursor_xid: int
    cursor_kind: int
    cursor_id: int
    cursor_began: int
    failures: int

    @property
    def place(self) -> Position:
        """The place in the feed up to which content was delivered."""
        return self.cursor_xid, self.cursor_kind, self.cursor_id

    @property
    def lease(self) -> Mapping[str, Any]:
        """The parameters that name the lease of this process."""
        return {"id": self.id, "token": self.token}


@dataclass(frozen=True, slots=True)
class Waiting:
    """A message that waits in the ledger.

    Attributes:
      message_id: Its id for the receiver, the same in each attempt.
      attempts: The number of failed attempts.
    """

    id: int
    message_id: UUID
    type: str
    data: Mapping[str, Any]
    created_at: datetime
    attempts: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the feed.

    Attributes:
      source: The cluster, its timeline, and the epoch of the ledger.
      began: The end of the feed when the first reading began; `PASSED` after it.
      more: True if the feed may have further changes.
    """

    source: str
    place: Position
    began: int
    more: bool


def lease_due(conn: Conn, queue: str, threads: int) -> list[tuple[UUID, int]]:
    """Lease the subscriptions that are due, the longest waiting first.

    No more are leased than the fleet has threads for. At most a quarter of these, at least one,
    work for a user. The subscriptions of operators count as those of one user.

    Args:
      conn: A connection in autocommit mode.
      queue: The queue of deliveries.
      threads: The number of threads of each process that serves the queue.

    Returns:
      The id of each subscription, and the token of its lease.
    """
    params = {"queue": queue, "threads": threads}
    return conn.execute(LEASE_DUE, params).fetchall()


def in_flight(conn: Conn) -> set[tuple[UUID, int]]:
    """Return the leased subscriptions, with the tokens of their leases."""
    return set(conn.execute(LEASED).fetchall())


def start(conn: Conn, id: UUID, token: int) -> Subscription | None:
    """Take over a lease for one attempt.

    Returns:
      The subscription, with the token of this attempt. None if another attempt has the lease, if it
      is over, or if the subscription is paused.
    """
    with conn.cursor(row_factory=class_row(Subscription)) as cursor:
        return cursor.execute(START_DELIVERY, {"id": id, "token": token}).fetchone()


def end(conn: Conn, id: UUID, token: int) -> None:
    """Return a lease."""
    conn.execute(END_DELIVERY, {"id": id, "token": token})


def next_message(conn: Conn, subscription: Subscription) -> Waiting | None:
    """Return the message to deliver before any content."""
    with conn.cursor(row_factory=class_row(Waiting)) as cursor:
        return cursor.execute(NEXT_MESSAGE, subscription.lease).fetchone()


def move_cursor(
    conn: Conn, subscription: Subscription, cursor: Cursor, *, announce: str | None = None
) -> None:
    """Move the place of a subscription.

    Args:
      conn: A connection.
      subscription: The subscription, leased by this process.
      cursor: The new place.
      announce: The type of a message to the receiver about it. Default: none.
    """
    xid, kind, entry = cursor.place
    params = {"source": cursor.source, "xid": xid, "kind": kind, "entry": entry}
    params |= {"began": cursor.began, "more": cursor.more}
    with conn.transaction():
        moved = conn.execute(MOVE_CURSOR, {**subscription.lease, **params}).rowcount
        if moved and announce is not None:
            conn.execute(ADD_MESSAGE, {**subscription.lease, "type": announce})


def succeed(
    conn: Conn,
    subscription: Subscription,
    *,
    cursor: Cursor | None = None,
    message: Waiting | None = None,
) -> None:
    """Record that the receiver has accepted content up to a place, or a message."""
    with conn.transaction():
        conn.execute(DELIVERED, subscription.lease)
        if cursor is not None:
            move_cursor(conn, subscription, cursor)
        if message is not None:
            conn.execute(DELETE_DELIVERED, {**subscription.lease, "message": message.id})


def fail(
    conn: Conn,
    subscription: Subscription,
    reason: str,
    *,
    pause: float,
    is_gone: bool = False,
    message: Waiting | None = None,
    message_pause: float = 0.0,
) -> None:
    """Record a failed attempt, and return the lease.

    Args:
      conn: A connection.
      subscription: The subscription, leased by this process.
      reason: The reason, for people.
      pause: Seconds until the next attempt.
      is_gone: True to pause the subscription, because its receiver no longer exists.
      message: The message that failed. Default: content.
      message_pause: Seconds until the next attempt of this message.
    """
    state = SubscriptionState.PAUSED if is_gone else SubscriptionState.FAILING
    params = {**subscription.lease, "reason": reason, "pause": pause, "state": state}
    with conn.transaction():
        if message is not None:
            params |= {"message": message.id, "pause": message_pause}
            conn.execute(RETRY_MESSAGE, params)
        conn.execute(NOT_DELIVERED, params | {"pause": pause})


def give_up(conn: Conn, before: Before | None, failing_before: Before | None) -> int:
    """Keep messages as failed, and pause subscriptions, that fail for too long.

    Args:
      conn: A connection in autocommit mode.
      before: The time before which a failing message was stored to give it up. None: give up none.
      failing_before: The time since when the receivers of content fail. None: none is paused.

    Returns:
      The number of messages and of subscriptions.
    """
    given_up = conn.execute(GIVE_UP_MESSAGES, (before,)).rowcount
    return given_up + conn.execute(PAUSE_FAILING, (failing_before,)).rowcount


def prune_failed(conn: Conn, before: Before | None) -> bool:
    """Delete messages that failed before a time, in a portion. Return True if none is left."""
    return conn.execute(PRUNE_FAILED, (before,)).rowcount < 1_000
