"""The use of users: what their tasks took of the fleet."""

from __future__ import annotations

from core.db.pool import Conn
from core.db.rows import Row, fetch

_SUMS = """sum(polls)::bigint AS polls, sum(tasks)::bigint AS tasks,
    sum(thread_seconds)::float AS thread_seconds, sum(bytes_in)::bigint AS bytes_in,
    sum(bytes_kept)::bigint AS bytes_kept"""
_SINCE = "day > (clock_timestamp() AT TIME ZONE 'UTC')::date - %(days)s::int"

# The users with the most thread-seconds. The index `user_day_day` serves it.
USERS = f"""
SELECT user_id, {_SUMS} FROM user_day
WHERE {_SINCE} AND (%(user)s::text IS NULL OR user_id = %(user)s)
GROUP BY user_id ORDER BY thread_seconds DESC, user_id LIMIT %(limit)s
"""
# The primary key serves it.
DAYS = f"""
SELECT day, polls, tasks, thread_seconds, bytes_in, bytes_kept FROM user_day
WHERE user_id = %(user)s AND {_SINCE} ORDER BY day DESC
"""
# Today's largest users by name, and all others together. The index `user_day_day` serves it.
LARGEST = """
SELECT CASE WHEN place <= %(named)s THEN user_id ELSE '' END AS user, sum(polls)::bigint AS polls,
    sum(tasks)::bigint AS tasks, sum(thread_seconds)::float AS thread_seconds,
    sum(bytes_in)::bigint AS bytes_in, sum(bytes_kept)::bigint AS bytes_kept
FROM (
    SELECT *, row_number() OVER (ORDER BY thread_seconds DESC, user_id) AS place FROM user_day
    WHERE day = (clock_timestamp() AT TIME ZONE 'UTC')::date
) ranked GROUP BY 1 ORDER BY 1
"""

MAX_DAYS = 400
"""The number of days that are kept."""

NAMED_USERS = 20
"""The number of users that metrics name. The others are one series, so that series are bounded."""


def of_users(conn: Conn, *, days: int = 1, user: str | None = None, limit: int = 50) -> list[Row]:
    """Return the use of users in the latest days (UTC), today included.

    Args:
      conn: A connection.
      days: The number of days. Default: today alone.
      user: The only user to return. Default: all.
      limit: The maximum number of users: those with the most thread-seconds. Default: 50.
    """
    return fetch(conn, USERS, {"days": days, "user": user, "limit": limit})


def by_day(conn: Conn, user: str, days: int = 30) -> list[Row]:
    """Return the use of a user on each of the latest days (UTC), the newest first."""
    return fetch(conn, DAYS, {"user": user, "days": days})


def largest(conn: Conn) -> list[Row]:
    """Return today's use of the largest users, and of all others as the user with an empty id."""
    return fetch(conn, LARGEST, {"named": NAMED_USERS})
