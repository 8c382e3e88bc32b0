"""The verification: a slow comparison of copied files whose size and time did not change.

It walks through the copied tree in the order of names, with a share of the time. The state has its
position, so that each run continues where the one before stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from pydantic import BaseModel

from core import Context, PermanentError, RateLimited, TaskResult, TransientError
from integration_polling_ftp import names
from integration_polling_ftp.checksums import Digest
from integration_polling_ftp.connection import Job, stat_of
from integration_polling_ftp.directory import Directory, read
from integration_polling_ftp.follow_ups import NewFile
from integration_polling_ftp.listing import Entry
from integration_polling_ftp.versions import Version
from integration_polling_ftp.walking import LARGE_BYTES, MAX_BATCH_FILES, SUSPECT_SECONDS, Walk

PARTITION = "verification"
"""The partition of the state."""

PRIORITY = -2
"""The priority of the tasks: after listings and downloads."""

SECONDS = 5.0
"""The maximum number of seconds that one task works. A large file is continued by the next one."""

LATE_SECONDS = 30.0
"""The time that a small file may take beyond that of its task."""

MIN_SECONDS = 0.05
"""The time that must be saved up before a task begins."""

MAX_SAVED_SECONDS = 600.0
"""The maximum time to save up. It bounds how much longer a run takes after a long pause."""

MAX_STOPS = 2
"""The number of lost connections at one place, until it is left out."""

PASS_INTERVAL = timedelta(days=1)
"""The minimum time from the beginning of a pass to that of the next one."""


class Progress(BaseModel):
    """The state of the verification, as people see it too.

    Attributes:
      percent: The part of the tree that this pass has compared, by the order of names.
      files: The number of files that this pass has compared.
      bytes: The number of their bytes.
      different: The number of files that differed in this pass. They are fetched again.
      unreadable: The number of files that could not be compared in this pass.
      began: The time at which this pass began; None between two passes.
      last_began: The time at which the pass before it began.
      last_ended: The time at which that one ended.
      last_files: The number of files that it compared.
      last_different: The number of files that differed in it.
      directory: The directory of the position.
      after: The last compared name in it.
      file: A file that was compared in part.
      offset: The number of bytes that were compared of it.
      seconds: The time that is saved up.
      at: The time up to which it was saved up.
      stopped_at: The path at which the connection was lost.
      stops: The number of times that it was lost there, one after another.
    """

    percent: float = 0.0
    files: int = 0
    bytes: int = 0
    different: int = 0
    unreadable: int = 0
    began: datetime | None = None
    last_began: datetime | None = None
    last_ended: datetime | None = None
    last_files: int = 0
    last_different: int = 0
    directory: str = ""
    after: str = ""
    file: str = ""
    offset: int = 0
    seconds: float = 0.0
    at: datetime | None = None
    stopped_at: str = ""
    stops: int = 0

    def earn(self, now: datetime, percent: float) -> None:
        """Add a share of the time since the last call."""
        passed = max((now - self.at).total_seconds(), 0.0) if self.at else 0.0
        self.seconds = min(self.seconds + passed * percent / 100, MAX_SAVED_SECONDS)
        self.at = now

    def may_begin(self, now: datetime) -> bool:
        """Return True if a pass is open, or the next one is due."""
        due = self.last_began is None or now - self.last_began >= PASS_INTERVAL
        return self.began is not None or due

    def end(self, now: datetime) -> None:
        """End the pass."""
        self.last_began, self.last_ended = self.began, now
        self.last_files, self.last_different = self.files, self.different
        self.began = None
        self.percent = 100.0
        self.directory = self.after = self.file = ""

    def stop(self, path: str) -> None:
        """Note the path at which the connection was lost. Empty: any other place."""
        self.stops = self.stops + 1 if path and path == self.stopped_at else 1
        self.stopped_at = path

    def is_left_out(self, path: str) -> bool:
        """Return True if a path has lost the connection too often."""
        return path == self.stopped_at and self.stops >= MAX_STOPS

    def begin(self, now: datetime) -> None:
        """Begin a pass."""
        self.began = now
        self.percent = 0.0
        self.files = self.bytes = self.different = self.unreadable = 0


@dataclass(frozen=True, slots=True)
class _File:
    """A copied file that did not change, by the listing."""

    path: str
    name: str
    entry: Entry
    is_link: bool

    @property
    def size(self) -> int:
        return self.entry.size or 0

    @property
    def listed(self) -> NewFile:
        return self.name, self.entry.version, self.is_link


class _PausedError(Exception):
    """The time is over, in the middle of a file."""


class _DifferentError(Exception):
    """A byte differs."""


class Verification:
    """One task's part of a pass.

    Args:
      walk: Fetches the files that differ.
      progress: The state, which changes.
    """

    def __init__(self, walk: Walk, progress: Progress) -> None:
        self._walk = walk
        self._ctx: Context = walk.ctx
        self._session = walk.session
        self._progress = progress
        most = SUSPECT_SECONDS if walk.ctx.task.is_suspect else SECONDS
        self._until = time.monotonic() + min(progress.seconds, most)
        self._different: list[NewFile] = []
        self._place = ""

    def run(self) -> bool:
        """Compare files until the time is over.

        Returns:
          True if the pass continues in this run. False if it has ended, or lost the connection.
        """
        progress = self._progress
        try:
            for found in self._directories():
                try:
                    is_complete = self._compare(found)
                finally:
                    self._fetch_again(found)
                if not is_complete or self._is_over():
                    return True
        except (TransientError, RateLimited, PermanentError) as error:
            self._ctx.log.info("verification paused at %r: %s", self._place, error)
            progress.stop(self._place)
            return False
        progress.end(self._ctx.now)
        self._ctx.log.info(
            "verification complete: %d files compared, %d differed",
            progress.last_files, progress.last_different,
        )  # fmt: skip
        return False

    def _is_over(self) -> bool:
        return time.monotonic() >= self._until or self._ctx.stopping

    # The tree

    def _directories(self) -> Iterator[Directory]:
        """Yield the copied directories from the position on: each before those below it."""
        root, at = self._walk.root, self._progress.directory
        prefix = f"{root.rstrip('/')}/"
        is_inside = at == root or at.startswith(prefix)
        rest = [part for part in at.removeprefix(root).split("/") if part] if is_inside else None
        yield from self._below(root, rest if at else None, (0.0, 100.0))

    def _below(
        self, path: str, rest: list[str] | None, part: tuple[float, float]
    ) -> Iterator[Directory]:
        """Yield a directory and those below it.

        Args:
          path: Its path.
          rest: The names from it to the position; None if the position is before it.
          part: The percentages before it and after it.
        """
        found: Directory | None = None
        if not rest:
            after = self._progress.after if rest is not None else ""
            while (found := self._enter(path, after)) is not None:
                self._progress.directory = path
                self._progress.percent = max(self._progress.percent, round(part[0], 2))
                if not after:
                    self._progress.after = ""
                yield found
                after = found.after
                if not after:
                    break
            else:
                return
        listed = self._portions(path, rest, None if found is None or found.is_portion else found)
        found = None  # the generator lets its memory go
        for directories in listed:
            step = (part[1] - part[0]) / (len(directories) + 1)
            for number, name in enumerate(directories, 1):
                if rest and name < rest[0]:
                    continue
                inner = rest[1:] if rest and name == rest[0] else None
                begin = part[0] + number * step
                yield from self._below(names.join(path, name), inner, (begin, begin + step))

    def _portions(
        self, path: str, rest: list[str] | None, found: Directory | None
    ) -> Iterator[list[str]]:
        """Yield the names of the copied subdirectories in their order, by portions.

        Portions before the position are left out.
        """
        self._place = ""  # a directory above the position is not left out
        found = found or self._read(path, "")
        if found is not None and rest and found.after and rest[0] > found.after:
            found = self._read(path, rest[0][:-1])
        while found is not None:
            after = found.after
            kept = self._ctx.fingerprints(found.directories)
            found = None
            yield sorted(map(names.base_name, kept))
            if after:
                self._place = ""
                found = self._read(path, after)

    def _enter(self, path: str, after: str) -> Directory | None:
        """List a directory for its files; None if it is left out."""
        self._place = path if path != self._walk.root else ""
        if self._place and self._progress.is_left_out(path):
            self._progress.unreadable += 1
            return None
        return self._read(path, after)

    def _read(self, path: str, after: str) -> Directory | None:
        """List a directory; None if the server refuses that."""
        try:
            return read(self._session, path, after)
        except PermanentError:
            return None

    # Files

    def _compare(self, found: Directory) -> bool:
        """Compare the files of a portion of a directory. Return True if none is left."""
        files = self._files(found)
        at = 0
        while at < len(files) and not self._is_over():
            file = files[at]
            self._place = file.path
            if self._progress.is_left_out(file.path):
                self._done(file, None)
            elif wanted := self._hash(file):
                self._done(file, self._digest(file.path, wanted.partition(":")[0]) == wanted)
            elif file.size < LARGE_BYTES:
                at += self._read_row(files[at : at + MAX_BATCH_FILES])
                continue
            elif not self._read_large(file):
                break
            at += 1
        return at >= len(files)

    def _files(self, found: Directory) -> list[_File]:
        """Return the files behind the position that have the size and time of their copies."""
        known = self._ctx.fingerprints(found.files)
        files = []
        for path, entry in found.files.items():
            name, version = names.base_name(path), Version.parse(known.get(path))
            if version is None or name <= self._progress.after:
                continue
            refusal = self._walk.memory.waiting(found.path, name, entry.version)
            if version.is_current(stat_of(entry), self._ctx.now) and refusal is None:
                files.append(_File(path, name, entry, path in found.links))
        return sorted(files, key=lambda file: file.name)

    def _hash(self, file: _File) -> str:
        """Return the server's hash; empty if it gives none."""
        if not self._walk.config.server_hashes or self._progress.file == file.path:
            return ""
        return self._session.hash(file.path, file.size)

    def _digest(self, path: str, algorithm: str) -> str:
        """Return the hash of the copy."""
        digest = Digest(algorithm)
        for block in self._ctx.content(path):
            digest.update(block)
        return f"{algorithm}:{digest.hexdigest()}"

    def _done(self, file: _File, is_equal: bool | None) -> None:
        """Note a result; None if the file could not be compared."""
        progress = self._progress
        progress.after, progress.file, progress.offset = file.name, "", 0
        if is_equal is None:
            progress.unreadable += 1
            return
        progress.files += 1
        progress.bytes += file.size
        if not is_equal:
            progress.different += 1
            self._ctx.log.warning(
                "%r differs from its copy, with the same size and time", file.path
            )
            self._different.append(file.listed)

    def _read_row(self, files: list[_File]) -> int:
        """Read small files in a row. Return the number of those that were read.

        If the server hashes other files, only the first one is read.
        """
        row: dict[str, _File] = {}
        for file in files[: 1 if self._session.hash_algorithm else None]:
            if row and (file.size >= LARGE_BYTES or self._progress.stopped_at in (file.path, *row)):
                break
            row[file.path] = file
        digests: dict[str, Digest] = {}

        def jobs() -> Iterator[Job]:
            for number, path in enumerate(row):
                if number and self._is_over():
                    return
                digests[path] = Digest("sha256")
                yield path, partial(self._update, digests[path])

        done = 0
        try:
            for path, error in self._session.retrieve_many(jobs()):
                found = f"sha256:{digests.pop(path).hexdigest()}"
                self._done(row[path], None if error else self._digest(path, "sha256") == found)
                done += 1
        except _PausedError:
            self._done(row[next(iter(digests))], None)
            return done + 1
        finally:
            self._place = next(iter(digests), self._place)
        return done

    def _update(self, digest: Digest, block: memoryview) -> None:
        """Add bytes of a small file.

        Raises:
          _PausedError: The server sends it so slowly that it is left out.
        """
        digest.update(block)
        if time.monotonic() > self._until + LATE_SECONDS:
            raise _PausedError

    def _read_large(self, file: _File) -> bool:
        """Compare a large file, from the offset on. Return True at its end."""
        progress = self._progress
        offset = progress.offset if progress.file == file.path else 0
        compared = _Comparison(self._ctx.content(file.path), offset, file.size, self._is_over)
        try:
            self._session.retrieve(file.path, compared.write, offset)
            self._done(file, compared.is_complete())
        except _PausedError:
            self._session.close()  # the rest of the file is on its way
            progress.file, progress.offset = file.path, compared.position
            return False
        except _DifferentError:
            self._session.close()
            self._done(file, is_equal=False)
        except PermanentError:
            self._done(file, None)
        return True

    def _fetch_again(self, found: Directory) -> None:
        """Leave the files that differ to tasks that fetch them."""
        different, self._different = self._different, []
        self._walk.leave_different(found.path, different, found.size)


class _Comparison:
    """Compares bytes that arrive with the copy.

    Args:
      kept: The blocks of the copy.
      offset: The number of bytes that were compared before.
      size: The listed size of the file.
      is_over: Returns True when the time is over.
    """

    def __init__(
        self, kept: Iterator[bytes], offset: int, size: int, is_over: Callable[[], bool]
    ) -> None:
        self._kept = kept
        self._block = b""
        self._at = 0
        self._size = size
        self._is_over = is_over
        self.position = 0
        while self.position < offset and self._has_more():
            self._advance(min(offset - self.position, len(self._block) - self._at))

    def write(self, data: memoryview) -> None:
        """Compare bytes.

        Raises:
          _DifferentError: The copy has other bytes.
          _PausedError: The time is over. These bytes are compared.
        """
        while data:
            if not self._has_more():
                raise _DifferentError
            length = min(len(data), len(self._block) - self._at)
            if self._block[self._at : self._at + length] != bytes(data[:length]):
                raise _DifferentError
            self._advance(length)
            data = data[length:]
        if self.position < self._size and self._is_over():
            raise _PausedError

    def is_complete(self) -> bool:
        """Return True if the copy has no further bytes."""
        return not self._has_more()

    def _has_more(self) -> bool:
        while self._at >= len(self._block):
            block = next(self._kept, None)
            if block is None:
                return False
            self._block, self._at = block, 0
        return True

    def _advance(self, length: int) -> None:
        self._at += length
        self.position += length


def verify(walk: Walk, percent: float) -> tuple[TaskResult, bool]:
    """Compare files with the time that is saved up.

    Args:
      walk: The task's walk.
      percent: The share of the time to save up.

    Returns:
      The result, and True if a further task has time to continue.
    """
    ctx = walk.ctx
    progress = ctx.state(PARTITION, Progress) or Progress()
    progress.earn(ctx.now, percent)
    goes_on = False
    if progress.seconds >= MIN_SECONDS and progress.may_begin(ctx.now):
        if progress.began is None:
            progress.begin(ctx.now)
        started = time.monotonic()
        goes_on = Verification(walk, progress).run()
        progress.seconds -= time.monotonic() - started
    result = walk.result()
    result = replace(result, state={**result.state, PARTITION: progress})
    return result, goes_on and progress.seconds >= MIN_SECONDS
