"""The queue `polling-extract`: a worker process reads the text of files, one at a time.

The queue has no messages: its tasks are the rows of `extracted_text`, which outlast a lost Redis. A
process reads beside its other tasks, in a thread of its own. Formats with complex readers are read
in a child process with limits of memory and time (see `core.search.extraction`).
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence

from core.content import document_texts
from core.content.blobs import Blobs
from core.db.pool import DATABASE_UNAVAILABLE, Database
from core.db.rows import Row
from core.errors import StoreUnavailable
from core.results.text import sanitize
from core.search import extraction
from core.search.extraction import ReaderFailed, ReaderStopped, Unreadable
from core.transport.messages import EXTRACT_QUEUE

LOOK_SECONDS = 1.0
"""Seconds between two looks for files that wait."""

UNAVAILABLE = (StoreUnavailable, *DATABASE_UNAVAILABLE)

log = logging.getLogger(__name__)


class DocumentReader:
    """The thread of a worker process that reads the text of files.

    Args:
      database: The process's database.
      blobs: The blob store.
    """

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database, self._blobs = database, blobs
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._may_read: Callable[[], bool] = lambda: True

    def open(self, serves: Sequence[str], may_read: Callable[[], bool]) -> None:
        """Start the thread, if the process serves the queue.

        Args:
          serves: The queues of the process.
          may_read: False while the process takes no tasks.
        """
        if EXTRACT_QUEUE in serves:
            self._may_read = may_read
            self._thread = threading.Thread(target=self._keep, name="documents", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the child process, and the thread. The file is read again."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _keep(self) -> None:
        user: str | None = ""
        while not self._stopping.is_set():
            before, user = user, None
            try:
                if self._may_read():
                    user = self.read_next(before or "")
            except UNAVAILABLE as error:
                log.warning("the text of a file was not read; retrying: %s", error)
            except Exception:
                log.exception("the text of a file was not read; retrying")
            if user is None:
                self._stopping.wait(LOOK_SECONDS)

    def read_next(self, after: str = "") -> str | None:
        """Read the next file that waits.

        Args:
          after: The user of the previous turn. Default: the turns begin.

        Returns:
          The user of the file; None if no file waits.
        """
        with self._database.connection() as conn:
            row = document_texts.claim(conn, after)
        if row is not None:
            self._read(row)
        return row["user_id"] if row is not None else None

    def _read(self, row: Row) -> None:
        text, reason = None, None
        try:
            if row["attempts"] > document_texts.MAX_ATTEMPTS:
                raise Unreadable("the processes that read it ended")
            text = self.text_of(row)
        except ReaderFailed as error:
            if row["attempts"] < document_texts.MAX_ATTEMPTS:
                log.info("the reader of a document failed (%s); retrying later", error)
                return
            reason = str(error)
        except Unreadable as error:
            reason = str(error)
        except FileNotFoundError:
            reason = "its content is missing"
        except ReaderStopped:
            self._uncount(row)
            return
        except Exception:
            self._uncount(row)
            raise
        with self._database.connection() as conn:
            document_texts.finish(conn, row, None if text is None else sanitize(text), reason)

    def _uncount(self, row: Row) -> None:
        with self._database.connection() as conn:
            document_texts.uncount(conn, row)

    def text_of(self, row: Row) -> str | None:
        """Return the text of a file; None if files of its format have none.

        Raises:
          FileNotFoundError: The blob of the file is missing.
          ReaderStopped: The process stops.
          StoreUnavailable: The blob store does not answer.
          Unreadable: The file is damaged, encrypted or too large.
        """
        chunks = self._chunks(row)
        data = _first(chunks, extraction.HEAD_BYTES)
        head, name = data[: extraction.HEAD_BYTES], row["name"] or row["external_id"]
        format = extraction.format_of(head, name, row["content_type"])
        if format is None:
            return None
        if format in extraction.READ_BY_CHILD:
            if row["size"] > extraction.MAX_DOCUMENT_BYTES:
                raise Unreadable("it is too large")
            # Without a name in the file system, nothing remains of it if this process dies.
            with tempfile.TemporaryFile() as file:
                file.write(data)
                file.writelines(chunks)
                return extraction.in_child(file, format, self._stopping.is_set)
        data += _first(chunks, extraction.MAX_PLAIN_BYTES - len(data))
        return extraction.in_process(
            data[: extraction.MAX_PLAIN_BYTES], format, row["content_type"]
        )

    def _chunks(self, row: Row) -> Iterator[bytes]:
        if row["blob_key"] is None:
            yield bytes(row["content_bytes"] or b"")
        else:
            yield from map(bytes, self._blobs.stream(row["blob_key"]))


def _first(chunks: Iterator[bytes], size: int) -> bytes:
    """Return at least this number of bytes, if there are as many."""
    data = bytearray()
    while len(data) < size and (chunk := next(chunks, b"")):
        data += chunk
    return bytes(data)
