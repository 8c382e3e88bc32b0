"""Batches of content: the latest states of items after a subscription's place in the feed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from core.content.feed import (
    CONTENT,
    ERASED,
    FEED_HORIZON,
    LAST_ID,
    MISSED,
    OWN,
    SCAN,
    Position,
    scan_params,
)
from core.content.visible import visible
from core.db.pool import Conn
from core.db.rows import Row, fetch, fetch_within
from core.ledger.subscriptions import (
    PASSED,
    RESTART,
    REWOUND,
    SOURCE_OF_CURSORS,
    Cursor,
    Subscription,
)
from core.worker.deliveries.channels import Message

MAX_EVENTS = 100
"""The number of events in a batch."""

MAX_BATCH_BYTES = 1024 * 1024
"""The memory of the items of a batch. The first item may exceed it."""

MAX_SCANNED = 1_000
"""Entries of the feed read for a batch. It also passes those that the subscription leaves out."""

MAX_TEXT_CHARS = 100_000
"""The characters of an item's text in an event."""

BEGINNING: Position = (-1, CONTENT, 0)

# It omits items that changed again since the scan: they follow at their new place. So do hidden
# items, if their account is restored. The order of the places needs no sort of texts.
READ_EVENTS = f"""
SELECT s.place, c.changed_xid AS number, c.synced_xid IS NOT NULL AS is_reread, c.id,
    c.user_integration_id, c.integration_domain, c.external_id, c.kind, c.parent, c.name,
    c.external_timestamp, c.content_type, c.size, c.hash, c.metadata, c.fingerprint, c.created_at,
    c.updated_at, c.deleted_at, c.gone_at_source, c.reread_at,
    left(c.content_text, {MAX_TEXT_CHARS}) AS text,
    coalesce(length(c.content_text) > {MAX_TEXT_CHARS},
        c.blob_key IS NOT NULL OR c.content_bytes IS NOT NULL) AS truncated
FROM user_integration_content c
JOIN unnest(%(ids)s::bigint[], %(versions)s::bigint[], %(places)s::int[])
    AS s(scanned_id, scanned_in, place) ON s.scanned_id = c.id
WHERE c.changed_xid = s.scanned_in AND {visible("c.user_integration_id")}
  AND (%(domain)s::text IS NULL OR c.integration_domain = %(domain)s)
  AND (%(kind)s::text IS NULL OR c.kind = %(kind)s)
ORDER BY s.place LIMIT {MAX_EVENTS}
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """A part of the feed for one subscription.

    Attributes:
      message: The message to deliver before the cursor moves; None if it has no events.
      announce: The type of a message to the receiver about the cursor; None if there is none.
    """

    cursor: Cursor
    message: Message | None = None
    announce: str | None = None


def read(conn: Conn, subscription: Subscription) -> Batch:
    """Read the batch after the place of a subscription."""
    source = fetch(conn, SOURCE_OF_CURSORS, {})[0]["source"]
    if subscription.cursor_source is None:
        return Batch(_beginning(conn, source))
    if subscription.cursor_source != source:
        return _after_restore(conn, subscription, source)
    # Read before the entries: all transactions with smaller numbers have ended.
    horizon = _horizon(conn)
    params = {**scan_params(subscription.place), "most": MAX_SCANNED, "without_rereads": False}
    scanned = fetch(conn, SCAN, params | {"until": horizon})
    entries = _of_subscription(conn, subscription, scanned)
    items, is_cut = _items(conn, subscription, entries)
    # After the items were read, so that no deleted item is removed in between.
    if _missed(conn, subscription, source):
        return Batch(_beginning(conn, source), announce=RESTART)
    if is_cut:
        entries = entries[: items[-1]["place"] + 1]
    if is_cut or len(scanned) == MAX_SCANNED:
        place = _place_of(entries[-1] if is_cut else scanned[-1])
        began = subscription.cursor_began if subscription.cursor_began > place[0] else PASSED
        cursor = Cursor(source, place, began, more=True)
    else:
        cursor = Cursor(source, (horizon - 1, ERASED, LAST_ID), PASSED, more=False)
    events = list(_events(entries, {row["place"]: row for row in items}))
    return Batch(cursor, _message(subscription, source, events) if events else None)


def _beginning(conn: Conn, source: str) -> Cursor:
    return Cursor(source, BEGINNING, _horizon(conn), more=True)


def _horizon(conn: Conn) -> int:
    horizon: int = fetch(conn, FEED_HORIZON, {})[0]["changed_xid"]
    return horizon


def _after_restore(conn: Conn, subscription: Subscription, source: str) -> Batch:
    """Continue from the same place, unless the database has moved to another cluster.

    The cursor is as old as the restored database. In another cluster, it names no place.
    """
    assert subscription.cursor_source is not None
    if subscription.cursor_source.partition(".")[0] != source.partition(".")[0]:
        return Batch(_beginning(conn, source), announce=RESTART)
    cursor = Cursor(source, subscription.place, subscription.cursor_began, more=True)
    return Batch(cursor, announce=REWOUND)


def _missed(conn: Conn, subscription: Subscription, source: str) -> bool:
    """Return True if the receiver may have missed the deletion of an item that was removed."""
    feed_source = source.rpartition(".")[0]  # without the epoch
    params = {"source": feed_source, "began": subscription.cursor_began}
    missed: bool = fetch(conn, MISSED, params | scan_params(subscription.place))[0]["missed"]
    return missed


def _of_subscription(
    conn: Conn, subscription: Subscription, scanned: Sequence[Row]
) -> Sequence[Row]:
    """Return the entries of the accounts that a subscription covers."""
    if subscription.account is not None:
        scanned = [entry for entry in scanned if entry["account"] == subscription.account]
    if subscription.user_id is None or not scanned:
        return scanned
    own: set[UUID] = {row["id"] for row in fetch(conn, OWN, {"user": subscription.user_id})}
    return [
        entry
        for entry in scanned
        if entry["account"] in own or entry["owner"] == subscription.user_id
    ]


def _items(
    conn: Conn, subscription: Subscription, entries: Sequence[Row]
) -> tuple[list[Row], bool]:
    """Read the items of entries, and return True if the batch has no room for all of them."""
    places = [place for place, entry in enumerate(entries) if entry["kind"] == CONTENT]
    if not places:
        return [], False
    params = {
        "ids": [entries[place]["id"] for place in places],
        "versions": [entries[place]["version"] for place in places],
        "places": places,
        "domain": subscription.domain,
        "kind": subscription.only_kind,
    }
    rows, is_cut = fetch_within(conn, READ_EVENTS, params, MAX_BATCH_BYTES)
    return rows, is_cut or len(rows) == MAX_EVENTS


def _place_of(entry: Row) -> Position:
    return entry["changed_xid"], entry["kind"], entry["id"]


def _events(entries: Sequence[Row], items: Mapping[int, Row]) -> Iterator[dict[str, Any]]:
    for place, entry in enumerate(entries):
        if entry["kind"] != CONTENT:
            account, number = entry["account"], entry["changed_xid"]
            yield _event(f"{account}-{number}", "erased", number, account, None)
        elif (item := items.get(place)) is not None:
            content = {name: item[name] for name in item if name not in _NOT_SHOWN}
            number, account = item["number"], item["user_integration_id"]
            yield _event(f"{item['id']}-{number}", _change(item), number, account, content)


_NOT_SHOWN = frozenset({"place", "number", "is_reread"})


def _event(id: str, change: str, number: int, account: UUID, content: Row | None) -> dict[str, Any]:
    return {
        "id": id,
        "change": change,
        "number": number,
        "user_integration_id": account,
        "content": content,
    }


def _change(item: Row) -> str:
    if item["deleted_at"] is not None:
        return "deleted"
    changed = item["reread_at"] if item["is_reread"] else item["updated_at"]
    return "created" if item["created_at"] == changed else "updated"


def _message(
    subscription: Subscription, source: str, events: Sequence[Mapping[str, Any]]
) -> Message:
    """Return the message of a batch. Its id names the events, so it is the same in each attempt."""
    names = "\n".join([str(subscription.id), source, *(event["id"] for event in events)])
    times = [event["content"]["updated_at"] for event in events if event["content"]]
    return Message(
        f"msg_{hashlib.sha256(names.encode()).hexdigest()[:32]}",
        "content.changed",
        max(times, default=datetime.now(UTC)),
        {"subscription_id": subscription.id, "source": source, "events": events},
    )
