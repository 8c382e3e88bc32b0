"""Paths that were not fetched: remembered by directory.

Paths that the server refuses are tried again at growing intervals.
"""

from __future__ import annotations

import hashlib
import time

from pydantic import BaseModel, Field

from core import Context

FIRST_PAUSE_SECONDS = 15 * 60.0
BUSY_PAUSE_SECONDS = 60.0
MAX_PAUSE_SECONDS = 24 * 3600.0
"""The first interval until a refused or a busy path is tried again, and the longest one."""

MAX_REMEMBERED = 2_000
"""The number of refused paths of a directory that are remembered. Others are tried in each run."""


class Refusal(BaseModel):
    """A path that the server refused.

    Attributes:
      version: `Entry.version` at the time. Another version is tried immediately.
      tries: The number of refusals in a row.
      until: The time of the next try, in seconds since the epoch.
      reason: The reply of the server.
    """

    version: str
    tries: int
    until: float
    reason: str


class Refusals(BaseModel):
    """The paths of one directory that were not fetched, by name as it is stored.

    Attributes:
      paths: The refused paths.
      changing: The files that changed between two looks, with the version of the second one.
    """

    paths: dict[str, Refusal] = Field(default_factory=dict)
    changing: dict[str, str] = Field(default_factory=dict)


class Memory:
    """The refused paths of the directories that a task reads.

    Args:
      ctx: The task's context, whose state keeps them.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._read: dict[str, Refusals] = {}
        self._changed: set[str] = set()

    def waiting(self, directory: str, name: str, version: str) -> Refusal | None:
        """Return the refusal of a path that must not be tried yet; None if it may be tried."""
        refusal = self._of(directory).paths.get(name)
        if refusal is None or refusal.version != version or refusal.until <= time.time():
            return None
        return refusal

    def refused(
        self, directory: str, name: str, version: str, reason: str, *, may_pass: bool = False
    ) -> None:
        """Remember a refusal: the next try waits twice as long as the one before.

        Args:
          directory: The path of the directory.
          name: The name in it.
          version: `Entry.version`.
          reason: The reply of the server.
          may_pass: True if the refusal is of a kind that may pass soon. Default: False.
        """
        paths = self._of(directory).paths
        before = paths.get(name)
        tries = before.tries + 1 if before is not None and before.version == version else 1
        if name in paths or len(paths) < MAX_REMEMBERED:
            first = BUSY_PAUSE_SECONDS if may_pass else FIRST_PAUSE_SECONDS
            pause = min(first * 2 ** (tries - 1), MAX_PAUSE_SECONDS)
            paths[name] = Refusal(
                version=version, tries=tries, until=time.time() + pause, reason=reason[:200]
            )
            self._changed.add(directory)

    def changing(self, directory: str, name: str, version: str) -> None:
        """Remember the version of a file that changed between two looks."""
        files = self._of(directory).changing
        if name in files or len(files) < MAX_REMEMBERED:
            files[name] = version
            self._changed.add(directory)

    def rests(self, directory: str, name: str, version: str) -> bool:
        """Return True if a file that was changing has still the version of that look."""
        return self._of(directory).changing.get(name) == version

    def worked(self, directory: str, name: str) -> None:
        """Forget a path that the server gave, or no longer lists."""
        kept = self._of(directory)
        known = [files.pop(name, None) for files in (kept.paths, kept.changing)]
        if any(each is not None for each in known):
            self._changed.add(directory)

    def names(self, directory: str) -> set[str]:
        """Return the names of the paths of a directory that were not fetched."""
        kept = self._of(directory)
        return {*kept.paths, *kept.changing}

    def changes(self) -> dict[str, Refusals | None]:
        """Return the state to write, by partition; None deletes a partition."""
        return {
            _partition(directory): kept if kept.paths or kept.changing else None
            for directory in self._changed
            for kept in [self._read[directory]]
        }

    def _of(self, directory: str) -> Refusals:
        if directory not in self._read:
            partition = _partition(directory)
            self._read[directory] = self._ctx.state(partition, Refusals) or Refusals()
        return self._read[directory]


def _partition(directory: str) -> str:
    name = f"refused {directory}"
    if len(name.encode()) <= 1_000:
        return name
    return f"refused {hashlib.sha256(directory.encode()).hexdigest()}"
