"""The change feed: all created, updated and deleted items, in an order that misses no change.

A sequence or a clock would order changes by the start of their writing. A reader would then miss
the changes of a transaction that commits late. Therefore each row has the number of the transaction
that wrote it, and the feed ends before the oldest transaction that is still open. All transactions
with smaller numbers have ended, so no change can appear among them later (ADR 0040).

A reread moves an item to a new position and keeps its earlier one in `synced_xid`. A reader that
leaves out rereads finds the item there, whenever the reread happened. So it misses no other change
of the item, and it meets no change that only a reread made.

Rows of deleted items may be removed (`core.content.removal`). A reader whose cursor is older than a
removed row may have missed the deletion, so it has to start again. A reader that has started since
the deletion never had the item. So the cursors of its first reading name where the feed ended then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from core.content.feed import (
    CONTENT,
    ERASED,
    FEED_HORIZON,
    FEED_SOURCE,
    LAST_ID,
    MISSED,
    NEWEST_CHANGE,
    OWN,
    SCAN,
    Position,
    scan_params,
)
from core.content.visible import ACCOUNT_IS_VISIBLE, visible
from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.errors import InvalidInput
from core.service.authorization import Principal
from core.service.content.queries import CONTENT_COLUMNS_OF_C, TEXT_COLUMNS_OF_C
from core.service.pagination import (
    Keyset,
    bounded,
    decode_cursor,
    encode_cursor,
    fetch_page,
    invalid_cursor,
)
from core.states import HeldState

MAX_SCANNED_ROWS = 5_000
"""Changes read for one page of a user. The cursor also passes the changes of other users."""

LATEST = "latest"
"""The cursor for only the changes after this request."""

KEY = Keyset({"source": "text", "changed_xid": "bigint", "kind": "bigint", "id": "bigint"})

FIRST_READING = Keyset({**KEY.columns, "began": "bigint"})
"""The key of a reader that has not yet passed the place at which the feed ended when it began."""

# The table has a few rows for each account with held deletions.
HELD_OF_USER = f"""
SELECT coalesce(sum(h.vanished), 0)::bigint AS held
FROM held_deletion h JOIN user_integration a ON a.id = h.user_integration_id
WHERE h.state = '{HeldState.HELD}' AND (%(user)s::text IS NULL OR a.user_id = %(user)s)
  AND {ACCOUNT_IS_VISIBLE}
"""
# It omits items that changed again since the scan. They follow later, at their new position. So do
# hidden items, if their account is restored.
# It has the texts of items if its key is True.
READ_CHANGES: Mapping[bool, str] = {
    with_texts: f"""
SELECT s.place, c.changed_xid, c.synced_xid IS NOT NULL AS is_reread, {columns}
FROM user_integration_content c
JOIN unnest(%(ids)s::bigint[], %(versions)s::bigint[], %(places)s::int[])
    AS s(scanned_id, scanned_in, place) ON s.scanned_id = c.id
WHERE c.changed_xid = s.scanned_in AND {visible("c.user_integration_id")}
ORDER BY s.place
"""
    for with_texts, columns in (
        (False, CONTENT_COLUMNS_OF_C),
        (True, f"{CONTENT_COLUMNS_OF_C}, {TEXT_COLUMNS_OF_C}"),
    )
}

# Selects rows of another cluster whose transactions had higher numbers. Without new numbers, the
# feed of this cluster would not reach them.
RESTAMP_CONTENT = """
UPDATE user_integration_content SET changed_xid = pg_current_xact_id()::text::bigint,
    synced_xid = NULL
WHERE id IN (
    SELECT id FROM user_integration_content
    WHERE changed_xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
    ORDER BY changed_xid DESC LIMIT 5000)
"""
RESTAMP_ERASED = """
UPDATE erased_account SET changed_xid = pg_current_xact_id()::text::bigint
WHERE changed_xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
"""


Kind = Literal["created", "updated", "deleted", "erased"]
Cause = Literal["sync", "reread"]


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the feed.

    Attributes:
      kind: `created`, `updated` or `deleted` for an item; `erased` for a complete account.
      content: The row of the item; None for an erased account.
      cause: `reread` if the latest change of the item is that of a reread; otherwise `sync`.
    """

    kind: Kind
    account: UUID
    content: Row | None
    cause: Cause = "sync"


@dataclass(frozen=True, slots=True)
class Feed:
    """One page of the feed.

    Attributes:
      cursor: The cursor of the next page.
      more: True if the next page may already have changes.
      deletions_held: The number of deletions that wait for a person, in all accounts of the reader.
    """

    changes: list[Change]
    cursor: str
    more: bool
    deletions_held: int


PASSED = -1
"""The value of `began` after the first reading of a reader."""


def read(
    conn: Conn,
    principal: Principal,
    *,
    after: str | None = None,
    limit: int = 100,
    without_rereads: bool = False,
    with_texts: bool = False,
    account: UUID | None = None,
    until: str | None = None,
) -> Feed:
    """Return the changes after a cursor, the oldest first.

    An item that changed twice appears once, with its latest state. A page of large items ends
    before `limit`.

    Args:
      conn: A connection.
      principal: The owner of the token.
      after: The `cursor` of the previous page. None: the oldest change. `LATEST`: only changes
        after this request.
      limit: The maximum number of changes, from 1 to `MAX_PAGE_ROWS`.
      without_rereads: True to leave out what only a reread changed. An item that a reread has
        changed since its latest other change is listed where that other change was.
      with_texts: True to add the `text` of each item, and whether it is `truncated`.
      account: Only changes of this account. Default: all accounts of the principal.
      until: A cursor of `end`. Later changes are left out. Default: none are.

    Raises:
      InvalidInput: A cursor is invalid or outdated, or deletions after it were removed. Unless it
        is invalid, the reader has to start again.
    """
    limit = bounded(limit)
    source = fetch(conn, FEED_SOURCE, {})[0]["source"]
    place, began = _position(conn, source, after)
    sees_all = principal.is_admin and account is None and not without_rereads
    most = limit if sees_all else MAX_SCANNED_ROWS
    params = scan_params(place) | {
        "most": most,
        "without_rereads": without_rereads,
        "until": None if until is None else _position(conn, source, until)[0][0] + 1,
    }
    scanned = fetch(conn, SCAN, params)
    wanted = [row for row in scanned if not (without_rereads and row["is_reread"])]
    visible = [
        row for row in _visible(conn, principal, wanted) if account in (None, row["account"])
    ][:limit]
    listed, rows = _read(conn, visible, texts=with_texts)
    # After the rows were read, so that no row is removed in between.
    if fetch(conn, MISSED, params | {"source": source, "began": began})[0]["missed"]:
        raise InvalidInput("cursor-expired")
    is_full = len(listed) == limit or len(listed) < len(visible)
    if is_full:
        place = _position_of(listed[-1])
    elif scanned:
        place = _position_of(scanned[-1])
    return Feed(
        _changes(listed, rows, without_rereads=without_rereads),
        _encode(source, place, began),
        is_full or len(scanned) == most,
        fetch(conn, HELD_OF_USER, {"user": principal.user_id})[0]["held"],
    )


def end(conn: Conn) -> str:
    """Return the cursor of the latest change. A reader that starts there gets only later ones."""
    source = fetch(conn, FEED_SOURCE, {})[0]["source"]
    return encode_cursor([source, *_position(conn, source, LATEST)[0]])


def _position_of(row: Row) -> Position:
    return row["changed_xid"], row["kind"], row["id"]


def _encode(source: str, place: Position, began: int) -> str:
    return encode_cursor([source, *place, *([began] if began > place[0] else [])])


def _position(conn: Conn, source: str, after: str | None) -> tuple[Position, int]:
    """Return the place of a cursor, and where the feed ended when its reader began, or `PASSED`."""
    if after is None:
        return (-1, CONTENT, 0), _horizon(conn)
    if after == LATEST:
        return (_horizon(conn) - 1, ERASED, LAST_ID), PASSED
    is_first = len(decode_cursor(after)) == len(FIRST_READING.columns)
    made_by, changed_xid, kind, id, *began = (FIRST_READING if is_first else KEY).decode(after)
    if min(changed_xid, id) < -1 or kind not in (CONTENT, ERASED):
        raise invalid_cursor()
    if made_by != source:
        raise InvalidInput("cursor-outdated")
    return (changed_xid, kind, id), began[0] if is_first else PASSED


def _horizon(conn: Conn) -> int:
    return int(fetch(conn, FEED_HORIZON, {})[0]["changed_xid"])


def _visible(conn: Conn, principal: Principal, scanned: Sequence[Row]) -> list[Row]:
    if principal.is_admin or not scanned:
        return list(scanned)
    own = {row["id"] for row in fetch(conn, OWN, {"user": principal.user_id})}
    return [row for row in scanned if row["account"] in own or row["owner"] == principal.user_id]


def _read(
    conn: Conn, entries: Sequence[Row], *, texts: bool
) -> tuple[Sequence[Row], dict[int, Row]]:
    """Read the rows of a page of entries.

    Returns:
      The entries up to the last row that fits into the page, and the rows by id.
    """
    places = [place for place, entry in enumerate(entries) if entry["kind"] == CONTENT]
    if not places:
        return entries, {}
    params = {
        "ids": [entries[place]["id"] for place in places],
        "versions": [entries[place]["version"] for place in places],
        "places": places,
    }
    rows, is_cut = fetch_page(conn, READ_CHANGES[texts], params)
    listed = entries[: rows[-1]["place"] + 1] if is_cut else entries
    return listed, {row["id"]: row for row in rows}


def _changes(
    entries: Sequence[Row], rows: Mapping[int, Row], *, without_rereads: bool
) -> list[Change]:
    changes = []
    for entry in entries:
        if entry["kind"] == ERASED:
            changes.append(Change("erased", entry["account"], None))
        elif (row := rows.get(entry["id"])) is not None:
            is_reread = row["is_reread"] and not without_rereads
            cause: Cause = "reread" if is_reread else "sync"
            changes.append(Change(_kind(row), entry["account"], row, cause))
    return changes


def _kind(row: Row) -> Kind:
    if row["deleted_at"] is not None:
        return "deleted"
    changed = row["reread_at"] if row["is_reread"] else row["updated_at"]
    return "created" if row["created_at"] == changed else "updated"


def latest_xid(conn: Conn) -> int:
    """Return the largest transaction number in the feed; -1 if the feed is empty.

    A waiting reader compares it: a larger number means that there may be new changes.
    """
    row = conn.execute(NEWEST_CHANGE).fetchone()
    return row[0] if row and row[0] is not None else -1


def repair_horizon(conn: Conn) -> bool:
    """Give rows of another cluster new numbers, after a restore, so that the feed reaches them.

    Returns True if there were such rows.
    """
    erased = conn.execute(RESTAMP_ERASED).rowcount
    return conn.execute(RESTAMP_CONTENT).rowcount + erased > 0
