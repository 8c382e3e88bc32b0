"""The text of files for the search: `extracted_text`.

The indexer requests the text of each new file. A thread of `polling serve` extracts one at a time,
in a child process with limits of memory and time (see `core.search.extraction`), and makes it
searchable. While it reads a file, it holds no transaction. The users take turns: a user with many
files that take long does not hold up those of others.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from core.db.clocks import EXTRACTION_SECONDS, passed
from core.db.pool import DATABASE_UNAVAILABLE, Conn
from core.db.rows import Row, fetch
from core.errors import NotFound
from core.results.text import sanitize
from core.search import extraction
from core.search.extraction import Unreadable
from core.service.backend import Backend
from core.service.content import reader, search_index

POLL_INTERVAL_SECONDS = 1.0
"""Seconds between two checks for files that wait."""


# The partial index has the files that wait, by user. Rows that another process claims are skipped.
_WAITS = f"""w.extracted_at IS NULL
  AND (w.claimed_until IS NULL OR {passed("extracted_text.claimed_until", "w.claimed_until")})"""
_OLDEST = "ORDER BY w.user_id, w.content_id LIMIT 1 FOR UPDATE SKIP LOCKED"
# The oldest file of the user after the one of the previous turn; if there is none, the turns begin
# again.
CLAIM_TEXT = f"""
UPDATE extracted_text x SET claimed_until = clock_timestamp() + interval '{EXTRACTION_SECONDS} s'
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
RETURNING x.content_id, x.hash, x.user_id, c.name, c.external_id, c.content_type, c.size
"""
STORE_TEXT = """
UPDATE extracted_text SET text = %(text)s, reason = %(reason)s, extracted_at = clock_timestamp()
WHERE content_id = %(id)s AND hash = %(hash)s AND extracted_at IS NULL
"""

log = logging.getLogger(__name__)


def extract_next(backend: Backend) -> bool:
    """Extract the text of the next file that waits; return False if none does."""
    row = claim(backend)
    if row is not None:
        extract(backend, row)
    return row is not None


def claim(backend: Backend, after: str = "") -> Row | None:
    """Claim the next file that waits.

    Args:
      backend: The backend.
      after: The user of the previous turn. Default: the turns begin.

    Returns:
      The row of the file, with its user; None if no file waits.
    """
    with backend.database.connection() as conn:
        rows = fetch(conn, CLAIM_TEXT, {"after": after})
    return rows[0] if rows else None


def extract(backend: Backend, row: Row) -> None:
    """Extract the text of a file that was claimed."""
    text, reason = None, None
    try:
        text = sanitize(text_of(backend, row))
    except Unreadable as error:
        reason = str(error)
    except NotFound:
        reason = "its content is missing"
    with backend.database.connection() as conn, conn.transaction():
        conn.execute(search_index.WAIT_FOR_PROGRESS)
        finish(conn, row, text, reason)


def finish(conn: Conn, row: Row, text: str | None, reason: str | None) -> None:
    """Store the text and make it searchable, unless the file has changed since it was claimed."""
    params = {"id": row["content_id"], "hash": row["hash"], "text": text, "reason": reason}
    if conn.execute(STORE_TEXT, params).rowcount and text:
        search_index.write_documents(conn, [row["content_id"]])


def text_of(backend: Backend, row: Row) -> str | None:
    """Return the text of a file; None if files of its format have none.

    Raises:
      Unreadable: The file is damaged, encrypted or too large.
      NotFound: The file's bytes are missing.
    """
    chunks = reader.read(backend, row["content_id"])
    head = b""
    for chunk in chunks:
        head += chunk
        if len(head) >= extraction.HEAD_BYTES:
            break
    name = row["name"] or row["external_id"]
    format = extraction.format_of(head[: extraction.HEAD_BYTES], name, row["content_type"])
    if format is None:
        return None
    if format in ("pdf", "archive"):
        if row["size"] > extraction.MAX_DOCUMENT_BYTES:
            raise Unreadable("it is too large")
        return _in_child(head, chunks, format)
    data = head
    for chunk in chunks if len(data) < extraction.MAX_PLAIN_BYTES else ():
        data += chunk
        if len(data) >= extraction.MAX_PLAIN_BYTES:
            break
    return extraction.in_process(data[: extraction.MAX_PLAIN_BYTES], format, row["content_type"])


def _in_child(head: bytes, rest: Iterator[bytes], format: str) -> str:
    with tempfile.TemporaryDirectory(prefix="polling-") as folder:
        path = Path(folder, "document")
        with path.open("wb") as file:
            file.write(head)
            for chunk in rest:
                file.write(chunk)
        return extraction.in_child(path, format)


class DocumentReader:
    """A thread of `polling serve` that extracts the text of files."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="documents", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; a child process ends by itself, and the file waits for the next start."""
        self._stopping.set()
        self._thread.join(timeout=2)

    def _run(self) -> None:
        user = ""
        while not self._stopping.is_set():
            more = False
            try:
                if (row := claim(self._backend, user)) is not None:
                    user = row["user_id"]
                    extract(self._backend, row)
                    more = True
            except DATABASE_UNAVAILABLE as error:
                log.warning("texts of files not extracted, database unavailable: %s", error)
            except Exception:
                log.exception("text of a file not extracted; retrying")
            if not more:
                self._stopping.wait(POLL_INTERVAL_SECONDS)
