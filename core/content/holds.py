"""Held deletions: what a listing no longer has, until a person decides.

A held deletion covers the items that were missing when the engine held it, by their ids. Items are
taken out of it, and never added: a person accepts exactly what was shown.

`total` is at least the number of items that a held deletion ever had. The index keeps the entries
of items that were taken out, until vacuum removes them. A search for the items that are left passes
over all these entries: after a million items, that takes half a second. So no transaction searches
for the items of a held deletion that had many. It is dropped, and the leader deletes it as soon as
that is quick.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from core.content.guard import NONE, Decisions, Lost
from core.content.missing import LIVE_BEFORE, UNSEEN
from core.db.pool import Conn
from core.db.short_transactions import (
    DIRECT_ROWS,
    MAX_ROWS,
    TARGET_SECONDS,
    in_portions,
    statement_in_portions,
)
from core.results.delete_guard import DeleteGuard
from core.states import Deletions, HeldState, HoldSource, RunState, ShownHeldState, literals

# Served by the index on the account: few accounts have held deletions.
DECIDED = f"""
SELECT c.external_id, h.state = '{HeldState.HELD}',
    h.state = '{HeldState.ACCEPTED}' AND h.decided_at <= %(began)s AND {UNSEEN}
FROM held_deletion h JOIN held_deletion_item c ON c.held_deletion_id = h.id
WHERE h.user_integration_id = %(account)s AND c.external_id = ANY(%(ids)s)
  AND (h.state IN ('{HeldState.ACCEPTED}', '{HeldState.REFUSED}')
    OR h.state = '{HeldState.HELD}' AND h.total >= %(floor)s)
"""
HELD_STATES = "SELECT DISTINCT state FROM held_deletion WHERE user_integration_id = %s"

# Items whose deletion already waits, in one held deletion of the same part of the source. A large
# one is replaced, because its other items would go in one statement.
COVERING = f"""
SELECT h.id FROM held_deletion h
WHERE h.user_integration_id = %(account)s AND h.state = '{HeldState.HELD}'
  AND h.source = %(source)s AND h.parent IS NOT DISTINCT FROM %(parent)s
  AND h.vanished <= %(portion)s AND h.total <= %(entries)s
  AND (SELECT count(*) FROM held_deletion_item i
       WHERE i.held_deletion_id = h.id AND i.external_id = ANY(%(ids)s)) = %(items)s
ORDER BY h.id LIMIT 1
"""
HOLD_DELETION = """
INSERT INTO held_deletion (
    user_integration_id, run_id, source, parent, since, until, vanished, total)
VALUES (%(account)s, %(run)s, %(source)s, %(parent)s, %(since)s, %(until)s, %(items)s, %(total)s)
RETURNING id
"""
HELD_BY_RUN = "UPDATE held_deletion SET run_id = %(run)s, total = %(total)s WHERE id = %(hold)s"
HOLD_ITEMS = """
INSERT INTO held_deletion_item (held_deletion_id, external_id)
SELECT %(hold)s, id FROM unnest(%(ids)s::text[]) AS id
ON CONFLICT DO NOTHING
"""
# A later listing of the same part of the source replaces the deletion that waits. `hold` is the one
# that stays.
REPLACED = f"""
SELECT id FROM held_deletion
WHERE user_integration_id = %(account)s AND source = '{HoldSource.LISTING}'
  AND state = ANY(%(states)s)
  AND parent IS NOT DISTINCT FROM %(parent)s
  AND since IS NOT DISTINCT FROM %(since)s::timestamptz
  AND until IS NOT DISTINCT FROM %(until)s::timestamptz
  AND id IS DISTINCT FROM %(hold)s
ORDER BY id FOR UPDATE
"""
REPLACEABLE = (HeldState.HELD, HeldState.COUNTING)
# The planner puts the comparison of `total` before the search.
DISCARD_SMALL = """
DELETE FROM held_deletion h WHERE id = %(hold)s AND total <= %(entries)s
  AND (SELECT count(*) FROM (
      SELECT FROM held_deletion_item WHERE held_deletion_id = h.id LIMIT %(portion)s + 1) i)
      <= %(portion)s
"""
DROP_HELD = (
    f"UPDATE held_deletion SET state = '{HeldState.DROPPED}', parent = NULL WHERE id = %(hold)s"
)
HAS_ITEMS = "SELECT EXISTS (SELECT FROM held_deletion_item WHERE held_deletion_id = %(hold)s)"
DELETE_EMPTY = "DELETE FROM held_deletion WHERE id = %(hold)s"
# A sweep of single deletions continues in a later run, also if a person cancelled its own.
ABANDONED = f"""
SELECT h.id FROM held_deletion h
WHERE h.state = '{HeldState.DROPPED}'
  OR h.state = '{HeldState.COUNTING}' AND h.source = '{HoldSource.LISTING}' AND NOT EXISTS (
    SELECT FROM sync_run r WHERE r.id = h.run_id AND r.state = '{RunState.RUNNING}')
"""
# The cursor passes the entries of deleted rows in the index.
PRUNE_ITEMS = """
WITH gone AS (
    DELETE FROM held_deletion_item
    WHERE held_deletion_id = %(hold)s AND external_id = ANY (ARRAY(
        SELECT external_id FROM held_deletion_item
        WHERE held_deletion_id = %(hold)s AND external_id > %(after)s
        ORDER BY external_id LIMIT %(most)s))
    RETURNING external_id)
SELECT count(*), max(external_id) FROM gone
"""
# Counts the items that the statement before it deleted, which are named `taken`.
_COUNT_TAKEN = """
, counted AS (SELECT held_deletion_id AS id, count(*) AS items FROM taken GROUP BY 1)
UPDATE held_deletion h SET vanished = h.vanished - counted.items
FROM counted WHERE h.id = counted.id
"""
# The same items may wait in the listing of another time window, such as that of yesterday.
TAKE_OUT = f"""
WITH taken AS (
DELETE FROM held_deletion_item i USING held_deletion h
WHERE h.user_integration_id = %(account)s AND h.state = '{HeldState.HELD}'
  AND h.id IS DISTINCT FROM %(hold)s
  AND i.held_deletion_id = h.id AND i.external_id = ANY(%(ids)s)
RETURNING i.held_deletion_id
) {_COUNT_TAKEN}
"""
NEXT_ITEMS = """
SELECT external_id FROM held_deletion_item
WHERE held_deletion_id = %(hold)s AND external_id > %(after)s ORDER BY external_id LIMIT %(most)s
"""
KEEP_ONLY = f"""
WITH taken AS (
DELETE FROM held_deletion_item
WHERE held_deletion_id = %(hold)s AND external_id <> ALL(%(ids)s)
RETURNING held_deletion_id
) {_COUNT_TAKEN}
"""

# Items that need no decision any more: they are deleted, or the source has shown them in this run
# or since it began. One look for each item, by the unique index and the primary key.
RELEASE_ITEMS = f"""
WITH taken AS (
DELETE FROM held_deletion_item WHERE held_deletion_id = %(hold)s AND external_id = ANY (ARRAY(
    SELECT i.external_id FROM unnest(%(ids)s::text[]) AS i (external_id)
    WHERE (SELECT c.id FROM user_integration_content c
        WHERE c.user_integration_id = %(account)s AND c.external_id = i.external_id
          AND {LIVE_BEFORE} AND {UNSEEN}
        LIMIT 1) IS NULL))
RETURNING held_deletion_id
) {_COUNT_TAKEN}
"""
# Another run that began earlier, such as a backfill, may have met the items before they
# disappeared.
DECIDABLE = f"""
SELECT id FROM held_deletion
WHERE user_integration_id = %(account)s AND state IN ({literals(ShownHeldState)})
  AND (run_id = %(run)s OR created_at <= %(began)s)
"""
# For a query of runs named `ended`.
HAS_DECIDABLE = f"""
EXISTS (SELECT FROM held_deletion h WHERE h.user_integration_id = ended.user_integration_id
    AND h.state IN ({literals(ShownHeldState)}))
"""
# An account may have been set to keep items while one of its sweeps was under way.
DROP_OF_KEEPER = f"""
UPDATE held_deletion h SET state = '{HeldState.DROPPED}'
FROM user_integration a
WHERE h.user_integration_id = %s AND h.state IN ('{HeldState.HELD}', '{HeldState.ACCEPTED}')
  AND a.id = h.user_integration_id AND a.deletions = '{Deletions.KEEP}'
"""
NUMBER = f"""
SELECT coalesce(sum(vanished), 0) FROM held_deletion
WHERE user_integration_id = %s AND state IN ({literals(ShownHeldState)})
"""
HAS_SEEN = "SELECT EXISTS (SELECT FROM sync_seen WHERE run_id = %s)"
EMPTY_HELD = f"""
SELECT id FROM held_deletion h
WHERE user_integration_id = %(account)s AND state IN ({literals(ShownHeldState)})
  AND (vanished <= 0 OR total <= %(entries)s
    AND NOT EXISTS (SELECT FROM held_deletion_item i WHERE i.held_deletion_id = h.id))
ORDER BY id FOR UPDATE
"""
# A run that listed everything has ended, and did not come to these items: a person decides again.
# After a run with failures, the next one tries again, for a week.
HOLD_AGAIN = f"""
UPDATE held_deletion h SET state = '{HeldState.HELD}', decided_at = NULL
WHERE h.user_integration_id = %(account)s AND h.state = '{HeldState.ACCEPTED}'
  AND h.decided_at <= %(began)s
  AND (%(succeeded)s OR h.decided_at < now() - interval '7 days')
  AND NOT EXISTS (SELECT FROM sync_run r WHERE r.user_integration_id = h.user_integration_id
      AND r.complete AND r.state = '{RunState.RUNNING}')
"""


def decisions(
    conn: Conn, place: Mapping[str, Any], ids: Sequence[str], guard: DeleteGuard
) -> Decisions:
    """Return the decisions on these items of an account.

    Args:
      conn: A connection in a transaction.
      place: `account`, `run` and `began`, the time at which the run began. It confirms only what
        was accepted before.
      ids: Items that are missing.
      guard: The delete guard.
    """
    states = {state for (state,) in conn.execute(HELD_STATES, (place["account"],))}
    if not ids or not states & {*ShownHeldState}:
        return NONE
    rows = conn.execute(DECIDED, {**place, "ids": list(ids), "floor": guard.floor}).fetchall()
    waiting = frozenset(id for id, waits, _ in rows if waits)
    decided = [(id, is_confirmed) for id, waits, is_confirmed in rows if not waits]
    stay = frozenset(id for id, is_confirmed in decided if not is_confirmed)
    accepted = frozenset(id for id, _ in decided) - stay
    return Decisions(accepted, stay, waiting - accepted - stay)


def hold(conn: Conn, place: Mapping[str, Any], lost: Lost) -> None:
    """Hold the deletion of items. A deletion that waits already and covers them stays.

    Args:
      conn: A connection in a transaction.
      place: `account`, `run`, `source`, `parent`, `since` and `until` of the deletion.
      lost: The missing items, descendants included.
    """
    params = {**place, "ids": list(lost.ids), "items": len(lost.ids), "total": lost.total}
    params |= {"portion": DIRECT_ROWS, "entries": MAX_ROWS}
    covering = conn.execute(COVERING, params).fetchone()
    if covering is not None:
        params["hold"] = covering[0]
        conn.execute(HELD_BY_RUN, params)
        if place["source"] == HoldSource.LISTING:
            conn.execute(KEEP_ONLY, params)
    else:
        ((params["hold"],),) = conn.execute(HOLD_DELETION, params)
        conn.execute(HOLD_ITEMS, params)
    if params["source"] == HoldSource.LISTING:
        release(conn, place, hold=params["hold"])
    take_out(conn, params)


def take_out(conn: Conn, params: Mapping[str, Any]) -> None:
    """Take items out of the other held deletions that wait: they wait in `hold` now.

    Args:
      conn: A connection in a transaction.
      params: `account`, `ids` and `hold`.
    """
    conn.execute(TAKE_OUT, params)
    _discard_empty(conn, params["account"])


def _discard_empty(conn: Conn, account: Any) -> None:
    """Drop the held deletions of an account that have no items any more."""
    for (hold,) in conn.execute(EMPTY_HELD, {"account": account, "entries": MAX_ROWS}).fetchall():
        discard(conn, hold)


def next_items(conn: Conn, hold: int, after: str, most: int) -> list[str]:
    """Return the items of a held deletion after this one, at most `most`."""
    params = {"hold": hold, "after": after, "most": most}
    return [id for (id,) in conn.execute(NEXT_ITEMS, params)]


def release(
    conn: Conn,
    place: Mapping[str, Any],
    *states: HeldState,
    hold: int | None = None,
) -> None:
    """Drop the deletions of the same part of the source: it was listed again.

    Args:
      conn: A connection in a transaction.
      place: `account`, `parent`, `since` and `until` of the listing.
      *states: The states of the deletions. Default: those that wait, and those that are counted.
      hold: The deletion that stays. Default: None.
    """
    params = {**place, "hold": hold, "states": [*(states or REPLACEABLE)]}
    for (id,) in conn.execute(REPLACED, params).fetchall():
        discard(conn, id)


def discard(conn: Conn, hold: int) -> None:
    """Drop a held deletion. One that had many items is hidden now; `prune` deletes it."""
    params = {"hold": hold, "portion": DIRECT_ROWS, "entries": MAX_ROWS}
    if not conn.execute(DISCARD_SMALL, params).rowcount:
        conn.execute(DROP_HELD, params)


def prune(conn: Conn, seconds: float) -> bool:
    """Delete large held deletions that were dropped, and sweeps whose run has ended, in portions.

    A sweep that already deletes continues, also after a person cancelled its run.

    Args:
      conn: A connection in autocommit mode.
      seconds: The time after which to stop.

    Returns:
      True if no items are left.
    """
    deadline = time.monotonic() + seconds
    for (hold,) in conn.execute(ABANDONED).fetchall():
        for rows in delete_items(conn, hold):
            if rows and time.monotonic() >= deadline:
                return False
        delete_empty(conn, hold)
    return True


def delete_empty(conn: Conn, hold: int) -> None:
    """Delete a held deletion without items, if that is quick; otherwise hide it, for `prune`.

    The deletion searches for items once more. Searches outside of a transaction stop nobody. The
    first one marks the entries of deleted items in the index, so that later ones skip them. The
    second one takes as long as the deletion.

    Args:
      conn: A connection in autocommit mode.
      hold: The id of the held deletion.
    """
    conn.execute(HAS_ITEMS, {"hold": hold})
    began = time.monotonic()
    ((has_items,),) = conn.execute(HAS_ITEMS, {"hold": hold})
    if not has_items and time.monotonic() - began < TARGET_SECONDS:
        conn.execute(DELETE_EMPTY, {"hold": hold})
    else:
        discard(conn, hold)


def delete_items(conn: Conn, hold: int) -> Iterator[int]:
    """Delete the items of a held deletion in portions; yield the rows of each.

    Args:
      conn: A connection in autocommit mode.
      hold: The id of the held deletion.
    """
    return statement_in_portions(conn, PRUNE_ITEMS, {"hold": hold})


def are_large(conn: Conn, account: UUID) -> bool:
    """Return True if a settlement of the account's held deletions takes more than one portion."""
    ((number,),) = conn.execute(NUMBER, (account,))
    return int(number) > DIRECT_ROWS


def hold_again(conn: Conn, run: Mapping[str, Any]) -> None:
    """Hold the accepted deletions that a run has not done, although it listed everything.

    Args:
      conn: A connection in the transaction that ends the run.
      run: The row of the run.
    """
    if run["complete"]:
        params = {"account": run["user_integration_id"], "began": run["started_at"]}
        conn.execute(HOLD_AGAIN, {**params, "succeeded": run["state"] == RunState.SUCCEEDED})


def settle(conn: Conn, run: Mapping[str, Any]) -> None:
    """Take out of held deletions what needs no decision any more, after the end of a run.

    If this is interrupted, a later run or listing takes it out.

    Args:
      conn: A connection in autocommit mode. The rows of `sync_seen` of the run still exist.
      run: The row of the run that has ended.
    """
    account = run["user_integration_id"]
    params = {"account": account, "run": run["id"], "began": run["started_at"]}
    holds = [hold for (hold,) in conn.execute(DECIDABLE, params)]
    if not holds:
        return
    conn.execute(DROP_OF_KEEPER, (account,))
    if not _has_changed_items(conn, run):
        return
    for hold in holds:
        _release(conn, run, hold)
    _discard_empty(conn, account)


def _release(conn: Conn, run: Mapping[str, Any], hold: int) -> None:
    params = {"account": run["user_integration_id"], "run": run["id"], "start": run["start_seq"]}
    after = ""

    def release(most: int) -> int:
        nonlocal after
        ids = next_items(conn, hold, after, most)
        if ids:
            conn.execute(RELEASE_ITEMS, {**params, "hold": hold, "ids": ids})
            after = ids[-1]
        return len(ids)

    for _ in in_portions(conn, release):
        pass


def _has_changed_items(conn: Conn, run: Mapping[str, Any]) -> bool:
    """Return True if a run has seen, saved or deleted an item."""
    if run["outputs_saved"] or run["outputs_deleted"]:
        return True
    ((seen,),) = conn.execute(HAS_SEEN, (run["id"],))
    return bool(seen)
