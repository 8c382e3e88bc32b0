"""The change feed: all created, updated and deleted items, in an order that misses none.

A sequence or a clock orders changes by when they began to be written, and a transaction that
commits late lies behind the reader then. So each row carries the number of the transaction that
wrote it, and the feed ends before the oldest one that is still open: whatever has a smaller number
is committed, and will never be joined by another (ADR 0040).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.errors import InvalidInput
from core.service.authorization import Principal
from core.service.content.queries import CONTENT_COLUMNS_OF_C
from core.service.pagination import Keyset, bounded, encode_cursor, invalid_cursor

MAX_SCANNED_ROWS = 5_000
"""Changes looked at for one page: those of others are passed over, and the cursor moves on."""

LATEST = "latest"
"""In place of a cursor: from now on."""

CONTENT, ERASED = 0, 1

KEY = Keyset({"source": "text", "changed_xid": "bigint", "kind": "bigint", "id": "bigint"})

# Numbers of transactions mean nothing in another cluster, or after it was taken back in time:
# cursors name both.
SOURCE = """
SELECT s.system_identifier::text || '.' || c.timeline_id AS source
FROM pg_control_system() s, pg_control_checkpoint() c
"""
LAST_ID = 2**63 - 1
NEWEST = """
SELECT greatest(
    (SELECT changed_xid FROM user_integration_content WHERE changed_xid < h.xmin
        ORDER BY changed_xid DESC, id DESC LIMIT 1),
    (SELECT changed_xid FROM erased_account WHERE changed_xid < h.xmin
        ORDER BY changed_xid DESC, id DESC LIMIT 1))
FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin) h
"""
HORIZON = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS changed_xid"

# Both parts are served by their index on (changed_xid, id), from the cursor on.
SCAN = """
WITH horizon AS MATERIALIZED (
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS changed_xid
)
(
    SELECT c.changed_xid, 0 AS kind, c.id, c.user_integration_id AS account
    FROM user_integration_content c
    WHERE (c.changed_xid, c.id) > (%(changed_xid)s, %(content_id)s)
      AND c.changed_xid < (SELECT changed_xid FROM horizon)
    ORDER BY c.changed_xid, c.id LIMIT %(most)s
) UNION ALL (
    SELECT e.changed_xid, 1, e.id, e.user_integration_id FROM erased_account e
    WHERE (e.changed_xid, e.id) > (%(changed_xid)s, %(erased_id)s)
      AND e.changed_xid < (SELECT changed_xid FROM horizon)
    ORDER BY e.changed_xid, e.id LIMIT %(most)s
)
ORDER BY 1, 2, 3 LIMIT %(most)s
"""
OWN = "SELECT id FROM user_integration WHERE user_id = %(user)s"
# What changed again since it was scanned is left out: it comes later, at its new place.
READ = f"""
SELECT c.changed_xid, {CONTENT_COLUMNS_OF_C} FROM user_integration_content c
JOIN unnest(%(ids)s::bigint[], %(changed_xid)s::bigint[])
    AS s(scanned_id, scanned_in) ON s.scanned_id = c.id
WHERE c.changed_xid = s.scanned_in
"""

# Rows that were written in another cluster, whose transactions had higher numbers: this one's
# readers would wait for them.
RESTAMP = """
UPDATE user_integration_content SET changed_xid = pg_current_xact_id()::text::bigint WHERE id IN (
    SELECT id FROM user_integration_content
    WHERE changed_xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
    ORDER BY changed_xid DESC LIMIT 5000)
"""
RESTAMP_ERASED = """
UPDATE erased_account SET changed_xid = pg_current_xact_id()::text::bigint
WHERE changed_xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
"""


Kind = Literal["created", "updated", "deleted", "erased"]


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the feed.

    `kind` is `created`, `updated`, `deleted` (its content follows), or `erased` (the complete
    account is gone).
    """

    kind: Kind
    account: UUID
    content: Row | None


@dataclass(frozen=True, slots=True)
class Feed:
    """Some changes, where to go on, and whether there is more already."""

    changes: list[Change]
    cursor: str
    more: bool


Position = tuple[int, int, int]


def read(conn: Conn, principal: Principal, *, after: str | None = None, limit: int = 100) -> Feed:
    """Return the changes after a cursor, the oldest first.

    An item that changed twice appears once, with its latest state.

    Parameters:
      after: A feed's `cursor`; None begins with the oldest, `LATEST` with what comes from now on.

    Raises:
      InvalidInput: The cursor is invalid, or it is outdated and the reader has to start again.
    """
    limit = bounded(limit)
    source = fetch(conn, SOURCE, {})[0]["source"]
    place = _position(conn, source, after)
    most = limit if principal.is_admin else MAX_SCANNED_ROWS
    scanned = fetch(conn, SCAN, _params(place) | {"most": most})
    visible = _visible(conn, principal, scanned)[:limit]
    if len(visible) == limit:
        place = _position_of(visible[-1])
    elif scanned:
        place = _position_of(scanned[-1])
    more = len(scanned) == most or len(visible) == limit
    return Feed(
        _changes(conn, visible),
        encode_cursor([source, *place]),
        more,
    )


def _params(place: Position) -> Row:
    changed_xid, kind, id = place
    return {
        "changed_xid": changed_xid,
        "content_id": id if kind == CONTENT else LAST_ID,
        "erased_id": id if kind == ERASED else -1,
    }


def _position_of(row: Row) -> Position:
    return row["changed_xid"], row["kind"], row["id"]


def _position(conn: Conn, source: str, after: str | None) -> Position:
    if after is None:
        return -1, CONTENT, 0
    if after == LATEST:
        return fetch(conn, HORIZON, {})[0]["changed_xid"] - 1, ERASED, LAST_ID
    made_by, changed_xid, kind, id = KEY.decode(after)
    if min(changed_xid, id) < -1 or kind not in (CONTENT, ERASED):
        raise invalid_cursor()
    if made_by != source:
        raise InvalidInput("cursor-outdated")
    return changed_xid, kind, id


def _visible(conn: Conn, principal: Principal, scanned: Sequence[Row]) -> list[Row]:
    if principal.is_admin or not scanned:
        return list(scanned)
    own = {row["id"] for row in fetch(conn, OWN, {"user": principal.user_id})}
    return [row for row in scanned if row["account"] in own]


def _changes(conn: Conn, entries: Sequence[Row]) -> list[Change]:
    named = [entry for entry in entries if entry["kind"] == CONTENT]
    params = {
        "ids": [entry["id"] for entry in named],
        "changed_xid": [entry["changed_xid"] for entry in named],
    }
    rows = {row["id"]: row for row in fetch(conn, READ, params)} if named else {}
    changes = []
    for entry in entries:
        if entry["kind"] == ERASED:
            changes.append(Change("erased", entry["account"], None))
        elif (row := rows.get(entry["id"])) is not None:
            changes.append(Change(_kind(row), entry["account"], row))
    return changes


def _kind(row: Row) -> Kind:
    if row["deleted_at"] is not None:
        return "deleted"
    return "created" if row["created_at"] == row["updated_at"] else "updated"


def latest_xid(conn: Conn) -> int:
    """How far the feed reaches now.

    What a waiting reader compares: it grows when there may be something new.
    """
    row = conn.execute(NEWEST).fetchone()
    return row[0] if row and row[0] is not None else -1


def repair_horizon(conn: Conn) -> bool:
    """After a restore into another cluster: place what was written there into this one's feed.

    Whether there was any.
    """
    erased = conn.execute(RESTAMP_ERASED).rowcount
    return conn.execute(RESTAMP).rowcount + erased > 0
