"""The quotas of users, their use, and changes of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from core.db.clocks import TODAY, TOMORROW
from core.db.pool import Conn
from core.db.rows import Row, fetch
from core.ledger import quotas as ledger
from core.ledger.quotas import most
from core.service.accounts.actions import require_text
from core.service.backend import Backend
from core.states import Quota

# The total of bytes has the changes that the leader has not added yet. Runs are counted only while
# a quota bounds them. Keys that begin with the user serve all but the changes, which are few.
OF_USERS = f"""
SELECT u.id AS user_id,
    (SELECT count(*) FROM user_integration a WHERE a.user_id = u.id) AS accounts,
    (coalesce((SELECT k.bytes FROM user_kept k WHERE k.user_id = u.id), 0)
        + coalesce((SELECT sum(c.bytes) FROM kept_change c WHERE c.user_id = u.id), 0))::bigint
        AS bytes,
    coalesce((SELECT d.runs FROM user_day d WHERE d.user_id = u.id AND d.day = {TODAY}), 0) AS runs,
    {most(Quota.ACCOUNTS, "u.id")} AS most_accounts, {most(Quota.BYTES, "u.id")} AS most_bytes,
    {most(Quota.RUNS, "u.id")} AS most_runs,
    ARRAY(SELECT q.name FROM user_quota q WHERE q.user_id = u.id) AS own, {TOMORROW} AS tomorrow
FROM unnest(%(users)s::text[]) AS u (id) ORDER BY u.id
"""
# Users with accounts, and users with quotas of their own.
NEXT_USERS = f"""
(SELECT DISTINCT user_id FROM user_integration WHERE user_id > %(after)s
    ORDER BY user_id LIMIT %(limit)s)
UNION
(SELECT DISTINCT user_id FROM user_quota WHERE user_id > %(after)s
        AND user_id <> '{ledger.EVERYONE}'
    ORDER BY user_id LIMIT %(limit)s)
ORDER BY user_id LIMIT %(limit)s
"""

Change = int | None | Literal["default"]
"""A new quota; None: no bound; `default`: that of users without one of their own."""


def of_users(conn: Conn, users: Iterable[str]) -> list[Row]:
    """Return the quotas of users.

    Each row has `user_id`, `runs_reset_at`, and for each name of a quota: `used`, `most` (None: no
    bound) and `is_default`.
    """
    rows = fetch(conn, OF_USERS, {"users": sorted(set(users))})
    return [
        {
            "user_id": row["user_id"],
            **{
                str(name): {
                    "used": row[name],
                    "most": row[f"most_{name}"],
                    "is_default": name not in row["own"],
                }
                for name in Quota
            },
            "runs_reset_at": row["tomorrow"],
        }
        for row in rows
    ]


def of_user(conn: Conn, user: str) -> Row:
    """Return the quotas of one user, as `of_users` does."""
    return of_users(conn, [user])[0]


def page(conn: Conn, after: str = "", limit: int = 50) -> tuple[list[Row], str | None]:
    """Return the quotas of the users after this one, in the order of their ids.

    Returns:
      The rows, and the user after whom the next page begins; None: no user follows.
    """
    named = conn.execute(NEXT_USERS, {"after": after, "limit": limit + 1}).fetchall()
    users = [user for (user,) in named[:limit]]
    return of_users(conn, users), users[-1] if len(named) > limit else None


def of_all(conn: Conn) -> Iterator[Row]:
    """Yield the quotas of all users that have accounts or quotas of their own."""
    after: str | None = ""
    while after is not None:
        rows, after = page(conn, after, limit=500)
        yield from rows


def change(backend: Backend, user: str, changes: Mapping[Quota, Change]) -> Row:
    """Change quotas of a user, and return all of them as `of_users` does.

    Work that waits for content continues immediately if the new quota allows it. Accounts that wait
    for runs continue at their next poll.

    Raises:
      InvalidInput: The user's id is not valid.
    """
    require_text(user_id=user)
    reset = [name for name, number in changes.items() if number == "default"]
    numbers = {name: number for name, number in changes.items() if not isinstance(number, str)}
    with backend.database.connection() as conn:
        with conn.transaction():
            ledger.set_quotas(conn, user, numbers)
            ledger.reset_quotas(conn, user, reset)
            ledger.add_changes(conn, user)
            ledger.judge(conn, [user])
        after = of_user(conn, user)
    backend.wake()
    return after
