"""Quotas of users: accounts, bytes of content, and runs on a day (UTC).

A user without a quota of their own has that of the empty user, which the leader writes from the
settings. Requests lock an account before rows of this module, and several users in their order.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date

from core.db.clocks import TODAY
from core.db.pool import Conn
from core.errors import QuotaReached
from core.states import Quota

EVERYONE = ""
"""The user whose quotas apply to users without one of their own."""

MAX_QUOTA = 2**53 - 1
"""The largest number of a quota: all clients read it exactly from JSON (RFC 8259, section 6)."""

MAX_CHANGES = 10_000
"""The number of changes of content that one transaction adds up."""

MAX_JUDGED = 1_000
"""The number of users whose content one look compares with their quotas."""

JUDGE_SECONDS = 10.0
"""The pause after which the leader begins to judge all users again."""


def most(name: Quota, user: str) -> str:
    """Return the expression in SQL for a quota of a user; NULL: no bound. Served by the key.

    Args:
      name: The quota.
      user: The expression for the user's id.
    """
    return f"""(SELECT q.most FROM user_quota q
        WHERE q.user_id IN ({user}, '{EVERYONE}') AND q.name = '{name}'
        ORDER BY q.user_id DESC LIMIT 1)"""


# The default has the smallest key, so that the user's own quota comes first.
SET = """
INSERT INTO user_quota (user_id, name, most) VALUES (%(user)s, %(name)s, %(most)s)
ON CONFLICT (user_id, name) DO UPDATE SET most = excluded.most
WHERE user_quota.most IS DISTINCT FROM excluded.most
"""
DEFAULTS = f"SELECT name, most FROM user_quota WHERE user_id = '{EVERYONE}'"
RESET = "DELETE FROM user_quota WHERE user_id = %(user)s AND name = %(name)s"
ANY_QUOTA = "SELECT EXISTS (SELECT FROM user_quota WHERE name = %s AND most IS NOT NULL)"

# Locks the numbers of this day of the users that have a quota, so that no run begins beside.
LOCK_RUNS = f"""
WITH bounded AS MATERIALIZED (
    SELECT u.id, {most(Quota.RUNS, "u.id")} AS most FROM unnest(%s::text[]) AS u (id)
), locked AS (
    INSERT INTO user_day AS d (user_id, day, runs)
    SELECT id, {TODAY}, 0 FROM bounded WHERE most IS NOT NULL ORDER BY id
    ON CONFLICT (user_id, day) DO UPDATE SET runs = d.runs
    RETURNING user_id, day, runs
)
SELECT l.user_id, l.day, b.most, l.runs FROM locked l JOIN bounded b ON b.id = l.user_id
"""
# The rows are locked.
ADD_RUNS = """
UPDATE user_day SET runs = runs + %(number)s WHERE user_id = %(user)s AND day = %(day)s
"""
ERASE_USE = f"DELETE FROM user_day WHERE user_id = %(user)s AND (day <> {TODAY} OR runs = 0)"
RESET_USE = """
UPDATE user_day SET polls = 0, tasks = 0, thread_seconds = 0, bytes_in = 0, bytes_kept = 0
WHERE user_id = %(user)s
"""
IS_BOUNDED = f"SELECT {most(Quota.RUNS, '%(user)s')} IS NOT NULL"

# Transactions that connect an account of one user follow each other. Other users with the same
# hash wait, too.
LOCK_USER = "SELECT pg_advisory_xact_lock(7301946, hashtext(%s))"
# The unique index of accounts that begins with the user serves it. It counts no more accounts than
# matter: an organization adds 100,000 accounts of one user, one after the other.
QUOTA_OF_ACCOUNTS = f"""
SELECT q.most, (SELECT count(*) FROM (
    SELECT FROM user_integration WHERE user_id = %(user)s LIMIT greatest(q.most, %(enough)s)) a)
FROM (SELECT {most(Quota.ACCOUNTS, "%(user)s")} AS most) q
"""

# Adds changes of content to the totals of their users. Concurrent calls share the changes.
ADD_CHANGES = f"""
WITH gone AS (
    DELETE FROM kept_change WHERE id = ANY (ARRAY(
        SELECT id FROM kept_change WHERE %(user)s::text IS NULL OR user_id = %(user)s
        ORDER BY id LIMIT {MAX_CHANGES} FOR UPDATE SKIP LOCKED))
    RETURNING user_id, bytes
)
INSERT INTO user_kept AS k (user_id, bytes)
SELECT user_id, sum(bytes) FROM gone GROUP BY user_id ORDER BY user_id
ON CONFLICT (user_id) DO UPDATE SET bytes = k.bytes + excluded.bytes
RETURNING user_id
"""
_IS_FULL = f"""coalesce(k.bytes >= {most(Quota.BYTES, "k.user_id")}, false)"""
JUDGE = f"""
UPDATE user_kept k SET is_full = NOT k.is_full
WHERE k.user_id = ANY(%s) AND k.is_full <> {_IS_FULL}
RETURNING k.user_id, k.is_full
"""
# Without content, only a quota of 0 is reached. Other users without content have no row.
ADD_EMPTY = f"""
INSERT INTO user_kept (user_id) SELECT u.id FROM unnest(%s::text[]) AS u (id)
WHERE {most(Quota.BYTES, "u.id")} = 0 ORDER BY u.id ON CONFLICT (user_id) DO NOTHING
"""
NEXT_KEPT = "SELECT user_id FROM user_kept WHERE user_id > %s ORDER BY user_id LIMIT %s"
FORGET_EMPTY = "DELETE FROM user_kept WHERE user_id = ANY(%s) AND bytes = 0 AND NOT is_full"
REACHED_BYTES = f"""
SELECT k.bytes, {most(Quota.BYTES, "k.user_id")} FROM user_kept k
WHERE k.user_id = %s AND k.is_full
"""
IS_FULL = "SELECT FROM user_kept k WHERE k.user_id = u.user_id AND k.is_full"
"""The condition, for EXISTS, that the content of the account `u` has reached its user's quota."""


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of a user that have begun on a day, locked.

    Attributes:
      most: The quota.
    """

    day: date
    most: int
    begun: int

    @property
    def left(self) -> int:
        """The number of runs that may begin."""
        return max(self.most - self.begun, 0)


class Judge:
    """Compares the kept bytes of users with their quotas, some users at a time."""

    def __init__(self) -> None:
        self._after = ""
        self._due = 0.0

    def look(self, conn: Conn) -> bool:
        """Add up the changes of content, and judge the users whose content has changed.

        Every `JUDGE_SECONDS`, it begins to judge all users, because a default may have changed.

        Returns:
          True if tasks of a user may continue that have waited.
        """
        users = add_changes(conn)
        if time.monotonic() >= self._due:
            more = [user for (user,) in conn.execute(NEXT_KEPT, (self._after, MAX_JUDGED))]
            is_last = len(more) < MAX_JUDGED
            self._after = "" if is_last else more[-1]
            self._due = time.monotonic() + JUDGE_SECONDS if is_last else 0.0
            users += more
        return judge(conn, users)


def set_default(conn: Conn, quotas: Mapping[str, int | None]) -> None:
    """Set the quotas of users without one of their own; a name with None has no bound."""
    wanted = {name: number for name, number in quotas.items() if number is not None}
    present: dict[str, int] = dict(conn.execute(DEFAULTS).fetchall())
    with conn.transaction() if present != wanted else nullcontext():
        for name in present.keys() - wanted.keys():
            conn.execute(RESET, {"user": EVERYONE, "name": name})
        for name, number in wanted.items() - present.items():
            conn.execute(SET, {"user": EVERYONE, "name": name, "most": number})


def lock_runs(conn: Conn, users: Iterable[str]) -> dict[str, Runs]:
    """Lock the runs of this day of the users that have a quota. Call this in a transaction."""
    rows = conn.execute(LOCK_RUNS, (sorted(set(users)),)).fetchall()
    return {user: Runs(day, quota, begun) for user, day, quota, begun in rows}


def count_runs(conn: Conn, locked: Mapping[str, Runs], begun: Mapping[str, int]) -> None:
    """Count runs that begin in this transaction, which has locked the numbers of their users."""
    for user, number in begun.items():
        if user in locked and number:
            day = locked[user].day
            conn.execute(ADD_RUNS, {"user": user, "day": day, "number": number})


def take_runs(conn: Conn, wanted: Mapping[str, int]) -> None:
    """Count runs that people request, and that begin in this transaction.

    Args:
      conn: A connection in a transaction, which has locked the accounts.
      wanted: The number of runs, by user.

    Raises:
      QuotaReached: The runs would exceed a quota; or the content of a user has reached its quota,
        and tasks would not run.
    """
    if not wanted:
        return
    for user in sorted(wanted):
        require_room(conn, user)
    locked = lock_runs(conn, wanted)
    for user, runs in sorted(locked.items()):
        if wanted[user] > runs.left:
            raise QuotaReached("runs-quota-reached", user=user, begun=runs.begun, most=runs.most)
    count_runs(conn, locked, wanted)


def are_bounded(conn: Conn, user: str) -> bool:
    """Return True if a user has a quota of runs."""
    row = conn.execute(IS_BOUNDED, {"user": user}).fetchone()
    return row is not None and bool(row[0])


def any_of(conn: Conn, name: Quota) -> bool:
    """Return True if a user has such a quota."""
    row = conn.execute(ANY_QUOTA, (name,)).fetchone()
    return row is not None and bool(row[0])


def require_room(conn: Conn, user: str) -> None:
    """Raise QuotaReached if the content of a user has reached its quota."""
    row = conn.execute(REACHED_BYTES, (user,)).fetchone()
    if row is not None:
        raise QuotaReached("bytes-quota-reached", user=user, kept=row[0], most=row[1])


def lock_accounts(conn: Conn, user: str) -> None:
    """Let other transactions wait that connect an account of a user."""
    conn.execute(LOCK_USER, (user,))


def require_place(conn: Conn, user: str, enough: int = 0) -> int:
    """Check that a user may have one more account. Call this after `lock_accounts`.

    Args:
      conn: A connection in a transaction.
      user: The user.
      enough: The number to which accounts are counted at least. Default: to the quota.

    Returns:
      The number of accounts of the user, as far as they are counted.

    Raises:
      QuotaReached: The user has as many accounts as the quota allows.
    """
    ((quota, number),) = conn.execute(QUOTA_OF_ACCOUNTS, {"user": user, "enough": enough})
    if quota is not None and number >= quota:
        raise QuotaReached("accounts-quota-reached", user=user, number=number, most=quota)
    return int(number)


def add_changes(conn: Conn, user: str | None = None) -> list[str]:
    """Add changes of content to the totals of their users. Returns the users.

    Args:
      conn: A connection.
      user: The only user. Default: all.
    """
    return [changed for (changed,) in conn.execute(ADD_CHANGES, {"user": user})]


def judge(conn: Conn, users: Iterable[str]) -> bool:
    """Compare the content of users with their quotas. Returns True if one has room again."""
    named = sorted(set(users))
    if not named:
        return False
    conn.execute(ADD_EMPTY, (named,))
    has_room = False
    # Again after a change: a quota may have changed since the statement began.
    while rows := conn.execute(JUDGE, (named,)).fetchall():
        has_room |= any(not is_full for _, is_full in rows)
    conn.execute(FORGET_EMPTY, (named,))
    return has_room


def set_quotas(conn: Conn, user: str, quotas: Mapping[Quota, int | None]) -> None:
    """Set quotas of a user; None: no bound."""
    for name, number in quotas.items():
        conn.execute(SET, {"user": user, "name": name, "most": number})


def reset_quotas(conn: Conn, user: str, names: Iterable[Quota]) -> None:
    """Let the defaults apply to a user again."""
    for name in names:
        conn.execute(RESET, {"user": user, "name": name})


def erase(conn: Conn, user: str) -> None:
    """Delete the total of a user whose content is deleted, and the use of the user.

    The quotas stay, and so does the number of runs of this day: a user with a token that may erase
    would otherwise have more than the operator allows. `pruning.PRUNE_UNUSED` deletes the number.
    """
    conn.execute(ERASE_USE, {"user": user})
    conn.execute(RESET_USE, {"user": user})
    while add_changes(conn, user):
        pass
    judge(conn, [user])
