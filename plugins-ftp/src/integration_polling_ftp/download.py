"""The download of one large file: resumed if that is safe, and continued if it only grew."""

from __future__ import annotations

from typing import Literal

from core import BlobWriter, Context, TaskOutput, TransientError
from integration_polling_ftp import names, server_hashes
from integration_polling_ftp.checksums import MISMATCH, Digest, Mismatch
from integration_polling_ftp.connection import Connection, Stat
from integration_polling_ftp.content_types import HEAD_BYTES, content_type
from integration_polling_ftp.errors import Unsupported
from integration_polling_ftp.fetching import Verdict, judge, too_short
from integration_polling_ftp.reading import UNSTABLE, Look, file_output
from integration_polling_ftp.versions import GROWING, Version, is_racy, precision, stat_of_version

OVERLAP_BYTES = 64 * 1024
"""The end of a kept prefix that is fetched again, to prove that the file only grew.

It is an eighth of a smaller file.
"""

Source = Literal["checksum", "server_hash"]
REASONS: dict[Source, str] = {"checksum": MISMATCH, "server_hash": server_hashes.MISMATCH}
"""The sources of checksums, and the reasons for files that differ from them."""

TRIES = 3
"""The number of transfers of a file that is rewritten during each of them."""


def fetch_large(
    session: Connection,
    ctx: Context,
    path: str,
    parent: str,
    version: str,
    look: Look,
    checksum: str = "",
    *,
    hashes: bool = True,
    again: bool = False,
) -> TaskOutput:
    """Download a file.

    The bytes of an earlier attempt are reused if the listed version is the same and has a time. The
    kept content of a file that grew while it was read is reused if its end is unchanged.

    Args:
      session: The connection.
      ctx: The task's context, for its blob writer.
      path: The file's path as it is stored.
      parent: The path of its directory.
      version: `Entry.version` of the listing.
      look: What is known before the transfer.
      checksum: The checksum that the file should have, as `Digest` takes it. Default: unknown.
      hashes: True to compare the file with the server's hash, unless it has a checksum.
      again: True if its bytes changed without a new version. So bytes of before are not reused.

    Returns:
      The file, or a complete prefix of one that grows.

    Raises:
      Missing: The file does not exist, or reading it is not permitted.
      TransientError: The transfer was interrupted, or the file was rewritten during it.
      Mismatch: The file has another checksum, or another hash on the server.
    """
    before = listed = stat_of_version(version)
    # Bytes that were read while the version was racy are not proven by a later look.
    racy = is_racy(before.modified, look.began, look.settled)
    mark = f"!{ctx.run.id}" if again else "~" if racy else ""
    with ctx.blob(f"{path}@{version}{mark}") as blob:
        if blob.tell() and (not before.modified or blob.tell() > (before.size or 0)):
            blob.restart()
        if not blob.tell():
            _start_with_prefix(session, ctx, path, blob, before.size)
        asks = hashes and not checksum
        head = _Head(blob, session.hash_algorithm if asks else checksum)
        for _ in range(TRIES):
            if before.size is None or blob.tell() < before.size:
                _receive(session, path, blob, head, before.size)
            size, after = blob.tell(), session.stat(path)
            verdict = judge(size, before, after)
            if verdict != "changed":
                break
            blob.restart()
            before = after
        verdict = _require_complete(path, size, before, after, verdict)
        proofs = {}
        if verdict == "kept":
            wanted = session.hash(path, size) if asks else checksum
            proofs = head.proof(wanted, "server_hash" if asks else "checksum")
    now = before if after.size is None else after
    if path not in look.exact and precision(now.modified) != 1:
        look.exact |= session.times([path])
    kept = look.version(path, size, listed, now, verdict)
    kind = content_type(names.base_name(path), head.bytes)
    return file_output(path, parent, blob.blob, size, kept, session.source, kind, proofs)


def _require_complete(path: str, size: int, before: Stat, after: Stat, verdict: Verdict) -> Verdict:
    """Return the verdict on a file that can be kept.

    Raises:
      TransientError: The file was rewritten during the transfer, or is not complete.
    """
    if verdict == "short" and after.size == size:
        return "kept"  # the listing is wrong about the size
    if verdict == "short":
        raise too_short(path, size, before.size)
    if verdict in UNSTABLE:
        raise TransientError(f"{path} {UNSTABLE[verdict]}")
    return verdict


class _Head:
    """Passes bytes to a writer, keeps the first ones, and computes their checksum.

    These are unknown if the writer has bytes of an earlier attempt. The engine itself computes
    SHA-256, for those too.

    Args:
      blob: The writer.
      checksum: The algorithm, or the checksum that starts with it. Empty: none.
    """

    def __init__(self, blob: BlobWriter, checksum: str) -> None:
        self._blob = blob
        self._bytes = bytearray()
        self._is_known = False
        self._algorithm = checksum.partition(":")[0]
        self._digest: Digest | None = None

    def write(self, block: memoryview) -> None:
        """Write a block."""
        if not self._blob.tell():
            self._is_known, self._bytes = True, bytearray()
            if self._algorithm not in ("", "sha256"):
                self._digest = Digest(self._algorithm)
        if self._digest is not None:
            self._digest.update(block)
        if len(self._bytes) < HEAD_BYTES:
            self._bytes += block[: HEAD_BYTES - len(self._bytes)]
        self._blob.write(block)

    def proof(self, checksum: str, source: Source) -> dict[str, str]:
        """Compare the written bytes with a checksum.

        Args:
          checksum: As `sha256:9f86…`. Empty: unknown.
          source: Its source.

        Returns:
          The algorithm by the source; empty if nothing could be compared.

        Raises:
          Mismatch: The checksums differ. The bytes are discarded.
        """
        algorithm, _, wanted = checksum.partition(":")
        if algorithm == "sha256":
            found = self._blob.sha256
        elif self._digest is not None and algorithm == self._digest.algorithm:
            found = self._digest.hexdigest()
        else:
            return {}
        if found != wanted:
            self._blob.restart()
            raise Mismatch(REASONS[source])
        return {source: algorithm}

    @property
    def bytes(self) -> bytes | None:
        """The first bytes; None if they are unknown."""
        return bytes(self._bytes) if self._is_known else None


def _receive(
    session: Connection, path: str, blob: BlobWriter, head: _Head, listed: int | None
) -> None:
    """Fetch the rest of a file. If all bytes arrive, the server need not confirm the transfer."""
    try:
        session.retrieve(path, head.write, blob.tell())
    except Unsupported:
        if not blob.tell():
            raise
        blob.restart()
        session.retrieve(path, head.write)
    except TransientError:
        if not listed or blob.tell() != listed:
            raise


def _start_with_prefix(
    session: Connection, ctx: Context, path: str, blob: BlobWriter, listed: int | None
) -> None:
    """Copy the kept prefix of a file that grew, if the server still has its end."""
    known = ctx.fingerprints([path]).get(path) or ""
    version = Version.parse(known)
    if version is None or version.mark != GROWING or version.size is None:
        return
    kept = version.size
    if listed is None or listed < kept:
        return
    end, overlap = b"", min(OVERLAP_BYTES, kept // 8 + 1)
    for block in ctx.content(path):
        blob.write(block)
        end = (end + block)[-overlap:]
    if not end or blob.tell() != kept or not _same_end(session, path, blob, end):
        blob.restart()


def _same_end(session: Connection, path: str, blob: BlobWriter, end: bytes) -> bool:
    """Fetch the file from the last bytes of the prefix on, and compare them."""
    again = bytearray()

    def write(block: memoryview) -> None:
        missing = len(end) - len(again)
        again.extend(block[:missing])
        if len(block) > missing and again == end:
            blob.write(bytes(block[missing:]))

    try:
        session.retrieve(path, write, blob.tell() - len(end))
    except Unsupported:
        return False
    return again == end
