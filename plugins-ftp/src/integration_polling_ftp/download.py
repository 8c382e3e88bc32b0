"""Fetching one file whole: resumed where that is safe, and refused when it changed on the way."""

from __future__ import annotations

from core import Blob, BlobWriter, Context, TransientError
from integration_polling_ftp.errors import Unsupported
from integration_polling_ftp.session import Session, Stat


def fetch(session: Session, ctx: Context, path: str, version: str) -> Blob:
    """The bytes of a file.

    What an earlier attempt has fetched is kept by path, version and what the server says of the
    file now: so only an unchanged file is resumed.

    Raises:
      Missing: It is not there, or may not be read.
      TransientError: It was cut short, or changed while it was read.
    """
    before = session.stat(path)
    with ctx.blob(f"{path}@{version}@{before}") as blob:
        if not before.is_exact or blob.tell() > (before.size or 0):
            blob.restart()
        _receive(session, path, blob, before)
        _check_length(blob, before, version)
    if session.stat(path) != before:
        raise TransientError(f"{path} changed while it was read")
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
    raise TransientError(f"{length} of {size} bytes came")
