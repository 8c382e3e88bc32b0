"""Hints: events of a provider, which open a run of their account before its next poll.

A hint names an account and, if it can, a part of it. The row of an account in `hint` has the parts
that wait, at most `MAX_PARTS`, so that any number of hints costs one row.

* `add` opens a run immediately. While a run is open, it only marks the account, and the end of that
  run opens the next one in the same transaction.
* A run of hints that found nothing looks again after 5 and 30 seconds, because a provider may send
  an event before its API shows the change.
* A user without a run left on this day (UTC) waits for the next one.
* A run of hints begins at most every `MIN_SECONDS`, and a user has at most `MAX_RUNS_PER_USER` such
  runs in that time. The leader opens the runs that had to wait.

Every transaction locks the account before its row in `hint`. A hint is never data, and it neither
ends a pause nor moves the next poll.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from core.db.clocks import MIN_HINT_SECONDS, passed, recent
from core.db.pool import Conn
from core.errors import NotFound
from core.ledger import carry_over, quotas
from core.ledger.opening import ADD_ROOT, OPEN_RUN, ROOT_KEY
from core.ledger.pauses import PAUSED_DOMAINS
from core.results.text import is_storable
from core.states import AccountState, Lane, RunState, Trigger

MAX_PARTS = 100
"""The number of waiting parts of an account; with more, its complete account waits."""

MAX_PART_CHARS = 1_024
"""The length of a part. A longer one stands for the complete account."""

MAX_RUNS_PER_USER = 20
"""Runs of hints of one user that begin within `MIN_HINT_SECONDS`. Others wait for the leader."""

LOOK_AGAIN_SECONDS = (5.0, 30.0)
"""Pauses before a run that found nothing looks again."""

POLL_FIRST_SECONDS = 5.0
"""The pause after a run of hints during which a poll became due. The leader claims that poll.

Without it, runs of hints that follow one another would keep the account from its polls.
"""

QUOTA_SECONDS = 60.0
"""The pause before the leader looks again whether the user has a run left on this day."""

PORTION = 200
"""The number of accounts whose runs the leader opens at a time."""

MAX_LOOKS = 10
"""The number of portions after which the leader continues a second later."""

COMPLETE_ACCOUNT = ""
"""The part that stands for the complete account."""

_NEXT = f"""CASE WHEN {recent("hint.began_at", "hint.began_at")}
    THEN hint.began_at + interval '{MIN_HINT_SECONDS} seconds' ELSE clock_timestamp() END"""

# The hint waits already, and so does its run.
IS_WAITING = f"""
SELECT 1 FROM hint WHERE user_integration_id = %(account)s AND looks = 0
    AND (parts @> ARRAY[%(part)s] OR parts @> ARRAY['{COMPLETE_ACCOUNT}'])
"""
LOCK_HINTED_ACCOUNT = f"""
SELECT a.user_id, a.integration_domain, a.sync_status = '{AccountState.ACTIVE}', a.resync_due,
    a.integration_domain = ANY (ARRAY({PAUSED_DOMAINS})),
    EXISTS (SELECT FROM sync_run r WHERE r.user_integration_id = a.id
        AND r.lane = '{Lane.LIVE}' AND r.state = '{RunState.RUNNING}')
FROM user_integration a WHERE a.id = %s FOR NO KEY UPDATE OF a
"""
ADD_HINT = f"""
INSERT INTO hint AS hint (user_integration_id, user_id, parts, due_at)
VALUES (%(account)s, %(user)s, ARRAY[%(part)s], clock_timestamp())
ON CONFLICT (user_integration_id) DO UPDATE SET
    parts = CASE
        WHEN hint.parts @> ARRAY[%(part)s] THEN hint.parts
        WHEN cardinality(hint.parts) >= {MAX_PARTS} THEN ARRAY['{COMPLETE_ACCOUNT}']
        ELSE array_append(hint.parts, %(part)s) END,
    looks = 0, hinted_at = clock_timestamp(), due_at = {_NEXT}
"""
# The leader locks each account before it opens its run, and holds the hint back while one is open.
ADD_ALL = f"""
INSERT INTO hint AS hint (user_integration_id, user_id, parts, due_at)
SELECT id, user_id, ARRAY['{COMPLETE_ACCOUNT}'], clock_timestamp() FROM user_integration
WHERE id = ANY(%s::uuid[]) AND sync_status = '{AccountState.ACTIVE}' ORDER BY id
ON CONFLICT (user_integration_id) DO UPDATE SET
    parts = excluded.parts, looks = 0, hinted_at = clock_timestamp(), due_at = {_NEXT}
"""
# The account has no row, or its hints are not due: another process has opened their run.
LOCK_DUE_HINT = f"""
SELECT parts FROM hint WHERE user_integration_id = %s AND {passed("hint.due_at")}
    AND parts <> '{{}}' FOR UPDATE
"""
RUNS_OF_USER = f"""
SELECT count(*) FROM hint WHERE user_id = %s AND {recent("hint.began_at")}
"""
TAKE_HINT = """
UPDATE hint SET taken = parts, parts = '{}', run_id = %(id)s, began_at = clock_timestamp(),
    due_at = NULL
WHERE user_integration_id = %(account)s
"""
# The end of the open run, or of the pause of the integration, makes the hints due.
HOLD_HINT = "UPDATE hint SET due_at = NULL WHERE user_integration_id = %s"
POSTPONE_HINT = """
UPDATE hint SET due_at = clock_timestamp() + %s * interval '1 second'
WHERE user_integration_id = %s
"""
# The user may begin no run now. The due hints of all accounts of the user wait, in their order, so
# that the leader does not look at each of them. It skips hints that another transaction has locked.
# Served by `hint_user`.
POSTPONE_USER = f"""
UPDATE hint SET due_at = clock_timestamp() + %(seconds)s * interval '1 second'
    + late.place * interval '1 microsecond'
FROM (SELECT user_integration_id, row_number() OVER (ORDER BY due_at) AS place FROM (
    SELECT user_integration_id, due_at FROM hint
    WHERE user_id = %(user)s AND {passed("hint.due_at")} FOR UPDATE SKIP LOCKED) locked) late
WHERE hint.user_integration_id = late.user_integration_id
"""
# The account is not active. The run that follows its return looks at everything.
DROP_HINT = "DELETE FROM hint WHERE user_integration_id = %s"

# The end of a live run makes waiting hints due. If the run itself was made by hints and found
# nothing, another run looks at its parts again, at most twice after the latest hint.
RUN_ENDED = f"""
UPDATE hint SET
    parts = CASE WHEN e.again
        THEN ARRAY(SELECT DISTINCT part FROM unnest(hint.parts || hint.taken) part ORDER BY part)
        ELSE hint.parts END,
    looks = CASE WHEN e.again AND hint.parts = '{{}}' THEN hint.looks + 1 ELSE 0 END,
    due_at = CASE WHEN hint.parts <> '{{}}' THEN {_NEXT}
        WHEN e.again THEN clock_timestamp() + (ARRAY[{", ".join(map(str, LOOK_AGAIN_SECONDS))}])
            [hint.looks + 1] * interval '1 second' END,
    taken = '{{}}', run_id = NULL
FROM (SELECT %(nothing)s AND looks < {len(LOOK_AGAIN_SECONDS)} AND run_id = %(run)s AS again
    FROM hint WHERE user_integration_id = %(account)s) e
WHERE user_integration_id = %(account)s AND (parts <> '{{}}' OR run_id = %(run)s)
RETURNING due_at <= clock_timestamp(), user_id
"""
HINTED_PARTS = "SELECT taken FROM hint WHERE user_integration_id = %s AND run_id = %s"

# Served by `hint_due`.
DUE_HINTS = f"""
SELECT user_integration_id, user_id FROM hint
WHERE {passed("hint.due_at")} ORDER BY due_at LIMIT {PORTION}
"""
# An older version ends runs without looking at hints, and so does a person who cancels one. Served
# by `hint_held`.
RELEASE_HINTS = f"""
UPDATE hint SET due_at = clock_timestamp() WHERE user_integration_id IN (
    SELECT h.user_integration_id FROM hint h
    JOIN user_integration a ON a.id = h.user_integration_id
    WHERE h.due_at IS NULL AND h.parts <> '{{}}'
      AND a.integration_domain <> ALL (ARRAY({PAUSED_DOMAINS}))
      AND NOT EXISTS (SELECT FROM sync_run r WHERE r.user_integration_id = a.id
          AND r.lane = '{Lane.LIVE}' AND r.state = '{RunState.RUNNING}')
    ORDER BY 1 LIMIT {PORTION} FOR UPDATE OF h SKIP LOCKED)
"""


def is_waiting(conn: Conn, account: UUID, part: str) -> bool:
    """Return True if a hint of this part, or of the complete account, waits already."""
    params = {"account": account, "part": part}
    return is_storable(part) and conn.execute(IS_WAITING, params).fetchone() is not None


def add(conn: Conn, account: UUID, part: str | None = None) -> bool:
    """Record a hint, and open a run for it if none is open and none began a moment ago.

    Locks, in this order: the account, its hints, its new run, stopped tasks, its backfill run.

    Args:
      conn: A connection in autocommit mode.
      account: The account.
      part: The part of the account that has changed. Default: the complete account.

    Returns:
      True if a run was opened, so that the dispatcher has work.

    Raises:
      NotFound: The account does not exist.
    """
    named = part if part and len(part) <= MAX_PART_CHARS and is_storable(part) else None
    params = {"account": account, "part": named or COMPLETE_ACCOUNT}
    if conn.execute(IS_WAITING, params).fetchone() is not None:
        return False
    with conn.transaction():
        row = conn.execute(LOCK_HINTED_ACCOUNT, (account,)).fetchone()
        if row is None:
            raise NotFound("account-not-found", account=account)
        if not row[2]:
            return False
        conn.execute(ADD_HINT, {**params, "user": row[0]})
        return bool(_open_if_due(conn, account, *row))


def add_all(conn: Conn, accounts: Sequence[UUID]) -> None:
    """Record a hint for each of these accounts that is active. The leader opens their runs.

    It opens at most `PORTION` of them a second, because there may be many.

    Args:
      conn: A connection in autocommit mode.
      accounts: The accounts, in portions of at most some thousand.
    """
    conn.execute(ADD_ALL, (list(accounts),))


def parts_of(conn: Conn, account: str, run: str) -> tuple[str, ...]:
    """Return the parts of the account that the hints of a run named; none: the complete account."""
    row = conn.execute(HINTED_PARTS, (account, run)).fetchone()
    parts = row[0] if row is not None else ()
    return () if COMPLETE_ACCOUNT in parts else tuple(sorted(parts))


def run_ended(conn: Conn, run: Mapping[str, Any]) -> bool:
    """Open the next run of an account whose live run has ended, if hints wait.

    The caller has locked the account, and ends the run in the same transaction.

    Returns:
      True if a run was opened.
    """
    account = run["user_integration_id"]
    nothing = run["state"] == RunState.SUCCEEDED and not (
        run["outputs_saved"] or run["outputs_deleted"]
    )
    params = {"account": account, "run": run["id"], "nothing": nothing}
    row = conn.execute(RUN_ENDED, params).fetchone()
    if row is None or row[0] is not True:
        return False
    if run["trigger"] == Trigger.HINT and run["poll_due"]:
        conn.execute(POSTPONE_HINT, (POLL_FIRST_SECONDS, account))
        return False
    # The caller handles the runs of several users, and must not lock their numbers in this order.
    # The leader opens the run.
    if quotas.are_bounded(conn, row[1]):
        return False
    return bool(_open(conn, account))


def open_due(conn: Conn) -> int:
    """Open the runs of hints that had to wait. Returns the number of new runs.

    Args:
      conn: A connection in autocommit mode.
    """
    opened = 0
    for _ in range(MAX_LOOKS):
        due, full = conn.execute(DUE_HINTS).fetchall(), set[str]()
        for account, user in due:
            if user in full:
                continue
            with conn.transaction():
                is_new = _open(conn, account)
            if is_new is None:
                full.add(user)
            opened += bool(is_new)
        # The users behind those that may begin no run follow immediately.
        if not full or len(due) < PORTION or opened >= PORTION:
            break
    return opened


def release(conn: Conn) -> None:
    """Make hints due whose account has no open run any more."""
    conn.execute(RELEASE_HINTS)


def _open(conn: Conn, account: UUID) -> bool | None:
    row = conn.execute(LOCK_HINTED_ACCOUNT, (account,)).fetchone()
    return False if row is None else _open_if_due(conn, account, *row)


def _open_if_due(
    conn: Conn,
    account: UUID,
    user: str,
    domain: str,
    active: bool,
    resync_due: bool,
    paused: bool,
    is_open: bool,
) -> bool | None:
    """Open a run for the hints of a locked account if they are due and it may run now.

    Returns:
      True if a run was opened. None: the user may begin no run now, and all hints of the user wait.
    """
    if conn.execute(LOCK_DUE_HINT, (account,)).fetchone() is None:
        return False
    if not active:
        conn.execute(DROP_HINT, (account,))
        return False
    if is_open or paused or resync_due:
        conn.execute(HOLD_HINT, (account,))
        return False
    ((begun,),) = conn.execute(RUNS_OF_USER, (user,))
    if begun >= MAX_RUNS_PER_USER:
        conn.execute(POSTPONE_USER, {"user": user, "seconds": MIN_HINT_SECONDS})
        return None
    locked = quotas.lock_runs(conn, [user])
    if user in locked and not locked[user].left:
        conn.execute(POSTPONE_USER, {"user": user, "seconds": QUOTA_SECONDS})
        return None
    quotas.count_runs(conn, locked, {user: 1})
    params: dict[str, Any] = {"account": account, "lane": Lane.LIVE, "complete": False}
    params |= {"id": uuid4(), "domain": domain, "trigger": Trigger.HINT, "root": ROOT_KEY}
    conn.execute(OPEN_RUN, params)
    conn.execute(ADD_ROOT, params)
    conn.execute(TAKE_HINT, params)
    if carry_over.owing(conn, [account]):
        carry_over.continue_tasks(conn, params["id"], account)
    return True
