"""The full-text index of content, `content_search`.

A thread of `polling serve` updates it. Writing a search document in the saving transaction cost two
to four times as much as the saving itself (ADR 0041).
"""

from __future__ import annotations

import logging
import threading
import time

import psycopg

from core.db.pool import DATABASE_UNAVAILABLE, Conn, Database, passes
from core.service.content import changes
from core.service.content.search_query import MAX_LEXEME_CHARS

MAX_TEXT_CHARS = 100_000
"""The number of characters of an item's text that are searchable."""

MAX_PARTICIPANT_WORDS = 20_000
"""The number of words of an item's participants that are searchable."""

BATCH_ROWS = 200
"""The number of items that one transaction makes searchable."""

POLL_INTERVAL_SECONDS = 1.0
"""Seconds between two checks for new content, while all content is searchable."""

REPAIR_INTERVAL_SECONDS = 60.0
"""Seconds between two checks for rows of another cluster.

The first check is at the start, as after a restore.
"""

# Each `polling serve` runs it every second, so it must be cheap in an idle installation. A position
# from another cluster is not valid.
IS_PENDING = """
SELECT changed_xid >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint
    OR EXISTS (
        SELECT FROM user_integration_content c
        WHERE (c.changed_xid, c.id) > (p.changed_xid, p.content_id)
          AND c.changed_xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint)
FROM search_progress p
"""

# A document has the words of the item, and words such as `from:ann` and `thread:1` for its metadata
# (see `search_query`). `to:` finds all recipients.
#
# The indexer follows the change feed; one process of the fleet does so at a time. The foreign key
# deletes the document of an erased content row. An item that was deleted at its source stays
# searchable, because it can still be listed. Rows are locked in the order that all writers of
# content use, with a weak lock: savers do not wait for it, erasures do.
LOCK_PROGRESS = """
SELECT CASE
    WHEN changed_xid < pg_snapshot_xmax(pg_current_snapshot())::text::bigint THEN changed_xid
    ELSE 0 END, content_id
FROM search_progress FOR UPDATE SKIP LOCKED
"""
INDEX_BATCH = f"""
WITH changed AS MATERIALIZED (
    SELECT id, changed_xid, name, left(content_text, %(max_chars)s) AS content_text, metadata
    FROM user_integration_content
    WHERE (changed_xid, id) > (%(changed_xid)s, %(content_id)s)
      AND changed_xid < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
    ORDER BY changed_xid, id LIMIT %(batch_rows)s
), kept AS (
    INSERT INTO content_search (content_id, document)
    SELECT c.id, to_tsvector('simple', concat_ws(' ', changed.name, changed.content_text))
        || array_to_tsvector(ARRAY(SELECT DISTINCT left(lexeme, {MAX_LEXEME_CHARS}) FROM (
            (SELECT role.name || ':' || word AS lexeme
            FROM (VALUES ('from', 'from'), ('to', 'to'), ('cc', 'to'), ('cc', 'cc'),
                ('bcc', 'to'), ('bcc', 'bcc')) AS role(key, name)
            CROSS JOIN LATERAL jsonb_array_elements(
                CASE WHEN jsonb_typeof(changed.metadata->role.key) = 'array'
                THEN changed.metadata->role.key ELSE '[]' END) AS person
            CROSS JOIN LATERAL unnest(tsvector_to_array(to_tsvector('simple', concat_ws(' ',
                person->>'name', person->>'address', replace(person->>'address', '@', ' '))
            ))) AS word
            LIMIT CASE WHEN %(max_chars)s > 0 THEN {MAX_PARTICIPANT_WORDS} ELSE 0 END)
            UNION ALL
            SELECT 'thread:' || (changed.metadata->>'thread_id')
            WHERE changed.metadata->>'thread_id' <> ''
        ) words))
    FROM changed JOIN user_integration_content c ON c.id = changed.id
    ORDER BY c.user_integration_id, c.external_id FOR KEY SHARE OF c
    ON CONFLICT (content_id) DO UPDATE SET document = excluded.document
)
SELECT changed_xid, id FROM changed ORDER BY changed_xid DESC, id DESC LIMIT 1
"""
ADVANCE = "UPDATE search_progress SET changed_xid = %(changed_xid)s, content_id = %(content_id)s"
COUNT_LAG = """
SELECT count(*) FROM (
    SELECT FROM user_integration_content c, search_progress p
    WHERE (c.changed_xid, c.id) > (p.changed_xid, p.content_id) LIMIT 10000
) waiting
"""

log = logging.getLogger(__name__)


def index_batch(
    conn: Conn, batch_rows: int = BATCH_ROWS, max_chars: int = MAX_TEXT_CHARS
) -> int | None:
    """Write the search documents of the next batch of changed content.

    Parameters:
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
            "max_chars": max_chars,
        }
        last = conn.execute(INDEX_BATCH, params).fetchone()
        if last is not None:
            conn.execute(ADVANCE, {"changed_xid": last[0], "content_id": last[1]})
    return int(last is not None)


def index_lag(conn: Conn) -> int:
    """Count the changes that are not searchable yet, up to 10,000."""
    row = conn.execute(COUNT_LAG).fetchone()
    return row[0] if row else 0


def index_pending(conn: Conn) -> int | None:
    """Index the next batch; if that fails, index one item, and then only the item's name.

    An item whose text PostgreSQL cannot index is found by its name; other items are not affected.
    """
    for batch_rows, max_chars in ((BATCH_ROWS, MAX_TEXT_CHARS), (1, MAX_TEXT_CHARS), (1, 0)):
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
