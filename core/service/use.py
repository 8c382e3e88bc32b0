"""The use of users: what their tasks took of the fleet."""

from __future__ import annotations

from collections.abc import Mapping

from core.db.clocks import TODAY
from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.service.pagination import Keyset, Page

USER_KEY = Keyset({"user_id": "text"})
SIZE_KEY = Keyset({"place": "float8", "user_id": "text"})

_SUMS = """sum(polls)::bigint AS polls, sum(tasks)::bigint AS tasks,
    sum(thread_seconds)::float AS thread_seconds, sum(bytes_in)::bigint AS bytes_in,
    sum(bytes_kept)::bigint AS bytes_kept"""
_SINCE = f"day > {TODAY} - %(days)s::int"

_OF_USERS = f"""
SELECT user_id, {_SUMS} FROM user_day
WHERE {_SINCE} AND (%(user)s::text IS NULL OR user_id = %(user)s) GROUP BY user_id
"""
# The index `user_day_day` serves the statements. They sum up all users of the days for each page.
BY_ID = f"""
SELECT * FROM ({_OF_USERS}) u
WHERE {USER_KEY.is_first_page} OR (user_id) > {USER_KEY.place} ORDER BY user_id LIMIT %(limit)s
"""
LARGEST_FIRST: Mapping[str, str] = {
    column: f"""
    SELECT * FROM (SELECT *, (-{column})::float AS place FROM ({_OF_USERS}) u) u
    WHERE {SIZE_KEY.is_first_page} OR (place, user_id) > {SIZE_KEY.place}
    ORDER BY place, user_id LIMIT %(limit)s
    """
    for column in ("polls", "tasks", "thread_seconds", "bytes_in", "bytes_kept")
}
# The primary key serves it.
USE_BY_DAY = f"""
SELECT day, polls, tasks, thread_seconds, bytes_in, bytes_kept FROM user_day
WHERE user_id = %(user)s AND {_SINCE} ORDER BY day DESC
"""
# Today's largest users by name, and all others together. The index `user_day_day` serves it.
LARGEST = f"""
SELECT CASE WHEN place <= %(named)s THEN user_id ELSE '' END AS user, sum(polls)::bigint AS polls,
    sum(tasks)::bigint AS tasks, sum(thread_seconds)::float AS thread_seconds,
    sum(bytes_in)::bigint AS bytes_in, sum(bytes_kept)::bigint AS bytes_kept
FROM (
    SELECT *, row_number() OVER (ORDER BY thread_seconds DESC, user_id) AS place FROM user_day
    WHERE day = {TODAY}
) ranked GROUP BY 1 ORDER BY 1
"""

MAX_DAYS = 400
"""The number of days that are kept."""

NAMED_USERS = 20
"""The number of users that metrics name. The others are one series, so that series are bounded."""


def of_users(
    conn: Conn,
    *,
    days: int = 1,
    user: str | None = None,
    sort: str = "thread_seconds",
    limit: int = 50,
    after: str | None = None,
) -> Page:
    """Return the use of users in the latest days (UTC), today included.

    Args:
      conn: A connection.
      days: The number of days. Default: today alone.
      user: The only user to return. Default: all.
      sort: `user_id`, or the number whose largest values come first. Default: thread-seconds.
      limit: The maximum number of users. Default: 50.
      after: The cursor of the page before. Default: the first page.

    Raises:
      InvalidInput: The cursor is invalid.
    """
    key = USER_KEY if sort == "user_id" else SIZE_KEY
    params = {"days": days, "user": user} | key.params(limit, after)
    return key.read(conn, BY_ID if sort == "user_id" else LARGEST_FIRST[sort], params)


def by_day(conn: Conn, user: str, days: int = 30) -> list[Row]:
    """Return the use of a user on each of the latest days (UTC), the newest first."""
    return fetch(conn, USE_BY_DAY, {"user": user, "days": days})


def largest(conn: Conn) -> list[Row]:
    """Return today's use of the largest users, and of all others as the user with an empty id."""
    return fetch(conn, LARGEST, {"named": NAMED_USERS})
