"""The download of one file: resumed if that is safe, rejected if the file changes during it."""

from __future__ import annotations

from core import Blob, BlobWriter, Context, TransientError
from integration_polling_ftp.errors import Unsupported
from integration_polling_ftp.session import Session, Stat


def fetch(session: Session, ctx: Context, path: str, version: str) -> Blob:
    """Download a file.

    The bytes of an earlier attempt are reused only if the path, the listed version and the server's
    current size and time are the same.

    Args:
      session: The connection.
      ctx: The task's context, for its blob writer.
      path: The file's path as it is stored.
      version: `Entry.version` of the listing.

    Returns:
      The complete file.

    Raises:
      Missing: The file does not exist, or reading it is not permitted.
      TransientError: The file was truncated, or changed during the download.
    """
    before = session.stat(path)
    with ctx.blob(f"{path}@{version}@{before}") as blob:
        if not before.is_exact or blob.tell() > (before.size or 0):
            blob.restart()
        _receive(session, path, blob, before)
        _check_length(blob, before, version)
    if session.stat(path) != before:
        raise TransientError(f"{path} changed during the download")
    return blob.blob


def _receive(session: Session, path: str, blob: BlobWriter, stat: Stat) -> None:
    if blob.tell() == stat.size:
        return
    try:
        session.retrieve(path, blob.write, blob.tell())
    except Unsupported:
        if not blob.tell():
            raise
        blob.restart()
        session.retrieve(path, blob.write)


def _check_length(blob: BlobWriter, stat: Stat, version: str) -> None:
    listed = version.partition(":")[0]
    size = stat.size if stat.size is not None else int(listed) if listed else None
    if size is None or blob.tell() == size:
        return
    length = blob.tell()
    if length > size:
        blob.restart()
    raise TransientError(f"received {length} bytes instead of {size}")
