"""The text of files for the search: `extracted_text`.

The indexer requests the text of each new file. These rows are the tasks of the queue
`polling-extract`: a process claims a file, reads it without a transaction, and stores its text or
the reason why there is none. The users take turns: a user with many files that take long does not
hold up those of others.
"""

from __future__ import annotations

from core.content import search_documents
from core.db.clocks import EXTRACTION_SECONDS, passed
from core.db.pool import Conn
from core.db.rows import Row, fetch

MAX_ATTEMPTS = 2
"""The number of times that a file is read, if its reader fails or dies."""

# The partial index has the files that wait, by user. Rows that another process claims are skipped.
_WAITS = f"""w.extracted_at IS NULL
  AND (w.claimed_until IS NULL OR {passed("extracted_text.claimed_until", "w.claimed_until")})"""
_OLDEST = "ORDER BY w.user_id, w.content_id LIMIT 1 FOR UPDATE SKIP LOCKED"
# The oldest file of the user after the one of the previous turn; if there is none, the turns begin
# again. A process that dies leaves the attempt counted, so a file kills few of them.
CLAIM_TEXT = f"""
UPDATE extracted_text x SET attempts = attempts + 1,
    claimed_until = clock_timestamp() + interval '{EXTRACTION_SECONDS} s'
FROM (
    SELECT content_id FROM (
        SELECT w.content_id FROM extracted_text w
        WHERE {_WAITS} AND w.user_id > %(after)s {_OLDEST}) next_user
    UNION ALL
    SELECT content_id FROM (
        SELECT w.content_id FROM extracted_text w
        WHERE {_WAITS} {_OLDEST}) first_user
    LIMIT 1
) waiting, user_integration_content c
WHERE x.content_id = waiting.content_id AND c.id = x.content_id
RETURNING x.content_id, x.hash, x.user_id, x.attempts,
    c.name, c.external_id, c.content_type, c.size, c.blob_key, c.content_bytes
"""
# Another process claims it again when the claim expires.
UNCOUNT_ATTEMPT = """
UPDATE extracted_text SET attempts = attempts - 1
WHERE content_id = %(content_id)s AND hash = %(hash)s AND extracted_at IS NULL AND attempts > 0
"""
STORE_TEXT = """
UPDATE extracted_text SET text = %(text)s, reason = %(reason)s, extracted_at = clock_timestamp()
WHERE content_id = %(content_id)s AND hash = %(hash)s AND extracted_at IS NULL
"""
# The partial index serves it.
COUNT_WAITING = """
SELECT count(*) FROM (SELECT FROM extracted_text WHERE extracted_at IS NULL LIMIT 10000) waiting
"""


def claim(conn: Conn, after: str = "") -> Row | None:
    """Claim the next file that waits.

    Args:
      conn: A connection.
      after: The user of the previous turn. Default: the turns begin.

    Returns:
      The row of the file, with its user and its bytes or their blob; None if no file waits.
    """
    rows = fetch(conn, CLAIM_TEXT, {"after": after})
    return rows[0] if rows else None


def uncount(conn: Conn, row: Row) -> None:
    """Take the attempt of a claim back: the file is not the reason why it was not read."""
    conn.execute(UNCOUNT_ATTEMPT, row)


def finish(conn: Conn, row: Row, text: str | None, reason: str | None) -> None:
    """Store the text and make it searchable, unless the file has changed since it was claimed.

    Args:
      conn: A connection in autocommit mode.
      row: The row that was claimed.
      text: The text. None: there is none.
      reason: Why the text could not be read. None: it was.
    """
    with conn.transaction():
        conn.execute(search_documents.WAIT_FOR_PROGRESS)
        stored = conn.execute(STORE_TEXT, {**row, "text": text, "reason": reason})
        if stored.rowcount and text:
            search_documents.write_documents(conn, [row["content_id"]])


def waiting(conn: Conn) -> int:
    """Count the files whose text waits, up to 10,000."""
    row = conn.execute(COUNT_WAITING).fetchone()
    return row[0] if row else 0
