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

    The group's reserve is divided among its processes in the order of their ids, so that they agree
    without asking each other. Each process has at least one thread for all users. So processes with
    one thread keep nothing, and the dispatcher keeps a reserve that does not fit into the others.
    Until the first heartbeat, the process counts itself alone.

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

    def divide(self, threads: int, spare: int, before: int) -> None:
        """Take this process's part.

        Args:
          threads: The number of threads of the group.
          spare: The number of them that may be reserved: all but one of each process.
          before: The number of those in the processes before this one.
        """
        if not threads:
            return
        own, most = self.threads - 1, min(reserved(threads), spare)
        self.kept = (before + own) * most // spare - before * most // spare if spare else 0


def needs_bound(threads: int, processes: int) -> bool:
    """Return True if the processes of a group cannot keep its reserve.

    Too many of them have one thread, and do not know the running tasks of the others. Then the
    dispatcher sends no more tasks of a user than it may hold threads.
    """
    return threads - processes < reserved(threads)
