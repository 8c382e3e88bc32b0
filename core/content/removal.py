"""Removing the rows of items that were deleted at the source, after their retention time."""

from __future__ import annotations

import time
from datetime import datetime

from core.db.pool import Conn

ROWS_PER_STATEMENT = 500
"""The number of rows that one transaction removes."""

# The oldest changes first: `user_integration_content_tombstones` serves it, and the place makes
# each statement pass over the removed rows. It waits for no writer of a row. The same transaction
# records the place, so that a reader of the feed with an older cursor learns about it. The number
# of a transaction is meaningless in another cluster, so the place names the cluster.
REMOVE = """
WITH gone AS (
    DELETE FROM user_integration_content WHERE id = ANY (ARRAY(
        SELECT id FROM user_integration_content
        WHERE deleted_at IS NOT NULL AND (changed_xid, id) > (%(xid)s, %(id)s)
          AND changed_xid < %(horizon)s AND deleted_at < %(at)s
        ORDER BY changed_xid, id LIMIT %(most)s FOR UPDATE SKIP LOCKED))
    RETURNING changed_xid, id
), last AS (
    SELECT changed_xid, id FROM gone ORDER BY changed_xid DESC, id DESC LIMIT 1
), source AS (
    SELECT s.system_identifier::text || '.' || c.timeline_id AS name
    FROM pg_control_system() s, pg_control_checkpoint() c
), marked AS (
    UPDATE engine_state e
    SET removed_source = source.name, removed_xid = last.changed_xid, removed_id = last.id
    FROM last, source
    WHERE e.removed_source IS DISTINCT FROM source.name
       OR (e.removed_xid, e.removed_id) < (last.changed_xid, last.id)
)
SELECT (SELECT count(*) FROM gone), changed_xid, id FROM last
"""


def remove(conn: Conn, horizon: int, at: datetime, seconds: float) -> bool:
    """Remove the rows of deleted items, in portions.

    Args:
      conn: A connection in autocommit mode.
      horizon: The transaction number below which deletions are removed.
      at: The time before which these deletions were made. In a database that was restored into
        another cluster, transactions have other numbers.
      seconds: The time after which to stop.

    Returns:
      True if nothing is left.
    """
    deadline, xid, id = time.monotonic() + seconds, -1, 0
    while True:
        params = {"horizon": horizon, "at": at, "xid": xid, "id": id, "most": ROWS_PER_STATEMENT}
        row = conn.execute(REMOVE, params).fetchone()
        if row is None or row[0] < ROWS_PER_STATEMENT:
            return True
        _, xid, id = row
        if time.monotonic() >= deadline:
            return False
