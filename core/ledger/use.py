"""The use of each user, by day (UTC): what its tasks took of the fleet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass

from core.db.clocks import TODAY
from core.db.pool import Conn
from core.results.text import json_text

# Each process adds its numbers with each heartbeat, so that no row is hot. The rows are locked in
# the order of their users.
ADD_USE = f"""
INSERT INTO user_day AS d (user_id, day, polls, tasks, thread_seconds, bytes_in, bytes_kept)
SELECT user_id, {TODAY}, polls, tasks, thread_seconds,
    bytes_in, bytes_kept
FROM json_to_recordset(%s::json) AS r(user_id text, polls bigint, tasks bigint,
    thread_seconds float, bytes_in bigint, bytes_kept bigint)
ORDER BY user_id
ON CONFLICT (user_id, day) DO UPDATE SET polls = d.polls + excluded.polls,
    tasks = d.tasks + excluded.tasks,
    thread_seconds = d.thread_seconds + excluded.thread_seconds,
    bytes_in = d.bytes_in + excluded.bytes_in, bytes_kept = d.bytes_kept + excluded.bytes_kept
"""


@dataclass(slots=True)
class Use:
    """Numbers of the tasks of a user.

    Attributes:
      polls: The runs whose first task has ended.
      tasks: The tasks that have ended.
      thread_seconds: The time for which its tasks held a thread.
      bytes_in: The size of the content that tasks returned.
      bytes_kept: The part of it that was new or had changed.
    """

    polls: int = 0
    tasks: int = 0
    thread_seconds: float = 0.0
    bytes_in: int = 0
    bytes_kept: int = 0

    def __add__(self, other: Use) -> Use:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Use(*(one + another for one, another in pairs))


def add_use(conn: Conn, used: Mapping[str, Use]) -> None:
    """Add numbers of this process to the use of users."""
    if used:
        conn.execute(ADD_USE, (json_text([_row(user, used[user]) for user in sorted(used)]),))


def _row(user: str, use: Use) -> dict[str, object]:
    return {
        "user_id": user,
        "polls": use.polls,
        "tasks": use.tasks,
        "thread_seconds": use.thread_seconds,
        "bytes_in": use.bytes_in,
        "bytes_kept": use.bytes_kept,
    }
