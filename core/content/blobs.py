"""The content-addressed blob store, in a directory or bucket, and the writer for large content."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self
from uuid import uuid4

import obstore
from obstore.store import LocalStore, from_url

from core.db.clocks import age
from core.db.pool import Database
from core.errors import SettingsError, StoreUnavailable
from core.integration.results import MAX_INLINE_BYTES
from core.results.rows import StoredBlob

CHUNK = 1024 * 1024
"""Bytes that are read at a time."""

TOUCH = """
INSERT INTO blob (key, size) VALUES (%s, %s)
ON CONFLICT (key) DO UPDATE SET touched_at = now(), unreferenced_at = NULL RETURNING xmax = 0
"""

_UNNAMED = """
b.touched_at < least(now() - %(grace)s * interval '1 second', %(before)s)
AND NOT EXISTS (SELECT FROM user_integration_content c WHERE c.blob_key = b.key)
"""
# Most blobs are referenced, so one scan marks many.
MARK_UNREFERENCED = f"""
UPDATE blob SET unreferenced_at = now() WHERE key = ANY (ARRAY(
    SELECT b.key FROM blob b
    WHERE b.unreferenced_at IS NULL AND {_UNNAMED}
    ORDER BY b.key LIMIT %(most)s))
"""
# The grace period begins again with the mark: rows of a database that is restored to an earlier
# moment may reference the blob. Served by `blob_unreferenced`.
BLOBS_TO_COLLECT = f"""
SELECT b.key FROM blob b
WHERE b.unreferenced_at <= now() - %(grace)s * interval '1 second'
  AND b.unreferenced_at < %(before)s AND {_UNNAMED}
ORDER BY b.unreferenced_at, b.key LIMIT %(most)s
"""
# The lock lasts until the object is deleted. A writer of the same content waits for it, and then
# uploads the object again.
UNNAMED = f"""
SELECT b.key FROM blob b WHERE b.key = %(key)s AND {_UNNAMED} FOR UPDATE SKIP LOCKED
"""
DELETE_BLOB_ROW = "DELETE FROM blob WHERE key = %s"

UNREFERENCED_SECONDS = age("blob.touched_at")
"""Seconds that an unreferenced blob is kept, twice: after its last write, and after it was marked.

At first, the result of its task may not be saved yet. Later, a restored database may reference it.
"""

RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=15)}
"""The store's own retries, for a lost reply. By default it would block a thread for 3 minutes."""

PARTS: Any = {"chunk_size": 5 * 1024 * 1024, "max_concurrency": 4}
"""The parts of a large upload that are in memory at one time. The default is twelve parts."""

MIN_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 2.0, 60.0
"""Bounds of the pause after a failure of the store. It grows with the time since the first one."""

_CAUSE = re.compile(r"<Code>(\w{1,60})</Code>|([\w ,'-]{1,80}) \(os error \d+\)")


def open_store(location: str) -> Any:
    """Open the store of a URL; a path without a scheme, or `file://`, is a directory.

    Raises:
      SettingsError: The URL is invalid or names an unknown kind of store.
    """
    if (folder := _folder(location)) is not None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return LocalStore(folder)
    try:
        return from_url(location, retry_config=RETRIES)
    except Exception as error:  # noqa: BLE001  each kind of store has errors of its own
        raise SettingsError("blob-url-invalid", detail=type(error).__name__) from None


def _folder(location: str) -> Path | None:
    """Return the directory of a store; None for a bucket."""
    if "://" not in location or location.startswith("file://"):
        return Path(location.removeprefix("file://"))
    return None


class Blobs:
    """The store, and the table that lists its blobs.

    Args:
      location: A directory, or the URL of a bucket.
      spool: The directory for content that is still being written.
    """

    def __init__(self, database: Database, location: str, spool: Path) -> None:
        self._database = database
        self._location = location
        self._store: Any = None
        self._failing_since: float | None = None
        self.spool = spool

    @property
    def store(self) -> Any:
        """The object store, opened on first use."""
        if self._store is None:
            self._store = open_store(self._location)
        return self._store

    def put(self, data: bytes) -> str:
        """Store bytes, and return their key.

        Raises:
          StoreUnavailable: The store cannot be written.
        """
        return self._put(hashlib.sha256(data).hexdigest(), len(data), data)

    def put_file(self, path: Path, sha256: str) -> str:
        """Store a file, and return its key. A store in a directory takes the file itself.

        Raises:
          StoreUnavailable: The store cannot be written.
        """
        return self._put(sha256, path.stat().st_size, path)

    def _put(self, sha256: str, size: int, data: bytes | Path) -> str:
        key = f"{sha256[:2]}/{sha256[2:4]}/{sha256}"
        with self._database.connection() as conn:
            row = conn.execute(TOUCH, (key, size)).fetchone()
        with self.available():
            is_new = row is None or row[0] or not self._exists(key)
            if is_new and not (isinstance(data, Path) and self._moved(data, key)):
                obstore.put(self.store, key, data, **PARTS)
        return key

    def _moved(self, path: Path, key: str) -> bool:
        """Move a file of the spool into a store on the same file system.

        A copy would read and write a large file once more, and hold parts of it in memory.
        """
        if (folder := _folder(self._location)) is None:
            return False
        _ = self.store  # creates the folder
        target = folder / key
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return False
        return True

    @contextmanager
    def available(self, kind: type[Exception] = Exception) -> Iterator[None]:
        """Convert failures of the store or spool during the block; the task is never their cause.

        Args:
          kind: The errors to convert. Default: all, because each kind of store has its own.

        Raises:
          StoreUnavailable: The store is away, full, read-only, or refuses this process.
        """
        try:
            yield
        except (StoreUnavailable, SettingsError):
            raise
        except kind as error:
            now = time.monotonic()
            self._failing_since = self._failing_since or now
            pause = max(MIN_PAUSE_SECONDS, min(now - self._failing_since, MAX_PAUSE_SECONDS))
            raise _unavailable(error, pause) from None
        self._failing_since = None

    def _exists(self, key: str) -> bool:
        try:
            obstore.head(self.store, key)
        except FileNotFoundError:
            return False
        return True

    def get(self, key: str) -> bytes:
        """Return the content of a blob.

        Raises:
          FileNotFoundError: The store does not contain it.
          StoreUnavailable: The store cannot be read.
        """
        return b"".join(map(bytes, self.stream(key)))

    def stream(self, key: str, start: int = 0, end: int | None = None) -> Iterator[Any]:
        """Yield the content of a large blob in chunks.

        Args:
          key: The key of the blob.
          start: The first byte. Default: that of the blob.
          end: The byte after the last one; more than `start`. Default: the end of the blob.

        Raises:
          FileNotFoundError: The store does not contain it.
          StoreUnavailable: The store cannot be read.
        """
        with self.available():
            try:
                part: obstore.GetOptions = {} if end is None else {"range": (start, end)}
                chunks = obstore.get(self.store, key, options=part).stream(min_chunk_size=CHUNK)
            except FileNotFoundError as error:
                if _lacks_bucket(error):
                    raise
                chunks = None
        if chunks is None:
            raise FileNotFoundError(key)
        with self.available():
            yield from chunks

    def collect(
        self,
        grace: float = UNREFERENCED_SECONDS,
        most: int = 1000,
        keys: Sequence[str] | None = None,
        seconds: float = float("inf"),
        before: datetime | str = "infinity",
    ) -> int:
        """Mark unreferenced blobs, and delete those that were marked before; return their number.

        Args:
          grace: Seconds since the last write of a blob, and since its mark. Younger blobs stay.
          most: The maximum number of blobs to delete.
          keys: The blobs to consider; they need no mark. Default: all.
          seconds: Seconds after which no further blob is deleted. Default: unlimited.
          before: The time before which a blob is surely that old. Default: by the database's clock
            alone.

        Raises:
          StoreUnavailable: The store cannot delete. The blobs that it has not deleted stay listed.
        """
        deadline, count = time.monotonic() + seconds, 0
        params: dict[str, Any] = {"grace": grace, "before": before, "most": most}
        if keys is None:
            with self._database.connection() as conn:
                conn.execute(MARK_UNREFERENCED, params)
                keys = [key for (key,) in conn.execute(BLOBS_TO_COLLECT, params)]
        for key in keys:
            if count >= most or time.monotonic() >= deadline:
                break
            count += self._collect(key, params)
        return count

    def _collect(self, key: str, params: dict[str, Any]) -> bool:
        with self._database.connection() as conn, conn.transaction():
            if conn.execute(UNNAMED, params | {"key": key}).fetchone() is None:
                return False
            with self.available():
                self._delete(key)
            conn.execute(DELETE_BLOB_ROW, (key,))
        return True

    def _delete(self, key: str) -> None:
        try:
            obstore.delete(self.store, key)
        except FileNotFoundError as error:
            if _lacks_bucket(error):
                raise


def cause_of(error: Exception) -> str:
    """Return the cause that a store names, such as `NoSuchBucket`, or the class of the error.

    The text of an error may contain a signed URL, so nothing else of it is kept.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    found = _CAUSE.search(str(error))
    return (found[1] or found[2]).strip() if found else type(error).__name__


def _unavailable(error: Exception, seconds: float) -> StoreUnavailable:
    unavailable = StoreUnavailable("blob-store-unavailable", detail=cause_of(error))
    unavailable.seconds = seconds
    return unavailable


def _lacks_bucket(error: Exception) -> bool:
    return cause_of(error) in ("NoSuchBucket", "ContainerNotFound")


class SpooledWriter:
    """A writer of large content that uses a file in the spool; see `core.BlobWriter`.

    Args:
      name: The name of the file in the spool. An attempt with the same name continues the file of
        the previous attempt.
      resumable: True to keep the file if the task fails.
    """

    def __init__(self, blobs: Blobs, name: str, *, resumable: bool) -> None:
        blobs.spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._blobs = blobs
        self._path = blobs.spool / name
        self._resumable = resumable
        self._file: IO[bytes] | None = None
        self._hash = hashlib.sha256()
        self._size = 0
        self._blob: StoredBlob | None = None

    def __enter__(self) -> Self:
        with self._blobs.available(OSError):
            return self._enter()

    def _enter(self) -> Self:
        self._file = self._path.open("a+b" if self._resumable else "w+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # An abandoned attempt still writes to this file. Start another file.
            self._file.close()
            self._resumable = False
            self._path = self._path.with_name(f"{self._path.name}-{uuid4().hex}")
            self._file = self._path.open("w+b")
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            self._hash.update(chunk)
            self._size += len(chunk)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        if error is None:
            _ = self.blob
        self._close()
        if error is None or not self._resumable:
            self._path.unlink(missing_ok=True)

    @property
    def _open(self) -> IO[bytes]:
        if self._file is None:
            raise ValueError("a blob writer is a context manager: with ctx.blob() as writer")
        return self._file

    def write(self, data: bytes | memoryview, /) -> int:
        """Append bytes, and return their number.

        Raises:
          ValueError: `blob` was read; the store may have taken the file.
        """
        if self._blob is not None:
            raise ValueError("the content is finished: write before `blob` is read")
        self._hash.update(data)
        file = self._open
        with self._blobs.available(OSError):
            written = file.write(data)
        self._size += written
        return written

    def tell(self) -> int:
        """Return the number of bytes written so far, by earlier attempts too."""
        _ = self._open
        return self._size

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes written so far."""
        return self._hash.hexdigest()

    def restart(self) -> None:
        """Delete the bytes written so far.

        Raises:
          ValueError: `blob` was read; the store may have taken the file.
        """
        if self._blob is not None:
            raise ValueError("the content is finished: restart before `blob` is read")
        self._open.seek(0)
        self._open.truncate()
        self._hash = hashlib.sha256()
        self._size = 0

    @property
    def blob(self) -> StoredBlob:
        """The finished content. The first access stores it."""
        if self._blob is None:
            self._blob = self._finish()
        return self._blob

    def _finish(self) -> StoredBlob:
        size, sha256 = self.tell(), self._hash.hexdigest()
        with self._blobs.available(OSError):
            self._open.flush()
        if size > MAX_INLINE_BYTES:
            return StoredBlob(size, sha256, key=self._blobs.put_file(self._path, sha256))
        self._open.seek(0)
        return StoredBlob(size, sha256, data=self._open.read())

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def clean_spool(spool: Path, older_than: float = 7 * 86400.0) -> None:
    """Delete the files of interrupted downloads from the spool.

    Args:
      spool: The folder of the spool.
      older_than: The age of a file since its last change, in seconds. Default: a week.
    """
    if not spool.is_dir():
        return
    limit = time.time() - older_than
    for path in spool.iterdir():
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < limit:
                path.unlink()
