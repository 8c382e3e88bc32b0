"""Downloads: many small files in a row, checked by one listing after them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from core import (
    MAX_INLINE_BYTES,
    Blob,
    BlobWriter,
    Context,
    IntegrationError,
    TransientError,
)
from integration_polling_ftp import names
from integration_polling_ftp.checksums import Digest
from integration_polling_ftp.connection import Connection, Job, Stat
from integration_polling_ftp.content_types import HEAD_BYTES, as_text, content_type
from integration_polling_ftp.errors import Dropped
from integration_polling_ftp.versions import is_same_look

MAX_SMALL_BYTES = 512 * 1024
"""The size up to which a file stays in memory; a larger one is spooled to disk."""

MAX_HELD_BYTES = 8 * 1024 * 1024
"""The bytes of small files that one task holds in memory. The rest is left to a follow-up."""

Verdict = Literal["kept", "growing", "changed", "short"]


@dataclass(slots=True)
class Received:
    """The bytes of one file.

    Attributes:
      held: The bytes, up to `MAX_SMALL_BYTES`.
      spooled: The writer of a larger file, open until `content` is read.
      head: The first bytes of a larger file.
      error: The error of the server; None after a complete transfer.
      digest: The checksum that the file should have; None if it is unknown.
    """

    ctx: Context
    held: bytearray = field(default_factory=bytearray)
    spooled: BlobWriter | None = None
    head: bytes = b""
    error: IntegrationError | None = None
    digest: Digest | None = None

    @property
    def size(self) -> int:
        """The number of bytes."""
        return self.spooled.tell() if self.spooled is not None else len(self.held)

    def write(self, block: memoryview) -> None:
        """Add bytes; those of a file that becomes large go to the spool."""
        if self.digest is not None:
            self.digest.update(block)
        if self.spooled is None and len(self.held) + len(block) > MAX_SMALL_BYTES:
            self.spooled = self.ctx.blob()
            self.spooled.__enter__()
            self.spooled.write(bytes(self.held))
            self.head = bytes((self.held or block)[:HEAD_BYTES])
            self.held = bytearray()
        if self.spooled is not None:
            self.spooled.write(bytes(block))
        else:
            self.held += block

    def content_type(self, path: str) -> str | None:
        """Return the content type, by the name and the first bytes."""
        return content_type(names.base_name(path), self.head or bytes(self.held[:HEAD_BYTES]))

    def content(self, content_type: str | None) -> str | bytes | Blob:
        """Return the finished content; a text file of this type as text."""
        if self.spooled is None:
            return as_text(bytes(self.held), content_type)
        blob = self.spooled.blob
        self.close()
        return blob

    def close(self) -> None:
        """Close the spool."""
        if self.spooled is not None:
            writer, self.spooled = self.spooled, None
            writer.__exit__(None, None, None)


def receive(
    session: Connection,
    ctx: Context,
    sizes: Mapping[str, int | None],
    room: int,
    enough: Callable[[], bool],
    checksums: Mapping[str, str],
) -> Iterator[tuple[str, Received]]:
    """Fetch files until `enough` returns True, or `room` bytes are in memory.

    `sizes` has the listed size of each file, by path; None if it is unknown. A file that has all
    its bytes is complete, even if the server does not confirm the transfer. `checksums` has the
    expected ones, by path.

    A connection that is lost after a file ends the iteration: the files that arrived are kept, and
    the caller leaves the rest to a follow-up. If the first file loses the connection again in the
    next attempt of the task, it is yielded with that error, so that it does not stop the others.

    Raises:
      Dropped: The connection was lost before the first file.
    """
    arrived: dict[str, Received] = {}
    held = 0

    def jobs() -> Iterator[Job]:
        for index, path in enumerate(sizes):
            if index and (held >= room or enough()):
                return
            digest = Digest(checksums[path]) if path in checksums else None
            arrived[path] = Received(ctx, digest=digest)
            yield path, arrived[path].write

    is_first = True
    try:
        for path, error in session.retrieve_many(jobs()):
            received = arrived.pop(path)
            received.error = None if _is_complete(received.size, sizes[path], error) else error
            held += len(received.held) if received.spooled is None else MAX_INLINE_BYTES
            is_first = False
            yield path, received
    except Dropped as error:
        path = next(iter(arrived), "")
        if path and _is_complete(arrived[path].size, sizes[path], error):
            yield path, arrived.pop(path)
            return
        if is_first and (not arrived or ctx.task.attempt == 1):
            raise
        if is_first:
            received = arrived.pop(path)
            received.error = error
            yield path, received
    finally:
        for received in arrived.values():
            received.close()


def _is_complete(size: int, listed: int | None, error: IntegrationError | None) -> bool:
    """Return True if a transfer that failed at its end has brought all the bytes.

    Some servers close the connection, or report an error, after the last byte.
    """
    return isinstance(error, TransientError) and listed is not None and 0 < listed == size


def judge(size: int, before: Stat, after: Stat | None, *, is_link: bool = False) -> Verdict:
    """Decide whether a complete transfer is kept.

    `RETR` decides: the size and time in listings are hints.

    Args:
      size: The number of bytes received.
      before: The size and time before the transfer.
      after: The same after it; None if the server no longer lists the file, as a mailbox that
        deletes the files that were read.
      is_link: True for a link, for which a listing may give the size of the link itself.

    Returns:
      `kept`, or `growing` if the bytes are a complete prefix of a file that grew in the meantime.
      `changed` if the file was rewritten. `short` if the server sent fewer bytes than it lists.
    """
    if is_link or before.size is None:
        return "kept"
    if after is None:
        return "kept" if size >= before.size else "short"
    if after.size is not None and size == after.size:
        return "kept" if is_same_look(before, after) or size > before.size else "changed"
    if after.size is None or after.size == before.size:
        return "kept" if size >= before.size else "short"
    if after.size > before.size:
        return "growing" if before.size <= size < after.size else "short"
    return "changed"


def too_short(path: str, size: int, listed: int | None) -> TransientError:
    """Return the error of a transfer with another number of bytes than the server lists."""
    return TransientError(f"{path}: received {size} bytes instead of {listed}")
