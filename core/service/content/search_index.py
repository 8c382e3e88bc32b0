"""The full-text index of content, `content_search`.

A thread of `polling serve` updates it. Writing a search document in the saving transaction cost two
to four times as much as the saving itself (ADR 0041). The documents are prepared by `core.search`.
"""

from __future__ import annotations

import logging
import threading
import time

import psycopg

from core.content.search_documents import write_documents
from core.db.pool import DATABASE_UNAVAILABLE, Conn, Database, passes
from core.db.rows import fetch
from core.search.documents import FORM, MAX_TEXT_CHARS
from core.service import audit
from core.service.content import changes

BATCH_ROWS = 200
"""The number of items that one transaction makes searchable."""

POLL_INTERVAL_SECONDS = 1.0
"""Seconds between two checks for new content, while all content is searchable."""

REPAIR_INTERVAL_SECONDS = 60.0
"""Seconds between two checks for rows of another cluster.

The first check is at the start, as after a restore.
"""

# Each `polling serve` runs it every second, so it must be cheap in an idle installation. A position
# from another cluster is not valid. The partial index has the documents of an older form.
IS_PENDING = f"""
SELECT changed_xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
    OR EXISTS (
        SELECT FROM user_integration_content c
        WHERE (c.changed_xid, c.id) > (p.changed_xid, p.content_id)
          AND c.changed_xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
    OR EXISTS (SELECT FROM content_search WHERE form < {FORM})
FROM search_progress p
"""

# The indexer follows the change feed; one process of the fleet does so at a time. An item that was
# deleted at its source stays searchable, because it can still be listed.
LOCK_PROGRESS = """
SELECT CASE
    WHEN changed_xid < pg_snapshot_xmax(pg_current_snapshot())::text::bigint THEN changed_xid
    ELSE 0 END, content_id
FROM search_progress FOR UPDATE SKIP LOCKED
"""
CHANGED = """
SELECT id, changed_xid FROM user_integration_content
WHERE (changed_xid, id) > (%(changed_xid)s, %(content_id)s)
  AND changed_xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
ORDER BY changed_xid, id LIMIT %(batch_rows)s
"""
OUTDATED_DOCUMENTS = (
    f"SELECT content_id AS id FROM content_search WHERE form < {FORM} LIMIT %(batch_rows)s"
)

ADVANCE_INDEX = (
    "UPDATE search_progress SET changed_xid = %(changed_xid)s, content_id = %(content_id)s"
)
COUNT_LAG = f"""
SELECT count(*) FROM (
    (SELECT FROM user_integration_content c, search_progress p
    WHERE (c.changed_xid, c.id) > (p.changed_xid, p.content_id) LIMIT 10000)
    UNION ALL (SELECT FROM content_search WHERE form < {FORM} LIMIT 10000)
    LIMIT 10000
) waiting
"""

log = logging.getLogger(__name__)


def index_batch(
    conn: Conn, batch_rows: int = BATCH_ROWS, max_chars: int = MAX_TEXT_CHARS
) -> int | None:
    """Write the search documents of the next batch of changed content.

    Args:
      conn: A connection in autocommit mode.
      batch_rows: The maximum number of items.
      max_chars: The number of characters of an item's text that are searchable. 0: only its name.

    Returns:
      1 if there was a batch, 0 if all committed content is searchable, None if another process is
      updating the index.
    """
    with conn.transaction():
        progress = conn.execute(LOCK_PROGRESS).fetchone()
        if progress is None:
            return None
        params = {
            "changed_xid": progress[0],
            "content_id": progress[1],
            "batch_rows": batch_rows,
        }
        changed = fetch(conn, CHANGED, params)
        rows = changed or fetch(conn, OUTDATED_DOCUMENTS, params)
        write_documents(conn, [row["id"] for row in rows], max_chars)
        if changed:
            last = changed[-1]
            conn.execute(
                ADVANCE_INDEX, {"changed_xid": last["changed_xid"], "content_id": last["id"]}
            )
    return int(bool(rows))


def index_lag(conn: Conn) -> int:
    """Count the changes that are not searchable yet, up to 10,000."""
    row = conn.execute(COUNT_LAG).fetchone()
    return row[0] if row else 0


def index_pending(conn: Conn) -> int | None:
    """Index the next batch; if that fails, index one item, then less of it, and then only its name.

    An item whose text PostgreSQL cannot index is found by its name; other items are not affected.
    """
    attempts = (
        (BATCH_ROWS, MAX_TEXT_CHARS), (1, MAX_TEXT_CHARS), (1, MAX_TEXT_CHARS // 10), (1, 0),
    )  # fmt: skip
    for batch_rows, max_chars in attempts:
        try:
            return index_batch(conn, batch_rows, max_chars)
        except psycopg.DatabaseError as error:
            if passes(error) or max_chars == 0:
                raise
            log.warning(
                "could not index content for search (%s); retrying with a smaller batch",
                type(error).__name__,
            )
    raise AssertionError


class SearchIndexer:
    """A thread of `polling serve` that keeps content searchable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="search", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current batch."""
        self._stopping.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        repaired_at = -REPAIR_INTERVAL_SECONDS
        while not self._stopping.is_set():
            try:
                with self._database.connection() as conn:
                    if time.monotonic() - repaired_at >= REPAIR_INTERVAL_SECONDS:
                        audit.repair_horizon(conn)
                        while changes.repair_horizon(conn):
                            pass
                        repaired_at = time.monotonic()
                    pending = conn.execute(IS_PENDING).fetchone()
                    more = index_pending(conn) if pending and pending[0] else None
            except DATABASE_UNAVAILABLE as error:
                log.warning("search index not updated, database unavailable: %s", error)
                more = None
            except Exception:
                log.exception("search index not updated; retrying")
                more = None
            if not more:
                self._stopping.wait(POLL_INTERVAL_SECONDS)
