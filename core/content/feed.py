"""The statements that read the change feed. `core.service.content.changes` describes their order.

REST reads the feed from the cursors of its clients, and subscriptions from theirs in the ledger.
"""

from __future__ import annotations

from core.db.rows import Row

CONTENT, ERASED = 0, 1
"""The kinds of an entry: a content row, or an erased account."""

Position = tuple[int, int, int]
"""A place in the feed: the number of a transaction, the kind of the entry, and its id."""

# The number of a transaction is meaningless in another cluster, and after a restore to an earlier
# time. So a cursor names the cluster and its timeline.
FEED_SOURCE = """
SELECT s.system_identifier::text || '.' || c.timeline_id AS source
FROM pg_control_system() s, pg_control_checkpoint() c
"""
LAST_ID = 2**63 - 1
NEWEST_CHANGE = """
SELECT greatest(
    (SELECT changed_xid FROM user_integration_content WHERE changed_xid < h.xmin
        ORDER BY changed_xid DESC, id DESC LIMIT 1),
    (SELECT changed_xid FROM erased_account WHERE changed_xid < h.xmin
        ORDER BY changed_xid DESC, id DESC LIMIT 1))
FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin) h
"""
FEED_HORIZON = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS changed_xid"

# True if the reader may have missed the deletion of a removed row. `began` is -1 after the first
# reading.
MISSED = """
SELECT EXISTS (SELECT FROM engine_state
    WHERE removed_source = %(source)s AND removed_xid >= %(began)s
      AND (removed_xid, removed_id) > (%(changed_xid)s, %(content_id)s)) AS missed
"""

# Each part reads its index from the cursor: on (changed_xid, id), and for readers that leave out
# rereads also on (synced_xid, id). Such a reader passes the later positions of reread items.
SCAN = """
WITH horizon AS MATERIALIZED (
    SELECT least(pg_snapshot_xmin(pg_current_snapshot())::text::bigint, %(until)s::bigint)
        AS changed_xid
)
(
    SELECT c.changed_xid, 0 AS kind, c.id, c.user_integration_id AS account,
        c.changed_xid AS version, c.synced_xid IS NOT NULL AS is_reread, NULL::text AS owner
    FROM user_integration_content c
    WHERE (c.changed_xid, c.id) > (%(changed_xid)s, %(content_id)s)
      AND c.changed_xid < (SELECT changed_xid FROM horizon)
    ORDER BY c.changed_xid, c.id LIMIT %(most)s
) UNION ALL (
    SELECT c.synced_xid, 0, c.id, c.user_integration_id, c.changed_xid, false, NULL
    FROM user_integration_content c
    WHERE %(without_rereads)s AND c.synced_xid IS NOT NULL
      AND (c.synced_xid, c.id) > (%(changed_xid)s, %(content_id)s)
      AND c.synced_xid < (SELECT changed_xid FROM horizon)
    ORDER BY c.synced_xid, c.id LIMIT %(most)s
) UNION ALL (
    SELECT e.changed_xid, 1, e.id, e.user_integration_id, e.changed_xid, false, e.user_id
    FROM erased_account e
    WHERE (e.changed_xid, e.id) > (%(changed_xid)s, %(erased_id)s)
      AND e.changed_xid < (SELECT changed_xid FROM horizon)
    ORDER BY e.changed_xid, e.id LIMIT %(most)s
)
ORDER BY 1, 2, 3 LIMIT %(most)s
"""
OWN = "SELECT id FROM user_integration WHERE user_id = %(user)s"


def scan_params(place: Position) -> Row:
    """Return the parameters of `SCAN` that name the place after which it begins."""
    changed_xid, kind, id = place
    return {
        "changed_xid": changed_xid,
        "content_id": id if kind == CONTENT else LAST_ID,
        "erased_id": id if kind == ERASED else -1,
    }
