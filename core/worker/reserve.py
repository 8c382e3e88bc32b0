"""The threads of this process that are reserved for users that hold none."""

from __future__ import annotations

RESERVED = 10
"""One thread of this number is reserved in a group of processes that serve the same domains."""

MIN_THREADS = 4
"""The number of threads of a group from which at least one is reserved."""


def reserved(threads: int) -> int:
    """Return the number of reserved threads in a group of processes with this many threads."""
    return max(threads // RESERVED, 1) if threads >= MIN_THREADS else 0


class Reserve:
    """The part of its group's reserve that this process keeps.

    The group's reserve is divided among its processes by their places, so that they agree without
    asking each other. Until the first heartbeat, the process counts itself alone.

    Attributes:
      threads: The number of threads of this process.
      kept: The number of them that are reserved.
    """

    def __init__(self) -> None:
        self.threads = 0
        self.kept = 0

    def open(self, threads: int) -> None:
        """Set the number of threads of this process."""
        self.threads, self.kept = threads, reserved(threads)

    def divide(self, threads: int, processes: int, place: int) -> None:
        """Take this process's part.

        Args:
          threads: The number of threads of the group.
          processes: The number of its processes.
          place: The place of this process among them, from 0.
        """
        if not processes:
            return
        each, rest = divmod(reserved(threads), processes)
        self.kept = each + (place < rest)
